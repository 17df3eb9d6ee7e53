//! HTTP/1.1 on one connection: requests with a `Content-Length`, answers as the script says.

use std::{
    io,
    time::{Instant, SystemTime},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{
    Received, State,
    reply::{Act, Body, Reply},
};

/// What is announced of a body that is not sent whole.
const ANNOUNCED_MORE: usize = 1_000_000;
const ENDLESS_CHUNK: usize = 16 * 1024;

/// A stream that can be ended without a word.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {
    fn tcp(&self) -> &TcpStream;
}

impl Stream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Stream for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Counts a request as under way until it is answered or its connection is given up.
struct UnderWay<'a>(&'a State);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.done();
    }
}

pub(super) async fn serve(mut stream: impl Stream, connection: usize, state: &State) -> io::Result<()> {
    let mut buffer = BytesMut::with_capacity(8 * 1024);
    while let Some(received) = read_request(&mut stream, &mut buffer, connection).await? {
        let reply = state.take(received);
        let under_way = UnderWay(state);
        if !answer(&mut stream, reply, under_way).await? {
            break;
        }
    }
    Ok(())
}

/// The next request, or none when the client has closed the connection.
async fn read_request(
    stream: &mut impl Stream,
    buffer: &mut BytesMut,
    connection: usize,
) -> io::Result<Option<Received>> {
    let head_length = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let (at, at_system) = (Instant::now(), SystemTime::now());
    let head = String::from_utf8_lossy(&buffer.split_to(head_length)).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length =
        headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
    while buffer.len() < length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body = buffer.split_to(length).freeze();
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    Ok(Some(Received { method, path, headers, body, at, at_system, connection }))
}

/// Whether the connection goes on.
async fn answer(stream: &mut impl Stream, reply: Reply, under_way: UnderWay<'_>) -> io::Result<bool> {
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    match reply.act {
        Act::Answer { status, headers, body } => {
            let (bytes, announced) = match &body {
                Body::Whole(bytes) => (bytes.clone(), Some(bytes.len())),
                Body::Cut(bytes) | Body::Stalled(bytes) => (bytes.clone(), Some(bytes.len() + ANNOUNCED_MORE)),
                Body::Endless => (Bytes::new(), None),
            };
            if matches!(body, Body::Whole(_)) {
                drop(under_way);
            }
            let mut message = head(status, &headers, announced).chain(bytes);
            stream.write_all_buf(&mut message).await?;
            stream.flush().await?;
            match body {
                Body::Whole(_) => return Ok(true),
                Body::Cut(_) => {}
                Body::Stalled(_) => until_closed(stream).await,
                Body::Endless => endless(stream).await?,
            }
        }
        Act::Raw(bytes) => stream.write_all(&bytes).await?,
        Act::Hang => until_closed(stream).await,
        Act::Close => {}
        Act::Reset => {
            stream.tcp().set_zero_linger()?;
            return Ok(false);
        }
    }
    stream.shutdown().await?;
    Ok(false)
}

fn head(status: u16, headers: &[(String, String)], announced: Option<usize>) -> Bytes {
    use std::fmt::Write;
    let mut head = format!("HTTP/1.1 {status} As-Scripted\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    match announced {
        Some(length) => {
            let _ = write!(head, "content-length: {length}\r\n\r\n");
        }
        None => head.push_str("transfer-encoding: chunked\r\n\r\n"),
    }
    head.into()
}

async fn until_closed(stream: &mut impl Stream) {
    let mut ignored = [0; 1024];
    while matches!(stream.read(&mut ignored).await, Ok(1..)) {}
}

async fn endless(stream: &mut impl Stream) -> io::Result<()> {
    let chunk = format!("{ENDLESS_CHUNK:x}\r\n{}\r\n", "x".repeat(ENDLESS_CHUNK));
    loop {
        stream.write_all(chunk.as_bytes()).await?;
    }
}

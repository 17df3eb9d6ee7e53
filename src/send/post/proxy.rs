//! The way out through a proxy: a tunnel to the very address that was checked, never to a name that the proxy would
//! resolve by itself.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    connector::{NEXT_ADDRESS_AFTER, connect_tcp, first_of},
    names::Names,
};
use crate::config::Proxy;

/// Bytes of the head of its answer, at most.
const HEAD_MAX_BYTES: usize = 8 * 1024;

/// Opens tunnels through one proxy. Its own address is the operator's choice, and not checked.
pub(super) struct Tunnels(pub(super) Proxy);

/// Why there is no tunnel. The proxy is not named: the text is shown to those whose webhook it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error("the proxy (targets.proxy) could not be reached")]
    Unreachable(#[from] io::Error),
    #[error("the proxy (targets.proxy) broke off")]
    Broken(#[source] io::Error),
    #[error("the proxy (targets.proxy) wants other credentials: it answered 407")]
    Unauthorized,
    #[error("the proxy (targets.proxy) refused to connect to {to}: it answered {status}")]
    Refused { to: SocketAddr, status: u16 },
    #[error("what the proxy (targets.proxy) answered is not HTTP/1.1")]
    NotHttp,
}

impl Tunnels {
    /// A tunnel to `to`.
    pub(super) async fn open(&self, names: &dyn Names, to: SocketAddr) -> Result<TcpStream, ProxyError> {
        let Proxy { host, port, .. } = &self.0;
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => names.resolve(host.clone()).await?,
        };
        let addresses: Vec<SocketAddr> = addresses.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect();
        let mut stream = first_of(&addresses, NEXT_ADDRESS_AFTER, connect_tcp).await?;
        stream.write_all(self.request(to).as_bytes()).await.map_err(ProxyError::Broken)?;
        match read_status(&mut stream).await? {
            200..300 => Ok(stream),
            407 => Err(ProxyError::Unauthorized),
            status => Err(ProxyError::Refused { to, status }),
        }
    }

    fn request(&self, to: SocketAddr) -> String {
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if let Some(credentials) = &self.0.credentials {
            request.push_str("Proxy-Authorization: Basic ");
            BASE64_STANDARD.encode_string(credentials.expose(), &mut request);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        request
    }
}

/// Reads the head of the answer, and nothing behind it: what comes there is the target's.
async fn read_status(stream: &mut TcpStream) -> Result<u16, ProxyError> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HEAD_MAX_BYTES {
            return Err(ProxyError::NotHttp);
        }
        head.push(stream.read_u8().await.map_err(ProxyError::Broken)?);
    }
    status(&head).ok_or(ProxyError::NotHttp)
}

fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|byte| *byte == b'\r').next()?).ok()?;
    let code = line.strip_prefix("HTTP/1.")?.get(2..5)?;
    code.parse().ok().filter(|code| (200..600).contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_an_answer_is_read() {
        let check = |head: &str, expected| assert_eq!(status(head.as_bytes()), expected, "{head}");
        check("HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n", Some(200));
        check("HTTP/1.0 407\r\n\r\n", Some(407));
        check("HTTP/1.1 100 Continue\r\n\r\n", None);
        check("HTTP/2 200\r\n\r\n", None);
        check("HTTP/1.1\r\n\r\n", None);
        check("SSH-2.0-OpenSSH\r\n\r\n", None);
        check("", None);
    }
}

//! How a connection is made: the name resolved, each address checked, TCP connected (by way of a proxy, if there is
//! one), and TLS agreed on.
//!
//! Nothing else opens a connection to a target, so nothing gets past the check.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{Uri, uri::Scheme};
use hyper::rt::ReadBufCursor;
use hyper_util::{client::legacy::connect, rt::TokioIo};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tower_service::Service;
use url::Host;

use super::{
    names::{Names, allowed_addresses},
    proxy::Tunnels,
    watch::{self, Marks},
};
use crate::domain::{address::AddressRules, subscription::LONGEST_TIMEOUT_SECONDS};

/// So that a connection whose other end is gone is found out.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How long an address is waited for before the next is tried beside it (RFC 8305 §5), and how long a proxy that tries it.
pub(super) const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
const NEXT_TUNNEL_AFTER: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried, at most.
const ADDRESSES_TRIED: usize = 8;
/// As long as a request may take: what the pool goes on with, when the request has been answered over another
/// connection, ends too.
const MADE_WITHIN: Duration = Duration::from_secs(LONGEST_TIMEOUT_SECONDS as u64);

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections to targets.
#[derive(Clone)]
pub(super) struct Connector(pub(super) Arc<Parts>);

pub(super) struct Parts {
    pub(super) names: Arc<dyn Names>,
    pub(super) rules: Arc<AddressRules>,
    pub(super) tls: TlsConnector,
    pub(super) tunnels: Option<Tunnels>,
}

impl Service<Uri> for Connector {
    type Response = Connection;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let parts = Arc::clone(&self.0);
        Box::pin(watch::making(|marks| async move {
            let made = timeout(MADE_WITHIN, parts.connect(&uri, marks)).await;
            made.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        }))
    }
}

impl Parts {
    async fn connect(&self, uri: &Uri, marks: Arc<Marks>) -> Result<Connection, BoxError> {
        // Parsed once more, so that an address is seen as one however it was written.
        let host = Host::parse(uri.host().unwrap_or_default())?;
        let is_tls = uri.scheme() == Some(&Scheme::HTTPS);
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let addresses = allowed_addresses(&*self.names, &self.rules, &host, &marks).await?;
        let addresses = in_turn(&addresses, port);
        let stream = match &self.tunnels {
            None => first_of(&addresses, NEXT_ADDRESS_AFTER, connect_tcp).await?,
            Some(tunnels) => {
                first_of(&addresses, NEXT_TUNNEL_AFTER, |address| tunnels.open(&*self.names, address)).await?
            }
        };
        let stream: Box<dyn Stream> = if is_tls {
            marks.handshake_begins();
            Box::new(self.tls.connect(server_name(&host)?, stream).await?)
        } else {
            Box::new(stream)
        };
        marks.ready();
        Ok(Connection { stream: TokioIo::new(stream), marks })
    }
}

fn server_name(host: &Host) -> io::Result<ServerName<'static>> {
    match host {
        Host::Domain(name) => ServerName::try_from(name.clone())
            .map_err(|_| io::Error::other(format!("{name} cannot be the name in a certificate"))),
        Host::Ipv4(address) => Ok(IpAddr::V4(*address).into()),
        Host::Ipv6(address) => Ok(IpAddr::V6(*address).into()),
    }
}

/// The addresses in the order in which they are tried: the resolver's, but by turns of the two families, so that one
/// that leads nowhere here does not use up the time.
fn in_turn(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    let is_of_first = |address: &&IpAddr| address.is_ipv4() == addresses[0].is_ipv4();
    let (first, second): (Vec<&IpAddr>, Vec<&IpAddr>) = addresses.iter().partition(is_of_first);
    let longest = first.len().max(second.len());
    let by_turns = (0..longest).flat_map(|n| [first.get(n), second.get(n)]).flatten();
    by_turns.map(|address| SocketAddr::new(**address, port)).take(ADDRESSES_TRIED).collect()
}

/// What `connect` makes of the first address that it succeeds with. The next is tried when one has failed, or is not done
/// after `patience`. Where all fail, it is the failure of the first to fail.
pub(super) async fn first_of<T, E: From<io::Error>, F: Future<Output = Result<T, E>>>(
    addresses: &[SocketAddr],
    patience: Duration,
    connect: impl Fn(SocketAddr) -> F,
) -> Result<T, E> {
    let mut rest = addresses.iter();
    let mut trying = FuturesUnordered::new();
    let mut failure = None;
    loop {
        trying.extend(rest.next().map(|address| connect(*address)));
        let wait = if rest.len() > 0 { patience } else { Duration::MAX };
        match timeout(wait, trying.next()).await {
            Ok(Some(Ok(connected))) => return Ok(connected),
            Ok(Some(Err(error))) => drop(failure.get_or_insert(error)),
            Ok(None) => return Err(failure.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable).into())),
            Err(_) => {}
        }
    }
}

/// Connects to one address.
pub(super) async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    Ok(stream)
}

/// TCP, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection to a target.
pub(super) struct Connection {
    stream: TokioIo<Box<dyn Stream>>,
    /// By these a request knows it again.
    marks: Arc<Marks>,
}

impl connect::Connection for Connection {
    fn connected(&self) -> connect::Connected {
        connect::Connected::new().extra(Arc::clone(&self.marks))
    }
}

impl hyper::rt::Read for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn addresses_are_tried_by_turns_of_the_families() {
        let check = |addresses: &[&str], expected: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let tried: Vec<String> = in_turn(&addresses, 1).iter().map(|address| address.ip().to_string()).collect();
            assert_eq!(tried, expected);
        };
        check(&["::1", "::2", "::3", "1.1.1.1", "1.1.1.2"], &["::1", "1.1.1.1", "::2", "1.1.1.2", "::3"]);
        check(&["1.1.1.1", "::1"], &["1.1.1.1", "::1"]);
        check(&["1.1.1.1"; 20], &["1.1.1.1"; ADDRESSES_TRIED]);
        check(&[], &[]);
    }

    #[tokio::test]
    async fn the_next_address_is_tried_when_one_fails_or_takes_long() {
        let addresses = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let check = async |behaviour: [Option<Result<(), ()>>; 3], tried: &[u16], expected: Result<u16, &str>| {
            let seen = Mutex::new(Vec::new());
            let outcome = first_of(&addresses, Duration::from_millis(20), |address| {
                let behaviour = behaviour[usize::from(address.port()) - 1];
                seen.lock().unwrap().push(address.port());
                async move {
                    match behaviour {
                        Some(Ok(())) => Ok(address.port()),
                        Some(Err(())) => Err(io::Error::other(address.port().to_string())),
                        None => std::future::pending().await,
                    }
                }
            })
            .await;
            assert_eq!(outcome.as_ref().map_err(ToString::to_string), expected.as_ref().map_err(ToString::to_string));
            assert_eq!(*seen.lock().unwrap(), tried);
        };
        let (good, bad, silent) = (Some(Ok(())), Some(Err(())), None);
        check([good, good, good], &[1], Ok(1)).await;
        check([bad, good, good], &[1, 2], Ok(2)).await;
        check([silent, bad, good], &[1, 2, 3], Ok(3)).await;
        check([bad, bad, bad], &[1, 2, 3], Err("1")).await;
    }
}

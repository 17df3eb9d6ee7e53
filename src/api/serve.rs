//! Connections: taken while there is room, slow ones dropped, all of them ended with the listener.

use std::{convert::Infallible, io, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_io_timeout::TimeoutStream;

use crate::shutdown::Shutdown;

/// Connections at once; above, new ones wait.
const CONNECTIONS_AT_MOST: usize = 2_048;
/// How long the head of a request may take, from its first byte or from the end of the one before.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of the head of a request, roughly.
const HEAD_BYTES: usize = 64 * 1024;
/// How long an answer may wait for its receiver to read on.
const WRITE_WITHIN: Duration = Duration::from_secs(30);
/// Pause after a connection could not be taken, as when the process has no file descriptor left.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Serves `router` until it is told to stop; then no connection is taken, requests under way are answered, and it ends.
pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_AT_MOST));
    let mut connections = JoinSet::new();
    while let Some((stream, peer, permit)) = next(&listener, &room, &shutdown).await {
        let (service, shutdown) = (Service { router: router.clone(), peer: Peer(peer) }, shutdown.clone());
        connections.spawn(async move {
            talk(stream, service, shutdown).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// A slot first, then a connection; `None` when stopping.
async fn next(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
    shutdown: &Shutdown,
) -> Option<(TcpStream, IpAddr, OwnedSemaphorePermit)> {
    let accepted = async {
        let permit = room.clone().acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => return Some((stream, peer.ip(), permit)),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.stopping() => None,
        accepted = accepted => accepted,
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn talk(stream: TcpStream, service: Service, shutdown: Shutdown) {
    // Answers are small: waiting to fill a packet only delays them. Failing to set it costs just that.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(WRITE_WITHIN));
    let service = TowerToHyperService::new(service);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(HEAD_BYTES);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Box::pin(stream)), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.stopping() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "a connection broke off");
    }
}

/// Whom a connection comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub IpAddr);

/// The router, with bodies as hyper has them, for one connection.
#[derive(Clone)]
struct Service {
    router: Router,
    peer: Peer,
}

impl tower_service::Service<Request<Incoming>> for Service {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = <Router as tower_service::Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        tower_service::Service::<Request<Body>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.peer);
        self.router.call(request)
    }
}

//! Where the time of one request goes, and what it is busy with, as told by those who do it.
//!
//! A connection is made by the client's pool, far from the request that asked for it, so each side knows its watch by
//! a task-local. The pool races a new connection against one that another request hands back. When that wins, the new
//! one is no part of this request: it is made ready on a task of the pool's own, or it is ready but the answer comes
//! from another local address.

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::Extensions;
use hyper_util::client::legacy::connect::{self, HttpInfo};
use tower_layer::Layer;
use tower_service::Service;

use crate::domain::attempt::Timings;

tokio::task_local! {
    static REQUEST: Arc<Watch>;
    static CONNECTION: Arc<Connection>;
}

/// What a request is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Resolving,
    Connecting,
    TlsHandshake,
    /// Sending the request, then waiting for the head of the answer.
    Waiting,
    ReadingBody,
}

/// The watch of one request.
pub(super) struct Watch {
    began: Instant,
    /// The connection made for this request; none while it goes over a kept one.
    connection: Mutex<Option<Arc<Connection>>>,
    answered: OnceLock<Instant>,
}

/// When each step of making a connection was done.
struct Connection {
    began: Instant,
    resolving: OnceLock<Instant>,
    resolved: OnceLock<Instant>,
    handshake: OnceLock<Instant>,
    ready: OnceLock<Instant>,
    local: OnceLock<SocketAddr>,
}

impl Watch {
    pub(super) fn start() -> Arc<Self> {
        Arc::new(Self { began: Instant::now(), connection: Mutex::new(None), answered: OnceLock::new() })
    }

    /// Runs `request` under this watch.
    pub(super) async fn over<F: Future>(self: &Arc<Self>, request: F) -> F::Output {
        REQUEST.scope(Arc::clone(self), request).await
    }

    /// The head of an answer is here.
    pub(super) fn answered(&self, answer: &Extensions) {
        self.answered.get_or_init(Instant::now);
        let over = local_address(answer);
        self.connection().take_if(|connection| connection.local.get() != over.as_ref());
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn phase(&self) -> Phase {
        if self.answered.get().is_some() {
            return Phase::ReadingBody;
        }
        self.connection().as_ref().map_or(Phase::Waiting, |connection| connection.phase())
    }

    /// The phases that came to their end. They do not overlap.
    pub(super) fn timings(&self) -> Timings {
        let connection = self.connection().clone();
        let connection = connection.as_deref();
        let resolving = connection.and_then(|c| c.resolving.get());
        let resolved = connection.and_then(|c| c.resolved.get());
        let handshake = connection.and_then(|c| c.handshake.get());
        let ready = connection.and_then(|c| c.ready.get());
        let began = connection.map(|c| &c.began);
        Timings {
            dns: between(resolving, resolved),
            connect: between(resolved.or(began), handshake.or(ready)),
            tls: between(handshake, ready),
            first_byte: between(ready.or(Some(&self.began)), self.answered.get()),
        }
    }

    fn connection(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool goes on with `connection` for others.
    fn forget(&self, connection: &Arc<Connection>) {
        self.connection().take_if(|current| Arc::ptr_eq(current, connection));
    }
}

fn local_address(extensions: &Extensions) -> Option<SocketAddr> {
    extensions.get::<HttpInfo>().map(HttpInfo::local_addr)
}

impl Connection {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            resolving: OnceLock::new(),
            resolved: OnceLock::new(),
            handshake: OnceLock::new(),
            ready: OnceLock::new(),
            local: OnceLock::new(),
        }
    }

    fn phase(&self) -> Phase {
        if self.ready.get().is_some() {
            Phase::Waiting
        } else if self.handshake.get().is_some() {
            Phase::TlsHandshake
        } else if self.resolving.get().is_some() && self.resolved.get().is_none() {
            Phase::Resolving
        } else {
            Phase::Connecting
        }
    }

    fn is_ready(&self, made: &impl connect::Connection) {
        self.ready.get_or_init(Instant::now);
        let mut extensions = Extensions::new();
        made.connected().get_extras(&mut extensions);
        if let Some(local) = local_address(&extensions) {
            self.local.get_or_init(|| local);
        }
    }
}

/// Milliseconds from one mark to the next.
fn between(from: Option<&Instant>, to: Option<&Instant>) -> Option<f64> {
    Some(to?.saturating_duration_since(*from?).as_secs_f64() * 1000.0)
}

/// The name of the connection under way is being resolved.
pub(super) fn resolving() {
    let _ = CONNECTION.try_with(|connection| connection.resolving.set(Instant::now()));
}

/// It has its addresses.
pub(super) fn resolved() {
    let _ = CONNECTION.try_with(|connection| connection.resolved.set(Instant::now()));
}

/// TCP is connected, TLS begins.
pub(super) fn handshake_begins() {
    let _ = CONNECTION.try_with(|connection| connection.handshake.set(Instant::now()));
}

/// Watches a connector.
#[derive(Clone)]
pub(super) struct WatchLayer;

impl<S> Layer<S> for WatchLayer {
    type Service = Watched<S>;

    fn layer(&self, connector: S) -> Watched<S> {
        Watched(connector)
    }
}

/// A connector that tells the request's watch what it does.
#[derive(Clone)]
pub(super) struct Watched<S>(S);

impl<S, R> Service<R> for Watched<S>
where
    S: Service<R>,
    S::Response: connect::Connection + 'static,
    S::Error: 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let connecting = self.0.call(request);
        match REQUEST.try_with(Arc::clone) {
            Ok(watch) => Box::pin(watched(watch, connecting)),
            Err(_) => Box::pin(connecting),
        }
    }
}

async fn watched<C, E>(watch: Arc<Watch>, connecting: impl Future<Output = Result<C, E>>) -> Result<C, E>
where
    C: connect::Connection,
{
    let connection = Arc::new(Connection::begin());
    *watch.connection() = Some(Arc::clone(&connection));
    let home = tokio::task::try_id();
    let mut connecting = pin!(CONNECTION.scope(Arc::clone(&connection), connecting));
    let made = poll_fn(|context| {
        if tokio::task::try_id() != home {
            watch.forget(&connection);
        }
        connecting.as_mut().poll(context)
    })
    .await?;
    connection.is_ready(&made);
    Ok(made)
}

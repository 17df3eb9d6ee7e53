//! Where the time of one request goes, and what it is busy with, as told by those who do it.
//!
//! A connection is made by the client's pool, far from the request that asked for it, so the connector knows whose it is
//! by a task-local. The pool races a new connection against one that another request hands back. When that wins, the new
//! one is no part of this request: it is made ready on a task of the pool's own, or it is ready but the answer comes
//! over another.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use http::Extensions;

use crate::domain::attempt::Timings;

tokio::task_local! {
    static REQUEST: Arc<Watch>;
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
    connection: Mutex<Option<Arc<Marks>>>,
    answered: OnceLock<Instant>,
}

/// When each step of making a connection was done.
pub(super) struct Marks {
    began: Instant,
    resolving: OnceLock<Instant>,
    resolved: OnceLock<Instant>,
    handshake: OnceLock<Instant>,
    ready: OnceLock<Instant>,
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
        let over = answer.get::<Arc<Marks>>();
        self.connection().take_if(|made| !over.is_some_and(|over| Arc::ptr_eq(made, over)));
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

    fn connection(&self) -> MutexGuard<'_, Option<Arc<Marks>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pool goes on with `connection` for others.
    fn forget(&self, connection: &Arc<Marks>) {
        self.connection().take_if(|current| Arc::ptr_eq(current, connection));
    }
}

impl Marks {
    fn begin() -> Self {
        Self {
            began: Instant::now(),
            resolving: OnceLock::new(),
            resolved: OnceLock::new(),
            handshake: OnceLock::new(),
            ready: OnceLock::new(),
        }
    }

    /// The name is being resolved.
    pub(super) fn resolving(&self) {
        self.resolving.get_or_init(Instant::now);
    }

    /// The addresses are known.
    pub(super) fn resolved(&self) {
        self.resolved.get_or_init(Instant::now);
    }

    /// TCP is connected, TLS begins.
    pub(super) fn handshake_begins(&self) {
        self.handshake.get_or_init(Instant::now);
    }

    /// A request can be sent.
    pub(super) fn ready(&self) {
        self.ready.get_or_init(Instant::now);
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
}

/// Milliseconds from one mark to the next.
fn between(from: Option<&Instant>, to: Option<&Instant>) -> Option<f64> {
    // Whole microseconds: more is noise.
    Some(to?.saturating_duration_since(*from?).as_micros() as f64 / 1000.0)
}

/// Makes a connection for the request that runs now. Called within it, and then polled within it or, once the pool goes
/// on by itself, outside.
pub(super) fn making<F: Future>(make: impl FnOnce(Arc<Marks>) -> F) -> impl Future<Output = F::Output> {
    let marks = Arc::new(Marks::begin());
    let watch = REQUEST.try_with(Arc::clone).ok();
    if let Some(watch) = &watch {
        *watch.connection() = Some(Arc::clone(&marks));
    }
    let making = make(Arc::clone(&marks));
    async move {
        let mut making = pin!(making);
        poll_fn(|context| {
            if let Some(watch) = &watch
                && REQUEST.try_with(|_| ()).is_err()
            {
                watch.forget(&marks);
            }
            making.as_mut().poll(context)
        })
        .await
    }
}

//! What stands before every route: how many requests may be under way, how long each may take, and a word of warning where
//! somebody seems to be reached from outside.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::HeaderMap;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{REQUEST_WITHIN, error::Problem};

/// Requests under way at once; above, they are refused.
const REQUESTS_AT_ONCE: usize = 1_024;

/// Posts to the ingest under way at once: nobody needs a key for them, so they never take all that there is.
const INGESTS_AT_ONCE: usize = 256;
/// Test sends under way at once, each as long as an endpoint takes.
const TESTS_AT_ONCE: usize = 64;

/// How much of something may be under way at once; what is too much is refused.
#[derive(Clone)]
pub(super) struct Slots(Arc<Semaphore>);

impl Slots {
    pub fn for_requests() -> Self {
        Self(Arc::new(Semaphore::new(REQUESTS_AT_ONCE)))
    }

    pub fn for_ingest() -> Self {
        Self(Arc::new(Semaphore::new(INGESTS_AT_ONCE)))
    }

    pub fn for_tests() -> Self {
        Self(Arc::new(Semaphore::new(TESTS_AT_ONCE)))
    }

    /// One of them, for as long as it is held.
    pub fn take(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.0.try_acquire().map_err(|_| Problem::overloaded())
    }
}

/// Refuses what is too much at once, and breaks off what takes too long.
pub(super) async fn bounded(State(slots): State<Slots>, request: Request, next: Next) -> Response {
    let _slot = match slots.take() {
        Ok(slot) => slot,
        Err(problem) => return problem.into_response(),
    };
    match tokio::time::timeout(REQUEST_WITHIN, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::request_timeout().into_response(),
    }
}

/// Warns, once, of requests that came through a proxy although loopback targets are allowed because only this machine
/// seems to be able to ask (SECURITY.md).
#[derive(Clone, Default)]
pub(super) struct ProxyWarning(Arc<AtomicBool>);

pub(super) async fn warn_of_proxy(
    State(ProxyWarning(was_said)): State<ProxyWarning>,
    request: Request,
    next: Next,
) -> Response {
    if is_forwarded(request.headers()) && !was_said.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "requests come through a proxy, so others can reach this API, and webhooks may point to this machine: \
             set api.public_url, or targets.allow_cidrs"
        );
    }
    next.run(request).await
}

/// `Forwarded` (RFC 7239), or one of the headers that came before it.
fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name == "forwarded" || name.as_str().starts_with("x-forwarded-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_shows_by_its_headers() {
        let check = |name: &'static str, expected: bool| {
            let headers = [(http::HeaderName::from_static(name), http::HeaderValue::from_static("x"))];
            assert_eq!(is_forwarded(&headers.into_iter().collect()), expected, "{name}");
        };
        check("forwarded", true);
        check("x-forwarded-for", true);
        check("x-forwarded-host", true);
        check("x-request-id", false);
    }
}

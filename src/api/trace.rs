//! A name for each request, in its answer and in every line of the log about it.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue};
use tracing::Instrument;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const ID_CHARS: usize = 64;

/// Takes the caller's `X-Request-Id`, or makes one, and gives it back.
pub(super) async fn trace(request: Request, next: Next) -> Response {
    let id = given_id(&request).unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let span = tracing::info_span!("request", request_id = id);
    let started = Instant::now();
    let mut response = async {
        let response = next.run(request).await;
        // The route, not the path: that one may hold what is nobody's business.
        let took_ms = started.elapsed().as_millis() as u64;
        tracing::debug!(%method, route, status = response.status().as_u16(), took_ms, "answered");
        response
    }
    .instrument(span)
    .await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}

/// The caller's own, if it can stand in a line of the log.
fn given_id(request: &Request) -> Option<String> {
    let id = request.headers().get(X_REQUEST_ID)?.to_str().ok()?;
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    ((1..=ID_CHARS).contains(&id.len()) && id.bytes().all(allowed)).then(|| id.to_owned())
}

//! A name for each request, in its answer and in every line of the log about it; and the trace that its caller is in.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request},
    middleware::Next,
    response::Response,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use tracing::Instrument;

use crate::domain::trace::{TRACEPARENT, TraceContext};

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
        let response_time_ms = started.elapsed().as_millis() as u64;
        let response_status = response.status().as_u16();
        tracing::debug!(%method, route, response_status, response_time_ms, "answered");
        response
    }
    .instrument(span)
    .await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}

/// Where the caller is in a trace, if it says so, and once (W3C Trace Context, §3.2.1).
pub(super) fn trace_of(headers: &HeaderMap) -> Option<Box<TraceContext>> {
    let mut said = headers.get_all(TRACEPARENT).iter();
    match (said.next(), said.next()) {
        (Some(value), None) => value.to_str().ok()?.parse().ok().map(Box::new),
        _ => None,
    }
}

/// The caller's own, if it can stand in a line of the log.
fn given_id(request: &Request) -> Option<String> {
    let id = request.headers().get(X_REQUEST_ID)?.to_str().ok()?;
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    ((1..=ID_CHARS).contains(&id.len()) && id.bytes().all(allowed)).then(|| id.to_owned())
}

//! Attempts as JSON: in a list, in full, and as what came of a test send.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::headers;
use crate::domain::{
    attempt::{Attempt, Timings},
    curl::curl,
    event::Event,
    id::AttemptId,
    time::rfc3339,
};

/// An attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptJson {
    pub id: String,
    pub delivery_id: String,
    pub event_id: String,
    pub webhook_id: String,
    pub tenant: String,
    pub event_type: String,
    pub url: String,
    pub attempt: u32,
    pub request_headers: BTreeMap<String, String>,
    pub response_status: Option<u16>,
    pub response_headers: BTreeMap<String, String>,
    pub response_body: Option<String>,
    pub response_time_ms: f64,
    pub timings_ms: TimingsJson,
    pub error: Option<String>,
    pub error_kind: Option<&'static str>,
    pub is_success: bool,
    /// It was asked for by a test send, and is no delivery.
    pub is_test: bool,
    pub at: String,
}

/// What came of a test send.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TestResult)]
pub struct TestResultJson {
    pub is_success: bool,
    pub response_status: Option<u16>,
    pub response_time_ms: f64,
    pub timings_ms: TimingsJson,
    pub response_headers: BTreeMap<String, String>,
    pub response_body: Option<String>,
    /// Why the endpoint did not take it.
    pub error: Option<String>,
    pub error_kind: Option<&'static str>,
    /// Where it is in the log; null when it could not be kept.
    pub attempt_id: Option<String>,
}

/// An attempt, with all that is needed to try it again by hand.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AttemptDetail)]
pub struct AttemptDetailJson {
    #[serde(flatten)]
    pub attempt: AttemptJson,
    /// Null where its event is not kept any more.
    pub request_body: Option<String>,
    /// The request as a command line; values of headers that carry credentials are left for you to fill in.
    pub curl: String,
}

impl AttemptDetailJson {
    pub fn of(id: AttemptId, attempt: &Attempt, event: Option<&Event>) -> Self {
        let body = event.map(|event| event.body(attempt.payload_format));
        Self {
            attempt: AttemptJson::of(id, attempt),
            curl: curl(&attempt.url, &attempt.request_headers, body.as_deref()),
            request_body: body.map(|body| String::from_utf8_lossy(&body).into_owned()),
        }
    }
}

/// Where the time of an attempt went; what did not happen is null.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Timings)]
pub struct TimingsJson {
    pub dns: Option<f64>,
    pub connect: Option<f64>,
    pub tls: Option<f64>,
    pub first_byte: Option<f64>,
}

impl AttemptJson {
    pub fn of(id: AttemptId, attempt: &Attempt) -> Self {
        let (response, failure) = (attempt.response(), attempt.failure());
        Self {
            id: id.to_string(),
            delivery_id: attempt.delivery().to_string(),
            event_id: attempt.event.to_string(),
            webhook_id: attempt.subscription.to_string(),
            tenant: attempt.tenant.clone(),
            event_type: attempt.event_type.clone(),
            url: attempt.url.clone(),
            attempt: attempt.number,
            request_headers: headers(&attempt.request_headers),
            response_status: attempt.status(),
            response_headers: response.map(|response| headers(&response.headers)).unwrap_or_default(),
            response_body: response.map(|response| String::from_utf8_lossy(&response.body).into_owned()),
            response_time_ms: attempt.response_time_ms,
            timings_ms: TimingsJson::of(attempt.timings),
            error: failure.map(|failure| failure.text.clone()),
            error_kind: failure.map(|failure| failure.kind.name()),
            is_success: attempt.is_success(),
            is_test: attempt.is_test,
            at: rfc3339(attempt.at_ms),
        }
    }
}

impl TestResultJson {
    pub fn of(id: Option<AttemptId>, attempt: &Attempt) -> Self {
        let (response, failure) = (attempt.response(), attempt.failure());
        let refusal = response.filter(|_| !attempt.is_success()).map(|response| refusal(response.status));
        Self {
            is_success: attempt.is_success(),
            response_status: attempt.status(),
            response_time_ms: attempt.response_time_ms,
            timings_ms: TimingsJson::of(attempt.timings),
            response_headers: response.map(|response| headers(&response.headers)).unwrap_or_default(),
            response_body: response.map(|response| String::from_utf8_lossy(&response.body).into_owned()),
            error: failure.map(|failure| failure.text.clone()).or(refusal),
            error_kind: failure.map(|failure| failure.kind.name()),
            attempt_id: id.map(|id| id.to_string()),
        }
    }
}

/// What an answer means that is no success.
fn refusal(status: u16) -> String {
    match status {
        300..400 => format!("the endpoint answered {status}: redirects are not followed"),
        410 => format!("the endpoint answered {status}: a delivery would disable the webhook"),
        _ => format!("the endpoint answered {status}: only 2xx is success"),
    }
}

impl TimingsJson {
    fn of(Timings { dns, connect, tls, first_byte }: Timings) -> Self {
        Self { dns, connect, tls, first_byte }
    }
}

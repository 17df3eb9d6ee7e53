//! What the API answers, as JSON; the command line's `--json` prints the same. The names are those of contract §3.

mod deliveries;
mod event_types;
mod stats;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    domain::{
        attempt::{Answer, Attempt, Timings},
        curl::curl,
        delivery::DeliveryStatus,
        event::Event,
        id::{AttemptId, DeliveryId},
        outcome::Reason,
        retry::RetryPolicy,
        signature::standard_secret,
        subscription::{Ordering, PayloadFormat, Status},
        time::rfc3339,
    },
    manage::DeadItem,
    streams::{ApiKey, BadEntry, DeadLetter, Tenant, Versioned},
};

pub use deliveries::{DeliveryDetailJson, DeliverySummaryJson, StatusJson};
pub use event_types::EventTypeJson;
pub use stats::{HourJson, WebhookStatsJson};

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Where the next page begins; null when this is the last. A page that had to look far may be short and still have one.
    pub next_cursor: Option<String>,
}

/// Problem details (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemJson {
    /// Always `about:blank`: `code` says more.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: &'static str,
    pub status: u16,
    /// What went wrong; stable, for programs.
    pub code: &'static str,
    /// What went wrong and what to do, for people.
    pub detail: String,
    /// The field, parameter or header at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The thing that is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// A webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct Webhook {
    pub id: String,
    pub tenant: String,
    pub name: Option<String>,
    pub url: String,
    pub events: Vec<String>,
    /// Always null: there is no filter by content.
    #[schema(value_type = Option<serde_json::Value>)]
    pub filter: (),
    pub status: &'static str,
    pub disabled_reason: Option<String>,
    pub is_active: bool,
    pub retry_count: u32,
    pub retry: RetryJson,
    pub timeout_seconds: u32,
    pub max_concurrency: u32,
    pub rate_limit_per_minute: Option<u32>,
    pub ordering: &'static str,
    pub headers: BTreeMap<String, String>,
    pub payload_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// For libraries, where `secret` is free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standard_secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest_secret: Option<String>,
    pub last_triggered_at: Option<String>,
    /// Those that have ended.
    pub total_deliveries: u64,
    pub successful_deliveries: u64,
    pub failed_deliveries: u64,
    pub created_at: String,
    pub updated_at: String,
}

/// The delays between attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[schema(as = Retry)]
pub enum RetryJson {
    Exponential {
        base_ms: u64,
        #[serde(default = "two")]
        factor: f64,
        #[serde(default = "an_hour_in_ms")]
        max_ms: u64,
        #[serde(default = "a_tenth")]
        jitter: f64,
    },
    Schedule {
        delays_ms: Vec<u64>,
        #[serde(default)]
        jitter: f64,
    },
}

fn two() -> f64 {
    2.0
}

fn an_hour_in_ms() -> u64 {
    3_600_000
}

fn a_tenth() -> f64 {
    0.1
}

/// An event.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventJson {
    pub id: String,
    pub tenant: String,
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it happened, as its publisher says.
    pub timestamp: String,
    pub published_at: String,
    pub conversation_id: Option<String>,
    #[schema(value_type = serde_json::Value)]
    pub data: Option<Box<RawValue>>,
}

/// A delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryJson {
    pub id: String,
    pub event_id: String,
    pub webhook_id: String,
    /// `pending`, `delivered`, `failed` (it is tried again), `dead` or `cancelled`.
    pub status: &'static str,
    pub attempts: u32,
    pub last_status: Option<u16>,
}

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

/// A dead letter.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub struct DeadLetterJson {
    pub id: String,
    pub webhook_id: Option<String>,
    pub event_id: Option<String>,
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    pub reason: &'static str,
    pub attempts: u32,
    pub last_status: Option<u16>,
    pub last_error: Option<String>,
    pub died_at: String,
    /// The event's data; of what could not be read, its raw fields.
    #[schema(value_type = serde_json::Value)]
    pub data: Option<Box<RawValue>>,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub struct TenantJson {
    pub id: String,
    pub name: String,
    /// Megabytes of undelivered events that it may have; null is no limit.
    pub max_stored_mb: Option<u64>,
    /// Requests a minute of each of its API keys; null is no limit.
    pub rate_limit_per_minute: Option<u32>,
    pub created_at: String,
}

impl TenantJson {
    pub fn of(tenant: &Tenant) -> Self {
        Self {
            id: tenant.id.clone(),
            name: tenant.name.clone(),
            max_stored_mb: tenant.max_stored_mb,
            rate_limit_per_minute: tenant.rate_limit_per_minute,
            created_at: rfc3339(tenant.created_at_ms),
        }
    }
}

/// An API key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub struct KeyJson {
    pub id: String,
    /// `admin`, `tenant`, `publish` or `read`.
    pub role: &'static str,
    /// Null for a key that is for all tenants.
    pub tenant: Option<String>,
    pub created_at: String,
    /// The key itself, in the answer to its creation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl KeyJson {
    /// With its text only where it was just made.
    pub fn of(key: &ApiKey, text: Option<String>) -> Self {
        Self {
            id: key.id.to_string(),
            role: key.role.name(),
            tenant: key.tenant.clone(),
            created_at: rfc3339(key.created_at_ms),
            key: text,
        }
    }
}

impl Webhook {
    /// With its secrets only where it was just made.
    pub fn of(webhook: &Versioned, with_secrets: bool) -> Self {
        let Versioned { subscription, state, .. } = webhook;
        let secret = &subscription.secrets.current;
        Self {
            id: subscription.id.to_string(),
            tenant: subscription.tenant.clone(),
            name: Some(subscription.name.clone()).filter(|name| !name.is_empty()),
            url: subscription.url.clone(),
            events: subscription.events.iter().map(ToString::to_string).collect(),
            filter: (),
            status: state.status.name(),
            disabled_reason: state.disabled_reason.map(|reason| reason.to_string()),
            is_active: state.status == Status::Active,
            retry_count: subscription.retry.count,
            retry: RetryJson::of(&subscription.retry.policy),
            timeout_seconds: subscription.timeout_seconds,
            max_concurrency: subscription.max_concurrency,
            rate_limit_per_minute: subscription.rate_limit_per_minute,
            ordering: match subscription.ordering {
                Ordering::None => "none",
                Ordering::Fifo => "fifo",
            },
            headers: subscription.headers.clone(),
            payload_format: match subscription.payload_format {
                PayloadFormat::Envelope => "envelope",
                PayloadFormat::Raw => "raw",
            },
            secret: with_secrets.then(|| secret.clone()),
            standard_secret: standard_secret(secret).filter(|_| with_secrets),
            ingest_secret: with_secrets.then(|| subscription.ingest.current.clone()),
            last_triggered_at: state.last_triggered_at_ms.map(rfc3339),
            total_deliveries: state.delivered + state.failed,
            successful_deliveries: state.delivered,
            failed_deliveries: state.failed,
            created_at: rfc3339(subscription.created_at_ms),
            updated_at: rfc3339(subscription.updated_at_ms),
        }
    }
}

impl RetryJson {
    pub fn of(policy: &RetryPolicy) -> Self {
        match policy.clone() {
            RetryPolicy::Exponential { base_ms, factor, max_ms, jitter } => {
                Self::Exponential { base_ms, factor, max_ms, jitter }
            }
            RetryPolicy::Schedule { delays_ms, jitter } => Self::Schedule { delays_ms, jitter },
        }
    }

    pub fn into_policy(self) -> RetryPolicy {
        match self {
            Self::Exponential { base_ms, factor, max_ms, jitter } => {
                RetryPolicy::Exponential { base_ms, factor, max_ms, jitter }
            }
            Self::Schedule { delays_ms, jitter } => RetryPolicy::Schedule { delays_ms, jitter },
        }
    }
}

impl EventJson {
    pub fn of(event: &Event) -> Self {
        Self {
            id: event.id.to_string(),
            tenant: event.tenant.clone(),
            event_type: event.event_type.clone(),
            timestamp: rfc3339(event.timestamp_ms),
            published_at: rfc3339(event.id.at.ms),
            conversation_id: event.conversation_id.clone(),
            data: raw(&event.data),
        }
    }
}

impl DeliveryJson {
    pub fn of(event: &Event, delivery: &DeliveryStatus) -> Self {
        Self {
            id: delivery.id.to_string(),
            event_id: event.id.to_string(),
            webhook_id: delivery.id.subscription.to_string(),
            status: delivery.standing().name(),
            attempts: delivery.attempts,
            last_status: delivery.last_status,
        }
    }
}

impl AttemptJson {
    pub fn of(id: AttemptId, attempt: &Attempt) -> Self {
        let delivery = DeliveryId { event: attempt.event.at, subscription: attempt.subscription, copy: attempt.copy };
        let (response, failure) = match &attempt.answer {
            Answer::Response(response) => (Some(response), None),
            Answer::Failure(failure) => (None, Some(failure)),
        };
        Self {
            id: id.to_string(),
            delivery_id: delivery.to_string(),
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
        let (response, failure) = match &attempt.answer {
            Answer::Response(response) => (Some(response), None),
            Answer::Failure(failure) => (None, Some(failure)),
        };
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

impl DeadLetterJson {
    pub fn of(item: &DeadItem) -> Self {
        match item {
            DeadItem::Delivery { letter, event } => Self::of_delivery(letter, event.as_ref()),
            DeadItem::Unreadable(entry) => Self::of_unreadable(entry),
        }
    }

    fn of_delivery(letter: &DeadLetter, event: Option<&Event>) -> Self {
        let noted = Some(letter.event_type.clone()).filter(|noted| !noted.is_empty());
        Self {
            id: letter.delivery.to_string(),
            webhook_id: Some(letter.delivery.subscription.to_string()),
            event_id: event.map(|event| event.id.to_string()),
            event_type: noted.or_else(|| event.map(|event| event.event_type.clone())),
            reason: letter.reason.name(),
            attempts: letter.attempts,
            last_status: letter.last_status,
            last_error: letter.last_error.clone(),
            died_at: rfc3339(letter.entry.ms),
            data: event.and_then(|event| raw(&event.data)),
        }
    }

    fn of_unreadable(entry: &BadEntry) -> Self {
        let fields: BTreeMap<&String, std::borrow::Cow<'_, str>> =
            entry.raw.iter().map(|(name, value)| (name, String::from_utf8_lossy(value))).collect();
        Self {
            id: entry.id.to_string(),
            webhook_id: None,
            event_id: None,
            event_type: None,
            reason: Reason::Malformed.name(),
            attempts: 0,
            last_status: None,
            last_error: Some(entry.error.clone()),
            died_at: rfc3339(entry.id.at.ms),
            data: serde_json::value::to_raw_value(&fields).ok(),
        }
    }
}

/// JSON as it was published, byte for byte; `None` for what is none.
fn raw(data: &[u8]) -> Option<Box<RawValue>> {
    RawValue::from_string(std::str::from_utf8(data).ok()?.to_owned()).ok()
}

/// Headers by name; the values of one that came more than once stand in one, as HTTP allows.
fn headers(list: &[(String, String)]) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in list {
        headers
            .entry(name.clone())
            .and_modify(|before: &mut String| {
                before.push_str(", ");
                before.push_str(value);
            })
            .or_insert_with(|| value.clone());
    }
    headers
}

#[cfg(test)]
mod tests;

//! How things are written in Redis and read back: the only place that knows the names of their fields.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
};

use bytes::Bytes;
use redis::{FromRedisValue, Value, streams::StreamId as Entry};
use serde::{Deserialize, Serialize};

use super::{
    error::{Error, Result},
    request_headers::{self, KeptHeader},
};
use crate::{
    domain::{
        attempt::{Answer, Attempt, Failure, FailureKind, Response, Timings},
        delivery::{DeliveryState, DeliveryStatus},
        event::Event,
        filter::Pattern,
        id::{DeliveryId, EventId, StreamId, SubscriptionId},
        retry::{Retry, RetryPolicy},
        subscription::{DisabledReason, Ordering, PayloadFormat, Secrets, Subscription},
    },
    secrets::Sealer,
};

pub(super) fn unreadable(what: &str) -> Error {
    Error::Unreadable(what.to_owned())
}

/// A field of a stream entry or hash.
pub(super) fn field<T: FromRedisValue>(map: &HashMap<String, Value>, name: &str) -> Option<T> {
    map.get(name).and_then(|value| redis::from_redis_value(value.clone()).ok())
}

fn bytes(map: &HashMap<String, Value>, name: &str) -> Option<Bytes> {
    field::<Vec<u8>>(map, name).map(Bytes::from)
}

pub(super) fn stream_id(text: &str) -> Result<StreamId> {
    text.parse().map_err(|_| unreadable("a stream id"))
}

/// An event of the log, or of the body that the trim keeps beside it. `None` where it is not one.
pub fn event(shard: u16, at: StreamId, map: &HashMap<String, Value>) -> Option<Event> {
    let parsed = |name| field::<String>(map, name).map(|text| text.parse()).transpose().ok();
    Some(Event {
        id: EventId { at, shard, nonce: field(map, "i")? },
        tenant: field(map, "tn")?,
        event_type: field(map, "t")?,
        timestamp_ms: field(map, "ts")?,
        data: bytes(map, "b")?,
        conversation_id: field(map, "cv"),
        only_for: parsed("to")?,
        config_version: field::<String>(map, "v")?.parse().ok()?,
        trace: field::<String>(map, "tp").and_then(|text| text.parse().ok()).map(Box::new),
    })
}

/// What a delivery entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DeliveryEntry {
    pub event: StreamId,
    pub copy: u16,
    /// Attempts made before a redrive.
    pub attempts_before: u32,
}

pub(super) fn delivery(map: &HashMap<String, Value>) -> Result<DeliveryEntry> {
    delivery_of(|name| field(map, name))
}

/// The same from the names and values of its fields in turn.
pub(super) fn delivery_of_fields(fields: &[&str]) -> Result<DeliveryEntry> {
    delivery_of(|name| fields.chunks_exact(2).find(|field| field[0] == name).map(|field| field[1].to_owned()))
}

fn delivery_of(value: impl Fn(&str) -> Option<String>) -> Result<DeliveryEntry> {
    let event = value("e").ok_or_else(|| unreadable("a delivery without its event"))?;
    Ok(DeliveryEntry {
        event: stream_id(&event)?,
        copy: value("c").and_then(|text| text.parse().ok()).unwrap_or(0),
        attempts_before: value("a").and_then(|text| text.parse().ok()).unwrap_or(0),
    })
}

/// The place of an entry.
pub(super) fn place(entry: &Entry) -> Result<StreamId> {
    stream_id(&entry.id)
}

/// Where a delivery stands: `state entry [attempts status attempt-ids…]`.
pub(super) fn delivery_status(event: StreamId, name: &str, value: &str) -> Option<DeliveryStatus> {
    let (subscription, copy) = name.split_once('#')?;
    let id = DeliveryId { event, subscription: subscription.parse().ok()?, copy: copy.parse().ok()? };
    let mut words = value.split(' ');
    let state = DeliveryState::of_letter(words.next()?)?;
    let entry = words.next()?.parse().ok()?;
    let attempts = words.next().map_or(Some(0), |word| word.parse().ok())?;
    let last_status = words.next().and_then(|word| word.parse().ok()).filter(|status| *status != 0);
    let attempt_log = words.filter_map(|word| word.parse().ok()).collect();
    Some(DeliveryStatus { id, state, entry, attempts, last_status, attempt_log })
}

/// The record of a subscription: JSON, its secrets sealed.
#[derive(Serialize, Deserialize)]
struct SubscriptionRecord {
    tenant: String,
    name: String,
    url: String,
    events: Vec<String>,
    retry: RetryRecord,
    timeout_seconds: u32,
    max_concurrency: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_limit_per_minute: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    fifo: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    raw: bool,
    secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<(String, u64)>,
    ingest_secret: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous_ingest: Option<(String, u64)>,
    created_at_ms: u64,
    updated_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RetryRecord {
    Exponential { count: u32, base_ms: u64, factor: f64, max_ms: u64, jitter: f64 },
    Schedule { count: u32, delays_ms: Vec<u64>, jitter: f64 },
}

impl From<&Retry> for RetryRecord {
    fn from(retry: &Retry) -> Self {
        let count = retry.count;
        match &retry.policy {
            RetryPolicy::Exponential { base_ms, factor, max_ms, jitter } => {
                Self::Exponential { count, base_ms: *base_ms, factor: *factor, max_ms: *max_ms, jitter: *jitter }
            }
            RetryPolicy::Schedule { delays_ms, jitter } => {
                Self::Schedule { count, delays_ms: delays_ms.clone(), jitter: *jitter }
            }
        }
    }
}

impl From<RetryRecord> for Retry {
    fn from(record: RetryRecord) -> Self {
        match record {
            RetryRecord::Exponential { count, base_ms, factor, max_ms, jitter } => {
                Self { count, policy: RetryPolicy::Exponential { base_ms, factor, max_ms, jitter } }
            }
            RetryRecord::Schedule { count, delays_ms, jitter } => {
                Self { count, policy: RetryPolicy::Schedule { delays_ms, jitter } }
            }
        }
    }
}

/// Writes a subscription's record.
pub(super) fn write_subscription(subscription: &Subscription, sealer: &Sealer) -> String {
    let owner = subscription.id.to_string();
    let seal = |secret: &String| sealer.seal(&owner, secret);
    let previous = |secrets: &Secrets| secrets.previous.as_ref().map(|(secret, until)| (seal(secret), *until));
    let record = SubscriptionRecord {
        tenant: subscription.tenant.clone(),
        name: subscription.name.clone(),
        url: subscription.url.clone(),
        events: subscription.events.iter().map(Pattern::to_string).collect(),
        retry: (&subscription.retry).into(),
        timeout_seconds: subscription.timeout_seconds,
        max_concurrency: subscription.max_concurrency,
        rate_limit_per_minute: subscription.rate_limit_per_minute,
        fifo: subscription.ordering == Ordering::Fifo,
        headers: subscription.headers.clone(),
        raw: subscription.payload_format == PayloadFormat::Raw,
        secret: seal(&subscription.secrets.current),
        previous: previous(&subscription.secrets),
        ingest_secret: seal(&subscription.ingest.current),
        previous_ingest: previous(&subscription.ingest),
        created_at_ms: subscription.created_at_ms,
        updated_at_ms: subscription.updated_at_ms,
    };
    serde_json::to_string(&record).expect("text and finite numbers can always be written as JSON")
}

/// Reads a subscription's record; `None` for the tombstone of a deleted one.
pub(super) fn read_subscription(id: SubscriptionId, record: &str, sealer: &Sealer) -> Result<Option<Subscription>> {
    if record == TOMBSTONE {
        return Ok(None);
    }
    let record: SubscriptionRecord =
        serde_json::from_str(record).map_err(|error| Error::Unreadable(format!("webhook {id}: {error}")))?;
    let owner = id.to_string();
    let open =
        |kept: &str| sealer.open(&owner, kept).map_err(|error| Error::Unreadable(format!("webhook {id}: {error}")));
    let events: Result<Vec<Pattern>, _> = record.events.iter().map(|pattern| pattern.parse()).collect();
    let secrets = |current: &str, previous: &Option<(String, u64)>| {
        let previous = previous.as_ref().map(|(secret, until)| Ok::<_, Error>((open(secret)?, *until))).transpose()?;
        Ok::<_, Error>(Secrets { current: open(current)?, previous })
    };
    Ok(Some(Subscription {
        id,
        events: events.map_err(|error| Error::Unreadable(format!("webhook {id}: {error}")))?,
        secrets: secrets(&record.secret, &record.previous)?,
        ingest: secrets(&record.ingest_secret, &record.previous_ingest)?,
        tenant: record.tenant,
        name: record.name,
        url: record.url,
        retry: record.retry.into(),
        timeout_seconds: record.timeout_seconds,
        max_concurrency: record.max_concurrency,
        rate_limit_per_minute: record.rate_limit_per_minute,
        ordering: if record.fifo { Ordering::Fifo } else { Ordering::None },
        headers: record.headers,
        payload_format: if record.raw { PayloadFormat::Raw } else { PayloadFormat::Envelope },
        created_at_ms: record.created_at_ms,
        updated_at_ms: record.updated_at_ms,
    }))
}

/// Whether all secrets of a record are sealed as they would be now; a tombstone has none.
pub(super) fn is_sealed_anew(id: SubscriptionId, record: &str, sealer: &Sealer) -> bool {
    let Ok(record) = serde_json::from_str::<SubscriptionRecord>(record) else { return true };
    let previous = [record.previous, record.previous_ingest].into_iter().flatten().map(|(kept, _)| kept);
    let owner = id.to_string();
    [record.secret, record.ingest_secret].into_iter().chain(previous).all(|kept| sealer.is_current(&owner, &kept))
}

/// Whose a subscription is and which events it wants, without opening its secrets; `None` for a tombstone.
pub(super) fn read_filters(id: SubscriptionId, record: &str) -> Result<Option<(String, Vec<Pattern>)>> {
    #[derive(Deserialize)]
    struct Filters {
        tenant: String,
        events: Vec<String>,
    }
    if record == TOMBSTONE {
        return Ok(None);
    }
    let wrong = |error: String| Error::Unreadable(format!("webhook {id}: {error}"));
    let filters: Filters = serde_json::from_str(record).map_err(|error| wrong(error.to_string()))?;
    let events = filters.events.iter().map(|pattern| pattern.parse()).collect::<Result<Vec<Pattern>, _>>();
    Ok(Some((filters.tenant, events.map_err(|error| wrong(error.to_string()))?)))
}

/// Why a subscription is disabled: `410`, or `failing <hours>`.
pub(super) fn disabled_reason(why: &str) -> Option<DisabledReason> {
    match why.split_once(' ') {
        None if why == "410" => Some(DisabledReason::Gone),
        Some(("failing", hours)) => hours.parse().ok().map(|hours| DisabledReason::Failing { hours }),
        _ => None,
    }
}

/// What stays of a deleted subscription until its attempts have aged.
pub(super) const TOMBSTONE: &str = "{}";

/// The record of an attempt: a MessagePack array.
#[derive(Serialize, Deserialize)]
struct AttemptRecord<'a> {
    event: String,
    subscription: String,
    copy: u16,
    tenant: Cow<'a, str>,
    event_type: Cow<'a, str>,
    url: Cow<'a, str>,
    number: u32,
    at_ms: u64,
    request_headers: Vec<KeptHeader<'a>>,
    response_time_ms: f64,
    timings: (Option<f64>, Option<f64>, Option<f64>, Option<f64>),
    answer: AnswerRecord<'a>,
    raw: bool,
}

#[derive(Serialize, Deserialize)]
enum AnswerRecord<'a> {
    Response { status: u16, headers: Cow<'a, [(String, String)]>, body: Bytes },
    Failure { kind: Cow<'a, str>, text: Cow<'a, str> },
}

/// Writes an attempt; that it is late, or a test, is said by the script that keeps it.
pub fn write_attempt(attempt: &Attempt) -> Vec<u8> {
    let timings = attempt.timings;
    super::pack(&AttemptRecord {
        event: attempt.event.to_string(),
        subscription: attempt.subscription.to_string(),
        copy: attempt.copy,
        tenant: Cow::Borrowed(&attempt.tenant),
        event_type: Cow::Borrowed(&attempt.event_type),
        url: Cow::Borrowed(&attempt.url),
        number: attempt.number,
        at_ms: attempt.at_ms,
        request_headers: request_headers::keep(attempt),
        response_time_ms: attempt.response_time_ms,
        timings: (timings.dns, timings.connect, timings.tls, timings.first_byte),
        answer: match &attempt.answer {
            Answer::Response(response) => AnswerRecord::Response {
                status: response.status,
                headers: Cow::Borrowed(&response.headers),
                body: response.body.clone(),
            },
            Answer::Failure(failure) => {
                AnswerRecord::Failure { kind: Cow::Borrowed(failure.kind.name()), text: Cow::Borrowed(&failure.text) }
            }
        },
        raw: attempt.payload_format == PayloadFormat::Raw,
    })
}

/// Reads an attempt from the fields of its entry.
///
/// # Errors
/// When it has no record, or not one that [`write_attempt`] has written.
pub fn read_attempt(map: &HashMap<String, Value>) -> Result<Attempt> {
    let packed = bytes(map, "r").ok_or_else(|| unreadable("an attempt without its record"))?;
    let record: AttemptRecord = super::unpack(&packed, "an attempt")?;
    let (dns, connect, tls, first_byte) = record.timings;
    let mut attempt = Attempt {
        event: record.event.parse().map_err(|_| unreadable("an attempt's event"))?,
        subscription: record.subscription.parse().map_err(|_| unreadable("an attempt's webhook"))?,
        copy: record.copy,
        tenant: record.tenant.into_owned(),
        event_type: record.event_type.into_owned(),
        url: record.url.into_owned(),
        number: record.number,
        at_ms: record.at_ms,
        request_headers: Vec::new(),
        answer: match record.answer {
            AnswerRecord::Response { status, headers, body } => {
                Answer::Response(Response { status, headers: headers.into_owned(), body, retry_after_ms: None })
            }
            AnswerRecord::Failure { kind, text } => Answer::Failure(Failure {
                kind: FailureKind::ALL.into_iter().find(|k| k.name() == kind).unwrap_or(FailureKind::Http),
                text: text.into_owned(),
            }),
        },
        response_time_ms: record.response_time_ms,
        timings: Timings { dns, connect, tls, first_byte },
        is_late: field::<u8>(map, "l") == Some(1),
        payload_format: if record.raw { PayloadFormat::Raw } else { PayloadFormat::Envelope },
        is_test: field::<u8>(map, "s") == Some(1),
    };
    request_headers::restore(&mut attempt, record.request_headers);
    Ok(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_read_as_the_script_writes_it() {
        let check = |why: &str, expected| assert_eq!(disabled_reason(why), expected, "{why}");
        check("410", Some(DisabledReason::Gone));
        check("failing 120", Some(DisabledReason::Failing { hours: 120 }));
        for other in ["", "gone", "failing", "failing soon", "410 1"] {
            check(other, None);
        }
    }
}

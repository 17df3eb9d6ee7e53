//! `/api/v1/events`.

use std::fmt;

use axum::{
    Json as Answer,
    extract::{Request, State},
};
use http::StatusCode;
use serde::{
    Deserializer, Serialize,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Api, BATCH_BYTES,
    auth::Tenant,
    error::Problem,
    extract::{Id, JSON, media_type, parse, read_body},
    idempotency::idempotency_key,
    input::EventBody,
    json::{DeliveryJson, EventJson, Page, ProblemJson},
    params::{EventParams, PageParams, Params, page_of, place},
    trace::trace_of,
};
use crate::{
    clock::now_ms,
    domain::{
        event::NewEvent,
        id::{DeliveryId, EventId},
        trace::TraceContext,
    },
    manage::{EventFilter, Seed},
    publish::Submitted,
};

/// What a body may have besides an event's data.
const ENVELOPE_BYTES: usize = 64 * 1024;
/// Events of a batch.
const BATCH_AT_MOST: usize = 1_000;
/// Where a single event is published.
pub(super) const PATH: &str = "/api/v1/events";
/// Where many are.
pub(super) const BATCH_PATH: &str = "/api/v1/events/batch";
/// How far back a list of events goes where nothing is said.
const SINCE_UNSAID_MS: u64 = 24 * 60 * 60 * 1000;
const NDJSON: &str = "application/x-ndjson";

/// An event that is in the log.
#[derive(Serialize, ToSchema)]
pub(super) struct Accepted {
    id: String,
}

/// An event that is not, and why.
#[derive(Serialize, ToSchema)]
pub(super) struct Refused {
    error: ProblemJson,
}

/// What became of an event of a batch.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum BatchResult {
    Accepted(Accepted),
    Refused(Refused),
}

/// One for each event, in their order.
#[derive(Serialize, ToSchema)]
pub(super) struct BatchResults {
    data: Vec<BatchResult>,
}

/// Publish an event
///
/// The answer means that it is in the log. Within 24 hours the same idempotency key, in the body or in the header
/// `Idempotency-Key`, is the same event.
#[utoipa::path(
    post, operation_id = "publish_event", path = "/api/v1/events", tag = "Events", request_body = EventBody,
    params(("traceparent" = Option<String>, Header, description = "The trace that the event belongs to (W3C)")),
    responses((status = 202, description = "It is in the log", body = Accepted)),
)]
pub(super) async fn publish(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    request: Request,
) -> Result<(StatusCode, Answer<Accepted>), Problem> {
    let (parts, body) = request.into_parts();
    if media_type(&parts.headers) != JSON {
        return Err(Problem::unsupported_media_type(JSON));
    }
    let key = idempotency_key(&parts.headers)?;
    let body = read_body(&api, body, &parts, api.settings.max_payload_bytes + ENVELOPE_BYTES).await?;
    api.manager.ensure_tenant(&tenant).await?;
    let id = answer(submit(&api, &tenant, &body, Key::Given(key), trace_of(&parts.headers)).await).await?;
    Ok((StatusCode::ACCEPTED, Answer(Accepted { id: id.to_string() })))
}

/// An event's idempotency key, besides the one in its body.
enum Key {
    /// That of the header: the body must not have another.
    Given(Option<String>),
    /// For an event that has none.
    IfNone(Option<String>),
}

/// Takes an event to publish it; those of a tenant come into the log in the order in which they are taken.
async fn submit(
    api: &Api,
    tenant: &str,
    body: &[u8],
    key: Key,
    trace: Option<Box<TraceContext>>,
) -> Result<Submitted, Problem> {
    let mut event = NewEvent { trace, ..parse::<EventBody>(body)?.into_event(tenant.to_owned())? };
    let key = match key {
        Key::Given(Some(key)) if event.idempotency_key.as_ref().is_some_and(|field| *field != key) => {
            return Err(Problem::invalid("idempotency_key", "the header Idempotency-Key says another: give one"));
        }
        Key::Given(key) | Key::IfNone(key) => key,
    };
    event.idempotency_key = event.idempotency_key.or(key);
    check_size(event.data.len(), api.settings.max_payload_bytes)?;
    Ok(api.publisher.submit(event).await?)
}

/// The event's id, once it is in the log.
async fn answer(submitted: Result<Submitted, Problem>) -> Result<EventId, Problem> {
    Ok(submitted?.answer().await?.id)
}

fn check_size(bytes: usize, most: usize) -> Result<(), Problem> {
    if bytes <= most {
        return Ok(());
    }
    let detail = format!("data: {bytes} bytes; at most {most} are allowed (delivery.max_payload_bytes)");
    Err(Problem { field: Some("data".to_owned()), ..Problem::too_large(detail) })
}

/// Publish many events
///
/// A JSON array, or NDJSON with a line for each. A bad one does not sink the rest.
#[utoipa::path(
    post, operation_id = "publish_events", path = "/api/v1/events/batch", tag = "Events",
    params(("traceparent" = Option<String>, Header, description = "The trace that all of them belong to (W3C)")),
    request_body(description = "Up to 1,000 events", content(
        (Vec<EventBody> = "application/json"), (String = "application/x-ndjson"),
    )),
    responses((status = 202, description = "What became of each, in their order", body = BatchResults)),
)]
pub(super) async fn publish_batch(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    request: Request,
) -> Result<(StatusCode, Answer<BatchResults>), Problem> {
    let (parts, body) = request.into_parts();
    let kind = media_type(&parts.headers);
    if kind != JSON && kind != NDJSON {
        return Err(Problem::unsupported_media_type("application/json, or application/x-ndjson"));
    }
    let body = read_body(&api, body, &parts, BATCH_BYTES).await?;
    let (items, count) = if kind == JSON { array_items(&body)? } else { lines(&body) };
    if count > BATCH_AT_MOST {
        return Err(Problem::too_large(format!("{count} events; at most {BATCH_AT_MOST} are allowed in a batch")));
    }
    api.manager.ensure_tenant(&tenant).await?;
    let mut submitted = Vec::with_capacity(items.len());
    let trace = trace_of(&parts.headers);
    // A batch that was broken off is published once more with the same seed: what came into the log is not doubled.
    let seed = parts.extensions.get::<Seed>().map(|seed| format!("batch {}.{}", seed.ms, seed.random));
    for (index, item) in items.into_iter().enumerate() {
        let key = seed.as_ref().map(|seed| format!("{seed}.{index}"));
        submitted.push(submit(&api, &tenant, item, Key::IfNone(key), trace.clone()).await);
    }
    // All are on their way: to wait for one after the other takes no longer.
    let mut results = Vec::with_capacity(submitted.len());
    for submitted in submitted {
        results.push(answer(submitted).await);
    }
    // Nothing was taken, and the same may be sent again: better said once than a thousand times.
    if let Some(Err(problem)) = results.first()
        && results.iter().all(|result| matches!(result, Err(problem) if problem.status.is_server_error()))
    {
        return Err(problem.clone());
    }
    let data = results.into_iter().map(|result| match result {
        Ok(id) => BatchResult::Accepted(Accepted { id: id.to_string() }),
        Err(problem) => BatchResult::Refused(Refused { error: problem.to_json() }),
    });
    Ok((StatusCode::ACCEPTED, Answer(BatchResults { data: data.collect() })))
}

/// The first items of a batch, one more than it may have at most, and how many there are.
type Items<'b> = (Vec<&'b [u8]>, usize);

fn array_items(body: &[u8]) -> Result<Items<'_>, Problem> {
    struct Array;

    impl<'de> Visitor<'de> for Array {
        type Value = (Vec<&'de RawValue>, usize);

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of events")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
            let (mut items, mut count) = (Vec::new(), 0);
            while items.len() <= BATCH_AT_MOST
                && let Some(item) = array.next_element::<&RawValue>()?
            {
                items.push(item);
                count += 1;
            }
            while array.next_element::<IgnoredAny>()?.is_some() {
                count += 1;
            }
            Ok((items, count))
        }
    }

    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let read = deserializer.deserialize_seq(Array).and_then(|read| deserializer.end().map(|()| read));
    let (items, count) =
        read.map_err(|error| Problem::bad_request("invalid_json", format!("an array of events is wanted: {error}")))?;
    Ok((items.into_iter().map(|item| item.get().as_bytes()).collect(), count))
}

/// The lines that are not blank.
fn lines(body: &[u8]) -> Items<'_> {
    let lines = || body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    (lines().take(BATCH_AT_MOST + 1).collect(), lines().count())
}

/// List events, newest first
///
/// Those still in the log. A page that had to look far may be short and still have a cursor.
#[utoipa::path(
    get, operation_id = "list_events", path = "/api/v1/events", tag = "Events", params(EventParams),
    responses((status = 200, description = "A page of events", body = Page<EventJson>)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Params(params): Params<EventParams>,
) -> Result<Answer<Page<EventJson>>, Problem> {
    let since_ms = params.since.map_or_else(|| now_ms().saturating_sub(SINCE_UNSAID_MS), |since| since.0);
    let filter = EventFilter {
        event_type: params.event_type,
        since_ms: Some(since_ms),
        until_ms: params.until.map(|until| until.0),
    };
    let page = api.manager.events(&tenant, &filter, place(params.cursor.as_deref())?, params.limit.0).await?;
    Ok(Answer(Page::of(page.events.iter().map(EventJson::of).collect(), page.next)))
}

/// Show an event
#[utoipa::path(
    get, operation_id = "get_event", path = "/api/v1/events/{event_id}", tag = "Events", params(("event_id" = String, Path)),
    responses((status = 200, description = "The event", body = EventJson)),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
) -> Result<Answer<EventJson>, Problem> {
    Ok(Answer(EventJson::of(&api.manager.event(&tenant, &id).await?)))
}

/// Show where an event's deliveries stand
///
/// Of an event for more than 1,000 webhooks only those to which something has happened.
#[utoipa::path(
    get, operation_id = "list_event_deliveries", path = "/api/v1/events/{event_id}/deliveries", tag = "Events", params(("event_id" = String, Path), PageParams),
    responses((status = 200, description = "A page of deliveries, by webhook", body = Page<DeliveryJson>)),
)]
pub(super) async fn deliveries(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
    Params(page): Params<PageParams>,
) -> Result<Answer<Page<DeliveryJson>>, Problem> {
    let (limit, after) = page.parts::<DeliveryId>()?;
    let (event, deliveries) = api.manager.deliveries(&tenant, &id).await?;
    let (found, next) = page_of(deliveries, limit, after, |delivery| delivery.id);
    Ok(Answer(Page::of(found.iter().map(|delivery| DeliveryJson::of(&event, delivery)).collect(), next)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_an_array_or_lines() {
        let texts = |(items, count): Items<'_>| {
            assert_eq!(items.len(), count);
            items.into_iter().map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        let expected = [b"{\"a\": 1}".to_vec(), b"7".to_vec()];
        assert_eq!(texts(array_items(b"[{\"a\": 1}, 7]").unwrap()), expected);
        assert_eq!(texts(lines(b"{\"a\": 1}\r\n\n7")), expected);
        assert_eq!(array_items(b"{}").unwrap_err().code, "invalid_json");
        assert!(lines(b" \n").0.is_empty());
        let many = format!("[{}0]", "0,".repeat(5_000));
        let (items, count) = array_items(many.as_bytes()).unwrap();
        assert_eq!((items.len(), count), (BATCH_AT_MOST + 1, 5_001));
        assert_eq!(array_items(b"[1] 2").unwrap_err().code, "invalid_json");
    }

    #[test]
    fn a_result_of_a_batch_is_an_id_or_an_error() {
        let json = |result: BatchResult| serde_json::to_value(result).unwrap();
        let accepted = json(BatchResult::Accepted(Accepted { id: "evt_1".into() }));
        assert_eq!(accepted, serde_json::json!({ "id": "evt_1" }));
        let error = json(BatchResult::Refused(Refused { error: Problem::invalid("type", "is required").to_json() }));
        assert_eq!(error["error"]["code"], "invalid");
    }
}

//! What requests may hold, as JSON: every field is known by name, and each refusal says which one was at fault.

mod webhooks;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    domain::{Invalid, event::NewEvent, time::parse_rfc3339},
    manage::NewEventType,
};
pub(super) use webhooks::{NewWebhookBody, ResumeBody, RotationBody, TestBody, WebhookChangeBody};

/// Body of `POST /api/v1/events`, and of each item of a batch.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEvent)]
pub(super) struct EventBody {
    /// Letters, digits, `_` and `-`, in parts parted by single dots.
    #[serde(rename = "type")]
    #[schema(value_type = String, required = true, example = "message.created", max_length = 128, pattern = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]
    event_type: Option<String>,
    /// Any JSON; it is delivered byte for byte.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = serde_json::Value, required = true)]
    data: Option<Box<RawValue>>,
    /// When it happened (RFC 3339); now where it is absent.
    #[schema(example = "2026-01-31T12:00:00.000Z", format = DateTime)]
    timestamp: Option<String>,
    /// Within 24 hours the same key of one tenant is one event; the header `Idempotency-Key` is the same.
    #[schema(min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
    /// The conversation that it belongs to.
    #[schema(min_length = 1, max_length = 255)]
    conversation_id: Option<String>,
}

impl EventBody {
    pub fn into_event(self, tenant: String) -> Result<NewEvent, Invalid> {
        let timestamp_ms = match &self.timestamp {
            None => None,
            Some(text) => Some(parse_rfc3339(text).ok_or_else(|| {
                Invalid::new("timestamp", "must be RFC 3339 with an offset, such as 2026-01-31T12:00:00.000Z")
            })?),
        };
        Ok(NewEvent {
            tenant,
            event_type: self.event_type.ok_or_else(|| Invalid::required("type"))?,
            data: text(self.data.ok_or_else(|| Invalid::required("data"))?).into(),
            timestamp_ms,
            idempotency_key: self.idempotency_key,
            conversation_id: self.conversation_id,
            ..NewEvent::default()
        })
    }
}

/// JSON as it was sent.
pub(super) fn text(raw: Box<RawValue>) -> String {
    String::from(Box::<str>::from(raw))
}

/// A field that is there, be it null: an absent one never gets here.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Body of `POST /api/v1/dead-letters/replay`: those that fit all that is given; all where nothing is.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = DeadLetterReplay)]
pub(super) struct ReplayBody {
    pub webhook_id: Option<String>,
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// Those that died at this moment or later.
    pub since: Option<String>,
    /// Those that died at this moment or before.
    pub until: Option<String>,
    pub reason: Option<String>,
    /// Only these.
    #[schema(max_items = 1000)]
    pub ids: Option<Vec<String>>,
    /// Only say how many.
    pub dry_run: bool,
    /// So many a second, at most.
    #[schema(minimum = 1, maximum = 1000000)]
    pub rate: Option<u32>,
}

/// Body of `POST /api/v1/webhooks/{id}/replay`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RangeReplay)]
pub(super) struct RangeReplayBody {
    /// The first moment: RFC 3339, a date, Unix milliseconds, or an age such as `24h`.
    #[schema(value_type = String, required = true, example = "24h")]
    pub from: Option<String>,
    /// The last moment; now where it is absent.
    pub until: Option<String>,
    /// Only events of this type, or `prefix.*`.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// So many a second, at most.
    #[schema(minimum = 1, maximum = 1000000)]
    pub rate: Option<u32>,
    /// Only say how many there are.
    #[serde(default)]
    pub dry_run: bool,
}

/// Body of `POST /api/v1/event-types`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewEventType)]
pub(super) struct NewEventTypeBody {
    #[serde(rename = "type")]
    #[schema(value_type = String, required = true, example = "order.paid", max_length = 128, pattern = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]
    event_type: Option<String>,
    /// What it is listed under.
    #[schema(example = "order", min_length = 1, max_length = 64)]
    category: Option<String>,
    #[schema(value_type = String, required = true, example = "An order was paid.", min_length = 1, max_length = 500)]
    description: Option<String>,
    /// The data of an event of this type; `{}` where it is absent.
    #[schema(value_type = Option<serde_json::Value>)]
    sample: Option<Box<RawValue>>,
    /// A JSON Schema (2020-12) for the data; any data fit where it is absent.
    #[schema(value_type = Option<serde_json::Value>)]
    schema: Option<Box<RawValue>>,
}

impl NewEventTypeBody {
    pub fn into_new(self) -> Result<NewEventType, Invalid> {
        Ok(NewEventType {
            event_type: self.event_type.ok_or_else(|| Invalid::required("type"))?,
            category: self.category.unwrap_or_else(|| "custom".to_owned()),
            description: self.description.unwrap_or_default(),
            sample: self.sample.map_or_else(|| "{}".to_owned(), text),
            schema: self.schema.map(text),
        })
    }
}

/// Body of `POST /api/v1/tenants`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTenant)]
pub(super) struct NewTenantBody {
    /// Letters, digits, `_`, `.` and `-`, the first a letter or digit.
    #[schema(value_type = String, required = true, example = "acme", pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    pub id: Option<String>,
    /// What people call it; its id where it is absent.
    #[schema(max_length = 200)]
    pub name: Option<String>,
    /// Megabytes of events that it may be owed; above, its events are refused as `tenant_full`.
    #[schema(minimum = 1, maximum = 1000000000)]
    pub max_stored_mb: Option<u64>,
    /// Requests of each of its keys in a minute.
    #[schema(minimum = 1, maximum = 1000000)]
    pub rate_limit_per_minute: Option<u32>,
}

/// Body of `POST /api/v1/keys`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewKey)]
pub(super) struct NewKeyBody {
    /// `admin` (everything, of all tenants), `tenant` (everything of one), `publish` (only events of one) or `read`.
    #[schema(value_type = String, required = true, example = "tenant", pattern = "^(admin|tenant|publish|read)$")]
    pub role: Option<String>,
    /// Required, except for the role `admin`.
    #[schema(example = "acme", pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    pub tenant: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::extract::parse;

    fn event(text: &str) -> Result<NewEvent, Option<String>> {
        let body: EventBody = parse(text.as_bytes()).map_err(|problem| problem.field)?;
        body.into_event("acme".into()).map_err(|refusal| Some(refusal.field.to_owned()))
    }

    #[test]
    fn data_is_kept_byte_for_byte() {
        let event = event(r#"{"type":"a","data":{ "b" :1.0,"a":[ ] },"timestamp":"1970-01-01T00:00:01Z"}"#).unwrap();
        assert_eq!(event.data, r#"{ "b" :1.0,"a":[ ] }"#);
        assert_eq!((event.tenant.as_str(), event.timestamp_ms), ("acme", Some(1_000)));
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let check = |text: &str, field: &str| assert_eq!(event(text), Err(Some(field.to_owned())), "{text}");
        check(r#"{"data":1}"#, "type");
        check(r#"{"type":"a"}"#, "data");
        check(r#"{"type":7,"data":1}"#, "type");
        check(r#"{"type":"a","data":1,"timestamp":"yesterday"}"#, "timestamp");
        check(r#"{"type":"a","data":1,"tpye":"b"}"#, "tpye");
    }
}

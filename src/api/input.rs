//! What requests may hold, as JSON: every field is known by name, and each refusal says which one was at fault.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type},
};

use super::json::RetryJson;
use crate::{
    domain::{Invalid, event::NewEvent, time::parse_rfc3339},
    manage::{NewEventType, NewWebhook, RetryInput, Seed, WebhookChange},
};

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
        let required = |field| move || Invalid::new(field, "is required");
        let timestamp_ms = match &self.timestamp {
            None => None,
            Some(text) => Some(parse_rfc3339(text).ok_or_else(|| {
                Invalid::new("timestamp", "must be RFC 3339 with an offset, such as 2026-01-31T12:00:00.000Z")
            })?),
        };
        Ok(NewEvent {
            tenant,
            event_type: self.event_type.ok_or_else(required("type"))?,
            data: String::from(Box::<str>::from(self.data.ok_or_else(required("data"))?)).into(),
            timestamp_ms,
            idempotency_key: self.idempotency_key,
            conversation_id: self.conversation_id,
            ..NewEvent::default()
        })
    }
}

/// Body of `POST /api/v1/webhooks`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewWebhook)]
pub(super) struct NewWebhookBody {
    /// Where to post to: `https`, and no private address.
    #[schema(value_type = String, required = true, example = "https://example.com/hook", max_length = 2048)]
    url: Option<String>,
    /// Event types it wants: exact, `prefix.*`, or `*` for all but the engine's own.
    #[schema(value_type = Vec<String>, required = true, example = json!(["message.*", "contact.created"]), min_items = 1, max_items = 100)]
    events: Option<Vec<String>>,
    #[schema(max_length = 200)]
    name: Option<String>,
    retry: Option<RetryBody>,
    /// Attempts after the first.
    #[schema(maximum = 100)]
    retry_count: Option<u32>,
    /// For all of a request, from the name to the last byte of the answer.
    #[schema(minimum = 1, maximum = 300)]
    timeout_seconds: Option<u32>,
    /// Requests at once.
    #[schema(minimum = 1, maximum = 1000)]
    max_concurrency: Option<u32>,
    /// Attempts in any minute.
    #[schema(minimum = 1, maximum = 60000)]
    rate_limit_per_minute: Option<u32>,
    /// `none`, or `fifo`: one delivery at a time, in the order of the log.
    #[schema(example = "none", pattern = "^(none|fifo)$")]
    ordering: Option<String>,
    /// Sent with each request.
    #[schema(example = json!({"X-Env": "prod"}))]
    headers: Option<BTreeMap<String, String>>,
    /// `envelope`, or `raw`: the data alone, byte for byte.
    #[schema(example = "envelope", pattern = "^(envelope|raw)$")]
    payload_format: Option<String>,
    /// What deliveries are signed with; made up where it is absent. `whsec_` and base64 of 24 to 64 bytes, or 16 to 128
    /// printable characters.
    secret: Option<String>,
    /// `false` creates it paused.
    is_active: Option<bool>,
    #[schema(ignore)]
    filter: Option<NoFilter>,
}

/// There is no filter by content: only null is taken.
struct NoFilter;

impl<'de> Deserialize<'de> for NoFilter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<de::IgnoredAny>::deserialize(deserializer)? {
            None => Ok(Self),
            Some(_) => Err(de::Error::custom("only null is allowed: there is no filter by content")),
        }
    }
}

impl NewWebhookBody {
    pub fn into_new(self, seed: Seed) -> Result<NewWebhook, Invalid> {
        let _: Option<NoFilter> = self.filter;
        Ok(NewWebhook {
            url: self.url.ok_or_else(|| Invalid::new("url", "is required"))?,
            events: self.events.ok_or_else(|| Invalid::new("events", "is required"))?,
            name: self.name,
            retry: self.retry.map(|retry| retry.0),
            retry_count: self.retry_count,
            timeout_seconds: self.timeout_seconds,
            max_concurrency: self.max_concurrency,
            rate_limit_per_minute: self.rate_limit_per_minute,
            ordering: self.ordering,
            headers: self.headers.unwrap_or_default(),
            payload_format: self.payload_format,
            secret: self.secret,
            seed: Some(seed),
            is_active: self.is_active,
        })
    }
}

/// Body of `PATCH /api/v1/webhooks/{id}`: what is absent is kept, null unsets. The fields are those of its creation.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookChange)]
pub(super) struct WebhookChangeBody {
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, max_length = 2048)]
    url: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false, min_items = 1, max_items = 100)]
    events: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>, max_length = 200)]
    name: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<RetryBody>)]
    retry: Option<Option<RetryBody>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>, maximum = 100)]
    retry_count: Option<Option<u32>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 300)]
    timeout_seconds: Option<Option<u32>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    max_concurrency: Option<Option<u32>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 60000)]
    rate_limit_per_minute: Option<Option<u32>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    ordering: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    headers: Option<Option<BTreeMap<String, String>>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    payload_format: Option<Option<String>>,
    /// `false` pauses, `true` lets go on.
    #[serde(default, deserialize_with = "given")]
    #[schema(nullable = false)]
    is_active: Option<bool>,
    #[schema(ignore)]
    filter: Option<NoFilter>,
}

impl WebhookChangeBody {
    pub fn into_change(self) -> WebhookChange {
        let _: Option<NoFilter> = self.filter;
        WebhookChange {
            url: self.url,
            events: self.events,
            name: self.name,
            retry: self.retry.map(|retry| retry.map(|retry| retry.0)),
            retry_count: self.retry_count,
            timeout_seconds: self.timeout_seconds,
            max_concurrency: self.max_concurrency,
            rate_limit_per_minute: self.rate_limit_per_minute,
            ordering: self.ordering,
            headers: self.headers,
            payload_format: self.payload_format,
            is_active: self.is_active,
        }
    }
}

/// A field that is there, be it null: an absent one never gets here.
fn given<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A preset's name, or a policy.
struct RetryBody(RetryInput);

impl PartialSchema for RetryBody {
    fn schema() -> RefOr<Schema> {
        let name = ObjectBuilder::new().schema_type(Type::String).description(Some("The name of a preset"));
        OneOfBuilder::new().item(name).item(RetryJson::schema()).into()
    }
}

impl ToSchema for RetryBody {
    fn name() -> std::borrow::Cow<'static, str> {
        "RetryChoice".into()
    }
}

impl<'de> Deserialize<'de> for RetryBody {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = RetryBody;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a preset's name or an object with `kind`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<RetryBody, E> {
                Ok(RetryBody(RetryInput::Preset(name.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RetryBody, A::Error> {
                let policy = RetryJson::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RetryBody(RetryInput::Policy(policy.into_policy())))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// Body of `POST /api/v1/webhooks/{id}/resume`.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Resume)]
pub(super) struct ResumeBody {
    /// Make dead letters of what has waited.
    pub skip: bool,
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

/// Body of `POST /api/v1/webhooks/{id}/rotate-secret`.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Rotation)]
pub(super) struct RotationBody {
    /// The new one; made up where it is absent.
    pub secret: Option<String>,
    /// How long the old one signs beside the new one.
    #[schema(maximum = 2592000, example = 86400)]
    pub overlap_seconds: Option<u64>,
    /// Whether the ingest secret is made anew too; the old one is taken as long.
    pub with_ingest: bool,
}

/// Body of `POST /api/v1/webhooks/{id}/test`.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Test)]
pub(super) struct TestBody {
    /// The type of what is sent; `ping` where it is absent.
    #[serde(rename = "type", default)]
    pub event_type: Option<String>,
    /// What is sent; the sample of the type where it is absent.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    pub data: Option<Box<RawValue>>,
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
        let text = |raw: Box<RawValue>| String::from(Box::<str>::from(raw));
        Ok(NewEventType {
            event_type: self.event_type.ok_or_else(|| Invalid::new("type", "is required"))?,
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
    use crate::{api::extract::parse, domain::retry::RetryPolicy};

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

    fn change(text: &str) -> WebhookChange {
        parse::<WebhookChangeBody>(text.as_bytes()).unwrap().into_change()
    }

    #[test]
    fn absent_is_not_null() {
        assert_eq!(change("{}"), WebhookChange::default());
        let unset = change(r#"{"name":null,"retry":null,"headers":null}"#);
        let expected =
            WebhookChange { name: Some(None), retry: Some(None), headers: Some(None), ..WebhookChange::default() };
        assert_eq!(unset, expected);
        for required in ["url", "events", "is_active"] {
            let refused = parse::<WebhookChangeBody>(format!(r#"{{"{required}":null}}"#).as_bytes());
            assert_eq!(refused.err().and_then(|problem| problem.field).as_deref(), Some(required));
        }
    }

    #[test]
    fn retries_are_a_preset_or_a_policy() {
        let retry = |text: &str| change(&format!(r#"{{"retry":{text}}}"#)).retry.flatten();
        assert_eq!(retry(r#""steady""#), Some(RetryInput::Preset("steady".into())));
        let schedule = RetryPolicy::Schedule { delays_ms: vec![1, 2], jitter: 0.0 };
        assert_eq!(retry(r#"{"kind":"schedule","delays_ms":[1,2]}"#), Some(RetryInput::Policy(schedule)));
        let exponential = RetryPolicy::Exponential { base_ms: 5, factor: 2.0, max_ms: 3_600_000, jitter: 0.1 };
        assert_eq!(retry(r#"{"base_ms":5,"kind":"exponential"}"#), Some(RetryInput::Policy(exponential)));
        for bad in ["7", r#"{"kind":"never"}"#, r#"{"kind":"schedule"}"#, r#"{"kind":"schedule","delays_ms":[],"x":1}"#]
        {
            let refused = parse::<WebhookChangeBody>(format!(r#"{{"retry":{bad}}}"#).as_bytes());
            let field = refused.err().and_then(|problem| problem.field).unwrap_or_default();
            assert!(field.starts_with("retry"), "{bad}: {field}");
        }
    }
}

//! What requests may hold, as JSON: every field is known by name, and each refusal says which one was at fault.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;

use super::json::RetryJson;
use crate::{
    domain::{Invalid, event::NewEvent, time::parse_rfc3339},
    manage::{NewWebhook, RetryInput, WebhookChange},
};

/// Body of `POST /api/v1/events`, and of each item of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventBody {
    #[serde(rename = "type")]
    event_type: Option<String>,
    data: Option<Box<RawValue>>,
    timestamp: Option<String>,
    idempotency_key: Option<String>,
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
            only_for: None,
        })
    }
}

/// Body of `POST /api/v1/webhooks`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewWebhookBody {
    url: Option<String>,
    events: Option<Vec<String>>,
    name: Option<String>,
    retry: Option<RetryBody>,
    retry_count: Option<u32>,
    timeout_seconds: Option<u32>,
    max_concurrency: Option<u32>,
    rate_limit_per_minute: Option<u32>,
    ordering: Option<String>,
    headers: Option<BTreeMap<String, String>>,
    payload_format: Option<String>,
    secret: Option<String>,
    is_active: Option<bool>,
}

impl NewWebhookBody {
    pub fn into_new(self) -> Result<NewWebhook, Invalid> {
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
            is_active: self.is_active,
        })
    }
}

/// Body of `PATCH /api/v1/webhooks/{id}`: what is absent is kept, null unsets.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct WebhookChangeBody {
    #[serde(deserialize_with = "given")]
    url: Option<String>,
    #[serde(deserialize_with = "given")]
    events: Option<Vec<String>>,
    #[serde(deserialize_with = "given")]
    name: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    retry: Option<Option<RetryBody>>,
    #[serde(deserialize_with = "given")]
    retry_count: Option<Option<u32>>,
    #[serde(deserialize_with = "given")]
    timeout_seconds: Option<Option<u32>>,
    #[serde(deserialize_with = "given")]
    max_concurrency: Option<Option<u32>>,
    #[serde(deserialize_with = "given")]
    rate_limit_per_minute: Option<Option<u32>>,
    #[serde(deserialize_with = "given")]
    ordering: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    headers: Option<Option<BTreeMap<String, String>>>,
    #[serde(deserialize_with = "given")]
    payload_format: Option<Option<String>>,
    #[serde(deserialize_with = "given")]
    is_active: Option<bool>,
}

impl WebhookChangeBody {
    pub fn into_change(self) -> WebhookChange {
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
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ResumeBody {
    /// Make dead letters of what has waited.
    pub skip: bool,
}

/// Body of `POST /api/v1/dead-letters/replay`: those that fit all that is given; all where nothing is.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReplayBody {
    pub webhook_id: Option<String>,
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    pub since: Option<String>,
    pub until: Option<String>,
    pub reason: Option<String>,
    pub ids: Option<Vec<String>>,
    /// Only say how many.
    pub dry_run: bool,
    /// A second.
    pub rate: Option<u32>,
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

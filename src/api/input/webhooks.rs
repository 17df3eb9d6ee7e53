//! What requests about webhooks may hold.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, value::MapAccessDeserializer},
};
use serde_json::value::RawValue;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type},
};

use super::given;
use crate::{
    api::json::RetryJson,
    domain::Invalid,
    manage::{NewWebhook, RetryInput, Seed, WebhookChange},
};

/// Body of `POST /api/v1/webhooks`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewWebhook)]
pub(in crate::api) struct NewWebhookBody {
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
            url: self.url.ok_or_else(|| Invalid::required("url"))?,
            events: self.events.ok_or_else(|| Invalid::required("events"))?,
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
pub(in crate::api) struct WebhookChangeBody {
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

/// A preset's name, or a policy.
struct RetryBody(RetryInput);

impl PartialSchema for RetryBody {
    fn schema() -> RefOr<Schema> {
        let name = ObjectBuilder::new().schema_type(Type::String).description(Some("The name of a preset"));
        OneOfBuilder::new().item(name).item(RetryJson::schema()).into()
    }
}

impl ToSchema for RetryBody {
    fn name() -> Cow<'static, str> {
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
pub(in crate::api) struct ResumeBody {
    /// Make dead letters of what has waited.
    pub skip: bool,
}

/// Body of `POST /api/v1/webhooks/{id}/rotate-secret`.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Rotation)]
pub(in crate::api) struct RotationBody {
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
pub(in crate::api) struct TestBody {
    /// The type of what is sent; `ping` where it is absent.
    #[serde(rename = "type", default)]
    pub event_type: Option<String>,
    /// What is sent; the sample of the type where it is absent.
    #[serde(default)]
    #[schema(value_type = Option<serde_json::Value>)]
    pub data: Option<Box<RawValue>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{api::extract::parse, domain::retry::RetryPolicy};

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

//! The catalogue: which types of events there are, with a description, a sample and a schema for each.
//!
//! `streams/catalog.toml` has those that everybody knows; a tenant may add its own.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, OnceLock},
};

use serde::Deserialize;

use super::schema::Schema;

const CATALOG: &str = include_str!("../../streams/catalog.toml");

/// What is known of a type of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventTypeInfo {
    pub event_type: String,
    pub category: String,
    pub description: String,
    /// An event's data: JSON on one line.
    pub sample: String,
    /// A JSON Schema (2020-12) for an event's data: JSON on one line. Without one any data fit.
    pub schema: Option<String>,
}

/// A type as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    category: String,
    description: String,
    sample: String,
    schema: String,
}

struct BuiltIn {
    info: EventTypeInfo,
    /// Made ready when it is first asked for: most are not.
    schema: OnceLock<Arc<Schema>>,
}

static BUILT_IN: LazyLock<BTreeMap<String, BuiltIn>> = LazyLock::new(|| {
    let entries: BTreeMap<String, Entry> = toml::from_str(CATALOG).expect("a test reads the same file");
    let built_in = |(event_type, entry): (String, Entry)| {
        let info = EventTypeInfo {
            event_type: event_type.clone(),
            category: entry.category,
            description: entry.description,
            sample: on_one_line(&entry.sample),
            schema: Some(on_one_line(&entry.schema)),
        };
        (event_type, BuiltIn { info, schema: OnceLock::new() })
    };
    entries.into_iter().map(built_in).collect()
});

/// The types that everybody knows, in their order.
pub fn built_in() -> impl Iterator<Item = &'static EventTypeInfo> {
    BUILT_IN.values().map(|built_in| &built_in.info)
}

/// One of the types that everybody knows.
pub fn find(event_type: &str) -> Option<&'static EventTypeInfo> {
    BUILT_IN.get(event_type).map(|built_in| &built_in.info)
}

/// The schema of one of the types that everybody knows, ready to check data.
pub fn schema_of(event_type: &str) -> Option<Arc<Schema>> {
    let BuiltIn { info, schema } = BUILT_IN.get(event_type)?;
    let text = info.schema.as_deref()?;
    let parse = || Arc::new(Schema::parse(text).expect("a test reads the same schemas"));
    Some(Arc::clone(schema.get_or_init(parse)))
}

/// JSON without the space between its parts, in the order in which it was written.
pub fn on_one_line(json: &str) -> String {
    let (mut line, mut is_text, mut is_escaped) = (String::with_capacity(json.len()), false, false);
    for c in json.chars() {
        if is_text || !c.is_ascii_whitespace() {
            line.push(c);
        }
        is_text ^= c == '"' && !is_escaped;
        is_escaped = is_text && c == '\\' && !is_escaped;
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::domain::{
        event::check_type,
        id::{DeliveryId, EventId, SubscriptionId},
    };

    /// What the catalogue promises.
    const PROMISED: &str = "
        message.new message.sent message.delivered message.read message.failed message.created
        conversation.created conversation.updated conversation.assigned conversation.resolved conversation.closed
        contact.created contact.updated campaign.started campaign.completed campaign.failed
        flow.started flow.completed flow.failed automation.triggered automation.completed
        template.approved template.rejected
        messages.received messages.update messages.delete messages.reaction session.status qrcode.updated
        chats.upsert chats.update chats.delete groups.upsert groups.update group-participants.update
        contacts.upsert contacts.update presence.update poll.results call
        posthaste.webhook.disabled posthaste.webhook.recovered posthaste.delivery.dead_lettered ping";

    #[test]
    fn every_type_that_is_promised_is_there() {
        let missing: Vec<&str> = PROMISED.split_whitespace().filter(|name| find(name).is_none()).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(built_in().count(), PROMISED.split_whitespace().count());
    }

    #[test]
    fn every_type_is_one_is_described_and_has_a_sample_that_fits() {
        for info in built_in() {
            let name = &info.event_type;
            assert_eq!(check_type("type", name), Ok(()));
            assert!(info.description.ends_with('.') && info.description.chars().count() <= 200, "{name}");
            assert!(!info.category.is_empty() && !info.sample.contains('\n'), "{name}");
            let schema: Value = serde_json::from_str(info.schema.as_deref().unwrap()).unwrap();
            assert_eq!(schema["type"], "object", "{name}");
            // What comes later may have more fields.
            assert!(!info.schema.as_deref().unwrap().contains("additionalProperties"), "{name}");
            let ready = schema_of(name).unwrap();
            assert_eq!(ready.check(info.sample.as_bytes()), Ok(()), "{name}");
            assert!(ready.check(b"[]").is_err(), "{name}");
            // A check of the largest data by default goes through.
            assert!(ready.steps(262_144) <= 64 * 1024 * 1024, "{name}: {ready:?}");
        }
    }

    #[test]
    fn the_fields_of_a_sample_are_those_of_its_schema() {
        for info in built_in() {
            let sample: Value = serde_json::from_str(&info.sample).unwrap();
            let schema: Value = serde_json::from_str(info.schema.as_deref().unwrap()).unwrap();
            for field in sample.as_object().unwrap().keys() {
                assert!(schema["properties"].get(field).is_some(), "{}: {field}", info.event_type);
            }
        }
    }

    #[test]
    fn samples_of_our_own_events_have_ids_of_ours() {
        let sample = &find("posthaste.delivery.dead_lettered").unwrap().sample;
        let sample: Value = serde_json::from_str(sample).unwrap();
        let text = |field: &str| sample[field].as_str().unwrap().to_owned();
        let delivery: DeliveryId = text("delivery_id").parse().unwrap();
        let event: EventId = text("event_id").parse().unwrap();
        let webhook: SubscriptionId = text("webhook_id").parse().unwrap();
        assert_eq!(delivery, DeliveryId { event: event.at, subscription: webhook, copy: 0 });
    }

    #[test]
    fn json_is_put_on_one_line_and_its_texts_are_left_alone() {
        let check = |json: &str, expected: &str| assert_eq!(on_one_line(json), expected);
        check("{\n  \"b\": [1, 2],\n  \"a\": \"x  y\"\n}", "{\"b\":[1,2],\"a\":\"x  y\"}");
        check(r#"{"a \" b": "c \\", "d": 1}"#, r#"{"a \" b":"c \\","d":1}"#);
        check(" null\t", "null");
    }
}

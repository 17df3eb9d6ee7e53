//! A dead letter as JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::raw;
use crate::{
    domain::{event::Event, outcome::Reason, time::rfc3339},
    manage::DeadItem,
    streams::{BadEntry, DeadLetter},
};

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

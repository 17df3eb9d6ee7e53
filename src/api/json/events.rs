//! An event as JSON.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::raw;
use crate::domain::{event::Event, time::rfc3339};

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

//! A type of events, as JSON.

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::domain::catalog::EventTypeInfo;

/// A type of events.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventType)]
pub struct EventTypeJson {
    #[serde(rename = "type")]
    pub event_type: String,
    pub category: String,
    pub description: String,
    /// The data of an event of this type.
    #[schema(value_type = serde_json::Value)]
    pub sample: Option<Box<RawValue>>,
    /// A JSON Schema (2020-12) for the data of an event of this type; absent where any data fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub schema: Option<Box<RawValue>>,
}

impl EventTypeJson {
    pub fn of(info: &EventTypeInfo) -> Self {
        Self {
            event_type: info.event_type.clone(),
            category: info.category.clone(),
            description: info.description.clone(),
            sample: super::raw(info.sample.as_bytes()),
            schema: info.schema.as_ref().and_then(|schema| super::raw(schema.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_shown_as_it_was_written_and_without_a_schema_has_no_such_field() {
        let mut info = EventTypeInfo {
            event_type: "order.paid".to_owned(),
            category: "order".to_owned(),
            description: "An order was paid.".to_owned(),
            sample: "{\"b\":1.0,\"a\":2}".to_owned(),
            schema: Some("{\"type\":\"object\"}".to_owned()),
        };
        let head =
            r#"{"type":"order.paid","category":"order","description":"An order was paid.","sample":{"b":1.0,"a":2}"#;
        let json = |info: &EventTypeInfo| serde_json::to_string(&EventTypeJson::of(info)).unwrap();
        assert_eq!(json(&info), format!(r#"{head},"schema":{{"type":"object"}}}}"#));
        info.schema = None;
        assert_eq!(json(&info), format!("{head}}}"));
    }
}

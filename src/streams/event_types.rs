//! The types of events that tenants have added to the catalogue.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Streams, entry::unreadable, error::Result, scripts};
use crate::domain::catalog::EventTypeInfo;

/// Types that a tenant may add.
pub const TYPES_AT_MOST: usize = 1_000;
/// Bytes that the records of a tenant's types may have together: all are read to list them.
pub const TYPES_BYTES: usize = 4 * 1024 * 1024;

/// What became of a type that was to be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TypeAdded {
    Added,
    /// There is one of that name already, and it is another.
    Exists,
    /// The tenant has as many as it may have.
    Full,
}

/// A type as it is kept, below its name.
#[derive(Serialize, Deserialize)]
struct Record<'r> {
    category: String,
    description: String,
    #[serde(borrow)]
    sample: &'r RawValue,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    schema: Option<&'r RawValue>,
}

impl Streams {
    /// Adds a type to a tenant's own. The same once more changes nothing.
    pub async fn add_event_type(&self, tenant: &str, info: &EventTypeInfo) -> Result<TypeAdded> {
        let mut command = self.script(&scripts::ADD_TYPE, self.shard_of(tenant));
        command.arg(tenant).arg(&info.event_type).arg(write(info)?).arg(TYPES_AT_MOST).arg(TYPES_BYTES);
        let answer: String = self.0.connections.call(&scripts::ADD_TYPE, &command).await?;
        match answer.as_str() {
            "added" => Ok(TypeAdded::Added),
            "there" => Ok(TypeAdded::Exists),
            "full" => Ok(TypeAdded::Full),
            _ => Err(unreadable("an answer about an event type")),
        }
    }

    /// Removes a type from a tenant's own; `false` where it is none of them.
    pub async fn remove_event_type(&self, tenant: &str, event_type: &str) -> Result<bool> {
        self.0.connections.run(redis::cmd("HDEL").arg(self.types_key(tenant)).arg(event_type)).await
    }

    /// Removes all types of a tenant's own.
    pub async fn remove_event_types(&self, tenant: &str) -> Result<()> {
        self.0.connections.run(redis::cmd("UNLINK").arg(self.types_key(tenant))).await
    }

    /// A tenant's own types, in no order.
    pub async fn event_types(&self, tenant: &str) -> Result<Vec<EventTypeInfo>> {
        let records: HashMap<String, String> =
            self.0.connections.run(redis::cmd("HGETALL").arg(self.types_key(tenant))).await?;
        records.iter().map(|(event_type, record)| read_event_type(event_type, record)).collect()
    }

    /// The record of one of a tenant's own types, for [`read_event_type`].
    pub async fn event_type_record(&self, tenant: &str, event_type: &str) -> Result<Option<String>> {
        self.0.connections.run(redis::cmd("HGET").arg(self.types_key(tenant)).arg(event_type)).await
    }

    fn types_key(&self, tenant: &str) -> String {
        self.keys().one(self.shard_of(tenant), "types", tenant)
    }
}

fn write(info: &EventTypeInfo) -> Result<String> {
    let read = |json| serde_json::from_str(json).map_err(|_| unreadable("an event type's sample or schema"));
    let record = Record {
        category: info.category.clone(),
        description: info.description.clone(),
        sample: read(&info.sample)?,
        schema: info.schema.as_deref().map(read).transpose()?,
    };
    serde_json::to_string(&record).map_err(|_| unreadable("an event type"))
}

/// Reads what is kept of a type.
///
/// # Errors
/// It is not what this program wrote.
pub fn read_event_type(event_type: &str, record: &str) -> Result<EventTypeInfo> {
    let record: Record<'_> =
        serde_json::from_str(record).map_err(|_| unreadable(&format!("the event type {event_type}")))?;
    Ok(EventTypeInfo {
        event_type: event_type.to_owned(),
        category: record.category,
        description: record.description,
        sample: record.sample.get().to_owned(),
        schema: record.schema.map(|schema| schema.get().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_as_it_was_written() {
        let mut info = EventTypeInfo {
            event_type: "order.paid".to_owned(),
            category: "order \"x\"".to_owned(),
            description: "An order was paid.".to_owned(),
            sample: "{\"b\":1.0,\"a\":[]}".to_owned(),
            schema: Some("{\"type\":\"object\"}".to_owned()),
        };
        for schema in [info.schema.clone(), None] {
            info.schema = schema;
            assert_eq!(read_event_type("order.paid", &write(&info).unwrap()).unwrap(), info);
        }
        assert!(read_event_type("order.paid", "{}").is_err());
    }
}

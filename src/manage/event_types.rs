//! The catalogue as a tenant sees it: the types that everybody knows, and its own.

use std::collections::BTreeMap;

use super::{ManageError, Manager, fields::check_text};
use crate::{
    domain::{
        Invalid,
        catalog::{self, EventTypeInfo, on_one_line},
        event::{OWN_TYPES, check_type},
        schema::Schema,
    },
    streams::{TYPES_AT_MOST, TYPES_BYTES, TypeAdded, read_event_type},
};

const CATEGORY_CHARS: usize = 64;
const DESCRIPTION_CHARS: usize = 500;
const SAMPLE_BYTES: usize = 64 * 1024;

/// A type of events that somebody asks to add.
#[derive(Debug, Clone, Default)]
pub struct NewEventType {
    pub event_type: String,
    pub category: String,
    pub description: String,
    /// An event's data, as JSON.
    pub sample: String,
    /// A JSON Schema (2020-12); without one any data fit.
    pub schema: Option<String>,
}

impl Manager {
    /// Adds a type to a tenant's own. The same once more is taken, and changes nothing.
    ///
    /// # Errors
    /// What is wrong with it; [`ManageError::AlreadyExists`], also for a type that everybody knows;
    /// [`ManageError::Conflict`] where the tenant has too many.
    pub async fn add_event_type(&self, tenant: &str, new: NewEventType) -> Result<EventTypeInfo, ManageError> {
        let info = check(new).await?;
        if catalog::find(&info.event_type).is_some() {
            return Err(ManageError::AlreadyExists("type of events"));
        }
        self.ensure_tenant(tenant).await?;
        match self.streams.add_event_type(tenant, &info).await? {
            TypeAdded::Added => Ok(info),
            TypeAdded::Exists => Err(ManageError::AlreadyExists("type of events")),
            TypeAdded::Full => Err(ManageError::Conflict(format!(
                "tenant {tenant} has as many event types as it may have ({TYPES_AT_MOST}, and {} MiB of samples and \
                 schemas): remove some first",
                TYPES_BYTES / 1024 / 1024
            ))),
        }
    }

    /// Removes a type from a tenant's own.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for a type that everybody knows.
    pub async fn remove_event_type(&self, tenant: &str, event_type: &str) -> Result<(), ManageError> {
        let was_there = self.streams.remove_event_type(tenant, event_type).await?;
        if was_there { Ok(()) } else { Err(ManageError::NotFound("type among the tenant's own")) }
    }

    /// Every type there is for a tenant, in their order; its own stands in the place of one of the same name.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn event_types(&self, tenant: &str) -> Result<Vec<EventTypeInfo>, ManageError> {
        let own = self.streams.event_types(tenant).await?;
        let all = catalog::built_in().cloned().chain(own);
        let by_name: BTreeMap<String, EventTypeInfo> = all.map(|info| (info.event_type.clone(), info)).collect();
        Ok(by_name.into_values().collect())
    }

    /// One type, as [`Self::event_types`] has it.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn event_type(&self, tenant: &str, event_type: &str) -> Result<Option<EventTypeInfo>, ManageError> {
        match self.streams.event_type_record(tenant, event_type).await? {
            Some(record) => Ok(Some(read_event_type(event_type, &record)?)),
            None => Ok(catalog::find(event_type).cloned()),
        }
    }
}

async fn check(new: NewEventType) -> Result<EventTypeInfo, ManageError> {
    check_type("type", &new.event_type)?;
    if new.event_type.starts_with(OWN_TYPES) {
        return Err(Invalid::new("type", format!("types that start with `{OWN_TYPES}` are the engine's own")).into());
    }
    for (field, text, most) in
        [("category", &new.category, CATEGORY_CHARS), ("description", &new.description, DESCRIPTION_CHARS)]
    {
        if text.trim().is_empty() {
            return Err(Invalid::new(field, "is needed").into());
        }
        check_text(field, text, most)?;
    }
    if new.sample.len() > SAMPLE_BYTES {
        let size = new.sample.len();
        return Err(Invalid::new("sample", format!("{size} bytes; at most {SAMPLE_BYTES} are allowed")).into());
    }
    // A strange schema may take a while, and others wait for this thread.
    let checked = tokio::task::spawn_blocking(move || check_sample(&new.sample, new.schema.as_deref()).map(|()| new));
    let new = checked.await.unwrap_or_else(|_| Err(Invalid::new("schema", "cannot be used")))?;
    Ok(EventTypeInfo {
        event_type: new.event_type,
        category: new.category,
        description: new.description,
        sample: on_one_line(&new.sample),
        schema: new.schema.as_deref().map(on_one_line),
    })
}

fn check_sample(sample: &str, schema: Option<&str>) -> Result<(), Invalid> {
    let schema = schema.map(Schema::parse).transpose().map_err(|problem| Invalid::new("schema", problem))?;
    let is_json = serde_json::from_str::<serde::de::IgnoredAny>(sample).map(drop);
    is_json.map_err(|error| Invalid::new("sample", format!("not JSON: {error}")))?;
    let fits = schema.map_or(Ok(()), |schema| schema.check(sample.as_bytes()));
    fits.map_err(|problem| Invalid::new("sample", format!("does not fit the schema: {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order_paid() -> NewEventType {
        NewEventType {
            event_type: "order.paid".to_owned(),
            category: "order".to_owned(),
            description: "An order was paid.".to_owned(),
            sample: "{ \"id\": 17 }".to_owned(),
            schema: Some("{ \"required\": [\"id\"] }".to_owned()),
        }
    }

    #[tokio::test]
    async fn a_good_type_is_kept_on_one_line_each() {
        let info = check(order_paid()).await.unwrap();
        assert_eq!((info.sample.as_str(), info.schema.as_deref()), ("{\"id\":17}", Some("{\"required\":[\"id\"]}")));
        let plain = NewEventType { schema: None, sample: "1".to_owned(), ..order_paid() };
        assert_eq!(check(plain).await.unwrap().schema, None);
    }

    #[tokio::test]
    async fn what_is_not_allowed_is_refused_by_its_public_name() {
        let check = async |change: fn(&mut NewEventType), expected: &str| {
            let mut new = order_paid();
            change(&mut new);
            let refused = check(new).await.unwrap_err().to_string();
            assert!(refused.starts_with(expected), "{refused}");
        };
        check(|new| new.event_type = "order..paid".into(), "type: ").await;
        check(|new| new.event_type = "posthaste.order".into(), "type: ").await;
        check(|new| new.category = " ".into(), "category: is needed").await;
        check(|new| new.category = "x".repeat(65), "category: ").await;
        check(|new| new.description = String::new(), "description: is needed").await;
        check(|new| new.description = "é".repeat(501), "description: ").await;
        check(|new| new.description = "a\nb".into(), "description: ").await;
        check(|new| new.sample = "{".into(), "sample: not JSON").await;
        check(|new| new.sample = "{}".into(), "sample: does not fit the schema: \"id\"").await;
        check(|new| new.sample = " ".repeat(65_537), "sample: 65537 bytes").await;
        check(|new| new.schema = Some("{".into()), "schema: not JSON").await;
        check(|new| new.schema = Some("{\"type\": 1}".into()), "schema: at /type").await;
        check(|new| new.schema = Some("{\"$ref\": \"https://example.com\"}".into()), "schema: $ref").await;
    }
}

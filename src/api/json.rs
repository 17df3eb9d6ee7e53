//! What the API answers, as JSON; the command line's `--json` prints the same. The names are those of docs/openapi.json.

mod attempts;
mod dead_letters;
mod deliveries;
mod event_types;
mod events;
mod replays;
mod stats;
mod tenants;
mod webhooks;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

pub use attempts::{AttemptDetailJson, AttemptJson, TestResultJson, TimingsJson};
pub use dead_letters::DeadLetterJson;
pub use deliveries::{DeliveryDetailJson, DeliveryJson, DeliverySummaryJson, StatusJson};
pub use event_types::EventTypeJson;
pub use events::EventJson;
pub use replays::{ReplayCountJson, ReplayJson};
pub use stats::{HourJson, WebhookStatsJson};
pub use tenants::{KeyJson, TenantJson};
pub use webhooks::{RetryJson, Webhook};

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Where the next page begins; null when this is the last. A page that had to look far may be short and still have one.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// With where the next one begins, if there is one.
    pub fn of(data: Vec<T>, next: Option<impl ToString>) -> Self {
        Self { data, next_cursor: next.map(|next| next.to_string()) }
    }

    /// All there is.
    pub fn whole(data: Vec<T>) -> Self {
        Self { data, next_cursor: None }
    }
}

/// Problem details (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemJson {
    /// Always `about:blank`: `code` says more.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The status in words.
    pub title: &'static str,
    pub status: u16,
    /// What went wrong; stable, for programs.
    pub code: &'static str,
    /// What went wrong and what to do, for people.
    pub detail: String,
    /// The field, parameter or header at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The thing that is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// JSON as it was published, byte for byte; `None` for what is none.
fn raw(data: &[u8]) -> Option<Box<RawValue>> {
    RawValue::from_string(std::str::from_utf8(data).ok()?.to_owned()).ok()
}

/// Headers by name; the values of one that came more than once stand in one, as HTTP allows.
fn headers(list: &[(String, String)]) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in list {
        headers
            .entry(name.clone())
            .and_modify(|before: &mut String| {
                before.push_str(", ");
                before.push_str(value);
            })
            .or_insert_with(|| value.clone());
    }
    headers
}

#[cfg(test)]
mod tests;

//! Deliveries as JSON: in short, in full, and where an event stands.

use serde::Serialize;
use utoipa::ToSchema;

use super::AttemptJson;
use crate::{
    domain::{delivery::DeliveryStatus, event::Event, time::rfc3339},
    manage::{DeliverySummary, DeliveryView, StatusView},
    streams::Progress,
};

/// A delivery in a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliverySummary)]
pub struct DeliverySummaryJson {
    pub id: String,
    /// Null where neither the event nor an attempt is kept any more.
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub webhook_id: String,
    /// `pending`, `delivered`, `failed` (it is tried again), `dead` or `cancelled`.
    pub status: &'static str,
    pub attempts: u32,
    pub last_status: Option<u16>,
    /// Null where it does not wait for one, or its webhook is not active.
    pub next_attempt_at: Option<String>,
    pub is_under_way: bool,
    /// When it was last tried; if it never was, when it was queued or given up.
    pub last_activity_at: String,
}

/// A delivery with what was tried.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DeliveryDetail)]
pub struct DeliveryDetailJson {
    pub id: String,
    /// Null where neither the event nor an attempt is kept any more.
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    pub webhook_id: String,
    /// `pending`, `delivered`, `failed` (it is tried again), `dead` or `cancelled`.
    pub status: &'static str,
    pub attempts: u32,
    pub last_status: Option<u16>,
    /// Null where it does not wait for one, or its webhook is not active.
    pub next_attempt_at: Option<String>,
    pub is_under_way: bool,
    /// Those of the last 20 that are still kept, newest last.
    pub attempt_log: Vec<AttemptJson>,
}

/// Where an event or a delivery stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Status)]
pub struct StatusJson {
    /// What was asked for.
    pub id: String,
    pub event_id: Option<String>,
    pub event_type: Option<String>,
    /// Of an event `failed` where any delivery is tried again, else `pending` where any is still to be tried, else `dead`
    /// where any is, else `delivered`, also when no webhook wanted it.
    pub status: &'static str,
    /// The first 100.
    pub deliveries: Vec<DeliveryDetailJson>,
    pub total_deliveries: u64,
}

fn next_attempt(progress: &Progress) -> Option<String> {
    progress.next_attempt_at_ms.map(rfc3339)
}

impl DeliverySummaryJson {
    pub fn of(delivery: &DeliverySummary) -> Self {
        let DeliverySummary { status, event, progress, last_activity_ms } = delivery;
        Self {
            id: status.id.to_string(),
            event_id: event.as_ref().map(|(id, _)| id.to_string()),
            event_type: event.as_ref().map(|(_, event_type)| event_type.clone()),
            webhook_id: status.id.subscription.to_string(),
            status: status.standing().name(),
            attempts: status.attempts,
            last_status: status.last_status,
            next_attempt_at: next_attempt(progress),
            is_under_way: progress.is_under_way,
            last_activity_at: rfc3339(*last_activity_ms),
        }
    }
}

impl DeliveryDetailJson {
    pub fn of(delivery: &DeliveryView) -> Self {
        let DeliveryStatus { id, attempts, last_status, .. } = &delivery.status;
        Self {
            id: id.to_string(),
            event_id: delivery.event_id().map(|event| event.to_string()),
            event_type: delivery.event_type().map(str::to_owned),
            webhook_id: id.subscription.to_string(),
            status: delivery.status.standing().name(),
            attempts: *attempts,
            last_status: *last_status,
            next_attempt_at: next_attempt(&delivery.progress),
            is_under_way: delivery.progress.is_under_way,
            attempt_log: delivery.attempts.iter().map(|(id, attempt)| AttemptJson::of(*id, attempt)).collect(),
        }
    }
}

impl StatusJson {
    /// `id` is what was asked for.
    pub fn of(id: &str, status: &StatusView) -> Self {
        Self {
            id: id.to_owned(),
            event_id: status.event_id.map(|event| event.to_string()),
            event_type: status.event_type.clone(),
            status: status.standing.name(),
            deliveries: status.deliveries.iter().map(DeliveryDetailJson::of).collect(),
            total_deliveries: status.total,
        }
    }
}

/// A delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryJson {
    pub id: String,
    pub event_id: String,
    pub webhook_id: String,
    /// `pending`, `delivered`, `failed` (it is tried again), `dead` or `cancelled`.
    pub status: &'static str,
    pub attempts: u32,
    pub last_status: Option<u16>,
}

impl DeliveryJson {
    pub fn of(event: &Event, delivery: &DeliveryStatus) -> Self {
        Self {
            id: delivery.id.to_string(),
            event_id: event.id.to_string(),
            webhook_id: delivery.id.subscription.to_string(),
            status: delivery.standing().name(),
            attempts: delivery.attempts,
            last_status: delivery.last_status,
        }
    }
}

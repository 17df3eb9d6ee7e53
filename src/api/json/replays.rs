//! Replays as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::time::rfc3339,
    streams::{Job, JobState},
};

/// A replay, which goes on by itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replay)]
pub struct ReplayJson {
    pub id: String,
    pub webhook_id: String,
    /// `running`, `done`, or `cancelled` when the webhook was deleted.
    pub state: &'static str,
    pub from: String,
    pub until: String,
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    pub rate: Option<u32>,
    /// Deliveries queued so far.
    pub queued: u64,
}

/// How many were sent once more, or would be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayCount)]
pub struct ReplayCountJson {
    pub count: u64,
    pub dry_run: bool,
    /// There was no time for all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub has_more: bool,
}

impl ReplayJson {
    pub fn of(job: &Job) -> Self {
        Self {
            id: job.id.clone(),
            webhook_id: job.subscription.to_string(),
            state: JobState::name(job.state),
            from: rfc3339(job.from.ms),
            until: rfc3339(job.until.ms),
            event_type: job.pattern.clone(),
            rate: job.rate,
            queued: job.queued,
        }
    }
}

impl ReplayCountJson {
    /// All of them.
    pub fn whole(count: u64, dry_run: bool) -> Self {
        Self { count, dry_run, has_more: false }
    }
}

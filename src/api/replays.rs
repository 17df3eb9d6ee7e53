//! `/api/v1/webhooks/{webhook_id}/replay`: a range of the log, put to a webhook once more.

use std::time::Duration;

use axum::{
    Json as Answer,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    auth::Tenant,
    error::Problem,
    extract::{Id, Json, NewId},
    input::RangeReplayBody,
    params::moment,
};
use crate::{
    domain::time::rfc3339,
    manage::{NewReplay, check_rate, now_ms},
    streams::{Job, JobState},
};

/// How long one request may count.
const COUNT_WITHIN: Duration = Duration::from_secs(20);

/// A replay, which goes on by itself.
#[derive(Serialize, ToSchema)]
#[schema(as = Replay)]
pub(super) struct ReplayJson {
    id: String,
    webhook_id: String,
    /// `running`, `done`, or `cancelled` when the webhook was deleted.
    state: &'static str,
    from: String,
    until: String,
    #[serde(rename = "type")]
    event_type: Option<String>,
    rate: Option<u32>,
    /// Deliveries queued so far.
    queued: u64,
}

/// How many events a replay would put to the webhook.
#[derive(Serialize, ToSchema)]
pub(super) struct ReplayCount {
    count: u64,
    dry_run: bool,
    /// There was no time for all: there are at least as many.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    has_more: bool,
}

impl ReplayJson {
    fn of(job: &Job) -> Self {
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

/// Put a range of the event log to a webhook once more
///
/// For a new webhook it is the backfill. Only events that the webhook's own filters want are put to it.
#[utoipa::path(
    post, operation_id = "replay_events", path = "/api/v1/webhooks/{webhook_id}/replay", tag = "Webhooks", params(("webhook_id" = String, Path)),
    request_body = RangeReplayBody,
    responses(
        (status = 202, description = "It goes on by itself", body = ReplayJson),
        (status = 200, description = "With `dry_run`: how many there are", body = ReplayCount),
    ),
)]
pub(super) async fn start(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    NewId(seed): NewId,
    Id(webhook): Id,
    Json(body): Json<RangeReplayBody>,
) -> Result<Response, Problem> {
    let from = body.from.ok_or_else(|| Problem::invalid("from", "is required"))?;
    let from_ms = moment("from", &from)?;
    let until_ms = body.until.map_or_else(|| Ok(now_ms()), |until| moment("until", &until))?;
    let rate = check_rate(body.rate)?;
    if body.dry_run {
        let pattern = body.event_type.as_deref();
        let mut count = 0;
        let counting = api.manager.count_replay(&tenant, &webhook, from_ms, until_ms, pattern, |so_far| count = so_far);
        let answer = match tokio::time::timeout(COUNT_WITHIN, counting).await {
            Ok(count) => ReplayCount { count: count?, dry_run: true, has_more: false },
            Err(_) => ReplayCount { count, dry_run: true, has_more: true },
        };
        return Ok(Answer(answer).into_response());
    }
    let asked = NewReplay { from_ms, until_ms, pattern: body.event_type, rate, seed: Some(seed) };
    let job = api.manager.start_replay(&tenant, &webhook, &asked).await?;
    Ok((StatusCode::ACCEPTED, Answer(ReplayJson::of(&job))).into_response())
}

/// Show where a replay stands
///
/// Known until a day after its end.
#[utoipa::path(
    get, operation_id = "get_replay", path = "/api/v1/webhooks/{webhook_id}/replays/{replay_id}", tag = "Webhooks",
    params(("webhook_id" = String, Path), ("replay_id" = String, Path)),
    responses((status = 200, description = "The replay", body = ReplayJson)),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id((webhook, id)): Id<(String, String)>,
) -> Result<Answer<ReplayJson>, Problem> {
    Ok(Answer(ReplayJson::of(&api.manager.replay(&tenant, &webhook, &id).await?)))
}

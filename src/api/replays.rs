//! `/api/v1/webhooks/{webhook_id}/replay`: a range of the log, put to a webhook once more.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use axum::{
    Json as Answer,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;

use super::{
    Api,
    auth::Tenant,
    error::Problem,
    extract::{Id, Json, NewId},
    input::RangeReplayBody,
    json::{ReplayCountJson, ReplayJson},
    params::moment,
};
use crate::{
    clock::now_ms,
    domain::Invalid,
    manage::{ManageError, NewReplay, check_rate},
};

/// How long one request may count, or send dead letters: well below the time at which clients and proxies give up.
const COUNT_WITHIN: Duration = Duration::from_secs(20);

/// What `work` has counted after as long as a request may take; `so_far` is told meanwhile.
pub(super) async fn counted(
    dry_run: bool,
    so_far: &AtomicU64,
    work: impl Future<Output = Result<u64, ManageError>>,
) -> Result<ReplayCountJson, Problem> {
    match tokio::time::timeout(COUNT_WITHIN, work).await {
        Ok(count) => Ok(ReplayCountJson::whole(count?, dry_run)),
        Err(_) => Ok(ReplayCountJson { count: so_far.load(Relaxed), dry_run, has_more: true }),
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
        (status = 200, description = "With `dry_run`: how many there are", body = ReplayCountJson),
    ),
)]
pub(super) async fn start(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    NewId(seed): NewId,
    Id(webhook): Id,
    Json(body): Json<RangeReplayBody>,
) -> Result<Response, Problem> {
    let from = body.from.ok_or_else(|| Invalid::required("from"))?;
    let from_ms = moment("from", &from)?;
    let until_ms = body.until.map_or_else(|| Ok(now_ms()), |until| moment("until", &until))?;
    let rate = check_rate(body.rate)?;
    if body.dry_run {
        let (pattern, so_far) = (body.event_type.as_deref(), AtomicU64::new(0));
        let note = |count| so_far.store(count, Relaxed);
        let counting = api.manager.count_replay(&tenant, &webhook, from_ms, until_ms, pattern, note);
        return Ok(Answer(counted(true, &so_far, counting).await?).into_response());
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

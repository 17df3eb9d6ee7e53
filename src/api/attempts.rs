//! Attempts: those of a webhook, one in full, and one made now as a test.

use std::time::Duration;

use axum::{Json as Answer, extract::State};

use super::{
    Api,
    auth::Tenant,
    error::Problem,
    extract::{Id, OptionalJson},
    input::{self, TestBody},
    json::{AttemptDetailJson, AttemptJson, Page, TestResultJson, WebhookStatsJson},
    params::{AttemptParams, Params, StatsParams, place},
};
use crate::{streams::AttemptFilter, test_send::PING};

/// What statistics are of where nothing is said.
const WINDOW_UNSAID: Duration = Duration::from_secs(24 * 60 * 60);

/// List a webhook's attempts, newest first
///
/// Also of a deleted one, until they have aged.
#[utoipa::path(
    get, operation_id = "list_attempts", path = "/api/v1/webhooks/{webhook_id}/logs", tag = "Logs and statistics",
    params(("webhook_id" = String, Path), AttemptParams),
    responses((status = 200, description = "A page of attempts", body = Page<AttemptJson>)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
    Params(params): Params<AttemptParams>,
) -> Result<Answer<Page<AttemptJson>>, Problem> {
    let filter = AttemptFilter {
        is_success: params.status.map(|status| is_success(&status)).transpose()?,
        event_type: params.event_type,
        since_ms: params.since.map(|moment| moment.0),
        until_ms: params.until.map(|moment| moment.0),
    };
    let (limit, before) = (params.limit.0, place(params.cursor.as_deref())?);
    let page = match params.event_id {
        None => api.manager.attempts(&tenant, &id, &filter, before, limit).await?,
        Some(event) => api.manager.attempts_for_event(&tenant, &id, event.0, &filter, before, limit).await?,
    };
    let data = page.attempts.iter().map(|(id, attempt)| AttemptJson::of(*id, attempt)).collect();
    Ok(Answer(Page::of(data, page.before)))
}

/// Show an attempt, with its body and as a `curl` command
#[utoipa::path(
    get, operation_id = "get_attempt", path = "/api/v1/attempts/{attempt_id}", tag = "Logs and statistics",
    params(("attempt_id" = String, Path)),
    responses((status = 200, description = "The attempt", body = AttemptDetailJson)),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
) -> Result<Answer<AttemptDetailJson>, Problem> {
    let (id, attempt, event) = api.manager.attempt(&tenant, &id).await?;
    Ok(Answer(AttemptDetailJson::of(id, &attempt, event.as_ref())))
}

/// Show how a webhook does, in all and hour by hour
///
/// Attempts of the hour under way and those before it; the totals of deliveries are those of its life.
#[utoipa::path(
    get, operation_id = "get_webhook_stats", path = "/api/v1/webhooks/{webhook_id}/stats", tag = "Logs and statistics",
    params(("webhook_id" = String, Path), StatsParams),
    responses((status = 200, description = "Its statistics", body = WebhookStatsJson)),
)]
pub(super) async fn stats(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
    Params(params): Params<StatsParams>,
) -> Result<Answer<WebhookStatsJson>, Problem> {
    let window = params.window.map_or(WINDOW_UNSAID, |window| window.0);
    Ok(Answer(WebhookStatsJson::of(&api.manager.webhook_stats(&tenant, &id, window).await?)))
}

/// Send a test to a webhook now
///
/// Past its filters and its queue, signed as a real delivery. It is in the logs, marked as a test, and counts nowhere else.
/// Without `data`, the sample of the type is sent.
#[utoipa::path(
    post, operation_id = "test_webhook", path = "/api/v1/webhooks/{webhook_id}/test", tag = "Webhooks",
    params(("webhook_id" = String, Path)), request_body(content = Option<TestBody>, description = "Left out: a ping"),
    responses((status = 200, description = "What the endpoint did", body = TestResultJson)),
)]
pub(super) async fn test(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
    OptionalJson(body): OptionalJson<TestBody>,
) -> Result<Answer<TestResultJson>, Problem> {
    let event_type = body.event_type.as_deref().unwrap_or(PING);
    let data = body.data.map(|data| input::text(data).into());
    let _slot = api.test_slots.take()?;
    let (attempt_id, attempt) = api.tester.send(&tenant, &id, event_type, data).await?;
    Ok(Answer(TestResultJson::of(attempt_id, &attempt)))
}

fn is_success(status: &str) -> Result<bool, Problem> {
    match status {
        "success" => Ok(true),
        "failed" => Ok(false),
        _ => Err(Problem::invalid("status", "`success` or `failed` is allowed")),
    }
}

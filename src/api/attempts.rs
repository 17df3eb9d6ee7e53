//! `/api/v1/webhooks/{id}/logs`: the attempts of a webhook.

use axum::{Json as Answer, extract::State};

use super::{
    Api,
    auth::Tenant,
    error::Problem,
    extract::Id,
    json::{AttemptJson, Page},
    params::{AttemptParams, Params, place},
};
use crate::streams::AttemptFilter;

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
    Ok(Answer(Page {
        data: page.attempts.iter().map(|(id, attempt)| AttemptJson::of(*id, attempt)).collect(),
        next_cursor: page.before.map(|before| before.to_string()),
    }))
}

fn is_success(status: &str) -> Result<bool, Problem> {
    match status {
        "success" => Ok(true),
        "failed" => Ok(false),
        _ => Err(Problem::invalid("status", "`success` or `failed` is allowed")),
    }
}

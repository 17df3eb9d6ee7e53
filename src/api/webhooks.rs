//! `/api/v1/webhooks`.

use axum::{Json as Answer, extract::State};
use http::StatusCode;

use super::{
    Api,
    auth::Tenant,
    error::Problem,
    extract::{Id, Json, NewId, OptionalJson},
    input::{NewWebhookBody, ResumeBody, RotationBody, WebhookChangeBody},
    json::{Page, Webhook},
    params::{PageParams, Params},
};
use crate::manage::Rotation;

type One = Result<Answer<Webhook>, Problem>;

/// Create a webhook
///
/// Its secrets are in this answer only.
#[utoipa::path(
    post, operation_id = "create_webhook", path = "/api/v1/webhooks", tag = "Webhooks", request_body = NewWebhookBody,
    responses((status = 201, description = "The webhook, with its secrets", body = Webhook)),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    NewId(seed): NewId,
    Json(body): Json<NewWebhookBody>,
) -> Result<(StatusCode, Answer<Webhook>), Problem> {
    let created = api.manager.create_webhook(&tenant, body.into_new(seed)?).await?;
    Ok((StatusCode::CREATED, Answer(Webhook::of(&created, true))))
}

/// List webhooks, in the order of their creation
#[utoipa::path(
    get, operation_id = "list_webhooks", path = "/api/v1/webhooks", tag = "Webhooks", params(PageParams),
    responses((status = 200, description = "A page of webhooks", body = Page<Webhook>)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Params(page): Params<PageParams>,
) -> Result<Answer<Page<Webhook>>, Problem> {
    let (limit, after) = page.parts()?;
    let page = api.manager.webhooks(&tenant, after, limit).await?;
    Ok(Answer(Page::of(page.webhooks.iter().map(|webhook| Webhook::of(webhook, false)).collect(), page.next)))
}

/// Show a webhook
#[utoipa::path(
    get, operation_id = "get_webhook", path = "/api/v1/webhooks/{webhook_id}", tag = "Webhooks", params(("webhook_id" = String, Path)),
    responses((status = 200, description = "The webhook", body = Webhook)),
)]
pub(super) async fn show(State(api): State<Api>, Tenant(tenant): Tenant, Id(id): Id) -> One {
    let webhook = api.manager.webhook(&tenant, &id).await?;
    Ok(Answer(Webhook::of(&webhook, false)))
}

/// Change a webhook
///
/// What is absent is kept, null gives a field its default back.
#[utoipa::path(
    patch, operation_id = "update_webhook", path = "/api/v1/webhooks/{webhook_id}", tag = "Webhooks", params(("webhook_id" = String, Path)),
    request_body = WebhookChangeBody,
    responses((status = 200, description = "The webhook as it is now", body = Webhook)),
)]
pub(super) async fn update(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
    Json(body): Json<WebhookChangeBody>,
) -> One {
    let changed = api.manager.update_webhook(&tenant, &id, body.into_change()).await?;
    Ok(Answer(Webhook::of(&changed, false)))
}

/// Delete a webhook and what waits for it
///
/// Its attempts can be looked at until they have aged.
#[utoipa::path(
    delete, operation_id = "delete_webhook", path = "/api/v1/webhooks/{webhook_id}", tag = "Webhooks", params(("webhook_id" = String, Path)),
    responses((status = 204, description = "It is deleted")),
)]
pub(super) async fn delete(State(api): State<Api>, Tenant(tenant): Tenant, Id(id): Id) -> Result<StatusCode, Problem> {
    api.manager.delete_webhook(&tenant, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Pause a webhook
///
/// What is under way finishes; it goes on collecting, and sends when it is resumed.
#[utoipa::path(
    post, operation_id = "pause_webhook", path = "/api/v1/webhooks/{webhook_id}/pause", tag = "Webhooks", params(("webhook_id" = String, Path)),
    responses((status = 200, description = "The webhook", body = Webhook)),
)]
pub(super) async fn pause(State(api): State<Api>, Tenant(tenant): Tenant, Id(id): Id) -> One {
    let paused = api.manager.pause_webhook(&tenant, &id).await?;
    Ok(Answer(Webhook::of(&paused, false)))
}

/// Let a paused or disabled webhook go on
#[utoipa::path(
    post, operation_id = "resume_webhook", path = "/api/v1/webhooks/{webhook_id}/resume", tag = "Webhooks", params(("webhook_id" = String, Path)),
    request_body(content = Option<ResumeBody>, description = "May be left out"),
    responses((status = 200, description = "The webhook", body = Webhook)),
)]
pub(super) async fn resume(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
    OptionalJson(body): OptionalJson<ResumeBody>,
) -> One {
    let resumed = api.manager.resume_webhook(&tenant, &id, body.skip).await?;
    Ok(Answer(Webhook::of(&resumed, false)))
}

/// Give a webhook a new secret
///
/// Both sign for `overlap_seconds`; the new one is in this answer only.
#[utoipa::path(
    post, operation_id = "rotate_secret", path = "/api/v1/webhooks/{webhook_id}/rotate-secret", tag = "Webhooks", params(("webhook_id" = String, Path)),
    request_body(content = Option<RotationBody>, description = "May be left out"),
    responses((status = 200, description = "The webhook, with its secrets", body = Webhook)),
)]
pub(super) async fn rotate_secret(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
    OptionalJson(body): OptionalJson<RotationBody>,
) -> One {
    let RotationBody { secret, overlap_seconds, with_ingest } = body;
    let rotated = api.manager.rotate_secret(&tenant, &id, Rotation { secret, overlap_seconds, with_ingest }).await?;
    Ok(Answer(Webhook::of(&rotated, true)))
}

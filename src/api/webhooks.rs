//! `/api/v1/webhooks`.

use axum::{Json as Answer, extract::State};
use http::StatusCode;

use super::{
    Api,
    auth::Tenant,
    error::Problem,
    extract::{Id, Json, OptionalJson, Query},
    input::{NewWebhookBody, ResumeBody, WebhookChangeBody},
    json::{Page, Webhook},
};

type One = Result<Answer<Webhook>, Problem>;

pub(super) async fn create(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Json(body): Json<NewWebhookBody>,
) -> Result<(StatusCode, Answer<Webhook>), Problem> {
    let created = api.manager.create_webhook(&tenant, body.into_new()?).await?;
    Ok((StatusCode::CREATED, Answer(Webhook::of(&created, true))))
}

pub(super) async fn list(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    mut query: Query,
) -> Result<Answer<Page<Webhook>>, Problem> {
    let (limit, after) = (query.limit()?, query.cursor()?);
    query.finish()?;
    let mut webhooks = api.manager.webhooks(&tenant, after, limit + 1).await?;
    let is_more = webhooks.len() > limit;
    webhooks.truncate(limit);
    let next_cursor = webhooks.last().filter(|_| is_more).map(|last| last.subscription.id.to_string());
    Ok(Answer(Page { data: webhooks.iter().map(|webhook| Webhook::of(webhook, false)).collect(), next_cursor }))
}

pub(super) async fn show(State(api): State<Api>, Tenant(tenant): Tenant, Id(id): Id) -> One {
    let webhook = api.manager.webhook(&tenant, &id).await?;
    Ok(Answer(Webhook::of(&webhook, false)))
}

pub(super) async fn update(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
    Json(body): Json<WebhookChangeBody>,
) -> One {
    let changed = api.manager.update_webhook(&tenant, &id, body.into_change()).await?;
    Ok(Answer(Webhook::of(&changed, false)))
}

pub(super) async fn delete(State(api): State<Api>, Tenant(tenant): Tenant, Id(id): Id) -> Result<StatusCode, Problem> {
    api.manager.delete_webhook(&tenant, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn pause(State(api): State<Api>, Tenant(tenant): Tenant, Id(id): Id) -> One {
    let paused = api.manager.pause_webhook(&tenant, &id).await?;
    Ok(Answer(Webhook::of(&paused, false)))
}

pub(super) async fn resume(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
    OptionalJson(body): OptionalJson<ResumeBody>,
) -> One {
    let resumed = api.manager.resume_webhook(&tenant, &id, body.skip).await?;
    Ok(Answer(Webhook::of(&resumed, false)))
}

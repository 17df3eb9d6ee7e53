//! `/api/v1/webhooks/events`, the catalogue of event types, and `/api/v1/event-types`, a tenant's own.

use axum::{Json as Answer, extract::State};
use http::StatusCode;

use super::{
    Api,
    auth::Tenant,
    error::Problem,
    extract::{Id, Json},
    input::NewEventTypeBody,
    json::{EventTypeJson, Page},
    params::{EventTypeParams, PageParams, Params, page_of},
};
use crate::domain::Invalid;

/// List the event types there are: the catalogue, and the tenant's own
#[utoipa::path(
    get, operation_id = "list_event_types", path = "/api/v1/webhooks/events", tag = "Event types", params(PageParams),
    responses((status = 200, description = "A page of types, by name", body = Page<EventTypeJson>)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Params(page): Params<PageParams>,
) -> Result<Answer<Page<EventTypeJson>>, Problem> {
    let (limit, after) = page.parts::<String>()?;
    let types = api.manager.event_types(&tenant).await?;
    let (found, next) = page_of(types, limit, after, |info| info.event_type.clone());
    Ok(Answer(Page::of(found.iter().map(EventTypeJson::of).collect(), next)))
}

/// Add an event type of the tenant's own
#[utoipa::path(
    post, operation_id = "create_event_type", path = "/api/v1/event-types", tag = "Event types",
    request_body = NewEventTypeBody,
    responses((status = 201, description = "The type", body = EventTypeJson)),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Json(body): Json<NewEventTypeBody>,
) -> Result<(StatusCode, Answer<EventTypeJson>), Problem> {
    let info = api.manager.add_event_type(&tenant, body.into_new()?).await?;
    Ok((StatusCode::CREATED, Answer(EventTypeJson::of(&info))))
}

/// Remove an event type of the tenant's own, named by `?type=`
#[utoipa::path(
    delete, operation_id = "delete_event_type_by_query", path = "/api/v1/event-types", tag = "Event types",
    params(EventTypeParams),
    responses((status = 204, description = "It is removed")),
)]
pub(super) async fn delete_by_query(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Params(params): Params<EventTypeParams>,
) -> Result<StatusCode, Problem> {
    let event_type = params.event_type.ok_or_else(|| Invalid::required("type"))?;
    remove(&api, &tenant, &event_type).await
}

/// Remove an event type of the tenant's own
#[utoipa::path(
    delete, operation_id = "delete_event_type", path = "/api/v1/event-types/{event_type}", tag = "Event types",
    params(("event_type" = String, Path)),
    responses((status = 204, description = "It is removed")),
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(event_type): Id,
) -> Result<StatusCode, Problem> {
    remove(&api, &tenant, &event_type).await
}

async fn remove(api: &Api, tenant: &str, event_type: &str) -> Result<StatusCode, Problem> {
    api.manager.remove_event_type(tenant, event_type).await?;
    Ok(StatusCode::NO_CONTENT)
}

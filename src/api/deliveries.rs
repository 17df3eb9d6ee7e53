//! `/api/v1/deliveries`, and where an event or a webhook's deliveries stand.

use axum::{Json as Answer, extract::State};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    auth::Tenant,
    error::Problem,
    extract::Id,
    json::{DeliveryDetailJson, DeliverySummaryJson, Page, StatusJson},
    params::{PageParams, Params},
};
use crate::manage::ResentAs;

/// A delivery that is sent once more.
#[derive(Serialize, ToSchema)]
#[schema(as = Resent)]
pub(super) struct ResentJson {
    /// The delivery that is sent: the one asked for or, where that had ended, a new one.
    id: String,
    /// `already` (it was to be sent anyway), `hastened` (it does not wait for its retry any longer), `redriven` (it was a
    /// dead letter) or `copied` (it had ended).
    how: &'static str,
}

/// Show a delivery: where it stands, its attempts, and when the next is due
#[utoipa::path(
    get, operation_id = "get_delivery", path = "/api/v1/deliveries/{delivery_id}", tag = "Deliveries",
    params(("delivery_id" = String, Path)),
    responses((status = 200, description = "The delivery", body = DeliveryDetailJson)),
)]
pub(super) async fn show(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
) -> Result<Answer<DeliveryDetailJson>, Problem> {
    Ok(Answer(DeliveryDetailJson::of(&api.manager.delivery(&tenant, &id).await?)))
}

/// Send a delivery once more
///
/// At once if it waits for a retry, with new retries if it is a dead letter, as a new delivery if it had ended.
#[utoipa::path(
    post, operation_id = "resend_delivery", path = "/api/v1/deliveries/{delivery_id}/resend", tag = "Deliveries",
    params(("delivery_id" = String, Path)),
    responses((status = 202, description = "It is on its way", body = ResentJson)),
)]
pub(super) async fn resend(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
) -> Result<(StatusCode, Answer<ResentJson>), Problem> {
    let resent = api.manager.resend(&tenant, &id).await?;
    let how = match resent.what {
        ResentAs::Already => "already",
        ResentAs::Hastened => "hastened",
        ResentAs::Redriven => "redriven",
        ResentAs::Copied => "copied",
    };
    Ok((StatusCode::ACCEPTED, Answer(ResentJson { id: resent.delivery.to_string(), how })))
}

/// Show where an event or a delivery stands, with each attempt
#[utoipa::path(
    get, operation_id = "get_status", path = "/api/webhooks/{event_or_delivery_id}/status", tag = "Deliveries",
    params(("event_or_delivery_id" = String, Path, description = "`evt_…` or `dlv_…`")),
    responses((status = 200, description = "Where it stands", body = StatusJson)),
)]
pub(super) async fn status(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
) -> Result<Answer<StatusJson>, Problem> {
    Ok(Answer(StatusJson::of(&id, &api.manager.status(&tenant, &id).await?)))
}

/// List a webhook's deliveries, newest first
///
/// By their last activity. Also of a deleted webhook, until its attempts have aged.
#[utoipa::path(
    get, operation_id = "list_webhook_deliveries", path = "/api/webhooks/subscription/{webhook_id}", tag = "Deliveries",
    params(("webhook_id" = String, Path), PageParams),
    responses((status = 200, description = "A page of deliveries", body = Page<DeliverySummaryJson>)),
)]
pub(super) async fn of_webhook(
    State(api): State<Api>,
    Tenant(tenant): Tenant,
    Id(id): Id,
    Params(page): Params<PageParams>,
) -> Result<Answer<Page<DeliverySummaryJson>>, Problem> {
    let (limit, cursor) = page.parts()?;
    let page = api.manager.deliveries_of_webhook(&tenant, &id, cursor, limit).await?;
    Ok(Answer(Page::of(page.deliveries.iter().map(DeliverySummaryJson::of).collect(), page.next)))
}

//! `/api/v1/tenants` and `/api/v1/keys`: who there is, and what opens.

use axum::{Json as Answer, extract::State};
use http::StatusCode;

use super::{
    Api,
    auth::NamedTenant,
    error::Problem,
    extract::{Id, Json, NewId},
    input::{NewKeyBody, NewTenantBody},
    json::{KeyJson, Page, TenantJson},
    params::{PageParams, Params, page_of},
};
use crate::{
    domain::{Invalid, access::KeyRole, id::KeyId},
    streams::TenantLimits,
};

/// Create a tenant, or name one that came into being by itself
#[utoipa::path(
    post, operation_id = "create_tenant", path = "/api/v1/tenants", tag = "Tenants and keys", request_body = NewTenantBody,
    responses((status = 201, description = "The tenant", body = TenantJson)),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Json(body): Json<NewTenantBody>,
) -> Result<(StatusCode, Answer<TenantJson>), Problem> {
    let id = body.id.ok_or_else(|| Invalid::required("id"))?;
    let NewTenantBody { name, max_stored_mb, rate_limit_per_minute, .. } = body;
    let limits = TenantLimits { max_stored_mb, rate_limit_per_minute };
    let tenant = api.manager.create_tenant(&id, name.as_deref(), limits).await?;
    Ok((StatusCode::CREATED, Answer(TenantJson::of(&tenant))))
}

/// List tenants, in the order of their ids
#[utoipa::path(
    get, operation_id = "list_tenants", path = "/api/v1/tenants", tag = "Tenants and keys", params(PageParams),
    responses((status = 200, description = "A page of tenants", body = Page<TenantJson>)),
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(page): Params<PageParams>,
) -> Result<Answer<Page<TenantJson>>, Problem> {
    let (limit, after) = page.parts::<String>()?;
    let tenants = api.manager.tenants().await?;
    let (found, next) = page_of(tenants, limit, after, |tenant| tenant.id.clone());
    Ok(Answer(Page::of(found.iter().map(TenantJson::of).collect(), next)))
}

/// Delete a tenant that has no webhooks any more
///
/// Its keys are taken back. Its events and attempts stay until they have aged.
#[utoipa::path(
    delete, operation_id = "delete_tenant", path = "/api/v1/tenants/{tenant_id}", tag = "Tenants and keys", params(("tenant_id" = String, Path)),
    responses((status = 204, description = "It is deleted")),
)]
pub(super) async fn delete(State(api): State<Api>, Id(id): Id) -> Result<StatusCode, Problem> {
    api.manager.delete_tenant(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Create an API key
///
/// The key is in this answer only.
#[utoipa::path(
    post, operation_id = "create_key", path = "/api/v1/keys", tag = "Tenants and keys", request_body = NewKeyBody,
    responses((status = 201, description = "The key", body = KeyJson)),
)]
pub(super) async fn create_key(
    State(api): State<Api>,
    NewId(seed): NewId,
    Json(body): Json<NewKeyBody>,
) -> Result<(StatusCode, Answer<KeyJson>), Problem> {
    let role = body.role.ok_or_else(|| Invalid::required("role"))?;
    let role = KeyRole::of_name(&role)
        .ok_or_else(|| Invalid::new("role", "`admin`, `tenant`, `publish` or `read` is allowed"))?;
    let (key, text) = api.manager.create_key(role, body.tenant.as_deref(), seed).await?;
    Ok((StatusCode::CREATED, Answer(KeyJson::of(&key, Some(text)))))
}

/// List API keys, in the order of their creation
///
/// With `X-Tenant` or `?tenant=` those of that tenant, else all.
#[utoipa::path(
    get, operation_id = "list_keys", path = "/api/v1/keys", tag = "Tenants and keys",
    params(
        PageParams,
        ("X-Tenant" = Option<String>, Header, description = "Only keys of this tenant; also `?tenant=`"),
    ),
    responses((status = 200, description = "A page of keys", body = Page<KeyJson>)),
)]
pub(super) async fn list_keys(
    State(api): State<Api>,
    NamedTenant(tenant): NamedTenant,
    Params(page): Params<PageParams>,
) -> Result<Answer<Page<KeyJson>>, Problem> {
    let (limit, after) = page.parts::<KeyId>()?;
    let keys = api.manager.keys(tenant.as_deref()).await?;
    let (found, next) = page_of(keys, limit, after, |key| key.id);
    Ok(Answer(Page::of(found.iter().map(|key| KeyJson::of(key, None)).collect(), next)))
}

/// Revoke an API key, everywhere and at once
#[utoipa::path(
    delete, operation_id = "revoke_key", path = "/api/v1/keys/{key_id}", tag = "Tenants and keys", params(("key_id" = String, Path)),
    responses((status = 204, description = "It opens nothing any more")),
)]
pub(super) async fn revoke_key(State(api): State<Api>, Id(id): Id) -> Result<StatusCode, Problem> {
    api.manager.revoke_key(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}

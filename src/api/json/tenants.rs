//! Tenants and API keys as JSON.

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::time::rfc3339,
    streams::{ApiKey, Tenant},
};

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenant)]
pub struct TenantJson {
    pub id: String,
    pub name: String,
    /// Megabytes of events that it may be owed; null is no limit.
    pub max_stored_mb: Option<u64>,
    /// Requests a minute of each of its API keys, where that is less than `api.rate_limit_per_minute`.
    pub rate_limit_per_minute: Option<u32>,
    pub created_at: String,
}

impl TenantJson {
    pub fn of(tenant: &Tenant) -> Self {
        Self {
            id: tenant.id.clone(),
            name: tenant.name.clone(),
            max_stored_mb: tenant.limits.max_stored_mb,
            rate_limit_per_minute: tenant.limits.rate_limit_per_minute,
            created_at: rfc3339(tenant.created_at_ms),
        }
    }
}

/// An API key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub struct KeyJson {
    pub id: String,
    /// `admin`, `tenant`, `publish` or `read`.
    pub role: &'static str,
    /// Null for a key that is for all tenants.
    pub tenant: Option<String>,
    pub created_at: String,
    /// The key itself, in the answer to its creation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl KeyJson {
    /// With its text only where it was just made.
    pub fn of(key: &ApiKey, text: Option<String>) -> Self {
        Self {
            id: key.id.to_string(),
            role: key.role.name(),
            tenant: key.tenant.clone(),
            created_at: rfc3339(key.created_at_ms),
            key: text,
        }
    }
}

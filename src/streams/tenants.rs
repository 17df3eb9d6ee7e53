//! Tenants, and what each may use.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Streams, error::Result, scripts};

const BYTES_A_MB: u64 = 1_000_000;

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    pub id: String,
    pub name: String,
    pub created_at_ms: u64,
    /// Somebody created it; otherwise it came into being when it was first named, and whoever creates it names it.
    pub is_named: bool,
    pub limits: TenantLimits,
}

/// What a tenant may use; `None` is no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantLimits {
    /// Megabytes of events that are still owed to its webhooks.
    pub max_stored_mb: Option<u64>,
    /// Requests of each of its API keys in a minute.
    pub rate_limit_per_minute: Option<u32>,
}

/// A tenant's record. What is as usual is left out, so that a record read and written again is the same text.
#[derive(Serialize, Deserialize)]
struct TenantRecord {
    name: String,
    created_at_ms: u64,
    /// Nobody has named it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    auto: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_stored_mb: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_limit_per_minute: Option<u32>,
}

impl Tenant {
    /// One that comes into being because something named it.
    pub fn unnamed(id: &str, created_at_ms: u64) -> Self {
        Self { id: id.to_owned(), name: id.to_owned(), created_at_ms, is_named: false, limits: TenantLimits::default() }
    }

    fn read(id: String, record: &str) -> Self {
        // A record that is none is still a tenant's: it must not stop everything of it.
        let Ok(record) = serde_json::from_str::<TenantRecord>(record) else { return Self::unnamed(&id, 0) };
        Self {
            id,
            name: record.name,
            created_at_ms: record.created_at_ms,
            is_named: !record.auto,
            limits: TenantLimits {
                max_stored_mb: record.max_stored_mb,
                rate_limit_per_minute: record.rate_limit_per_minute,
            },
        }
    }

    fn record(&self) -> String {
        let record = TenantRecord {
            name: self.name.clone(),
            created_at_ms: self.created_at_ms,
            auto: !self.is_named,
            max_stored_mb: self.limits.max_stored_mb,
            rate_limit_per_minute: self.limits.rate_limit_per_minute,
        };
        serde_json::to_string(&record).expect("text and numbers can always be written as JSON")
    }
}

impl Streams {
    /// Brings a tenant into being where there is none; `false` where there is one.
    pub async fn create_tenant(&self, tenant: &Tenant) -> Result<bool> {
        let mut command = redis::cmd("HSETNX");
        self.0.connections.run(command.arg(self.keys().global("tenants")).arg(&tenant.id).arg(tenant.record())).await
    }

    /// Writes a tenant that still is as `before` (`None`: not there), and then its limits where they are kept to; `false`
    /// where it is not.
    pub async fn set_tenant(&self, before: Option<&Tenant>, tenant: &Tenant) -> Result<bool> {
        let mut command = scripts::SET_TENANT.on(&self.keys().global("tenants"));
        command.arg("").arg(&tenant.id).arg(tenant.record()).arg(before.map(Tenant::record).unwrap_or_default());
        let is_set: bool = self.0.connections.call(&scripts::SET_TENANT, &command).await?;
        if is_set {
            self.limit_tenant(&tenant.id).await?;
        }
        Ok(is_set)
    }

    /// Puts what a tenant may have stored where publishing looks for it, until that is what its record says: somebody may
    /// change it meanwhile.
    pub async fn limit_tenant(&self, id: &str) -> Result<()> {
        let mut kept = None;
        loop {
            let limit_mb = self.tenant(id).await?.and_then(|tenant| tenant.limits.max_stored_mb);
            if kept == Some(limit_mb) {
                return Ok(());
            }
            self.limit_stored(id, limit_mb.unwrap_or(0).saturating_mul(BYTES_A_MB)).await?;
            kept = Some(limit_mb);
        }
    }

    async fn limit_stored(&self, id: &str, bytes: u64) -> Result<()> {
        let mut command = self.script(&scripts::LIMIT_TENANT, self.shard_of(id));
        self.0.connections.call(&scripts::LIMIT_TENANT, command.arg(id).arg(bytes)).await
    }

    /// Every tenant, in the order of their ids.
    pub async fn tenants(&self) -> Result<Vec<Tenant>> {
        let records: HashMap<String, String> =
            self.0.connections.run(redis::cmd("HGETALL").arg(self.keys().global("tenants"))).await?;
        let mut tenants: Vec<Tenant> = records.into_iter().map(|(id, record)| Tenant::read(id, &record)).collect();
        tenants.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(tenants)
    }

    /// One tenant.
    pub async fn tenant(&self, id: &str) -> Result<Option<Tenant>> {
        let record: Option<String> =
            self.0.connections.run(redis::cmd("HGET").arg(self.keys().global("tenants")).arg(id)).await?;
        Ok(record.map(|record| Tenant::read(id.to_owned(), &record)))
    }

    /// Forgets a tenant and its limits; `false` where there was none.
    pub async fn delete_tenant(&self, id: &str) -> Result<bool> {
        // Before it goes, so that none is left behind without a record; and once more, for one that came in between.
        self.limit_stored(id, 0).await?;
        let was_there = self.0.connections.run(redis::cmd("HDEL").arg(self.keys().global("tenants")).arg(id)).await?;
        self.limit_tenant(id).await?;
        Ok(was_there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_read_and_written_again_is_the_same_text() {
        for record in [
            r#"{"name":"Acme","created_at_ms":5}"#,
            r#"{"name":"acme","created_at_ms":5,"auto":true}"#,
            r#"{"name":"Acme","created_at_ms":5,"max_stored_mb":7,"rate_limit_per_minute":60}"#,
        ] {
            assert_eq!(Tenant::read("acme".to_owned(), record).record(), record);
        }
        assert_eq!(Tenant::read("acme".to_owned(), "?"), Tenant::unnamed("acme", 0));
    }
}

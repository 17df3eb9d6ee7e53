//! Tenants: whose events and webhooks are kept apart.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use super::{
    LOST_RACES_AT_MOST, ManageError, Manager,
    fields::{check_name, within},
};
use crate::{
    clock::now_ms,
    domain::{Invalid, event::check_tenant},
    streams::{Tenant, TenantLimits},
};

/// How long a tenant is taken to be there without asking again.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// Tenants remembered; above, all are forgotten.
const KNOWN_AT_MOST: usize = 10_000;

const MAX_STORED_MB: RangeInclusive<u64> = 1..=1_000_000_000;
const RATE_LIMIT_PER_MINUTE: RangeInclusive<u32> = 1..=1_000_000;

impl Manager {
    /// Brings a tenant into being; without a name it is called as its id. One that came into being by itself is given its
    /// name and limits.
    ///
    /// # Errors
    /// [`ManageError::AlreadyExists`], or what is wrong with the id, the name or a limit.
    pub async fn create_tenant(
        &self,
        id: &str,
        name: Option<&str>,
        limits: TenantLimits,
    ) -> Result<Tenant, ManageError> {
        check_tenant(id)?;
        check_name(name.unwrap_or_default())?;
        check_limits(limits)?;
        let new = Tenant {
            id: id.to_owned(),
            name: name.unwrap_or(id).to_owned(),
            created_at_ms: now_ms(),
            is_named: true,
            limits,
        };
        for _ in 0..LOST_RACES_AT_MOST {
            let before = self.streams.tenant(id).await?;
            if let Some(there) = before.as_ref().filter(|there| there.is_named) {
                // Whoever created it may have been cut off before its limits were where they are kept to.
                self.streams.limit_tenant(&there.id).await?;
                return Err(ManageError::AlreadyExists("tenant"));
            }
            let created_at_ms = before.as_ref().map_or(new.created_at_ms, |before| before.created_at_ms);
            let tenant = Tenant { created_at_ms, ..new.clone() };
            if self.streams.set_tenant(before.as_ref(), &tenant).await? {
                return Ok(tenant);
            }
        }
        Err(ManageError::changed_by_others(format_args!("tenant {id}")))
    }

    /// Gives a tenant other limits, in place of those that it had.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], or what is wrong with a limit.
    pub async fn set_tenant_limits(&self, id: &str, limits: TenantLimits) -> Result<Tenant, ManageError> {
        check_limits(limits)?;
        for _ in 0..LOST_RACES_AT_MOST {
            let before = self.tenant(id).await?;
            let tenant = Tenant { limits, ..before.clone() };
            if self.streams.set_tenant(Some(&before), &tenant).await? {
                return Ok(tenant);
            }
        }
        Err(ManageError::changed_by_others(format_args!("tenant {id}")))
    }

    /// One tenant.
    ///
    /// # Errors
    /// [`ManageError::NotFound`].
    pub async fn tenant(&self, id: &str) -> Result<Tenant, ManageError> {
        self.streams.tenant(id).await?.ok_or(ManageError::NotFound("tenant"))
    }

    /// Every tenant, in the order of their ids.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, ManageError> {
        Ok(self.streams.tenants().await?)
    }

    /// Forgets a tenant that has no webhooks any more, takes its keys back, and forgets its own types of events. Its events
    /// and attempts stay until they have aged.
    ///
    /// # Errors
    /// [`ManageError::Conflict`] while it has webhooks, [`ManageError::NotFound`].
    pub async fn delete_tenant(&self, id: &str) -> Result<(), ManageError> {
        check_tenant(id)?;
        if !self.streams.subscription_ids(id, None, 1).await?.is_empty() {
            return Err(ManageError::Conflict(format!("tenant {id} still has webhooks: delete them first")));
        }
        // First: a key of a tenant that is gone would bring it back.
        for key in self.keys(Some(id)).await? {
            self.streams.delete_key(key.id).await?;
        }
        self.streams.remove_event_types(id).await?;
        let was_there = self.streams.delete_tenant(id).await?;
        self.known().remove(id);
        if was_there { Ok(()) } else { Err(ManageError::NotFound("tenant")) }
    }

    /// Sees to it that a tenant is there before something is made for it.
    ///
    /// # Errors
    /// [`ManageError::Invalid`] for an id of another form, and for an unknown one where `api.auto_create_tenants` is off.
    pub async fn ensure_tenant(&self, id: &str) -> Result<(), ManageError> {
        if self.known().get(id).is_some_and(|seen| seen.elapsed() < KNOWN_FOR) {
            return Ok(());
        }
        check_tenant(id)?;
        if self.settings.auto_create_tenants {
            self.streams.create_tenant(&Tenant::unnamed(id, now_ms())).await?;
        } else if self.streams.tenant(id).await?.is_none() {
            let problem = format!("there is no tenant `{id}`, and api.auto_create_tenants is off: create it first");
            return Err(Invalid::new("tenant", problem).into());
        }
        let mut known = self.known();
        if known.len() >= KNOWN_AT_MOST {
            known.clear();
        }
        known.insert(id.to_owned(), Instant::now());
        Ok(())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<String, Instant>> {
        // A panic while it was held leaves a map that is still one.
        self.settings.known_tenants.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn check_limits(limits: TenantLimits) -> Result<(), Invalid> {
    let TenantLimits { max_stored_mb, rate_limit_per_minute } = limits;
    max_stored_mb.map(|limit| within("max_stored_mb", limit, MAX_STORED_MB)).transpose()?;
    rate_limit_per_minute.map(|limit| within("rate_limit_per_minute", limit, RATE_LIMIT_PER_MINUTE)).transpose()?;
    Ok(())
}

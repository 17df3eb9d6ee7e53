//! Tenants: whose events and webhooks are kept apart.

use std::time::{Duration, Instant};

use super::{ManageError, Manager, fields::check_name, now_ms};
use crate::{
    domain::{Invalid, event::check_tenant},
    streams::Tenant,
};

/// How long a tenant is taken to be there without asking again.
const KNOWN_FOR: Duration = Duration::from_secs(10);
/// Tenants remembered; above, all are forgotten.
const KNOWN_AT_MOST: usize = 10_000;

impl Manager {
    /// Brings a tenant into being; without a name it is called as its id.
    ///
    /// # Errors
    /// [`ManageError::AlreadyExists`], or what is wrong with the id or the name.
    pub async fn create_tenant(&self, id: &str, name: Option<&str>) -> Result<Tenant, ManageError> {
        check_tenant(id)?;
        check_name(name.unwrap_or_default())?;
        let name = name.unwrap_or(id).to_owned();
        let tenant = Tenant { id: id.to_owned(), name, created_at_ms: now_ms() };
        if self.streams.create_tenant(&tenant).await? { Ok(tenant) } else { Err(ManageError::AlreadyExists("tenant")) }
    }

    /// Every tenant, in the order of their ids.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, ManageError> {
        Ok(self.streams.tenants().await?)
    }

    /// Forgets a tenant that has no webhooks any more. Its own types of events go with it; its events and
    /// attempts stay until they have aged.
    ///
    /// # Errors
    /// [`ManageError::Conflict`] while it has webhooks, [`ManageError::NotFound`].
    pub async fn delete_tenant(&self, id: &str) -> Result<(), ManageError> {
        check_tenant(id)?;
        if !self.streams.subscription_ids(id, None, 1).await?.is_empty() {
            return Err(ManageError::Conflict(format!("tenant {id} still has webhooks: delete them first")));
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
            let tenant = Tenant { id: id.to_owned(), name: id.to_owned(), created_at_ms: now_ms() };
            self.streams.create_tenant(&tenant).await?;
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

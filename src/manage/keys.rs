//! API keys: made, listed, taken back, and told by their text.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{ManageError, Manager, Seed};
use crate::{
    domain::{
        Invalid,
        access::{KeyRole, key_of_text, key_text},
        id::KeyId,
    },
    streams::ApiKey,
};

impl Manager {
    /// Makes a key, and its text, which is not kept. A key of the role `admin` is for all tenants and names none.
    ///
    /// # Errors
    /// What is wrong with the tenant, or [`ManageError::AlreadyCreated`] for a seed that made a key before.
    pub async fn create_key(
        &self,
        role: KeyRole,
        tenant: Option<&str>,
        seed: Seed,
    ) -> Result<(ApiKey, String), ManageError> {
        match (role, tenant) {
            (KeyRole::Admin, None) => {}
            (KeyRole::Admin, Some(_)) => {
                return Err(Invalid::new("tenant", "a key of the role `admin` is for all tenants: leave it out").into());
            }
            (_, None) => return Err(Invalid::new("tenant", "is required, except for the role `admin`").into()),
            (_, Some(tenant)) => self.ensure_tenant(tenant).await?,
        }
        let id = KeyId { ms: seed.ms, random: seed.random };
        let text = key_text(id, &rand::random());
        let hash = Sha256::digest(&text).into();
        let key = ApiKey { id, tenant: tenant.map(str::to_owned), role, created_at_ms: seed.ms, hash };
        if self.streams.create_key(&key).await? {
            return Ok((key, text));
        }
        Err(ManageError::AlreadyCreated { what: "key", id: id.to_string() })
    }

    /// Every key, in the order of their creation; with a `tenant`, those of that one.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn keys(&self, tenant: Option<&str>) -> Result<Vec<ApiKey>, ManageError> {
        let mut keys = self.streams.all_keys().await?;
        keys.retain(|key| tenant.is_none_or(|tenant| key.tenant.as_deref() == Some(tenant)));
        Ok(keys)
    }

    /// Takes a key back: from now on it opens nothing, in any process.
    ///
    /// # Errors
    /// [`ManageError::NotFound`].
    pub async fn revoke_key(&self, id: &str) -> Result<(), ManageError> {
        let not_found = ManageError::NotFound("key");
        let Ok(id) = id.parse::<KeyId>() else { return Err(not_found) };
        if self.streams.delete_key(id).await? { Ok(()) } else { Err(not_found) }
    }

    /// The key that a text stands for; `None` where it stands for none. It is asked for each time, so that a key that was
    /// taken back opens nothing.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn key_of(&self, text: &str) -> Result<Option<ApiKey>, ManageError> {
        let Some(id) = key_of_text(text) else { return Ok(None) };
        let sent: [u8; 32] = Sha256::digest(text).into();
        let found = self.streams.key(id).await?;
        Ok(found.filter(|key| bool::from(key.hash.ct_eq(&sent))))
    }
}

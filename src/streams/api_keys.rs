//! API keys: their records, found by their ids.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    Streams,
    entry::unreadable,
    error::{Error, Result},
};
use crate::domain::{access::KeyRole, id::KeyId};

/// What is kept of a key: never its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: KeyId,
    /// `None` for a key that is for all tenants.
    pub tenant: Option<String>,
    pub role: KeyRole,
    pub created_at_ms: u64,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
}

#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    role: String,
    created_at_ms: u64,
    hash: String,
}

impl ApiKey {
    fn write(&self) -> String {
        let record = Record {
            tenant: self.tenant.clone(),
            role: self.role.name().to_owned(),
            created_at_ms: self.created_at_ms,
            hash: data_encoding::HEXLOWER.encode(&self.hash),
        };
        serde_json::to_string(&record).expect("text and numbers can always be written as JSON")
    }

    fn read(id: KeyId, text: &str) -> Result<Self> {
        let wrong = |error: String| Error::Unreadable(format!("key {id}: {error}"));
        let record: Record = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        let hash = data_encoding::HEXLOWER.decode(record.hash.as_bytes()).ok().and_then(|hash| hash.try_into().ok());
        Ok(Self {
            id,
            role: KeyRole::of_name(&record.role).ok_or_else(|| wrong("its role".to_owned()))?,
            hash: hash.ok_or_else(|| wrong("its hash".to_owned()))?,
            tenant: record.tenant,
            created_at_ms: record.created_at_ms,
        })
    }
}

impl Streams {
    /// Keeps a new key; `false` where its id is taken.
    pub async fn create_key(&self, key: &ApiKey) -> Result<bool> {
        let mut command = redis::cmd("HSETNX");
        command.arg(self.keys().global("keys")).arg(key.id.to_string()).arg(key.write());
        self.0.connections.run(&command).await
    }

    /// One key; `None` where there is none, or not any more.
    pub async fn key(&self, id: KeyId) -> Result<Option<ApiKey>> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys().global("keys")).arg(id.to_string());
        let record: Option<String> = self.0.connections.run(&command).await?;
        record.map(|record| ApiKey::read(id, &record)).transpose()
    }

    /// Every key, in the order of their creation.
    pub async fn all_keys(&self) -> Result<Vec<ApiKey>> {
        let records: HashMap<String, String> =
            self.0.connections.run(redis::cmd("HGETALL").arg(self.keys().global("keys"))).await?;
        let read = |(id, record): (String, String)| {
            ApiKey::read(id.parse().map_err(|_| unreadable("the id of a key"))?, &record)
        };
        let mut keys = records.into_iter().map(read).collect::<Result<Vec<_>>>()?;
        keys.sort_by_key(|key| key.id);
        Ok(keys)
    }

    /// Forgets a key, for every process at once; `false` where there was none.
    pub async fn delete_key(&self, id: KeyId) -> Result<bool> {
        self.0.connections.run(redis::cmd("HDEL").arg(self.keys().global("keys")).arg(id.to_string())).await
    }
}

//! Secrets: rotated, so that whoever verifies or signs has time to take the new one.

use std::ops::RangeInclusive;

use super::{ManageError, Manager, fields::within};
use crate::{
    clock::now_ms,
    domain::{
        Invalid,
        id::SubscriptionId,
        signature::{check_secret, generate},
    },
    streams::Versioned,
};

/// How long the old secret goes on, where nothing is said.
pub const OVERLAP_SECONDS: u64 = 86_400;
/// How long it may go on: 0 to 30 days.
const OVERLAP: RangeInclusive<u64> = 0..=30 * 86_400;

/// A new secret for a webhook.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rotation {
    /// Made up when absent.
    pub secret: Option<String>,
    /// How long the old one signs beside the new one.
    pub overlap_seconds: Option<u64>,
    /// Whether the secret of its ingest address is made anew too; the old one is taken as long.
    pub with_ingest: bool,
}

impl Manager {
    /// Gives a webhook a new secret. Both sign until the overlap ends; a rotation during an overlap ends the oldest.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], or what is wrong with a field.
    pub async fn rotate_secret(&self, tenant: &str, id: &str, rotation: Rotation) -> Result<Versioned, ManageError> {
        let overlap_seconds = rotation.overlap_seconds.unwrap_or(OVERLAP_SECONDS);
        within("overlap_seconds", overlap_seconds, OVERLAP)?;
        let secret = rotation.secret.unwrap_or_else(|| generate(rand::random()));
        check_secret(&secret)?;
        let ingest = rotation.with_ingest.then(|| generate(rand::random()));
        let until_ms = now_ms() + overlap_seconds * 1000;
        self.rewrite(tenant, id, |mut webhook| {
            if webhook.secrets.current == secret {
                return Err(Invalid::new("secret", "is the one that the webhook has"));
            }
            webhook.secrets.rotate(secret.clone(), until_ms);
            if let Some(ingest) = &ingest {
                webhook.ingest.rotate(ingest.clone(), until_ms);
            }
            Ok(webhook)
        })
        .await?;
        self.webhook(tenant, id).await
    }

    /// A webhook that takes what is posted to its ingest address: any that is not deleted.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn ingest_target(&self, id: SubscriptionId) -> Result<Option<Versioned>, ManageError> {
        Ok(self.streams.subscription(id).await?)
    }
}

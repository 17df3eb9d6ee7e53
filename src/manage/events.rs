//! Looking at what was published, and at what became of it.

use super::{ManageError, Manager};
use crate::{
    domain::{
        delivery::DeliveryStatus,
        event::Event,
        id::{EventId, StreamId, SubscriptionId},
    },
    streams::{AttemptFilter, AttemptPage},
};

impl Manager {
    /// One event of a tenant.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's and for one that is not kept any more.
    pub async fn event(&self, tenant: &str, id: &str) -> Result<Event, ManageError> {
        let not_found = ManageError::NotFound("event");
        let Ok(id) = id.parse::<EventId>() else { return Err(not_found) };
        let found = self.streams.event(id).await?;
        found.filter(|event| event.tenant == tenant).ok_or(not_found)
    }

    /// Where the deliveries of an event stand, by webhook. Of an event for more than 1,000 webhooks only those are known
    /// to which something has happened.
    ///
    /// # Errors
    /// As [`Self::event`].
    pub async fn deliveries(&self, tenant: &str, id: &str) -> Result<(Event, Vec<DeliveryStatus>), ManageError> {
        let event = self.event(tenant, id).await?;
        let mut deliveries = self.streams.deliveries_of(event.id.shard, event.id.at).await?;
        deliveries.sort_unstable_by_key(|delivery| (delivery.id.subscription, delivery.id.copy));
        Ok((event, deliveries))
    }

    /// Attempts of a webhook, newest first: up to `limit` of those before `before`. The attempts of a deleted one can be
    /// looked at until they have aged.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's webhook.
    pub async fn attempts(
        &self,
        tenant: &str,
        webhook: &str,
        filter: &AttemptFilter,
        before: Option<StreamId>,
        limit: usize,
    ) -> Result<AttemptPage, ManageError> {
        let id = self.once_owned(tenant, webhook).await?;
        Ok(self.streams.attempts_of(id, filter, before, limit).await?)
    }

    /// The attempts to deliver one event to a webhook, as [`Self::attempts`]; of each delivery the last 20.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's webhook.
    pub async fn attempts_for_event(
        &self,
        tenant: &str,
        webhook: &str,
        event: EventId,
        filter: &AttemptFilter,
        before: Option<StreamId>,
        limit: usize,
    ) -> Result<AttemptPage, ManageError> {
        let id = self.once_owned(tenant, webhook).await?;
        let deliveries = self.streams.deliveries_of(id.shard, event.at).await?;
        let ours = deliveries.iter().filter(|delivery| delivery.id.subscription == id);
        let mut places: Vec<StreamId> = ours.flat_map(|delivery| delivery.attempt_log.iter().copied()).collect();
        places.retain(|place| before.is_none_or(|before| *place < before));
        places.sort_unstable_by(|a, b| b.cmp(a));
        let mut attempts = self.streams.attempts(id.shard, &places).await?;
        attempts.retain(|(id, attempt)| attempt.event == event && filter.allows_attempt(*id, attempt));
        let is_more = attempts.len() > limit;
        attempts.truncate(limit);
        let before = attempts.last().map(|(id, _)| id.at).filter(|_| is_more);
        Ok(AttemptPage { attempts, before })
    }

    /// The id of a webhook that is, or was, the tenant's.
    async fn once_owned(&self, tenant: &str, webhook: &str) -> Result<SubscriptionId, ManageError> {
        let not_found = ManageError::NotFound("webhook");
        match self.webhook(tenant, webhook).await {
            Ok(found) => return Ok(found.subscription.id),
            Err(ManageError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        let id: SubscriptionId = webhook.parse().map_err(|_| not_found.clone())?;
        if id.shard != self.streams.shard_of(tenant) {
            return Err(not_found);
        }
        // What is left of a deleted one does not say whose it was: its attempts do.
        let last = self.streams.attempts_of(id, &AttemptFilter::default(), None, 1).await?.attempts;
        if last.first().is_some_and(|(_, attempt)| attempt.tenant == tenant) { Ok(id) } else { Err(not_found) }
    }
}

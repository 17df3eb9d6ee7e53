//! Deliveries one by one: where each stands, what was tried, and when it goes on.

use std::collections::HashMap;

use super::{ManageError, Manager, events::ATTEMPTS_AT_ONCE};
use crate::{
    domain::{
        attempt::Attempt,
        delivery::{DeliveryStatus, Standing},
        event::Event,
        id::{AttemptId, DeliveryId, EventId, StreamId},
    },
    streams::{Progress, ShardId, Sought},
};

/// Deliveries of one event that are shown in full; the others are counted.
const SHOWN_AT_MOST: usize = 100;
/// Attempts that are shown of the deliveries of one event together; of each at least the last two.
const ATTEMPTS_SHOWN: usize = 200;

/// All that is known of a delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryView {
    pub status: DeliveryStatus,
    /// `None` where it is not kept any more.
    pub event: Option<Event>,
    /// Those of the last 20 that are still kept, newest last.
    pub attempts: Vec<(AttemptId, Attempt)>,
    pub progress: Progress,
}

/// Where an event or a delivery stands.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusView {
    pub event_id: Option<EventId>,
    pub event_type: Option<String>,
    pub standing: Standing,
    /// The first 100, by webhook.
    pub deliveries: Vec<DeliveryView>,
    pub total: u64,
}

impl DeliveryView {
    /// The event's public id; `None` where neither it nor an attempt is kept.
    pub fn event_id(&self) -> Option<EventId> {
        let event = self.event.as_ref().map(|event| event.id);
        event.or_else(|| self.attempts.last().map(|(_, attempt)| attempt.event))
    }

    /// The event's type; `None` where neither it nor an attempt is kept.
    pub fn event_type(&self) -> Option<&str> {
        let event = self.event.as_ref().map(|event| event.event_type.as_str());
        event.or_else(|| self.attempts.last().map(|(_, attempt)| attempt.event_type.as_str()))
    }

    /// Whose it is; `None` where only its webhook can tell.
    fn tenant(&self) -> Option<&str> {
        let event = self.event.as_ref().map(|event| event.tenant.as_str());
        event.or_else(|| self.attempts.last().map(|(_, attempt)| attempt.tenant.as_str()))
    }
}

impl Manager {
    /// One delivery of a tenant.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's and for one of which nothing is kept any more.
    pub async fn delivery(&self, tenant: &str, id: &str) -> Result<DeliveryView, ManageError> {
        let not_found = ManageError::NotFound("delivery");
        let Ok(id) = id.parse::<DeliveryId>() else { return Err(not_found) };
        let shard = id.subscription.shard;
        if shard != self.streams.shard_of(tenant) {
            return Err(not_found);
        }
        let Sought::Found(status) = self.streams.find_delivery(id).await? else { return Err(not_found) };
        let event = self.streams.events(shard, &[id.event]).await?.pop().flatten();
        let view = self.views(shard, event.as_ref(), vec![status]).await?.pop().ok_or(not_found.clone())?;
        let is_ours = match view.tenant() {
            Some(owner) => owner == tenant,
            None => match self.once_owned(tenant, &id.subscription.to_string()).await {
                Ok(_) => true,
                Err(ManageError::NotFound(_)) => false,
                Err(error) => return Err(error),
            },
        };
        if is_ours { Ok(view) } else { Err(not_found) }
    }

    /// Where an event or a delivery of a tenant stands.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's and for one of which nothing is kept any more.
    pub async fn status(&self, tenant: &str, id: &str) -> Result<StatusView, ManageError> {
        if let Ok(event) = id.parse::<EventId>() {
            return self.status_of_event(tenant, event).await;
        }
        let view = self.delivery(tenant, id).await.map_err(|error| match error {
            ManageError::NotFound(_) => ManageError::NotFound("event or delivery"),
            other => other,
        })?;
        Ok(StatusView {
            event_id: view.event_id(),
            event_type: view.event_type().map(str::to_owned),
            standing: view.status.standing(),
            deliveries: vec![view],
            total: 1,
        })
    }

    async fn status_of_event(&self, tenant: &str, id: EventId) -> Result<StatusView, ManageError> {
        let not_found = ManageError::NotFound("event or delivery");
        if id.shard != self.streams.shard_of(tenant) {
            return Err(not_found);
        }
        let event = self.streams.event(id).await?;
        if event.as_ref().is_some_and(|event| event.tenant != tenant) {
            return Err(not_found);
        }
        let status = self.streams.event_status(id.shard, id.at).await?;
        let standings = status.deliveries.iter().map(DeliveryStatus::standing);
        let standing = Standing::of_all(standings, status.unnoted > 0 || !status.is_dispatched);
        let deliveries = self.shown(id.shard, event.as_ref(), status.deliveries).await?;
        let event_type = match event {
            Some(event) => Some(event.event_type),
            // It has left the log: what was tried says whose it was.
            None => {
                let mut attempts = deliveries.iter().flat_map(|delivery| &delivery.attempts);
                let ours = |(_, attempt): &&(AttemptId, Attempt)| attempt.event == id && attempt.tenant == tenant;
                let (_, attempt) = attempts.next().filter(ours).ok_or(not_found)?;
                Some(attempt.event_type.clone())
            }
        };
        Ok(StatusView { event_id: Some(id), event_type, standing, deliveries, total: status.total })
    }

    /// The first 100 deliveries of one event with what was tried last and how they go on.
    pub(super) async fn shown(
        &self,
        shard: ShardId,
        event: Option<&Event>,
        mut deliveries: Vec<DeliveryStatus>,
    ) -> Result<Vec<DeliveryView>, ManageError> {
        deliveries.truncate(SHOWN_AT_MOST);
        let each = (ATTEMPTS_SHOWN / deliveries.len().max(1)).max(2);
        for delivery in &mut deliveries {
            delivery.attempt_log.drain(..delivery.attempt_log.len().saturating_sub(each));
        }
        self.views(shard, event, deliveries).await
    }

    /// Deliveries of one event with what was tried and how they go on.
    async fn views(
        &self,
        shard: ShardId,
        event: Option<&Event>,
        deliveries: Vec<DeliveryStatus>,
    ) -> Result<Vec<DeliveryView>, ManageError> {
        let places: Vec<StreamId> =
            deliveries.iter().flat_map(|delivery| delivery.attempt_log.iter().copied()).collect();
        let mut attempts = HashMap::with_capacity(places.len());
        for page in places.chunks(ATTEMPTS_AT_ONCE) {
            let found = self.streams.attempts(shard, page).await?;
            attempts.extend(found.into_iter().map(|(id, attempt)| (id.at, attempt)));
        }
        let progress = self.streams.progress(&deliveries).await?;
        let view = |(status, progress): (DeliveryStatus, Progress)| DeliveryView {
            event: event.cloned(),
            attempts: status
                .attempt_log
                .iter()
                .filter_map(|at| Some((AttemptId { at: *at, shard }, attempts.remove(at)?)))
                .collect(),
            status,
            progress,
        };
        Ok(deliveries.into_iter().zip(progress).map(view).collect())
    }
}

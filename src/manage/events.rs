//! Looking at what was published, and at what became of it.

use super::{ManageError, Manager, dead_letters::PAGE_BYTES, first_of};
use crate::{
    domain::{
        attempt::Attempt,
        delivery::DeliveryStatus,
        event::Event,
        id::{AttemptId, EventId, StreamId, SubscriptionId},
    },
    streams::{AttemptFilter, AttemptPage, LogEntry},
};

/// Events of the log looked at for one page of an answer, and their bytes; a page that had to look further is short, and
/// has a cursor. The log is that of all tenants of a shard.
const LOOK_AT_MOST: usize = 2_000;
const LOOK_BYTES: usize = 32 * 1024 * 1024;
/// Events read at once: each may be as large as `delivery.max_payload_bytes` allows.
const READ_AT_ONCE: usize = 32;

/// Attempts read at once: each holds the beginning of an answer.
pub(super) const ATTEMPTS_AT_ONCE: usize = 100;

/// Which events are meant: those that fit all that is given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub event_type: Option<String>,
    /// When they were published: Unix milliseconds, both included.
    pub since_ms: Option<u64>,
    pub until_ms: Option<u64>,
}

/// A page of events, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// The events before this place come next.
    pub next: Option<StreamId>,
}

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

    /// Events of a tenant that are still in the log, newest first: up to `limit` of those before `cursor`.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn events(
        &self,
        tenant: &str,
        filter: &EventFilter,
        cursor: Option<StreamId>,
        limit: usize,
    ) -> Result<EventPage, ManageError> {
        let shard = self.streams.shard_of(tenant);
        let oldest = StreamId { ms: filter.since_ms.unwrap_or(0), seq: 0 };
        let until = filter.until_ms.map_or(StreamId::MAX, |ms| StreamId { ms, seq: u64::MAX });
        let mut page = EventPage { events: Vec::new(), next: None };
        let (mut looked, mut looked_bytes, mut bytes) = (0, 0, 0);
        let mut last = cursor;
        loop {
            let newest = match last {
                None => Some(until),
                Some(last) => last.previous().map(|newest| newest.min(until)),
            };
            let Some(newest) = newest.filter(|newest| *newest >= oldest) else { return Ok(page) };
            let read = self.streams.newest_log_page(shard, newest, oldest, READ_AT_ONCE).await?;
            let is_last = read.len() < READ_AT_ONCE;
            for entry in read {
                let at = entry.at();
                let size = size_of(&entry);
                let found = meant(entry, tenant, filter);
                let is_over = found.is_some() && !page.events.is_empty() && bytes + size > PAGE_BYTES;
                if page.events.len() == limit || looked == LOOK_AT_MOST || looked_bytes > LOOK_BYTES || is_over {
                    page.next = last;
                    return Ok(page);
                }
                (looked, looked_bytes, last) = (looked + 1, looked_bytes + size, Some(at));
                bytes += if found.is_some() { size } else { 0 };
                page.events.extend(found);
            }
            if is_last {
                return Ok(page);
            }
        }
    }

    /// Where the deliveries of an event stand, by webhook. Of an event for more than 1,000 webhooks only those are known
    /// to which something has happened.
    ///
    /// # Errors
    /// As [`Self::event`].
    pub async fn deliveries(&self, tenant: &str, id: &str) -> Result<(Event, Vec<DeliveryStatus>), ManageError> {
        let event = self.event(tenant, id).await?;
        let status = self.streams.event_status(event.id.shard, event.id.at).await?;
        Ok((event, status.deliveries))
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

    /// One attempt of a tenant, with its event; `None` where that is not kept any more, as after a test send.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's and for one that is not kept any more.
    pub async fn attempt(&self, tenant: &str, id: &str) -> Result<(AttemptId, Attempt, Option<Event>), ManageError> {
        let not_found = ManageError::NotFound("attempt");
        let Ok(id) = id.parse::<AttemptId>() else { return Err(not_found) };
        if id.shard != self.streams.shard_of(tenant) {
            return Err(not_found);
        }
        let found = self.streams.attempts(id.shard, &[id.at]).await?.pop();
        let (id, attempt) = found.filter(|(_, attempt)| attempt.tenant == tenant).ok_or(not_found)?;
        let event = self.streams.event(attempt.event).await?;
        Ok((id, attempt, event))
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
        let deliveries = self.streams.copies_of(event.at, id).await?;
        let mut places: Vec<StreamId> =
            deliveries.iter().flat_map(|delivery| delivery.attempt_log.iter().copied()).collect();
        places.retain(|place| before.is_none_or(|before| *place < before));
        places.sort_unstable_by(|a, b| b.cmp(a));
        let mut attempts = Vec::new();
        for page in places.chunks(ATTEMPTS_AT_ONCE) {
            let mut found = self.streams.attempts(id.shard, page).await?;
            found.retain(|(id, attempt)| attempt.event == event && filter.allows_attempt(*id, attempt));
            attempts.append(&mut found);
            if attempts.len() > limit {
                break;
            }
        }
        let (attempts, before) = first_of(attempts, limit, |(id, _)| id.at);
        Ok(AttemptPage { attempts, before })
    }

    /// The id of a webhook that is, or was, the tenant's.
    pub(super) async fn once_owned(&self, tenant: &str, webhook: &str) -> Result<SubscriptionId, ManageError> {
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

/// The event, if it is one that is meant.
fn meant(entry: LogEntry, tenant: &str, filter: &EventFilter) -> Option<Event> {
    let LogEntry::Event(event) = entry else { return None };
    let is_meant =
        event.tenant == tenant && filter.event_type.as_ref().is_none_or(|wanted| *wanted == event.event_type);
    is_meant.then_some(event)
}

fn size_of(entry: &LogEntry) -> usize {
    match entry {
        LogEntry::Event(event) => event.data.len(),
        LogEntry::Unreadable(_) => 0,
    }
}

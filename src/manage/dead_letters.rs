//! Dead letters: looked at, sent once more, and thrown away. To a user a delivery that was given up and an entry that
//! could not be read are one kind of thing; only the former can be sent.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

use super::{
    ManageError, Manager, check_rate,
    filter::{Dead, DeadLetterCursor, DeadLetterFilter, DeadLetterId},
    walk::{Batch, NewestFirst, Walk},
};
use crate::{
    domain::{
        Invalid,
        event::{DEFAULT_TENANT, Event},
        id::{BadId, DeliveryId, StreamId, SubscriptionId},
        outcome::Reason,
    },
    streams::{BadEntry, DeadLetter, Redriven},
};

/// Dead letters looked at for one page of an answer; a page that had to look further is short, and has a cursor.
const LOOK_AT_MOST: usize = 5_000;
/// An unreadable entry of another tenant counts as so many: it comes with its raw fields.
const ANOTHERS: usize = 10;
/// Bytes of events in one page, unless the first alone has more.
pub(super) const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Events read at once.
const EVENTS_AT_ONCE: usize = 16;

/// A dead letter with what it is about.
#[derive(Debug, Clone, PartialEq)]
pub enum DeadItem {
    Delivery {
        letter: DeadLetter,
        /// `None` where it is lost, which is then the reason.
        event: Option<Event>,
    },
    Unreadable(BadEntry),
}

/// The dead letters of one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonCount {
    pub reason: Reason,
    pub count: u64,
    /// How many webhooks they are of; none of what could not be read.
    pub webhooks: usize,
    /// When the oldest and the newest died: Unix milliseconds.
    pub oldest_ms: u64,
    pub newest_ms: u64,
    /// What the newest says of its end.
    pub last_error: Option<String>,
}

/// A page of dead letters, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterPage {
    pub data: Vec<DeadItem>,
    pub next: Option<DeadLetterCursor>,
}

impl Manager {
    /// Dead letters of all a tenant's webhooks and its unreadable entries, newest first: up to `limit` behind `cursor`.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn dead_letters(
        &self,
        tenant: &str,
        filter: &DeadLetterFilter,
        cursor: Option<DeadLetterCursor>,
        limit: usize,
    ) -> Result<DeadLetterPage, ManageError> {
        let (mut found, mut looked, mut last) = (Vec::new(), 0, cursor);
        let mut walk = NewestFirst::new(&self.streams, tenant, filter, cursor).await?;
        let next = loop {
            let Some((place, dead)) = walk.next().await? else { break None };
            if found.len() == limit || looked >= LOOK_AT_MOST {
                break last;
            }
            last = Some(place);
            let Some(dead) = dead else {
                looked += ANOTHERS;
                continue;
            };
            looked += 1;
            if filter.allows(&dead) {
                found.push((place, dead));
            }
        };
        let (places, found): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let data = self.with_events(found).await?;
        // What there was no room for comes first on the next page.
        let next = if data.len() < places.len() { places[..data.len()].last().copied() } else { next };
        Ok(DeadLetterPage { data, next })
    }

    /// How many dead letters a filter leaves, reason by reason, the most frequent first.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn dead_letters_by_reason(
        &self,
        tenant: &str,
        filter: &DeadLetterFilter,
    ) -> Result<Vec<ReasonCount>, ManageError> {
        let mut counts: HashMap<Reason, (ReasonCount, HashSet<SubscriptionId>)> = HashMap::new();
        let mut walk = NewestFirst::new(&self.streams, tenant, filter, None).await?;
        while let Some((place, dead)) = walk.next().await? {
            let Some(dead) = dead.filter(|dead| filter.allows(dead)) else { continue };
            let (reason, webhook, last_error) = match dead {
                Dead::Letter(letter) => (letter.reason, Some(letter.delivery.subscription), letter.last_error),
                Dead::Bad(entry) => (Reason::Malformed, None, Some(entry.error)),
            };
            let at_ms = place.at.ms;
            // The first is the newest.
            let (known, webhooks) = counts.entry(reason).or_insert_with(|| {
                let first =
                    ReasonCount { reason, count: 0, webhooks: 0, oldest_ms: at_ms, newest_ms: at_ms, last_error };
                (first, HashSet::new())
            });
            webhooks.extend(webhook);
            known.count += 1;
            known.webhooks = webhooks.len();
            known.oldest_ms = at_ms;
        }
        let mut counts: Vec<ReasonCount> = counts.into_values().map(|(known, _)| known).collect();
        counts.sort_by_key(|known| (Reverse(known.count), known.reason.name()));
        Ok(counts)
    }

    /// One dead letter; `with_strays` as in [`DeadLetterFilter`].
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's.
    pub async fn dead_letter(
        &self,
        tenant: &str,
        id: DeadLetterId,
        with_strays: bool,
    ) -> Result<DeadItem, ManageError> {
        let not_found = ManageError::NotFound("dead letter");
        let dead = self.find_dead(tenant, id, with_strays).await?.ok_or(not_found.clone())?;
        self.with_events(vec![dead]).await?.pop().ok_or(not_found)
    }

    pub(super) async fn find_dead(
        &self,
        tenant: &str,
        id: DeadLetterId,
        with_strays: bool,
    ) -> Result<Option<Dead>, ManageError> {
        match id {
            DeadLetterId::Delivery(id) => {
                let owner = self.streams.subscription(id.subscription).await?;
                if owner.is_none_or(|webhook| webhook.subscription.tenant != tenant) {
                    return Ok(None);
                }
                Ok(self.streams.dead_letter(id).await?.map(Dead::Letter))
            }
            DeadLetterId::Unreadable(id) => {
                let shard = (id.shard != BadId::NO_SHARD).then_some(id.shard);
                let may_be_ours = shard.map_or(with_strays, |shard| shard == self.streams.shard_of(tenant));
                if !may_be_ours {
                    return Ok(None);
                }
                let found = self.streams.bad_entries(shard, id.at, id.at, 1).await?.pop();
                Ok(found.filter(|entry| owns(tenant, entry)).map(Dead::Bad))
            }
        }
    }

    /// Adds the events, as many as a page may hold: what there is no more room for is left out.
    async fn with_events(&self, found: Vec<Dead>) -> Result<Vec<DeadItem>, ManageError> {
        let (mut items, mut bytes) = (Vec::with_capacity(found.len()), 0);
        for chunk in found.chunks(EVENTS_AT_ONCE) {
            let mut events = self.events_of(chunk).await?.into_iter();
            for dead in chunk {
                let item = match dead {
                    Dead::Letter(letter) => {
                        DeadItem::Delivery { letter: letter.clone(), event: events.next().flatten() }
                    }
                    Dead::Bad(entry) => DeadItem::Unreadable(entry.clone()),
                };
                bytes += item.bytes();
                if bytes > PAGE_BYTES && !items.is_empty() {
                    return Ok(items);
                }
                items.push(item);
            }
        }
        Ok(items)
    }

    /// The events of those that are deliveries, in their order; all of one tenant, and so of one shard.
    async fn events_of(&self, found: &[Dead]) -> Result<Vec<Option<Event>>, ManageError> {
        let deliveries = found.iter().filter_map(|dead| match dead {
            Dead::Letter(letter) => Some(letter.delivery),
            Dead::Bad(_) => None,
        });
        let deliveries: Vec<DeliveryId> = deliveries.collect();
        let Some(first) = deliveries.first() else { return Ok(Vec::new()) };
        let places: Vec<StreamId> = deliveries.iter().map(|delivery| delivery.event).collect();
        Ok(self.streams.events(first.subscription.shard, &places).await?)
    }

    /// How many dead letters a filter leaves.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn count_dead_letters(&self, tenant: &str, filter: &DeadLetterFilter) -> Result<u64, ManageError> {
        let mut walk = Walk::new(self, tenant, filter).await?;
        let mut count = 0;
        while let Some(batch) = walk.next().await? {
            count += batch.len() as u64;
        }
        Ok(count)
    }

    /// How many of the dead letters that a filter leaves can be sent once more: those that could be read. `progress` is told
    /// the number so far.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn count_replayable(
        &self,
        tenant: &str,
        filter: &DeadLetterFilter,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, ManageError> {
        let mut walk = Walk::new(self, tenant, filter).await?;
        let mut count = 0;
        while let Some(batch) = walk.next().await? {
            if let Batch::Letters(_, entries) = batch {
                count += entries.len() as u64;
                progress(count);
            }
        }
        Ok(count)
    }

    /// Sends the dead letters that a filter leaves once more, oldest first, up to `rate` a second; those that die anew
    /// meanwhile are not sent again. `progress` is told the number so far. Entries that could not be read stay.
    ///
    /// # Errors
    /// [`ManageError::Conflict`] when a webhook's backlog is full: what was sent until then is sent. A rate that is none.
    pub async fn replay_dead_letters(
        &self,
        tenant: &str,
        filter: &DeadLetterFilter,
        rate: Option<u32>,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, ManageError> {
        if filter.ids.iter().any(|id| matches!(id, DeadLetterId::Unreadable(_))) {
            let problem = "what could not be read cannot be sent: publish it again, corrected, and delete it here";
            return Err(Invalid::new("id", problem).into());
        }
        let rate = check_rate(rate)?;
        let started = Instant::now();
        let mut sent: u64 = 0;
        let mut walk = Walk::new(self, tenant, filter).await?;
        while let Some(batch) = walk.next().await? {
            let Batch::Letters(webhook, entries) = batch else { continue };
            for page in entries.chunks(rate.map_or(entries.len(), |rate| rate as usize)) {
                let Redriven { count, is_full, is_gone } = self.streams.redrive(webhook, page).await?;
                sent += count;
                progress(sent);
                if is_full {
                    return Err(ManageError::Conflict(format!(
                        "the backlog of webhook {webhook} is full after {sent} were sent: let it drain, then go on"
                    )));
                }
                if is_gone {
                    break;
                }
                if let Some(rate) = rate {
                    sleep_until(started + Duration::from_secs_f64(sent as f64 / f64::from(rate))).await;
                }
            }
        }
        Ok(sent)
    }

    /// Throws the dead letters that a filter leaves away. `progress` is told the number so far.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn purge_dead_letters(
        &self,
        tenant: &str,
        filter: &DeadLetterFilter,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, ManageError> {
        let mut walk = Walk::new(self, tenant, filter).await?;
        let mut gone = 0;
        while let Some(batch) = walk.next().await? {
            gone += match batch {
                Batch::Letters(webhook, entries) => self.streams.discard(webhook, &entries).await?,
                Batch::Bad(ids) => self.streams.discard_bad(&ids).await?,
            };
            progress(gone);
        }
        Ok(gone)
    }
}

/// Whether an unreadable entry is shown to a tenant.
pub(super) fn owns(tenant: &str, entry: &BadEntry) -> bool {
    entry.tenant.as_deref().unwrap_or(DEFAULT_TENANT) == tenant
}

impl DeadItem {
    fn bytes(&self) -> usize {
        match self {
            Self::Delivery { event, .. } => event.as_ref().map_or(0, |event| event.data.len()),
            Self::Unreadable(entry) => entry.raw.values().map(bytes::Bytes::len).sum(),
        }
    }
}

//! Dead letters: looked at, sent once more, and thrown away. To a user a delivery that was given up and an entry that
//! could not be read are one kind of thing; only the former can be sent.

use std::{fmt, str::FromStr, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    ManageError, Manager,
    walk::{Batch, NewestFirst, Source, Walk},
};
use crate::{
    domain::{
        Invalid,
        event::{DEFAULT_TENANT, Event},
        id::{BadId, DeliveryId, NotAnId, StreamId, SubscriptionId},
        outcome::Reason,
    },
    streams::{BadEntry, DeadLetter, Redriven},
};

/// Dead letters looked at for one page of an answer; a page that had to look further is short, and has a cursor.
const LOOK_AT_MOST: usize = 5_000;
/// Bytes of events in one page, unless the first alone has more.
const PAGE_BYTES: usize = 8 * 1024 * 1024;
/// Events read at once.
const EVENTS_AT_ONCE: usize = 16;

/// Which dead letters are meant: those that fit all that is given.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeadLetterFilter {
    pub webhook: Option<SubscriptionId>,
    pub event_type: Option<String>,
    /// When they died: Unix milliseconds, both included.
    pub since_ms: Option<u64>,
    pub until_ms: Option<u64>,
    pub reason: Option<Reason>,
    /// Only these; empty for all.
    pub ids: Vec<DeadLetterId>,
}

/// A dead letter's public id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadLetterId {
    Delivery(DeliveryId),
    Unreadable(BadId),
}

/// A place in a list of dead letters; the next page begins behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadLetterCursor {
    pub(super) at: StreamId,
    pub(super) source: Source,
}

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

/// A page of dead letters, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterPage {
    pub data: Vec<DeadItem>,
    pub next: Option<DeadLetterCursor>,
}

/// A dead letter as it is kept, without its event.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Dead {
    Letter(DeadLetter),
    Bad(BadEntry),
}

impl fmt::Display for DeadLetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivery(id) => id.fmt(f),
            Self::Unreadable(id) => id.fmt(f),
        }
    }
}

impl FromStr for DeadLetterId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        text.parse().map(Self::Delivery).or_else(|_| text.parse().map(Self::Unreadable))
    }
}

impl fmt::Display for DeadLetterCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at, self.source)
    }
}

impl FromStr for DeadLetterCursor {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (at, source) = text.split_once('.').ok_or(NotAnId)?;
        Ok(Self { at: at.parse()?, source: source.parse()? })
    }
}

impl DeadLetterFilter {
    /// The first and the last moment at which what is meant can have died.
    pub(super) fn range(&self) -> (StreamId, StreamId) {
        let oldest = StreamId { ms: self.since_ms.unwrap_or(0), seq: 0 };
        let newest = self.until_ms.map_or(StreamId::MAX, |ms| StreamId { ms, seq: u64::MAX });
        (oldest, newest)
    }

    pub(super) fn allows(&self, dead: &Dead) -> bool {
        let (at, webhook, event_type, reason) = match dead {
            Dead::Letter(letter) => {
                (letter.entry, Some(letter.delivery.subscription), letter.event_type.as_str(), letter.reason)
            }
            Dead::Bad(entry) => (entry.id.at, None, "", Reason::Malformed),
        };
        let (oldest, newest) = self.range();
        (oldest..=newest).contains(&at)
            && self.webhook.is_none_or(|wanted| webhook == Some(wanted))
            && self.event_type.as_ref().is_none_or(|wanted| wanted == event_type)
            && self.reason.is_none_or(|wanted| wanted == reason)
    }

    /// Whether any delivery, and whether any unreadable entry, can be meant.
    pub(super) fn kinds(&self) -> (bool, bool) {
        let unreadable = self.webhook.is_none()
            && self.event_type.is_none()
            && self.reason.is_none_or(|reason| reason == Reason::Malformed);
        (self.reason != Some(Reason::Malformed), unreadable)
    }
}

impl Manager {
    /// Dead letters of all a tenant's webhooks and its unreadable entries, newest first: up to `limit` behind `cursor`.
    /// Entries that name no valid tenant are shown to the tenant `default`.
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
            if found.len() == limit || looked == LOOK_AT_MOST {
                break last;
            }
            (looked, last) = (looked + 1, Some(place));
            if filter.allows(&dead) {
                found.push((place, dead));
            }
        };
        self.with_events(found, next).await
    }

    /// One dead letter.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's.
    pub async fn dead_letter(&self, tenant: &str, id: DeadLetterId) -> Result<DeadItem, ManageError> {
        let not_found = ManageError::NotFound("dead letter");
        let dead = self.find_dead(tenant, id).await?.ok_or(not_found.clone())?;
        let place = DeadLetterCursor { at: StreamId::ZERO, source: Source::Stray };
        self.with_events(vec![(place, dead)], None).await?.data.pop().ok_or(not_found)
    }

    pub(super) async fn find_dead(&self, tenant: &str, id: DeadLetterId) -> Result<Option<Dead>, ManageError> {
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
                if shard.is_some_and(|shard| shard != self.streams.shard_of(tenant)) {
                    return Ok(None);
                }
                let found = self.streams.bad_entries(shard, id.at, id.at, 1).await?.pop();
                Ok(found.filter(|entry| owns(tenant, entry)).map(Dead::Bad))
            }
        }
    }

    /// Adds the events, as many as a page may hold; the page ends where there is no more room.
    async fn with_events(
        &self,
        found: Vec<(DeadLetterCursor, Dead)>,
        next: Option<DeadLetterCursor>,
    ) -> Result<DeadLetterPage, ManageError> {
        let (mut data, mut bytes, mut last) = (Vec::with_capacity(found.len()), 0, None);
        for chunk in found.chunks(EVENTS_AT_ONCE) {
            let letters = chunk.iter().filter_map(|(_, dead)| match dead {
                Dead::Letter(letter) => Some((letter.delivery.subscription.shard, letter.delivery.event)),
                Dead::Bad(_) => None,
            });
            let (shards, places): (Vec<_>, Vec<_>) = letters.unzip();
            // All of one tenant, and so of one shard.
            let mut events = match shards.first() {
                Some(shard) => self.streams.events(*shard, &places).await?,
                None => Vec::new(),
            }
            .into_iter();
            for (place, dead) in chunk {
                let item = match dead {
                    Dead::Letter(letter) => {
                        DeadItem::Delivery { letter: letter.clone(), event: events.next().flatten() }
                    }
                    Dead::Bad(entry) => DeadItem::Unreadable(entry.clone()),
                };
                bytes += item.bytes();
                if bytes > PAGE_BYTES && last.is_some() {
                    return Ok(DeadLetterPage { data, next: last });
                }
                last = Some(*place);
                data.push(item);
            }
        }
        Ok(DeadLetterPage { data, next })
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

    /// How many of the dead letters that a filter leaves can be sent once more: those that could be read.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn count_replayable(&self, tenant: &str, filter: &DeadLetterFilter) -> Result<u64, ManageError> {
        let mut walk = Walk::new(self, tenant, filter).await?;
        let mut count = 0;
        while let Some(batch) = walk.next().await? {
            if let Batch::Letters(_, entries) = batch {
                count += entries.len() as u64;
            }
        }
        Ok(count)
    }

    /// Sends the dead letters that a filter leaves once more, oldest first, up to `rate` a second; those that die anew
    /// meanwhile are not sent again. `progress` is told the number so far. Entries that could not be read stay.
    ///
    /// # Errors
    /// [`ManageError::Conflict`] when a webhook's backlog is full: what was sent until then is sent.
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
        let started = Instant::now();
        let mut sent: u64 = 0;
        let mut walk = Walk::new(self, tenant, filter).await?;
        while let Some(batch) = walk.next().await? {
            let Batch::Letters(webhook, entries) = batch else { continue };
            for page in entries.chunks(rate.map_or(entries.len(), |rate| rate.max(1) as usize)) {
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
                    sleep_until(started + Duration::from_secs_f64(sent as f64 / f64::from(rate.max(1)))).await;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(ms: u64, event_type: &str, reason: Reason) -> Dead {
        let at = StreamId { ms, seq: 3 };
        let subscription = SubscriptionId { ms: 1, shard: 2, random: 3 };
        Dead::Letter(DeadLetter {
            delivery: DeliveryId { event: at, subscription, copy: 0 },
            entry: at,
            event_type: event_type.to_owned(),
            reason,
            attempts: 4,
            last_status: None,
            last_error: None,
        })
    }

    #[test]
    fn a_filter_leaves_what_fits_all_that_it_says() {
        let other = SubscriptionId { ms: 9, shard: 2, random: 3 };
        let check = |filter: DeadLetterFilter, expected: bool| {
            assert_eq!(filter.allows(&letter(5, "a.b", Reason::Gone)), expected, "{filter:?}");
        };
        let all = DeadLetterFilter::default;
        check(all(), true);
        check(DeadLetterFilter { since_ms: Some(5), until_ms: Some(5), ..all() }, true);
        check(DeadLetterFilter { since_ms: Some(6), ..all() }, false);
        check(DeadLetterFilter { until_ms: Some(4), ..all() }, false);
        check(DeadLetterFilter { event_type: Some("a.b".into()), reason: Some(Reason::Gone), ..all() }, true);
        check(DeadLetterFilter { event_type: Some("a".into()), ..all() }, false);
        check(DeadLetterFilter { reason: Some(Reason::Exhausted), ..all() }, false);
        check(DeadLetterFilter { webhook: Some(other), ..all() }, false);
    }

    #[test]
    fn ids_and_cursors_survive_their_text() {
        let at = StreamId { ms: 1_790_000_000_000, seq: 7 };
        let subscription = SubscriptionId { ms: 1, shard: 2, random: 3 };
        for id in [
            DeadLetterId::Delivery(DeliveryId { event: at, subscription, copy: 1 }),
            DeadLetterId::Unreadable(BadId { at, shard: BadId::NO_SHARD }),
        ] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for source in [Source::Stray, Source::Shard, Source::Webhook(subscription)] {
            let cursor = DeadLetterCursor { at, source };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "1-2", "1-2.", "1-2.x", "x.shard"] {
            assert_eq!(bad.parse::<DeadLetterCursor>(), Err(NotAnId), "{bad}");
        }
    }
}

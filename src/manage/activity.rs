//! The deliveries of one webhook, newest activity first: each once, at its last attempt; at the place where it was queued
//! or given up, if it was never tried.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    str::FromStr,
};

use super::{
    ManageError, Manager,
    merge::{Merged, Step},
};
use crate::{
    domain::{
        attempt::Attempt,
        delivery::{DeliveryState, DeliveryStatus},
        id::{AttemptId, DeliveryId, EventId, NotAnId, StreamId, SubscriptionId},
    },
    streams::{self, DeadLetter, Noted, Progress, Streams},
};

/// Read at once of each list.
const PAGE: usize = 50;
/// Entries and attempts looked at for one page of an answer; a page that had to look further is short, and has a cursor.
const LOOK_AT_MOST: usize = 1_000;

/// A delivery, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliverySummary {
    pub status: DeliveryStatus,
    /// The event's public id and type; `None` where neither it nor an attempt is kept.
    pub event: Option<(EventId, String)>,
    pub progress: Progress,
    /// When it was last tried; if it never was, when it was queued or given up: Unix milliseconds.
    pub last_activity_ms: u64,
}

/// A page of a webhook's deliveries, newest activity first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryPage {
    pub deliveries: Vec<DeliverySummary>,
    pub next: Option<DeliveryCursor>,
}

/// A place in a list of deliveries; the next page begins behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryCursor {
    at: StreamId,
    source: Source,
}

/// Where deliveries are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Dead,
    Queued,
    Attempts,
}

impl Source {
    const ALL: [Self; 3] = [Self::Dead, Self::Queued, Self::Attempts];

    fn name(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Queued => "queued",
            Self::Attempts => "tried",
        }
    }
}

impl fmt::Display for DeliveryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.at, self.source.name())
    }
}

impl FromStr for DeliveryCursor {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (at, name) = text.split_once('.').ok_or(NotAnId)?;
        let source = Source::ALL.into_iter().find(|source| source.name() == name).ok_or(NotAnId)?;
        Ok(Self { at: at.parse()?, source })
    }
}

impl Manager {
    /// Deliveries of a webhook, newest activity first: up to `limit` behind `cursor`. Those of a deleted one can be looked
    /// at until its attempts have aged.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's webhook.
    pub async fn deliveries_of_webhook(
        &self,
        tenant: &str,
        webhook: &str,
        cursor: Option<DeliveryCursor>,
        limit: usize,
    ) -> Result<DeliveryPage, ManageError> {
        let id = self.once_owned(tenant, webhook).await?;
        let mut walk = Activity::new(&self.streams, id, cursor).await?;
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let (mut looked, mut last) = (0, cursor);
        let next = loop {
            let Some((place, delivery)) = walk.next().await? else { break None };
            if found.len() == limit || looked == LOOK_AT_MOST {
                break last;
            }
            (looked, last) = (looked + 1, Some(place));
            // One that was tried while the page was read would be there twice.
            found.extend(
                delivery.filter(|delivery| seen.insert(delivery.status.id)).map(|delivery| (place.at, delivery)),
            );
        };
        Ok(DeliveryPage { deliveries: self.summaries(id, found).await?, next })
    }

    async fn summaries(
        &self,
        id: SubscriptionId,
        mut found: Vec<(StreamId, Found)>,
    ) -> Result<Vec<DeliverySummary>, ManageError> {
        let mut nameless: Vec<&mut Found> =
            found.iter_mut().map(|(_, found)| found).filter(|found| found.event.is_none()).collect();
        let places: Vec<StreamId> = nameless.iter().map(|found| found.status.id.event).collect();
        // Their bodies come with them: a few at a time.
        for (nameless, places) in nameless.chunks_mut(PAGE).zip(places.chunks(PAGE)) {
            for (found, event) in nameless.iter_mut().zip(self.streams.events(id.shard, places).await?) {
                found.event = event.map(|event| (event.id, event.event_type));
            }
        }
        let statuses: Vec<DeliveryStatus> = found.iter().map(|(_, found)| found.status.clone()).collect();
        let progress = self.streams.progress(&statuses).await?;
        let summary = |((at, found), progress): ((StreamId, Found), Progress)| DeliverySummary {
            status: found.status,
            event: found.event,
            progress,
            last_activity_ms: at.ms,
        };
        Ok(found.into_iter().zip(progress).map(summary).collect())
    }
}

/// A delivery at its place.
struct Found {
    status: DeliveryStatus,
    event: Option<(EventId, String)>,
}

/// The three lists in which deliveries are found, as one. What is no delivery's place is `None`.
struct Activity<'a> {
    streams: &'a Streams,
    id: SubscriptionId,
    /// The oldest attempt that is kept: what was last tried before it stands at its entry.
    oldest_attempt: Option<StreamId>,
    merged: Merged<Source, Option<Found>>,
}

impl<'a> Activity<'a> {
    async fn new(streams: &'a Streams, id: SubscriptionId, cursor: Option<DeliveryCursor>) -> streams::Result<Self> {
        let oldest_attempt = streams.oldest_attempt(id).await?;
        let sources = Source::ALL.map(|source| (source, StreamId::MAX));
        let merged = Merged::new(sources, cursor.map(|cursor| (cursor.at, cursor.source)));
        Ok(Self { streams, id, oldest_attempt, merged })
    }

    async fn next(&mut self) -> streams::Result<Option<(DeliveryCursor, Option<Found>)>> {
        loop {
            match self.merged.step() {
                Step::Read(source, first) => {
                    let page = self.read(source, first).await?;
                    self.merged.fill(source, page);
                }
                Step::Found((at, source), found) => return Ok(Some((DeliveryCursor { at, source }, found))),
                Step::End => return Ok(None),
            }
        }
    }

    async fn read(&self, source: Source, first: StreamId) -> streams::Result<VecDeque<(StreamId, Option<Found>)>> {
        match source {
            Source::Attempts => self.attempts(first).await,
            Source::Queued => {
                let page = self.streams.queued(self.id, first, PAGE).await?;
                let ids: Vec<DeliveryId> = page.iter().map(|(_, id)| *id).collect();
                let noted = self.streams.noted(&ids).await?;
                Ok(page.into_iter().zip(noted).map(|((at, id), noted)| (at, self.queued(at, id, noted))).collect())
            }
            Source::Dead => {
                let page = self.streams.dead_letters(self.id, first, StreamId::ZERO, PAGE).await?;
                let ids: Vec<DeliveryId> = page.iter().map(|letter| letter.delivery).collect();
                let noted = self.streams.noted(&ids).await?;
                Ok(page
                    .into_iter()
                    .zip(noted)
                    .map(|(letter, noted)| (letter.entry, self.dead(letter, noted)))
                    .collect())
            }
        }
    }

    async fn attempts(&self, first: StreamId) -> streams::Result<VecDeque<(StreamId, Option<Found>)>> {
        let places = self.streams.attempt_places(self.id, first, PAGE).await?;
        let attempts = self.streams.attempts(self.id.shard, &places).await?;
        let ids: Vec<DeliveryId> = attempts.iter().map(|(_, attempt)| attempt.delivery()).collect();
        let noted = self.streams.noted(&ids).await?;
        let mut kept = attempts.into_iter().zip(noted).peekable();
        // A place whose attempt is not kept any more is walked over like any other.
        let item = |at: StreamId| match kept.next_if(|((id, _), _)| id.at == at) {
            Some(((id, attempt), noted)) => (at, tried(id, attempt, noted)),
            None => (at, None),
        };
        Ok(places.into_iter().map(item).collect())
    }

    /// Whether a delivery stands at its last attempt rather than at its entry.
    fn is_listed(&self, status: &DeliveryStatus) -> bool {
        let last = status.attempt_log.last();
        last.zip(self.oldest_attempt.as_ref()).is_some_and(|(last, oldest)| last >= oldest)
    }

    fn queued(&self, at: StreamId, id: DeliveryId, noted: Noted) -> Option<Found> {
        let status = match noted {
            Noted::Status(status) if status.state == DeliveryState::Pending => status,
            // It was done a moment ago.
            Noted::Status(_) => return None,
            Noted::Nothing | Noted::Forgotten => DeliveryStatus::untried(id, at),
        };
        (!self.is_listed(&status)).then_some(Found { status, event: None })
    }

    fn dead(&self, letter: DeadLetter, noted: Noted) -> Option<Found> {
        let status = match noted {
            Noted::Status(status) if status.state == DeliveryState::Dead => status,
            Noted::Status(_) => return None,
            Noted::Nothing | Noted::Forgotten => DeliveryStatus {
                state: DeliveryState::Dead,
                attempts: letter.attempts,
                last_status: letter.last_status,
                ..DeliveryStatus::untried(letter.delivery, letter.entry)
            },
        };
        (!self.is_listed(&status)).then_some(Found { status, event: None })
    }
}

/// The delivery of an attempt, if that was its last one. Where nothing is noted any more, the attempt alone tells.
fn tried(id: AttemptId, attempt: Attempt, noted: Noted) -> Option<Found> {
    let status = match noted {
        Noted::Status(status) if status.attempt_log.last() == Some(&id.at) => status,
        Noted::Status(_) | Noted::Nothing => return None,
        Noted::Forgotten if attempt.is_late => return None,
        Noted::Forgotten => DeliveryStatus {
            state: if attempt.is_success() { DeliveryState::Delivered } else { DeliveryState::Dead },
            attempts: attempt.number,
            last_status: attempt.status(),
            attempt_log: vec![id.at],
            ..DeliveryStatus::untried(attempt.delivery(), id.at)
        },
    };
    Some(Found { status, event: Some((attempt.event, attempt.event_type)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_text() {
        for source in Source::ALL {
            let cursor = DeliveryCursor { at: StreamId { ms: 1_790_000_000_000, seq: 7 }, source };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "1-2", "1-2.", "1-2.x", "x.dead"] {
            assert_eq!(bad.parse::<DeliveryCursor>(), Err(NotAnId), "{bad}");
        }
    }
}

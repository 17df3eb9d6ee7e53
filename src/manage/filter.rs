//! Which dead letters are meant: by their ids, or by what they have in common.

use std::{fmt, str::FromStr};

use super::walk::Source;
use crate::{
    domain::{
        id::{BadId, DeliveryId, NotAnId, StreamId, SubscriptionId},
        outcome::Reason,
    },
    streams::{BadEntry, DeadLetter},
};

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
    /// With the tenant `default`, also entries that name no valid tenant: for those who may see what is anybody's.
    pub with_strays: bool,
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

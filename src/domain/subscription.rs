//! A subscription: who wants which events, where, under what policy.

use std::{collections::BTreeMap, fmt};

use super::{
    event::Event,
    filter::{Pattern, matching},
    id::SubscriptionId,
    retry::Retry,
};

/// The longest timeout that a subscription may have: no attempt takes longer.
pub const LONGEST_TIMEOUT_SECONDS: u32 = 300;

/// A tenant's subscription, without what changes by itself (see [`State`]).
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub tenant: String,
    pub name: String,
    /// Where deliveries are posted: an absolute `https` (or allowed `http`) URL.
    pub url: String,
    /// It wants the events that any of these matches.
    pub events: Vec<Pattern>,
    pub retry: Retry,
    pub timeout_seconds: u32,
    /// Requests under way at once, at most.
    pub max_concurrency: u32,
    /// Attempts in any minute, at most.
    pub rate_limit_per_minute: Option<u32>,
    pub ordering: Ordering,
    /// Sent with each request.
    pub headers: BTreeMap<String, String>,
    pub payload_format: PayloadFormat,
    pub secrets: Secrets,
    /// What a post to the ingest address is signed with.
    pub ingest: Secrets,
    pub created_at_ms: u64,
    pub updated_at_ms: u64,
}

impl Subscription {
    /// Whether a replay puts this event of the log to the subscription: it is its tenant's, its filters want it, nobody
    /// else alone was to have it, and `pattern`, if there is one, matches.
    pub fn is_replayed(&self, event: &Event, pattern: Option<&Pattern>) -> bool {
        let is_for_us = match event.only_for {
            Some(only) => only == self.id,
            None => matching(&self.events, &event.event_type).is_some(),
        };
        is_for_us && event.tenant == self.tenant && pattern.is_none_or(|pattern| pattern.matches(&event.event_type))
    }
}

/// What is signed with.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    pub current: String,
    /// The secret before the last rotation signs too, until its time: Unix milliseconds.
    pub previous: Option<(String, u64)>,
}

impl Secrets {
    /// One that has no other beside it.
    pub fn only(current: String) -> Self {
        Self { current, previous: None }
    }

    /// Puts `new` in the place of the current one, which goes on signing until `until_ms`.
    pub fn rotate(&mut self, new: String, until_ms: u64) {
        let old = std::mem::replace(&mut self.current, new);
        self.previous = Some((old, until_ms));
    }

    /// Those that sign at a moment, the current one first.
    pub fn live(&self, now_ms: u64) -> impl Iterator<Item = &str> {
        let previous = self.previous.as_ref().filter(|(_, until_ms)| now_ms < *until_ms);
        std::iter::once(self.current.as_str()).chain(previous.map(|(secret, _)| secret.as_str()))
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Whether a delivery waits for the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ordering {
    /// It does not.
    #[default]
    None,
    /// In the order of the log: the next is sent when the one before it is delivered or dead.
    Fifo,
}

/// What the body of a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PayloadFormat {
    /// The data with the event's id, type, time and tenant around it.
    #[default]
    Envelope,
    /// The data as published, byte for byte.
    Raw,
}

/// Whether a subscription is delivered to. A paused or disabled one keeps collecting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    #[default]
    Active,
    /// By its owner.
    Paused,
    /// By the engine; the reason is in [`State::disabled_reason`].
    Disabled,
}

/// Why the engine has disabled a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisabledReason {
    /// The receiver answered `410 Gone`.
    Gone,
    /// Nothing but failures for `delivery.disable_after_hours` and longer.
    Failing { hours: u64 },
}

impl DisabledReason {
    /// The word for it in metrics, and in the event that tells of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing { .. } => "failing",
        }
    }
}

/// In plain words.
impl fmt::Display for DisabledReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("the endpoint answered 410 Gone"),
            Self::Failing { hours: 1 } => f.write_str("no success for 1 hour"),
            Self::Failing { hours } => write!(f, "no success for {hours} hours"),
        }
    }
}

impl Status {
    /// The public word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

/// What changes of a subscription by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    pub status: Status,
    pub disabled_reason: Option<DisabledReason>,
    /// Deliveries (not attempts) that ended well, and that became dead letters.
    pub delivered: u64,
    pub failed: u64,
    /// The last attempt: Unix milliseconds.
    pub last_triggered_at_ms: Option<u64>,
    /// Not yet tried.
    pub fresh: u64,
    /// Waiting for the next attempt.
    pub waiting: u64,
    /// Under way.
    pub leased: u64,
    /// Dead letters kept.
    pub dead: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_before_a_rotation_signs_until_its_time() {
        let mut secrets = Secrets::only("a".into());
        let check = |secrets: &Secrets, now_ms: u64, expected: &[&str]| {
            assert_eq!(secrets.live(now_ms).collect::<Vec<_>>(), expected, "{now_ms}");
        };
        check(&secrets, 0, &["a"]);
        secrets.rotate("b".into(), 10);
        check(&secrets, 9, &["b", "a"]);
        check(&secrets, 10, &["b"]);
        secrets.rotate("c".into(), 20);
        check(&secrets, 9, &["c", "b"]);
    }

    #[test]
    fn no_secret_is_shown() {
        assert_eq!(format!("{:?}", Secrets::only("hunter2".into())), "Secrets(…)");
    }

    #[test]
    fn why_it_is_disabled_is_said_in_plain_words() {
        let check = |reason: DisabledReason, words: &str| assert_eq!(reason.to_string(), words);
        check(DisabledReason::Gone, "the endpoint answered 410 Gone");
        check(DisabledReason::Failing { hours: 1 }, "no success for 1 hour");
        check(DisabledReason::Failing { hours: 120 }, "no success for 120 hours");
    }
}

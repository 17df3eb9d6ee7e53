//! Upkeep of the shards that this process leads: trimming, retention, the memory gate, the audit, and the figures.
//!
//! All of it is in small steps, so that no call holds Redis up, and none of it is needed for a delivery to go out. What
//! fails for one shard or webhook is done without: the others are kept in order all the same.

mod audit;
mod figures;
mod gate;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::{join_all, try_join_all};
use tokio::sync::watch;

use crate::{
    backoff::Backoff,
    clock,
    config::Durability,
    domain::{
        id::{StreamId, SubscriptionId},
        outcome::Reason,
        subscription::Status,
    },
    metrics,
    shutdown::Shutdown,
    streams::{Error, Result, ShardFigures, ShardId, Streams},
};

/// Steps of one kind taken for a shard in a round; where that was not enough, the next round comes at once.
const STEPS_A_ROUND: usize = 50;
/// Time between two rounds while there is more to do: Redis has others to serve.
const AT_ONCE: Duration = Duration::from_millis(10);
/// Shards that are looked after at once: what they ask of Redis shares its round trips.
const SHARDS_AT_ONCE: usize = 16;
/// Subscriptions of one kind looked at for a shard in a round; the next round looks at the next ones.
const LOOKED_AT_A_ROUND: usize = 200;

/// What is kept, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub events: Duration,
    pub events_max_bytes: Option<u64>,
    pub attempts: Duration,
    pub attempts_max_bytes: Option<u64>,
    pub dead_letters: Duration,
    /// Past this age a delivery of a subscription that is not active becomes a dead letter.
    pub max_age: Duration,
    /// What Redis has to keep to.
    pub durability: Durability,
    /// Time between two rounds of upkeep.
    pub every: Duration,
}

/// Keeps the shards that are led in order until it is told to stop.
pub async fn run(streams: Streams, settings: Settings, led: watch::Receiver<Arc<[ShardId]>>, shutdown: Shutdown) {
    let janitor = Janitor { streams: streams.clone(), settings, led: led.clone(), looked_at: HashMap::new() };
    tokio::select! {
        () = shutdown.stopping() => {}
        () = janitor.run() => {}
        () = gate::keep(streams.clone(), led.clone()) => {}
        () = audit::run(streams, led) => {}
    }
}

struct Janitor {
    streams: Streams,
    settings: Settings,
    led: watch::Receiver<Arc<[ShardId]>>,
    looked_at: HashMap<ShardId, LookedAt>,
}

/// How many subscriptions of a shard were looked at, from the first on; all have their turn before any has its next.
#[derive(Debug, Clone, Copy, Default)]
struct LookedAt {
    deleted: usize,
    behind: usize,
}

/// What failed meanwhile.
#[derive(Default)]
struct Failures(Option<Error>);

impl Failures {
    /// Keeps the first failure; gives back what did not fail.
    fn note<T>(&mut self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.get_or_insert(error);
                None
            }
        }
    }

    /// Takes over what failed elsewhere: that Redis is away counts for more than what failed first.
    fn add(&mut self, others: Self) {
        if !self.is_cut_off() && (self.0.is_none() || others.is_cut_off()) {
            self.0 = others.0;
        }
    }

    /// Redis is away: the rest would fail as well, each after its time limit.
    fn is_cut_off(&self) -> bool {
        matches!(self.0, Some(Error::Unavailable(_)))
    }

    fn first(self) -> Option<Error> {
        self.0
    }
}

/// What became of a shard's part of a round.
struct Turn {
    is_more: bool,
    failures: Failures,
    looked_at: LookedAt,
}

impl Turn {
    /// Notes what a step says: whether there is more to do.
    fn note(&mut self, is_more: Result<bool>) {
        self.is_more |= self.failures.note(is_more).unwrap_or(false);
    }
}

impl Janitor {
    async fn run(mut self) {
        let mut backoff = Backoff::new("upkeep");
        loop {
            let led = self.led.borrow().clone();
            self.looked_at.retain(|shard, _| led.contains(shard));
            if led.is_empty() {
                // Also where Redis is away: what this process had led is another's now, or nobody's.
                figures::show(&ShardFigures::default(), Some(0), 0);
            }
            let mut failures = Failures::default();
            let is_more = self.round(&led, &mut failures).await;
            match failures.first() {
                None => backoff.recovered(),
                Some(error) => {
                    backoff.pause(&error).await;
                    if error.is_passing() {
                        continue;
                    }
                }
            }
            if is_more {
                tokio::time::sleep(AT_ONCE).await;
            } else {
                clock::beat(self.settings.every).await;
            }
        }
    }

    /// Does a part of everything; `true` where some of it was more than a round does.
    async fn round(&mut self, led: &[ShardId], failures: &mut Failures) -> bool {
        let Some(now_ms) = failures.note(self.streams.now_ms().await) else { return false };
        let excess = failures.note(self.excess(led).await).unwrap_or_default();
        let mut is_more = false;
        for shards in led.chunks(SHARDS_AT_ONCE) {
            let turns = join_all(shards.iter().map(|shard| self.turn(*shard, now_ms, &excess))).await;
            for (shard, turn) in shards.iter().zip(turns) {
                self.looked_at.insert(*shard, turn.looked_at);
                is_more |= turn.is_more;
                failures.add(turn.failures);
            }
            if failures.is_cut_off() {
                return false;
            }
        }
        // One process looks after what belongs to no shard.
        let bad = async { if led.contains(&0) { self.trim_bad(None, now_ms).await } else { Ok(false) } };
        let (bad, ()) = tokio::join!(bad, self.look(led, now_ms, failures));
        is_more |= failures.note(bad).unwrap_or(false);
        is_more
    }

    /// One shard's part of a round. What does not build on each other is asked at once, and shares round trips.
    async fn turn(&self, shard: ShardId, now_ms: u64, excess: &Excess) -> Turn {
        let looked_at = self.looked_at.get(&shard).copied().unwrap_or_default();
        let events = async {
            let aged = self.trim_events(shard, now_ms).await;
            (aged, self.trim_excess_events(shard, excess.events).await)
        };
        let attempts = async {
            let aged = self.trim_attempts(shard, now_ms).await;
            (aged, self.trim_excess_attempts(shard, excess.attempts).await)
        };
        // What frees memory comes first: what takes some is refused while Redis is full.
        let (events, attempts, retired, bad, deleted, behind, kept) = tokio::join!(
            biased;
            events,
            attempts,
            self.retire(shard, now_ms),
            self.trim_bad(Some(shard), now_ms),
            self.purge_deleted(shard, now_ms, looked_at.deleted),
            self.drop_outdated(shard, now_ms, looked_at.behind),
            self.streams.keep_status_for(shard, self.settings.attempts),
        );
        let looked_at = LookedAt { deleted: deleted.0, behind: behind.0 };
        let mut turn = Turn { is_more: false, failures: Failures::default(), looked_at };
        for is_more in [events.0, events.1, attempts.0, attempts.1, retired, bad] {
            turn.note(is_more);
        }
        turn.failures.add(deleted.1);
        turn.failures.add(behind.1);
        turn.failures.note(kept);
        turn
    }

    /// By how much all shards together exceed what may be kept.
    async fn excess(&self, led: &[ShardId]) -> Result<Excess> {
        let mut excess = Excess::default();
        if led.is_empty() {
            return Ok(excess);
        }
        let limits = [("events", self.settings.events_max_bytes), ("attempts", self.settings.attempts_max_bytes)];
        for (name, limit) in limits {
            let Some(limit) = limit else { continue };
            let asked = self.streams.shards().map(|shard| self.streams.stream_bytes(shard, name));
            let bytes: u64 = try_join_all(asked).await?.into_iter().sum();
            let part = if bytes > limit { (bytes - limit) as f64 / bytes as f64 } else { 0.0 };
            if name == "events" { excess.events = part } else { excess.attempts = part }
        }
        Ok(excess)
    }

    async fn trim_events(&self, shard: ShardId, now_ms: u64) -> Result<bool> {
        let last = before(now_ms, self.settings.events);
        for _ in 0..STEPS_A_ROUND {
            if self.streams.trim_events(shard, last).await?.0 == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn trim_excess_events(&self, shard: ShardId, part: f64) -> Result<bool> {
        if part == 0.0 {
            return Ok(false);
        }
        let mut left = part_of(self.streams.stream_length(shard, "events").await?, part);
        for _ in 0..STEPS_A_ROUND {
            let trimmed = if left > 0 { self.streams.trim_oldest_events(shard, left).await? } else { 0 };
            if trimmed == 0 {
                return Ok(false);
            }
            left = left.saturating_sub(trimmed);
        }
        Ok(true)
    }

    async fn trim_attempts(&self, shard: ShardId, now_ms: u64) -> Result<bool> {
        let first = before(now_ms, self.settings.attempts);
        for _ in 0..STEPS_A_ROUND {
            if self.streams.trim_attempts(shard, first).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn trim_excess_attempts(&self, shard: ShardId, part: f64) -> Result<bool> {
        if part == 0.0 {
            return Ok(false);
        }
        let length = self.streams.stream_length(shard, "attempts").await?;
        let kept = length - part_of(length, part);
        for _ in 0..STEPS_A_ROUND {
            if self.streams.trim_attempts_to(shard, kept).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn retire(&self, shard: ShardId, now_ms: u64) -> Result<bool> {
        let oldest = before(now_ms, self.settings.dead_letters);
        for _ in 0..STEPS_A_ROUND {
            if !self.streams.retire_dead_letters(shard, oldest).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn trim_bad(&self, shard: Option<ShardId>, now_ms: u64) -> Result<bool> {
        let oldest = before(now_ms, self.settings.dead_letters);
        for _ in 0..STEPS_A_ROUND {
            if self.streams.trim_bad(shard, oldest).await? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Goes on with purges that were interrupted, and forgets what was deleted long ago. Returns how many it has looked at.
    async fn purge_deleted(&self, shard: ShardId, now_ms: u64, looked_at: usize) -> (usize, Failures) {
        let (kept_from, mut failures) = (before(now_ms, self.settings.attempts).ms, Failures::default());
        let page = self.streams.deleted_subscriptions(shard, looked_at, LOOKED_AT_A_ROUND).await;
        let Some(page) = failures.note(page) else { return (looked_at, failures) };
        let looked_at = next(looked_at, page.len());
        for (subscription, deleted_ms) in page {
            let is_purged = failures.note(self.purge(subscription).await).unwrap_or(false);
            if is_purged && deleted_ms < kept_from {
                failures.note(self.streams.forget_subscription(subscription).await);
            }
        }
        (looked_at, failures)
    }

    async fn purge(&self, subscription: SubscriptionId) -> Result<bool> {
        for _ in 0..STEPS_A_ROUND {
            if self.streams.purge(subscription).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What waits too long for a subscription that is not active becomes a dead letter; an active one's does so when it fails.
    /// Returns how many it has looked at.
    async fn drop_outdated(&self, shard: ShardId, now_ms: u64, looked_at: usize) -> (usize, Failures) {
        let (last, mut failures) = (before(now_ms, self.settings.max_age), Failures::default());
        let page = self.streams.subscriptions_behind(shard, last.ms, looked_at, LOOKED_AT_A_ROUND).await;
        let Some(page) = failures.note(page) else { return (looked_at, failures) };
        let looked_at = next(looked_at, page.len());
        for subscription in page {
            let status = failures.note(self.streams.status_of(subscription).await).flatten();
            if status.is_some_and(|status| status != Status::Active) {
                failures.note(self.drop_backlog(subscription, last).await);
            }
        }
        (looked_at, failures)
    }

    async fn drop_backlog(&self, subscription: SubscriptionId, last: StreamId) -> Result<()> {
        let (mut after, mut dropped) = (StreamId::ZERO, 0);
        loop {
            let error = "it waited for a webhook that is not active longer than delivery.max_age_hours";
            let (count, next) = self.streams.drop_backlog(subscription, last, Reason::MaxAge, error, after).await?;
            (0..count).for_each(|_| metrics::dead_lettered(Reason::MaxAge));
            dropped += count;
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        if dropped > 0 {
            tracing::warn!(webhook_id = %subscription, dropped, "deliveries waited too long: they are dead letters now");
        }
        Ok(())
    }
}

/// How many were looked at after a page of `count` more; after the last page it starts anew.
fn next(looked_at: usize, count: usize) -> usize {
    if count < LOOKED_AT_A_ROUND { 0 } else { looked_at + count }
}

/// Parts of what is kept that are too much, from 0 to 1.
#[derive(Default)]
struct Excess {
    events: f64,
    attempts: f64,
}

/// Each shard gives up the same part of what it has.
fn part_of(length: u64, part: f64) -> u64 {
    ((length as f64 * part).ceil() as u64).min(length)
}

/// The first place that is younger than `age`.
fn before(now_ms: u64, age: Duration) -> StreamId {
    StreamId { ms: now_ms.saturating_sub(age.as_millis() as u64), seq: 0 }
}

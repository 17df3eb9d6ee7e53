//! Upkeep of the shards that this process leads: trimming, retention, the memory gate, the audit, and the figures.
//!
//! All of it is in small steps, so that no call holds Redis up, and none of it is needed for a delivery to go out. What
//! fails for one shard or webhook is done without: the others are kept in order all the same.

mod audit;
mod gate;

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    backoff::Backoff,
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

    /// Redis is away: the rest would fail as well, each after its time limit.
    fn is_cut_off(&self) -> bool {
        matches!(self.0, Some(Error::Unavailable(_)))
    }

    fn first(self) -> Option<Error> {
        self.0
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
                show(&ShardFigures::default(), Some(0), 0);
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
            tokio::time::sleep(if is_more { AT_ONCE } else { self.settings.every }).await;
        }
    }

    /// Does a part of everything; `true` where some of it was more than a round does.
    async fn round(&mut self, led: &[ShardId], failures: &mut Failures) -> bool {
        let Some(now_ms) = failures.note(self.streams.now_ms().await) else { return false };
        let excess = failures.note(self.excess(led).await).unwrap_or_default();
        let mut is_more = false;
        for shard in led.iter().copied() {
            // What frees memory comes first: what takes some is refused while Redis is full.
            is_more |= failures.note(self.trim_events(shard, now_ms).await).unwrap_or(false);
            is_more |= failures.note(self.trim_attempts(shard, now_ms).await).unwrap_or(false);
            if excess.events > 0.0 {
                is_more |= failures.note(self.trim_excess_events(shard, excess.events).await).unwrap_or(false);
            }
            if excess.attempts > 0.0 {
                is_more |= failures.note(self.trim_excess_attempts(shard, excess.attempts).await).unwrap_or(false);
            }
            is_more |= failures.note(self.retire(shard, now_ms).await).unwrap_or(false);
            is_more |= failures.note(self.trim_bad(Some(shard), now_ms).await).unwrap_or(false);
            let purged = self.purge_deleted(shard, now_ms, failures).await;
            failures.note(purged);
            let dropped = self.drop_outdated(shard, now_ms, failures).await;
            failures.note(dropped);
            failures.note(self.streams.keep_status_for(shard, self.settings.attempts).await);
            if failures.is_cut_off() {
                return false;
            }
        }
        // One process looks after what belongs to no shard.
        if led.contains(&0) {
            is_more |= failures.note(self.trim_bad(None, now_ms).await).unwrap_or(false);
        }
        self.look(led, now_ms, failures).await;
        is_more
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
            let mut bytes = 0;
            for shard in self.streams.shards() {
                bytes += self.streams.stream_bytes(shard, name).await?;
            }
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

    /// Goes on with purges that were interrupted, and forgets what was deleted long ago.
    async fn purge_deleted(&mut self, shard: ShardId, now_ms: u64, failures: &mut Failures) -> Result<()> {
        let kept_from = before(now_ms, self.settings.attempts).ms;
        let looked_at = self.looked_at.entry(shard).or_default();
        let page = self.streams.deleted_subscriptions(shard, looked_at.deleted, LOOKED_AT_A_ROUND).await?;
        looked_at.deleted = next(looked_at.deleted, page.len());
        for (subscription, deleted_ms) in page {
            let is_purged = failures.note(self.purge(subscription).await).unwrap_or(false);
            if is_purged && deleted_ms < kept_from {
                failures.note(self.streams.forget_subscription(subscription).await);
            }
        }
        Ok(())
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
    async fn drop_outdated(&mut self, shard: ShardId, now_ms: u64, failures: &mut Failures) -> Result<()> {
        let last = before(now_ms, self.settings.max_age);
        let looked_at = self.looked_at.entry(shard).or_default();
        let page = self.streams.subscriptions_behind(shard, last.ms, looked_at.behind, LOOKED_AT_A_ROUND).await?;
        looked_at.behind = next(looked_at.behind, page.len());
        for subscription in page {
            let status = failures.note(self.streams.status_of(subscription).await).flatten();
            if status.is_some_and(|status| status != Status::Active) {
                failures.note(self.drop_backlog(subscription, last).await);
            }
        }
        Ok(())
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

    /// Shows what waits on the shards that are led, and the state of Redis. A sum of which a part is not known is not shown.
    async fn look(&self, led: &[ShardId], now_ms: u64, failures: &mut Failures) {
        let (mut all, mut is_whole) = (ShardFigures::default(), true);
        for shard in led {
            let Some(figures) = failures.note(self.streams.figures(*shard, now_ms).await) else {
                is_whole = false;
                continue;
            };
            all.counts.fresh += figures.counts.fresh;
            all.counts.waiting += figures.counts.waiting;
            all.counts.leased += figures.counts.leased;
            all.counts.dead += figures.counts.dead;
            all.undispatched += figures.undispatched;
            all.due += figures.due;
            all.oldest_ms = all.oldest_ms.into_iter().chain(figures.oldest_ms).min();
            all.due_since_ms = all.due_since_ms.into_iter().chain(figures.due_since_ms).min();
        }
        let at_front_door = match led.contains(&0) {
            true => failures.note(self.streams.front_door_length().await),
            false => Some(0),
        };
        if is_whole {
            show(&all, at_front_door, now_ms);
        }
        if let Some(report) = failures.note(self.streams.server_report().await) {
            let aof = report.aof;
            metrics::redis_aof(aof.is_enabled, aof.is_written, aof.is_rewritten, aof.bytes);
            metrics::redis_findings("faults", report.faults.len());
            metrics::redis_findings("losses", report.losses_for(self.settings.durability).len());
            metrics::redis_findings("advice", report.advice.len());
        }
    }
}

/// Shows what waits; how much at the front door only where that is known.
fn show(all: &ShardFigures, at_front_door: Option<u64>, now_ms: u64) {
    let since = |ms: Option<u64>| Duration::from_millis(ms.map_or(0, |ms| now_ms.saturating_sub(ms)));
    metrics::backlog("log", all.undispatched);
    metrics::backlog("fresh", all.counts.fresh);
    metrics::backlog("waiting", all.counts.waiting);
    metrics::backlog("leased", all.counts.leased);
    metrics::backlog("dead", all.counts.dead);
    if let Some(count) = at_front_door {
        metrics::backlog("front_door", count);
    }
    metrics::oldest_undelivered(since(all.oldest_ms));
    metrics::webhooks_due(all.due, since(all.due_since_ms));
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

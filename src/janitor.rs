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
        let trim_bad = || self.trim_bad(None, now_ms);
        let bad = async { if led.contains(&0) { go_on(trim_bad().await, trim_bad).await } else { Ok(false) } };
        let (bad, ()) = tokio::join!(bad, self.look(led, now_ms, failures));
        is_more |= failures.note(bad).unwrap_or(false);
        is_more
    }

    /// One shard's part of a round. What is asked of it each time, and finds nothing most times, is asked at once and shares a
    /// round trip; what there is to do then is done step by step.
    async fn turn(&self, shard: ShardId, now_ms: u64, excess: &Excess) -> Turn {
        let looked_at = self.looked_at.get(&shard).copied().unwrap_or_default();
        let outdated = before(now_ms, self.settings.max_age);
        let (events, attempts, retired, bad, deleted, behind, kept) = tokio::join!(
            self.trim_events(shard, now_ms),
            self.trim_attempts(shard, now_ms),
            self.retire(shard, now_ms),
            self.trim_bad(Some(shard), now_ms),
            self.streams.deleted_subscriptions(shard, looked_at.deleted, LOOKED_AT_A_ROUND),
            self.streams.subscriptions_behind(shard, outdated.ms, looked_at.behind, LOOKED_AT_A_ROUND),
            self.streams.keep_status_for(shard, self.settings.attempts),
        );
        let mut turn = Turn { is_more: false, failures: Failures::default(), looked_at };
        turn.failures.note(kept);
        // What frees memory comes first: what takes some is refused while Redis is full.
        turn.note(go_on(events, || self.trim_events(shard, now_ms)).await);
        turn.note(go_on(attempts, || self.trim_attempts(shard, now_ms)).await);
        if excess.events > 0.0 {
            turn.note(self.trim_excess_events(shard, excess.events).await);
        }
        if excess.attempts > 0.0 {
            turn.note(self.trim_excess_attempts(shard, excess.attempts).await);
        }
        turn.note(go_on(retired, || self.retire(shard, now_ms)).await);
        turn.note(go_on(bad, || self.trim_bad(Some(shard), now_ms)).await);
        if let Some(deleted) = turn.failures.note(deleted) {
            turn.looked_at.deleted = next(looked_at.deleted, deleted.len());
            self.purge_deleted(deleted, now_ms, &mut turn.failures).await;
        }
        if let Some(behind) = turn.failures.note(behind) {
            turn.looked_at.behind = next(looked_at.behind, behind.len());
            self.drop_outdated(behind, outdated, &mut turn.failures).await;
        }
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
        Ok(self.streams.trim_events(shard, before(now_ms, self.settings.events)).await?.0 > 0)
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
        Ok(self.streams.trim_attempts(shard, before(now_ms, self.settings.attempts)).await? > 0)
    }

    async fn trim_excess_attempts(&self, shard: ShardId, part: f64) -> Result<bool> {
        let length = self.streams.stream_length(shard, "attempts").await?;
        let kept = length - part_of(length, part);
        let step = || async { Ok(self.streams.trim_attempts_to(shard, kept).await? > 0) };
        go_on(step().await, step).await
    }

    async fn retire(&self, shard: ShardId, now_ms: u64) -> Result<bool> {
        self.streams.retire_dead_letters(shard, before(now_ms, self.settings.dead_letters)).await
    }

    async fn trim_bad(&self, shard: Option<ShardId>, now_ms: u64) -> Result<bool> {
        Ok(self.streams.trim_bad(shard, before(now_ms, self.settings.dead_letters)).await? > 0)
    }

    /// Goes on with purges that were interrupted, and forgets what was deleted long ago.
    async fn purge_deleted(&self, page: Vec<(SubscriptionId, u64)>, now_ms: u64, failures: &mut Failures) {
        let kept_from = before(now_ms, self.settings.attempts).ms;
        for (subscription, deleted_ms) in page {
            let is_purged = failures.note(self.purge(subscription).await).unwrap_or(false);
            if is_purged && deleted_ms < kept_from {
                failures.note(self.streams.forget_subscription(subscription).await);
            }
        }
    }

    /// Says whether nothing is left.
    async fn purge(&self, subscription: SubscriptionId) -> Result<bool> {
        let step = || async { Ok(!self.streams.purge(subscription).await?) };
        Ok(!go_on(step().await, step).await?)
    }

    /// What waits too long for a subscription that is not active becomes a dead letter; an active one's does so when it fails.
    async fn drop_outdated(&self, page: Vec<SubscriptionId>, last: StreamId, failures: &mut Failures) {
        for subscription in page {
            let status = failures.note(self.streams.status_of(subscription).await).flatten();
            if status.is_some_and(|status| status != Status::Active) {
                failures.note(self.drop_backlog(subscription, last).await);
            }
        }
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

/// Goes on after a first step as long as each says that there may be more, for as many steps as a round takes; says whether that
/// was not enough.
async fn go_on<F: Future<Output = Result<bool>>>(first: Result<bool>, step: impl Fn() -> F) -> Result<bool> {
    let mut is_more = first?;
    for _ in 1..STEPS_A_ROUND {
        if !is_more {
            break;
        }
        is_more = step().await?;
    }
    Ok(is_more)
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

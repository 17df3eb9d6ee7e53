//! Upkeep of the shards that this process leads: trimming, retention, the memory gate, the audit, and the figures.
//!
//! All of it is in small steps, so that no call holds Redis up, and none of it is needed for a delivery to go out.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    backoff::Backoff,
    domain::{
        id::{StreamId, SubscriptionId},
        outcome::Reason,
        subscription::Status,
    },
    metrics,
    shutdown::Shutdown,
    streams::{Result, ShardFigures, ShardId, Streams},
};

/// How often the memory of Redis is looked at.
const GATE_EVERY: Duration = Duration::from_secs(1);
/// Parts of `maxmemory`, in percent, at which publishing is refused, and allowed again.
const CLOSE_ABOVE_PERCENT: u64 = 80;
const OPEN_BELOW_PERCENT: u64 = 70;
/// How often all of a shard is audited again.
const AUDIT_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// Subscriptions audited in a turn, and steps of one kind taken for a shard in a turn.
const AUDITS_A_TURN: isize = 200;
const STEPS_A_TURN: usize = 50;
/// Entries trimmed in a turn because there are too many bytes.
const ENTRIES_A_TURN: u64 = 1_000;

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
    /// Time between two rounds of upkeep.
    pub every: Duration,
}

/// Keeps the shards that are led in order until it is told to stop.
pub async fn run(streams: Streams, settings: Settings, led: watch::Receiver<Arc<[ShardId]>>, shutdown: Shutdown) {
    let janitor = Janitor { streams: streams.clone(), settings, led: led.clone(), audits: HashMap::new() };
    tokio::select! {
        () = shutdown.stopping() => {}
        () = janitor.run() => {}
        () = keep_gate(streams, led) => {}
    }
}

struct Janitor {
    streams: Streams,
    settings: Settings,
    led: watch::Receiver<Arc<[ShardId]>>,
    audits: HashMap<ShardId, Audit>,
}

/// How far the audit of a shard is.
struct Audit {
    next_rank: isize,
    references: String,
    /// When the next one starts, once this one is done.
    resumes: Option<Instant>,
}

impl Janitor {
    async fn run(mut self) {
        let mut backoff = Backoff::new("upkeep");
        loop {
            let led = self.led.borrow().clone();
            self.audits.retain(|shard, _| led.contains(shard));
            match self.round(&led).await {
                Ok(()) => {
                    backoff.recovered();
                    tokio::time::sleep(self.settings.every).await;
                }
                Err(error) => backoff.pause(&error).await,
            }
        }
    }

    async fn round(&mut self, led: &[ShardId]) -> Result<()> {
        let now_ms = self.streams.now_ms().await?;
        let excess = self.excess(led).await?;
        // What frees memory comes first: what takes some is refused while Redis is full.
        for shard in led.iter().copied() {
            self.trim_events(shard, now_ms, excess.events).await?;
            self.trim_attempts(shard, now_ms, excess.attempts).await?;
            self.retire(shard, now_ms).await?;
            self.purge_deleted(shard, now_ms).await?;
            self.drop_outdated(shard, now_ms).await?;
            self.audit(shard).await?;
            self.streams.keep_status_for(shard, self.settings.attempts).await?;
        }
        self.streams.trim_bad(None, before(now_ms, self.settings.dead_letters)).await?;
        self.show(led, now_ms).await
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

    /// Each shard gives up the same part of what it has.
    async fn cut_for(&self, shard: ShardId, name: &'static str, part: f64) -> Result<StreamId> {
        if part == 0.0 {
            return Ok(StreamId::ZERO);
        }
        let length = self.streams.stream_length(shard, name).await?;
        let entries = ((length as f64 * part).ceil() as u64).min(ENTRIES_A_TURN);
        Ok(self.streams.place_after(shard, name, entries as usize).await?.unwrap_or(StreamId::ZERO))
    }

    async fn trim_events(&self, shard: ShardId, now_ms: u64, part: f64) -> Result<()> {
        let last = before(now_ms, self.settings.events).max(self.cut_for(shard, "events", part).await?);
        for _ in 0..STEPS_A_TURN {
            if self.streams.trim_events(shard, last).await?.0 == 0 {
                break;
            }
        }
        Ok(())
    }

    async fn trim_attempts(&self, shard: ShardId, now_ms: u64, part: f64) -> Result<()> {
        let first = before(now_ms, self.settings.attempts).max(self.cut_for(shard, "attempts", part).await?);
        self.streams.trim_attempts(shard, first).await
    }

    async fn retire(&self, shard: ShardId, now_ms: u64) -> Result<()> {
        let oldest = before(now_ms, self.settings.dead_letters);
        self.streams.trim_bad(Some(shard), oldest).await?;
        for _ in 0..STEPS_A_TURN {
            if !self.streams.retire_dead_letters(shard, oldest).await? {
                break;
            }
        }
        Ok(())
    }

    /// Goes on with purges that were interrupted, and forgets what was deleted long ago.
    async fn purge_deleted(&self, shard: ShardId, now_ms: u64) -> Result<()> {
        let kept_from = before(now_ms, self.settings.attempts).ms;
        for (subscription, deleted_ms) in self.streams.deleted_subscriptions(shard, STEPS_A_TURN).await? {
            for _ in 0..STEPS_A_TURN {
                if self.streams.purge(subscription).await? {
                    if deleted_ms < kept_from {
                        self.streams.forget_subscription(subscription).await?;
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    /// What waits too long for a subscription that is not active becomes a dead letter; an active one's does so when it fails.
    async fn drop_outdated(&self, shard: ShardId, now_ms: u64) -> Result<()> {
        let last = before(now_ms, self.settings.max_age);
        for subscription in self.streams.subscriptions_behind(shard, last.ms, STEPS_A_TURN).await? {
            let Some(found) = self.streams.subscription(subscription).await? else { continue };
            if found.state.status != Status::Active {
                self.drop_backlog(subscription, last).await?;
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
            tracing::warn!(webhook = %subscription, dropped, "deliveries waited too long: they are dead letters now");
        }
        Ok(())
    }

    /// All of a shard once it is taken over, then again from time to time.
    async fn audit(&mut self, shard: ShardId) -> Result<()> {
        let audit = self.audits.entry(shard).or_insert_with(Audit::new);
        if audit.resumes.is_some_and(|at| at > Instant::now()) {
            return Ok(());
        }
        audit.resumes = None;
        let page = self.streams.subscriptions_by_rank(shard, audit.next_rank, AUDITS_A_TURN).await?;
        let mut mended = 0;
        for (subscription, deleted_ms) in &page {
            if *deleted_ms == 0 {
                mended += self.streams.audit(*subscription).await?;
            }
        }
        audit.next_rank += page.len() as isize;
        if (page.len() as isize) < AUDITS_A_TURN {
            let (cursor, found) = self.streams.recount(shard, &audit.references).await?;
            mended += found;
            audit.references = cursor;
            if audit.references == "0" {
                *audit = Audit { resumes: Some(Instant::now() + AUDIT_EVERY), ..Audit::new() };
            }
        }
        if mended > 0 {
            metrics::mended(mended);
            tracing::warn!(
                shard,
                mended,
                "the audit found entries amiss and mended them: was Redis killed, or restored?"
            );
        }
        Ok(())
    }

    async fn show(&self, led: &[ShardId], now_ms: u64) -> Result<()> {
        let mut all = ShardFigures::default();
        for shard in led {
            let figures = self.streams.figures(*shard, now_ms).await?;
            all.counts.fresh += figures.counts.fresh;
            all.counts.waiting += figures.counts.waiting;
            all.counts.leased += figures.counts.leased;
            all.counts.dead += figures.counts.dead;
            all.undispatched += figures.undispatched;
            all.oldest_ms = all.oldest_ms.into_iter().chain(figures.oldest_ms).min();
        }
        metrics::backlog("log", all.undispatched);
        metrics::backlog("fresh", all.counts.fresh);
        metrics::backlog("waiting", all.counts.waiting);
        metrics::backlog("leased", all.counts.leased);
        metrics::backlog("dead", all.counts.dead);
        // One process counts what belongs to no shard.
        if led.contains(&0) {
            metrics::backlog("front_door", self.streams.front_door_length().await?);
        }
        let age_ms = all.oldest_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest));
        metrics::oldest_undelivered(Duration::from_millis(age_ms));
        Ok(())
    }
}

impl Audit {
    fn new() -> Self {
        Self { next_rank: 0, references: "0".to_owned(), resumes: None }
    }
}

/// Parts of what is kept that are too much, from 0 to 1.
#[derive(Default)]
struct Excess {
    events: f64,
    attempts: f64,
}

/// The first place that is younger than `age`.
fn before(now_ms: u64, age: Duration) -> StreamId {
    StreamId { ms: now_ms.saturating_sub(age.as_millis() as u64), seq: 0 }
}

/// Refuses publishing before Redis is full, so that what is accepted can be delivered.
async fn keep_gate(streams: Streams, mut led: watch::Receiver<Arc<[ShardId]>>) {
    let mut backoff = Backoff::new("watching the memory of Redis");
    let mut is_closed = None;
    loop {
        let shards = led.borrow_and_update().clone();
        match turn_gate(&streams, &shards, is_closed).await {
            Ok(now_closed) => {
                backoff.recovered();
                is_closed = Some(now_closed);
                tokio::select! {
                    () = tokio::time::sleep(GATE_EVERY) => {}
                    // The leader before may have left it otherwise.
                    _ = led.changed() => is_closed = None,
                }
            }
            Err(error) => backoff.pause(&error).await,
        }
    }
}

async fn turn_gate(streams: &Streams, shards: &[ShardId], was_closed: Option<bool>) -> Result<bool> {
    let (used, most) = streams.memory().await?;
    let threshold = if was_closed == Some(true) { OPEN_BELOW_PERCENT } else { CLOSE_ABOVE_PERCENT };
    let is_closed = most > 0 && used.saturating_mul(100) > most.saturating_mul(threshold);
    if was_closed != Some(is_closed) {
        for shard in shards {
            streams.set_gate(*shard, is_closed).await?;
        }
        if is_closed {
            tracing::error!(
                used,
                most,
                "Redis is near its memory limit: publishing is refused until deliveries have drained"
            );
        } else if was_closed == Some(true) {
            tracing::info!(used, most, "Redis has memory again: publishing goes on");
        }
    }
    Ok(is_closed)
}

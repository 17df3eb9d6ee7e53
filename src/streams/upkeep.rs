//! Upkeep of a shard: trimming, retention, the audit of what belongs together, and the figures that `status` shows.

use std::{collections::HashMap, time::Duration};

use super::{
    LEASE, ShardId, Streams,
    entry::{self, unreadable},
    error::Result,
    scripts,
};
use crate::domain::{
    id::{StreamId, SubscriptionId},
    retry::MAX_DELAY_MS,
};

/// Events and bytes of one trim call.
const TRIM_EVENTS: u64 = 50;
const TRIM_BYTES: usize = 512 * 1024;
/// Entries of one trim call where nothing but the entries goes.
const TRIM_ENTRIES: u64 = 10_000;
/// Entries of one audit call.
const AUDIT_PAGE: usize = 200;
const RECOUNT_PAGE: usize = 20;
/// The furthest a retry can lie ahead: the longest delay with its jitter, and what `Retry-After` may add.
const FURTHEST_RETRY_MS: u64 = 2 * MAX_DELAY_MS + 3_600_000;

/// How many deliveries of a shard stand where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub fresh: u64,
    pub waiting: u64,
    pub leased: u64,
    pub dead: u64,
    /// Dead letters that went because a subscription had too many.
    pub dropped: u64,
}

/// What `status` shows of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ShardFigures {
    pub counts: Counts,
    /// Events of the log.
    pub events: u64,
    /// Events not yet expanded.
    pub undispatched: u64,
    /// When the oldest delivery that is not done was queued: Unix milliseconds.
    pub oldest_ms: Option<u64>,
    /// Subscriptions for which something is due now.
    pub due: u64,
    /// Since when the one of them that waits longest has been due: Unix milliseconds.
    pub due_since_ms: Option<u64>,
    /// Entries that could not be read.
    pub bad: u64,
}

impl Streams {
    /// The figures of a shard.
    pub async fn figures(&self, shard: ShardId, now_ms: u64) -> Result<ShardFigures> {
        let key = |name| self.keys().of(shard, name);
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGETALL").arg(key("cnt"));
        pipeline.cmd("XLEN").arg(key("events"));
        pipeline.cmd("ZRANGE").arg(key("old")).arg(0).arg(0).arg("WITHSCORES");
        pipeline.cmd("ZCOUNT").arg(key("due")).arg("-inf").arg(now_ms);
        pipeline.cmd("ZRANGE").arg(key("due")).arg(0).arg(0).arg("WITHSCORES");
        pipeline.cmd("XLEN").arg(key("deadev"));
        type First = Vec<(String, f64)>;
        type Reply = (HashMap<String, i64>, u64, First, u64, First, u64);
        let (reply, undispatched) = tokio::join!(self.0.connections.run_all(&pipeline), self.undispatched(shard));
        let (counts, events, oldest, due, first_due, bad): Reply = reply?;
        let count = |name: &str| counts.get(name).copied().unwrap_or(0).max(0) as u64;
        Ok(ShardFigures {
            counts: Counts {
                fresh: count("fresh"),
                waiting: count("waiting"),
                leased: count("leased"),
                dead: count("dead"),
                dropped: count("dropped"),
            },
            events,
            undispatched: undispatched?,
            oldest_ms: oldest.first().map(|(_, ms)| *ms as u64),
            due,
            due_since_ms: first_due.first().map(|(_, ms)| *ms as u64).filter(|ms| *ms <= now_ms),
            bad,
        })
    }

    /// Events not yet expanded: how far the dispatchers' group lags behind. Before the first is expanded there is none.
    async fn undispatched(&self, shard: ShardId) -> Result<u64> {
        let mut command = redis::cmd("XINFO");
        command.arg("GROUPS").arg(self.keys().of(shard, "events"));
        let groups: Vec<HashMap<String, redis::Value>> = match self.0.connections.run(&command).await {
            Ok(groups) => groups,
            Err(super::Error::Refused(text)) if text.contains("no such key") => return Ok(0),
            Err(error) => return Err(error),
        };
        let Some(group) = groups
            .into_iter()
            .find(|group| entry::field::<String>(group, "name").as_deref() == Some(super::keys::DISPATCHERS))
        else {
            return self.0.connections.run(redis::cmd("XLEN").arg(self.keys().of(shard, "events"))).await;
        };
        Ok(entry::field(&group, "lag").unwrap_or(0))
    }

    /// Entries of the front door.
    pub async fn front_door_length(&self) -> Result<u64> {
        self.0.connections.run(redis::cmd("XLEN").arg(self.keys().global("in"))).await
    }

    /// Closes or opens the gate of a shard: a closed one refuses what is published.
    pub async fn set_gate(&self, shard: ShardId, is_closed: bool) -> Result<()> {
        self.set_meta(shard, "gate", u64::from(is_closed)).await
    }

    /// Says how long the status of a finished event is kept.
    pub async fn keep_status_for(&self, shard: ShardId, keep: Duration) -> Result<()> {
        self.set_meta(shard, "keep", keep.as_millis() as u64).await
    }

    async fn set_meta(&self, shard: ShardId, field: &str, value: u64) -> Result<()> {
        self.0.connections.call(&scripts::SET_META, &self.setting_meta(shard, field, value)).await
    }

    /// The call that sets a field of `P:meta`.
    pub(super) fn setting_meta(&self, shard: ShardId, field: &str, value: impl redis::ToRedisArgs) -> redis::Cmd {
        let mut command = self.script(&scripts::SET_META, shard);
        command.arg(field).arg(value);
        command
    }

    /// Trims the oldest events up to `last`, a page; says how many went, and of how many the body is kept beside the log.
    pub async fn trim_events(&self, shard: ShardId, last: StreamId) -> Result<(u64, u64)> {
        self.trim_log(shard, last, TRIM_EVENTS).await
    }

    /// Trims the oldest events whatever their age, up to `count` and a page; says how many went.
    pub async fn trim_oldest_events(&self, shard: ShardId, count: u64) -> Result<u64> {
        let count = count.min(TRIM_EVENTS);
        Ok(self.trim_log(shard, StreamId::MAX, count).await?.0)
    }

    async fn trim_log(&self, shard: ShardId, last: StreamId, count: u64) -> Result<(u64, u64)> {
        let mut command = self.script(&scripts::TRIM, shard);
        command.arg(last.to_string()).arg(count).arg(TRIM_BYTES);
        self.0.connections.call(&scripts::TRIM, &command).await
    }

    /// Trims entries of the attempt log before `first`, a page, by whole nodes; says how many went.
    pub async fn trim_attempts(&self, shard: ShardId, first: StreamId) -> Result<u64> {
        self.trim_plain(&self.keys().of(shard, "attempts"), "MINID", &first.to_string()).await
    }

    /// Trims the oldest entries of the attempt log above `kept` of them, a page, by whole nodes; says how many went.
    pub async fn trim_attempts_to(&self, shard: ShardId, kept: u64) -> Result<u64> {
        self.trim_plain(&self.keys().of(shard, "attempts"), "MAXLEN", &kept.to_string()).await
    }

    /// Trims entries that could not be read and are older than `first`, a page: of a shard, or of no tenant. Says how many
    /// went.
    pub async fn trim_bad(&self, shard: Option<ShardId>, first: StreamId) -> Result<u64> {
        let key = shard.map_or_else(|| self.keys().global("deadin"), |shard| self.keys().of(shard, "deadev"));
        self.trim_plain(&key, "MINID", &first.to_string()).await
    }

    async fn trim_plain(&self, key: &str, by: &str, limit: &str) -> Result<u64> {
        let mut command = redis::cmd("XTRIM");
        command.arg(key).arg(by).arg("~").arg(limit).arg("LIMIT").arg(TRIM_ENTRIES);
        self.0.connections.run(&command).await
    }

    /// Bytes that a stream of this shard takes: `events` or `attempts`. Sampled, not counted.
    pub async fn stream_bytes(&self, shard: ShardId, name: &str) -> Result<u64> {
        let mut command = redis::cmd("MEMORY");
        command.arg("USAGE").arg(self.keys().of(shard, name)).arg("SAMPLES").arg(20);
        Ok(self.0.connections.run::<Option<u64>>(&command).await?.unwrap_or(0))
    }

    /// Throws away dead letters older than `oldest`, a page of one subscription; `false` when there are none.
    pub async fn retire_dead_letters(&self, shard: ShardId, oldest: StreamId) -> Result<bool> {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(self.keys().of(shard, "deadidx")).arg("-inf").arg(format!("({}", oldest.ms));
        let ids: Vec<String> = self.0.connections.run(command.arg("LIMIT").arg(0).arg(1)).await?;
        let Some(id) = ids.first() else { return Ok(false) };
        let mut command = self.script(&scripts::DISCARD, shard);
        command.arg(id).arg("").arg(oldest.to_string());
        self.0.connections.call::<u64>(&scripts::DISCARD, &command).await?;
        Ok(true)
    }

    /// A page of a shard's subscriptions, deleted ones with the time of their deletion; after rank `from`.
    pub async fn subscriptions_by_rank(
        &self,
        shard: ShardId,
        from: isize,
        count: isize,
    ) -> Result<Vec<(SubscriptionId, u64)>> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.keys().of(shard, "subs")).arg(from).arg(from + count - 1).arg("WITHSCORES");
        let found: Vec<(String, f64)> = self.0.connections.run(&command).await?;
        found
            .into_iter()
            .map(|(id, deleted)| Ok((id.parse().map_err(|_| unreadable("a subscription's id"))?, deleted as u64)))
            .collect()
    }

    /// The deleted subscriptions of a shard with the time of their deletion, oldest first: up to `count` after `skipped`.
    pub async fn deleted_subscriptions(
        &self,
        shard: ShardId,
        skipped: usize,
        count: usize,
    ) -> Result<Vec<(SubscriptionId, u64)>> {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command
            .arg(self.keys().of(shard, "subs"))
            .arg("(0")
            .arg("+inf")
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(skipped)
            .arg(count);
        let found: Vec<(String, f64)> = self.0.connections.run(&command).await?;
        found
            .into_iter()
            .map(|(id, deleted)| Ok((id.parse().map_err(|_| unreadable("a subscription's id"))?, deleted as u64)))
            .collect()
    }

    /// Forgets a deleted subscription whose attempts have aged.
    pub async fn forget_subscription(&self, subscription: SubscriptionId) -> Result<()> {
        let shard = subscription.shard;
        let mut pipeline = redis::pipe();
        pipeline.cmd("UNLINK").arg(self.keys().one(shard, "att", subscription)).ignore();
        pipeline.cmd("UNLINK").arg(self.keys().one(shard, "sub", subscription)).ignore();
        pipeline.cmd("ZREM").arg(self.keys().of(shard, "subs")).arg(subscription.to_string()).ignore();
        self.0.connections.run_all(&pipeline).await
    }

    /// Subscriptions whose oldest delivery was queued before `before_ms`, furthest behind first: up to `count` after
    /// `skipped`.
    pub async fn subscriptions_behind(
        &self,
        shard: ShardId,
        before_ms: u64,
        skipped: usize,
        count: usize,
    ) -> Result<Vec<SubscriptionId>> {
        let mut command = redis::cmd("ZRANGEBYSCORE");
        command.arg(self.keys().of(shard, "old")).arg("-inf").arg(format!("({before_ms}"));
        let ids: Vec<String> = self.0.connections.run(command.arg("LIMIT").arg(skipped).arg(count)).await?;
        ids.iter().map(|id| id.parse().map_err(|_| unreadable("a subscription's id"))).collect()
    }

    /// Entries of a stream of this shard.
    pub async fn stream_length(&self, shard: ShardId, name: &str) -> Result<u64> {
        self.0.connections.run(redis::cmd("XLEN").arg(self.keys().of(shard, name))).await
    }

    /// Checks all keys of a subscription against each other and mends them; says how much was mended.
    pub async fn audit(&self, subscription: SubscriptionId) -> Result<u64> {
        let (mut cursor, mut mended) = (String::new(), 0);
        loop {
            let mut command = self.script(&scripts::AUDIT, subscription.shard);
            command.arg(subscription.to_string()).arg(&cursor).arg(FURTHEST_RETRY_MS);
            command.arg(LEASE.as_millis() as u64).arg(AUDIT_PAGE);
            let (next, found): (String, u64) = self.0.connections.call(&scripts::AUDIT, &command).await?;
            mended += found;
            if next.is_empty() {
                return Ok(mended);
            }
            cursor = next;
        }
    }

    /// Checks a page of the references to events and mends them; returns where to go on ("0" at the end), and how many.
    pub async fn recount(&self, shard: ShardId, cursor: &str) -> Result<(String, u64)> {
        let mut command = self.script(&scripts::RECOUNT, shard);
        command.arg(cursor).arg(RECOUNT_PAGE);
        self.0.connections.call(&scripts::RECOUNT, &command).await
    }
}

//! Where deliveries stand: what is noted of them, and what the delivery streams say of those that are not done.

use std::collections::HashMap;

use redis::{Value, streams::StreamRangeReply};

use super::{ShardId, Streams, entry, error::Result};
use crate::domain::{
    delivery::{DeliveryState, DeliveryStatus},
    id::{DeliveryId, StreamId, SubscriptionId},
    outcome::MAX_RETRY_AFTER_MS,
};

/// Targets up to which the status of an event names each one; as in `streams/again.lua`.
pub const TRACKED_TARGETS: u64 = 1_000;
/// What a breaker holds back, it holds no longer: 5 min.
const HOLD_AT_MOST_MS: u64 = 300_000;
/// Copies of one delivery looked for at once.
const COPIES: u32 = 32;
/// Entries of a delivery stream read at once, and looked at, to find one that is not noted.
const PAGE: usize = 500;
const LOOK_AT_MOST: usize = 5_000;

/// What is known of the deliveries of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventStatus {
    /// How many there are, or were.
    pub total: u64,
    /// Those that something is noted of, by webhook. Of an event for more than 1,000 webhooks the others have not been
    /// tried.
    pub deliveries: Vec<DeliveryStatus>,
    /// Of the others, so many are still owed.
    pub unnoted: u64,
    /// Whether all who want it have it on their delivery streams.
    pub is_dispatched: bool,
}

/// How a delivery that is not done goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// When it is tried again, where it waits for that: Unix milliseconds. `None` for one that is paused.
    pub next_attempt_at_ms: Option<u64>,
    /// A request is under way.
    pub is_under_way: bool,
}

/// What is noted of one delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Noted {
    Status(DeliveryStatus),
    /// Its event has a status, and says nothing of it: nothing has happened to it.
    Nothing,
    /// Nothing is kept of its event's deliveries any more.
    Forgotten,
}

/// A delivery that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sought {
    Found(DeliveryStatus),
    Nowhere,
    /// So much waits before it, if it is there, that the look was given up.
    TooFarBack,
}

impl Streams {
    /// What is known of the deliveries of an event.
    pub async fn event_status(&self, shard: ShardId, event: StreamId) -> Result<EventStatus> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGETALL").arg(self.keys().one(shard, "evs", event));
        pipeline.cmd("HGET").arg(self.keys().of(shard, "refs")).arg(event.to_string());
        pipeline.cmd("HGET").arg(self.keys().of(shard, "meta")).arg("hwm");
        type Reply = (HashMap<String, String>, Option<u64>, Option<String>);
        let (status, refs, done): Reply = self.0.connections.run_all(&pipeline).await?;
        let noted = status.iter().filter_map(|(name, value)| entry::delivery_status(event, name, value));
        let mut deliveries: Vec<DeliveryStatus> = noted.collect();
        deliveries.sort_unstable_by_key(|delivery| (delivery.id.subscription, delivery.id.copy));
        let is_owed =
            |delivery: &&DeliveryStatus| matches!(delivery.state, DeliveryState::Pending | DeliveryState::Dead);
        let owed = deliveries.iter().filter(is_owed).count() as u64;
        let total = status.get("n").and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        Ok(EventStatus {
            total: total.max(deliveries.len() as u64),
            unnoted: refs.unwrap_or(0).saturating_sub(owed),
            is_dispatched: done.and_then(|done| done.parse::<StreamId>().ok()).is_some_and(|done| done >= event),
            deliveries,
        })
    }

    /// How some deliveries of one shard go on; of those that are done nothing is to be said.
    pub async fn progress(&self, deliveries: &[DeliveryStatus]) -> Result<Vec<Progress>> {
        let mut progress = vec![Progress::default(); deliveries.len()];
        let pending: Vec<(usize, &DeliveryStatus)> =
            deliveries.iter().enumerate().filter(|(_, delivery)| delivery.state == DeliveryState::Pending).collect();
        if pending.is_empty() {
            return Ok(progress);
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("TIME");
        for (_, DeliveryStatus { id, entry, .. }) in &pending {
            let key = |name| self.keys().one(id.subscription.shard, name, id.subscription);
            pipeline.cmd("ZSCORE").arg(key("rty")).arg(entry.to_string());
            pipeline.cmd("ZSCORE").arg(key("inf")).arg(entry.to_string());
            pipeline.cmd("HMGET").arg(key("rt")).arg("st").arg("hold").arg("ra");
        }
        let mut replies = self.0.connections.run_all::<Vec<Value>>(&pipeline).await?.into_iter();
        let mut next = || replies.next().unwrap_or(Value::Nil);
        let (seconds, micros): (u64, u64) = redis::from_redis_value(next())?;
        let now_ms = seconds * 1000 + micros / 1000;
        for (index, _) in pending {
            let retry: Option<f64> = redis::from_redis_value(next())?;
            let lease: Option<f64> = redis::from_redis_value(next())?;
            let (status, hold, away): (Option<String>, Option<f64>, Option<f64>) = redis::from_redis_value(next())?;
            let until = |at: Option<f64>, most: u64| (at.unwrap_or(0.0) as u64).min(now_ms + most);
            let open = until(hold, HOLD_AT_MOST_MS).max(until(away, MAX_RETRY_AFTER_MS));
            progress[index] = Progress {
                next_attempt_at_ms: retry.filter(|_| status.as_deref() == Some("a")).map(|at| open.max(at as u64)),
                is_under_way: lease.is_some_and(|until| until as u64 > now_ms),
            };
        }
        Ok(progress)
    }

    /// What is noted of some deliveries of one shard, in the order asked.
    pub(crate) async fn noted(&self, ids: &[DeliveryId]) -> Result<Vec<Noted>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for id in ids {
            let key = self.keys().one(id.subscription.shard, "evs", id.event);
            pipeline.cmd("HGET").arg(&key).arg(field(id.subscription, id.copy.into()));
            pipeline.cmd("EXISTS").arg(&key);
        }
        let replies: Vec<Value> = self.0.connections.run_all(&pipeline).await?;
        let read = |(id, reply): (&DeliveryId, &[Value])| {
            let value: Option<String> = redis::from_redis_value(reply[0].clone())?;
            let is_kept: bool = redis::from_redis_value(reply[1].clone())?;
            let name = field(id.subscription, id.copy.into());
            let status = value.and_then(|value| entry::delivery_status(id.event, &name, &value));
            Ok(match status {
                Some(status) => Noted::Status(status),
                None if is_kept => Noted::Nothing,
                None => Noted::Forgotten,
            })
        };
        ids.iter().zip(replies.chunks_exact(2)).map(read).collect()
    }

    /// Where the deliveries of an event to one subscription stand: the first, and those of replays.
    pub async fn copies_of(&self, event: StreamId, subscription: SubscriptionId) -> Result<Vec<DeliveryStatus>> {
        let key = self.keys().one(subscription.shard, "evs", event);
        let (mut copies, mut first) = (Vec::new(), 0);
        loop {
            let names: Vec<String> = (first..first + COPIES).map(|copy| field(subscription, copy)).collect();
            let values: Vec<Option<String>> = self.0.connections.run(redis::cmd("HMGET").arg(&key).arg(&names)).await?;
            let is_more = values.last().is_some_and(Option::is_some);
            let noted = names.iter().zip(&values).filter_map(|(name, value)| Some((name, value.as_ref()?)));
            copies.extend(noted.filter_map(|(name, value)| entry::delivery_status(event, name, value)));
            if !is_more {
                return Ok(copies);
            }
            first += COPIES;
        }
    }

    /// Where one delivery stands, also where nothing is noted of it as its event has more than 1,000 targets: then its
    /// entry is looked for.
    pub async fn find_delivery(&self, id: DeliveryId) -> Result<Sought> {
        if !self.shards().contains(&id.subscription.shard) {
            return Ok(Sought::Nowhere);
        }
        match self.noted(&[id]).await?.pop() {
            Some(Noted::Status(status)) => Ok(Sought::Found(status)),
            Some(Noted::Nothing) if id.copy == 0 => self.find_unnoted(id).await,
            _ => Ok(Sought::Nowhere),
        }
    }

    async fn find_unnoted(&self, id: DeliveryId) -> Result<Sought> {
        let shard = id.subscription.shard;
        let mut command = redis::cmd("HGET");
        let targets: Option<u64> =
            self.0.connections.run(command.arg(self.keys().one(shard, "evs", id.event)).arg("n")).await?;
        if targets.is_none_or(|targets| targets <= TRACKED_TARGETS) {
            return Ok(Sought::Nowhere);
        }
        // It was queued after its event came, and what is dispatched stands in the order of the log.
        let mut from = StreamId { ms: id.event.ms, seq: 0 };
        for _ in 0..LOOK_AT_MOST / PAGE {
            let mut command = redis::cmd("XRANGE");
            command.arg(self.keys().one(shard, "dlv", id.subscription)).arg(from.to_string()).arg("+");
            let reply: StreamRangeReply = self.0.connections.run(command.arg("COUNT").arg(PAGE)).await?;
            for found in &reply.ids {
                let (at, delivery) = (entry::place(found)?, entry::delivery(&found.map)?);
                let is_dispatched = !found.map.contains_key("c");
                if is_dispatched && delivery.event == id.event {
                    return Ok(Sought::Found(DeliveryStatus::untried(id, at)));
                }
                if is_dispatched && delivery.event > id.event {
                    return Ok(Sought::Nowhere);
                }
                from = at.next();
            }
            if reply.ids.len() < PAGE {
                return Ok(Sought::Nowhere);
            }
        }
        Ok(Sought::TooFarBack)
    }

    /// A page of the deliveries of a subscription that are not done, newest first: up to `limit` from `newest` back.
    pub(crate) async fn queued(
        &self,
        subscription: SubscriptionId,
        newest: StreamId,
        limit: usize,
    ) -> Result<Vec<(StreamId, DeliveryId)>> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys().one(subscription.shard, "dlv", subscription)).arg(newest.to_string()).arg("-");
        let reply: StreamRangeReply = self.0.connections.run(command.arg("COUNT").arg(limit)).await?;
        let read = |found: &redis::streams::StreamId| -> Result<(StreamId, DeliveryId)> {
            let delivery = entry::delivery(&found.map)?;
            Ok((entry::place(found)?, DeliveryId { event: delivery.event, subscription, copy: delivery.copy }))
        };
        reply.ids.iter().map(read).collect()
    }
}

/// The name under which an event's status notes a delivery.
fn field(subscription: SubscriptionId, copy: u32) -> String {
    format!("{subscription}#{copy}")
}

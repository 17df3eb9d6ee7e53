//! Dead letters: deliveries that were given up, and entries that could not be read.

use std::collections::HashMap;

use bytes::Bytes;
use redis::{Value, streams::StreamRangeReply};

use super::{
    Noted, ShardId, Streams,
    entry::{self, field, unreadable},
    error::Result,
    pack, scripts,
};
use crate::domain::{
    delivery::DeliveryState,
    id::{BadId, DeliveryId, StreamId, SubscriptionId},
    outcome::Reason,
};

/// Entries that one call of redrive, discard or drop takes.
pub const DEAD_AT_MOST: usize = 200;

/// A delivery that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub delivery: DeliveryId,
    /// Its entry among its subscription's dead letters; it says when it died.
    pub entry: StreamId,
    /// Empty where it was given up without being read.
    pub event_type: String,
    pub reason: Reason,
    pub attempts: u32,
    pub last_status: Option<u16>,
    pub last_error: Option<String>,
}

/// An entry that could not be read as an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadEntry {
    pub id: BadId,
    /// `None` where it names no valid tenant.
    pub tenant: Option<String>,
    /// What is wrong with it, in plain words.
    pub error: String,
    /// Its fields as they came.
    pub raw: HashMap<String, Bytes>,
}

/// What a redrive call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redriven {
    pub count: u64,
    /// The backlog is full: the rest has to wait.
    pub is_full: bool,
    /// The subscription is gone.
    pub is_gone: bool,
}

impl Streams {
    /// A tenant's subscriptions that have dead letters, each with the time of its newest: Unix milliseconds.
    pub async fn dead_subscriptions(&self, tenant: &str) -> Result<Vec<(SubscriptionId, u64)>> {
        let key = self.keys().one(self.shard_of(tenant), "tdead", tenant);
        let found: Vec<(String, f64)> =
            self.0.connections.run(redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES")).await?;
        found
            .into_iter()
            .map(|(id, newest_ms)| Ok((id.parse().map_err(|_| unreadable("a subscription's id"))?, newest_ms as u64)))
            .collect()
    }

    /// One dead letter; `None` where the delivery is none.
    pub async fn dead_letter(&self, id: DeliveryId) -> Result<Option<DeadLetter>> {
        if !self.shards().contains(&id.subscription.shard) {
            return Ok(None);
        }
        let Some(Noted::Status(status)) = self.noted(&[id]).await?.pop() else { return Ok(None) };
        if status.state != DeliveryState::Dead {
            return Ok(None);
        }
        let found = self.dead_letters(id.subscription, status.entry, status.entry, 1).await?.pop();
        Ok(found.filter(|letter| letter.delivery == id))
    }

    /// A page of a subscription's dead letters, newest first: up to `limit` from `newest` back to `oldest`, both included.
    pub async fn dead_letters(
        &self,
        subscription: SubscriptionId,
        newest: StreamId,
        oldest: StreamId,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys().one(subscription.shard, "dead", subscription));
        command.arg(newest.to_string()).arg(oldest.to_string()).arg("COUNT").arg(limit);
        let reply: StreamRangeReply = self.0.connections.run(&command).await?;
        reply.ids.iter().map(|found| dead_letter(subscription, entry::place(found)?, &found.map)).collect()
    }

    /// The same from the other end: up to `limit` from `oldest` on to `newest`.
    pub async fn oldest_dead_letters(
        &self,
        subscription: SubscriptionId,
        oldest: StreamId,
        newest: StreamId,
        limit: usize,
    ) -> Result<Vec<DeadLetter>> {
        let mut command = redis::cmd("XRANGE");
        command.arg(self.keys().one(subscription.shard, "dead", subscription));
        command.arg(oldest.to_string()).arg(newest.to_string()).arg("COUNT").arg(limit);
        let reply: StreamRangeReply = self.0.connections.run(&command).await?;
        reply.ids.iter().map(|found| dead_letter(subscription, entry::place(found)?, &found.map)).collect()
    }

    /// Sends dead letters of one subscription once more, up to [`DEAD_AT_MOST`].
    ///
    /// # Errors
    /// [`super::Error::Full`] when memory is short.
    pub async fn redrive(&self, subscription: SubscriptionId, entries: &[StreamId]) -> Result<Redriven> {
        let mut command = self.script(&scripts::REDRIVE, subscription.shard);
        command.arg(subscription.to_string()).arg(self.0.limits.max_backlog).arg(pack_ids(entries));
        let (count, full, gone): (u64, u8, u8) = self.0.connections.call(&scripts::REDRIVE, &command).await?;
        Ok(Redriven { count, is_full: full == 1, is_gone: gone == 1 })
    }

    /// Throws dead letters of one subscription away, up to [`DEAD_AT_MOST`]; says how many there were.
    pub async fn discard(&self, subscription: SubscriptionId, entries: &[StreamId]) -> Result<u64> {
        let mut command = self.script(&scripts::DISCARD, subscription.shard);
        command.arg(subscription.to_string()).arg(pack_ids(entries)).arg("");
        self.0.connections.call(&scripts::DISCARD, &command).await
    }

    /// A page of entries that could not be read, newest first: of a shard's tenants, or (`None`) of no valid tenant.
    pub async fn bad_entries(
        &self,
        shard: Option<ShardId>,
        newest: StreamId,
        oldest: StreamId,
        limit: usize,
    ) -> Result<Vec<BadEntry>> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.bad_key(shard)).arg(newest.to_string()).arg(oldest.to_string()).arg("COUNT").arg(limit);
        let reply: StreamRangeReply = self.0.connections.run(&command).await?;
        reply.ids.iter().map(|found| bad_entry(shard, entry::place(found)?, &found.map)).collect()
    }

    /// Throws away entries that could not be read; says how many there were.
    pub async fn discard_bad(&self, ids: &[BadId]) -> Result<u64> {
        let mut count = 0;
        for id in ids {
            let shard = (id.shard != BadId::NO_SHARD).then_some(id.shard);
            let mut command = redis::cmd("XDEL");
            count += self.0.connections.run::<u64>(command.arg(self.bad_key(shard)).arg(id.at.to_string())).await?;
        }
        Ok(count)
    }

    fn bad_key(&self, shard: Option<ShardId>) -> String {
        shard.map_or_else(|| self.keys().global("deadin"), |shard| self.keys().of(shard, "deadev"))
    }

    /// Makes dead letters of the deliveries up to `last` that nobody holds, a page after `after`.
    /// Returns how many, and where to go on.
    pub async fn drop_backlog(
        &self,
        subscription: SubscriptionId,
        last: StreamId,
        reason: Reason,
        error: &str,
        after: StreamId,
    ) -> Result<(u64, Option<StreamId>)> {
        let mut command = self.script(&scripts::DROP, subscription.shard);
        command.arg(subscription.to_string()).arg(last.to_string()).arg(reason.name()).arg(error);
        command.arg(DEAD_AT_MOST).arg(self.0.limits.max_dead).arg(after.to_string());
        let (count, next): (u64, String) = self.0.connections.call(&scripts::DROP, &command).await?;
        let next = if next.is_empty() { None } else { Some(entry::stream_id(&next)?) };
        Ok((count, next))
    }
}

fn pack_ids(ids: &[StreamId]) -> Vec<u8> {
    pack(&ids.iter().map(StreamId::to_string).collect::<Vec<_>>())
}

fn dead_letter(subscription: SubscriptionId, at: StreamId, map: &HashMap<String, Value>) -> Result<DeadLetter> {
    let delivery = entry::delivery(map)?;
    let reason: String = field(map, "why").unwrap_or_default();
    Ok(DeadLetter {
        delivery: DeliveryId { event: delivery.event, subscription, copy: delivery.copy },
        entry: at,
        event_type: field(map, "t").unwrap_or_default(),
        reason: Reason::of_name(&reason).ok_or_else(|| unreadable("a dead letter's reason"))?,
        attempts: field(map, "n").unwrap_or(0),
        last_status: field(map, "ls").filter(|status| *status != 0),
        last_error: field::<String>(map, "le").filter(|error| !error.is_empty()),
    })
}

fn bad_entry(shard: Option<ShardId>, at: StreamId, map: &HashMap<String, Value>) -> Result<BadEntry> {
    let raw = field::<Vec<u8>>(map, "raw").unwrap_or_default();
    Ok(BadEntry {
        id: BadId { at, shard: shard.unwrap_or(BadId::NO_SHARD) },
        tenant: field::<String>(map, "tn").filter(|tenant| !tenant.is_empty()),
        error: field(map, "why").unwrap_or_default(),
        raw: rmp_serde::from_slice(&raw).map_err(|_| unreadable("the raw fields of an entry"))?,
    })
}

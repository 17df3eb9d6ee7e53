//! Subscriptions, and the tenants they belong to.

use std::collections::HashMap;

use redis::{Value, streams::StreamRangeReply};

use super::{
    ShardId, Streams,
    entry::{self, field, unreadable},
    error::Result,
    scripts,
};
use crate::domain::{
    event::DEAD_LETTERED,
    filter::{Pattern, matching},
    id::{StreamId, SubscriptionId},
    subscription::{Ordering, State, Status, Subscription},
};

/// Time between the lease of a delivery and the start of its request, at most, where a rate limit holds: milliseconds.
pub const START_WITHIN_MS: u64 = 500;

const PAGE: usize = 500;

/// A subscription as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Versioned {
    pub subscription: Subscription,
    pub state: State,
    /// Grows with each change.
    pub version: StreamId,
}

/// A change of some subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    pub version: StreamId,
    pub subscription: SubscriptionId,
}

impl Streams {
    /// Creates a subscription; `None` where its id is taken.
    pub async fn create_subscription(&self, subscription: &Subscription) -> Result<Option<StreamId>> {
        self.subscribe(subscription, None, false, true).await
    }

    /// The same, paused from the first on: nothing is sent before it is let go on.
    pub async fn create_paused_subscription(&self, subscription: &Subscription) -> Result<Option<StreamId>> {
        self.subscribe(subscription, None, false, false).await
    }

    /// Changes a subscription that still is at `version`; `None` where it is not. With `clears_faults` what keeps
    /// deliveries waiting because of earlier failures is forgotten.
    pub async fn update_subscription(
        &self,
        subscription: &Subscription,
        version: StreamId,
        clears_faults: bool,
    ) -> Result<Option<StreamId>> {
        self.subscribe(subscription, Some(version), clears_faults, true).await
    }

    async fn subscribe(
        &self,
        subscription: &Subscription,
        expected: Option<StreamId>,
        clears_faults: bool,
        starts_active: bool,
    ) -> Result<Option<StreamId>> {
        let mut command = self.script(&scripts::SUBSCRIBE, subscription.id.shard);
        command.arg(subscription.id.to_string()).arg(&subscription.tenant);
        command.arg(entry::write_subscription(subscription, &self.0.sealer));
        command.arg(expected.map(|version| version.to_string()).unwrap_or_default());
        command.arg(subscription.max_concurrency).arg(send_interval_ms(subscription.rate_limit_per_minute)).arg(1);
        command.arg(u8::from(subscription.ordering == Ordering::Fifo)).arg(u8::from(clears_faults));
        command.arg(status_letter(starts_active));
        command.arg(u8::from(matching(&subscription.events, DEAD_LETTERED).is_some()));
        let version: String = self.0.connections.call(&scripts::SUBSCRIBE, &command).await?;
        if version.is_empty() { Ok(None) } else { entry::stream_id(&version).map(Some) }
    }

    /// Seals a subscription's secrets with the first key, if another one or none sealed them; says whether it did.
    pub async fn reseal(&self, id: SubscriptionId) -> Result<bool> {
        let record: Option<String> =
            self.0.connections.run(redis::cmd("GET").arg(self.keys().one(id.shard, "sub", id))).await?;
        if record.is_none_or(|record| entry::is_sealed_anew(id, &record, &self.0.sealer)) {
            return Ok(false);
        }
        // Whoever changes it meanwhile seals it as well.
        let Some(Versioned { subscription, version, .. }) = self.subscription(id).await? else { return Ok(false) };
        Ok(self.update_subscription(&subscription, version, false).await?.is_some())
    }

    /// Pauses a subscription, or lets it go on; `false` where there is none.
    pub async fn set_active(&self, subscription: SubscriptionId, is_active: bool) -> Result<bool> {
        let mut command = self.script(&scripts::SET_STATUS, subscription.shard);
        command.arg(subscription.to_string()).arg(status_letter(is_active));
        self.0.connections.call(&scripts::SET_STATUS, &command).await
    }

    /// The newest of the deliveries that are not done; `None` where there are none.
    pub async fn backlog_end(&self, subscription: SubscriptionId) -> Result<Option<StreamId>> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys().one(subscription.shard, "dlv", subscription)).arg("+").arg("-").arg("COUNT").arg(1);
        let reply: StreamRangeReply = self.0.connections.run(&command).await?;
        reply.ids.first().map(entry::place).transpose()
    }

    /// Deletes a subscription; `false` where there is none. [`Self::purge`] clears what it leaves.
    pub async fn delete_subscription(&self, subscription: SubscriptionId) -> Result<bool> {
        let mut command = self.script(&scripts::UNSUBSCRIBE, subscription.shard);
        command.arg(subscription.to_string()).arg(entry::TOMBSTONE);
        self.0.connections.call(&scripts::UNSUBSCRIBE, &command).await
    }

    /// Clears a page of what a deleted subscription leaves; `true` when nothing is left.
    pub async fn purge(&self, subscription: SubscriptionId) -> Result<bool> {
        let mut command = self.script(&scripts::PURGE, subscription.shard);
        command.arg(subscription.to_string()).arg(super::dead_letters::DEAD_AT_MOST);
        self.0.connections.call(&scripts::PURGE, &command).await
    }

    /// One subscription; `None` where there is none.
    pub async fn subscription(&self, id: SubscriptionId) -> Result<Option<Versioned>> {
        if !self.shards().contains(&id.shard) {
            return Ok(None);
        }
        Ok(self.subscriptions(&[id]).await?.pop().flatten())
    }

    /// Whether a subscription is active, without reading its record; `None` where there is none.
    pub async fn status_of(&self, id: SubscriptionId) -> Result<Option<Status>> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys().one(id.shard, "rt", id)).arg("st");
        let letter: Option<String> = self.0.connections.run(&command).await?;
        Ok(letter.as_deref().and_then(read_status))
    }

    /// Subscriptions of one shard, in the order asked; `None` where there is none.
    pub async fn subscriptions(&self, ids: &[SubscriptionId]) -> Result<Vec<Option<Versioned>>> {
        self.each_subscription(ids).await?.into_iter().collect()
    }

    /// The same, where a record that cannot be read is the fault of that one alone.
    pub async fn each_subscription(&self, ids: &[SubscriptionId]) -> Result<Vec<Result<Option<Versioned>>>> {
        let mut found = Vec::with_capacity(ids.len());
        for page in ids.chunks(PAGE) {
            let mut pipeline = redis::pipe();
            for id in page {
                pipeline.cmd("GET").arg(self.keys().one(id.shard, "sub", id));
                pipeline.cmd("HGETALL").arg(self.keys().one(id.shard, "rt", id));
            }
            let values: Vec<Value> = self.0.connections.run_all(&pipeline).await?;
            for (id, values) in page.iter().zip(values.chunks_exact(2)) {
                let record: Option<String> = redis::from_redis_value(values[0].clone())?;
                let runtime: HashMap<String, Value> = redis::from_redis_value(values[1].clone())?;
                found.push(self.versioned(*id, record.as_deref(), &runtime));
            }
        }
        Ok(found)
    }

    fn versioned(
        &self,
        id: SubscriptionId,
        record: Option<&str>,
        runtime: &HashMap<String, Value>,
    ) -> Result<Option<Versioned>> {
        let (Some(record), Some(state)) = (record, read_state(runtime)) else { return Ok(None) };
        let Some(subscription) = entry::read_subscription(id, record, &self.0.sealer)? else { return Ok(None) };
        let version: String = field(runtime, "v").ok_or_else(|| unreadable("a webhook's version"))?;
        Ok(Some(Versioned { subscription, state, version: entry::stream_id(&version)? }))
    }

    /// A tenant's subscriptions in the order of their ids, up to `limit`, those after `after` if given.
    pub async fn subscription_ids(
        &self,
        tenant: &str,
        after: Option<SubscriptionId>,
        limit: usize,
    ) -> Result<Vec<SubscriptionId>> {
        let mut command = redis::cmd("ZRANGEBYLEX");
        command.arg(self.keys().one(self.shard_of(tenant), "tsubs", tenant));
        command.arg(after.map_or_else(|| "-".to_owned(), |id| format!("({id}"))).arg("+");
        let ids: Vec<String> = self.0.connections.run(command.arg("LIMIT").arg(0).arg(limit)).await?;
        ids.iter().map(|id| id.parse().map_err(|_| unreadable("a subscription's id"))).collect()
    }

    /// Whose subscriptions are and which events they want, in the order asked; `None` where there is none.
    pub async fn filters(&self, ids: &[SubscriptionId]) -> Result<Vec<Option<(String, Vec<Pattern>)>>> {
        let mut found = Vec::with_capacity(ids.len());
        for page in ids.chunks(PAGE) {
            let mut pipeline = redis::pipe();
            for id in page {
                pipeline.cmd("GET").arg(self.keys().one(id.shard, "sub", id));
            }
            let records: Vec<Option<String>> = self.0.connections.run_all(&pipeline).await?;
            for (id, record) in page.iter().zip(records) {
                found.push(record.map_or(Ok(None), |record| entry::read_filters(*id, &record))?);
            }
        }
        Ok(found)
    }

    /// The last change of any subscription of a shard.
    pub async fn last_change(&self, shard: ShardId) -> Result<StreamId> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys().of(shard, "cfglog")).arg("+").arg("-").arg("COUNT").arg(1);
        let reply: StreamRangeReply = self.0.connections.run(&command).await?;
        reply.ids.first().map_or(Ok(StreamId::ZERO), entry::place)
    }

    /// The changes after `seen`, oldest first; `None` where some of them are not kept any more.
    pub async fn changes_since(&self, shard: ShardId, seen: StreamId) -> Result<Option<Vec<Change>>> {
        let mut command = redis::cmd("XRANGE");
        command.arg(self.keys().of(shard, "cfglog")).arg(seen.to_string()).arg("+");
        let reply: StreamRangeReply = self.0.connections.run(&command).await?;
        let mut changes = Vec::with_capacity(reply.ids.len());
        for found in &reply.ids {
            let subscription: String = field(&found.map, "s").ok_or_else(|| unreadable("a change"))?;
            let subscription = subscription.parse().map_err(|_| unreadable("a change's webhook"))?;
            changes.push(Change { version: entry::place(found)?, subscription });
        }
        // The one seen last is still there, so nothing between it and the next was trimmed.
        let is_whole = changes.first().is_some_and(|first| first.version == seen);
        changes.retain(|change| change.version > seen);
        Ok(is_whole.then_some(changes))
    }
}

/// `None` for a subscription that is not there, or deleted.
fn read_state(runtime: &HashMap<String, Value>) -> Option<State> {
    let number = |name| field::<u64>(runtime, name).unwrap_or(0);
    let status = read_status(&field::<String>(runtime, "st")?)?;
    Some(State {
        status,
        disabled_reason: field::<String>(runtime, "why")
            .filter(|_| status == Status::Disabled)
            .and_then(|why| entry::disabled_reason(&why)),
        delivered: number("ok"),
        failed: number("ko"),
        last_triggered_at_ms: field(runtime, "last"),
        fresh: number("n0"),
        waiting: number("n1"),
        leased: number("n2"),
        dead: number("n3"),
    })
}

fn status_letter(is_active: bool) -> &'static str {
    if is_active { "a" } else { "p" }
}

fn read_status(letter: &str) -> Option<Status> {
    match letter {
        "a" => Some(Status::Active),
        "p" => Some(Status::Paused),
        "x" => Some(Status::Disabled),
        _ => None,
    }
}

/// The time between sends that keeps a limit in every window of a minute, though each may start up to
/// [`START_WITHIN_MS`] after its lease; 0 without a limit.
fn send_interval_ms(rate_limit_per_minute: Option<u32>) -> u64 {
    rate_limit_per_minute.map_or(0, |limit| (60_000 + START_WITHIN_MS).div_ceil(u64::from(limit.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_keeps_the_limit_in_every_minute_even_when_sends_start_late() {
        for limit in [1, 7, 60, 599, 600, 60_000] {
            let interval = send_interval_ms(Some(limit));
            // Sends leased within a window that is longer by the lateness: one more than the whole intervals in it.
            let sends = (60_000 + START_WITHIN_MS - 1) / interval + 1;
            assert!(sends <= u64::from(limit), "{limit}: {sends}");
        }
        assert_eq!(send_interval_ms(None), 0);
    }
}

//! The delivery streams: what is due is leased, renewed while it is sent, and settled.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::{
    LEASE, Limits, ShardId, Streams,
    connections::Subscribed,
    entry::{self, unreadable},
    error::Result,
    pack, scripts, unpack,
};
use crate::domain::{
    attempt::Attempt,
    id::{DeliveryId, StreamId, SubscriptionId},
    outcome::{Outcome, Reason},
    statistics::bucket_of,
    subscription::DisabledReason,
};

/// Subscriptions that one lease call looks at.
const SUBSCRIPTIONS_A_LEASE: usize = 32;
/// Deliveries that one lease call hands out.
pub const LEASE_AT_MOST: usize = 256;
/// Results that one settle call takes.
pub const SETTLE_AT_MOST: usize = 64;

/// How long no hint may come before the connection is tried.
const QUIET_AT_MOST: Duration = Duration::from_secs(10);
/// How long a part of a cluster is not listened to that was away.
const GAP_AT_MOST: Duration = Duration::from_secs(1);

/// A delivery in our hands until its lease expires.
#[derive(Debug, Clone)]
pub struct Lease {
    pub subscription: SubscriptionId,
    /// The subscription's version in Redis: a cached one that differs is stale.
    pub version: StreamId,
    /// Its entry on the delivery stream.
    pub entry: StreamId,
    pub event: StreamId,
    pub copy: u16,
    /// Which attempt since it was dispatched or redriven: 1 for the first. What the retry policy counts.
    pub attempt: u32,
    /// Attempts made before a redrive.
    pub attempts_before: u32,
    /// Leases lost in a row: senders that stopped while they held it.
    pub leases_lost: u32,
    /// A send of it was paid for when it was leased: it starts soon, or goes back.
    pub is_rate_limited: bool,
    /// Says that the lease is ours.
    pub token: Arc<str>,
    /// When it was leased, on Redis' clock: Unix milliseconds.
    pub leased_ms: u64,
    /// Not later than when it was leased, on our clock.
    pub since: Instant,
}

impl Lease {
    /// The public id of the delivery.
    pub fn delivery(&self) -> DeliveryId {
        DeliveryId { event: self.event, subscription: self.subscription, copy: self.copy }
    }

    /// Redis' clock now, as far as ours can tell without being set alike: Unix milliseconds.
    pub fn redis_now_ms(&self) -> u64 {
        self.leased_ms + self.since.elapsed().as_millis() as u64
    }

    /// The public number of the attempt, over all redrives.
    pub fn attempt_number(&self) -> u32 {
        self.attempts_before + self.attempt
    }
}

/// What a lease call handed out.
#[derive(Debug)]
pub struct Leased {
    /// Redis' clock: Unix milliseconds.
    pub now_ms: u64,
    /// When something of this shard is due next, on Redis' clock; `None` when nothing is.
    pub next_due_ms: Option<u64>,
    pub leases: Vec<Lease>,
    /// Deliveries that became dead letters, as sender after sender stopped with them.
    pub given_up: u64,
}

impl Leased {
    /// What `handOutDue` in `leasing.lua` packs; it was asked for at `since`, or later.
    pub(super) fn read(packed: &[u8], since: Instant) -> Result<Self> {
        let answer: LeaseAnswer<'_> = unpack(packed, "leases")?;
        let token: Arc<str> = answer.token.into();
        let read = |item: &LeaseItem<'_>| match item.lease(&token, answer.now_ms, since) {
            Ok(lease) => Some(lease),
            Err(error) => {
                let (webhook_id, entry) = (item.subscription, item.entry);
                tracing::error!(%error, webhook_id, entry, "a delivery cannot be read: it is a dead letter once its lease has run out six times");
                None
            }
        };
        let leases = answer.taken.iter().filter_map(read).collect();
        Ok(Self { now_ms: answer.now_ms, next_due_ms: read_due(answer.next_due)?, leases, given_up: answer.given_up })
    }
}

/// A leased delivery and what became of it.
#[derive(Debug)]
pub struct Settled {
    pub lease: Lease,
    pub ending: Ending,
}

/// How a lease ended.
#[derive(Debug)]
pub enum Ending {
    /// An attempt was made.
    Attempted {
        outcome: Outcome,
        attempt: Box<Attempt>,
        /// Bytes of the event's data.
        event_bytes: usize,
    },
    /// It was not sent, which does not count as an attempt.
    Released,
    /// It cannot be sent now, which does not count as an attempt: later.
    Deferred { delay_ms: u64 },
    /// It cannot be sent.
    Failed { reason: Reason, error: String },
}

/// What a settle call answered.
#[derive(Debug)]
pub struct SettleAnswer {
    pub now_ms: u64,
    pub next_due_ms: Option<u64>,
    /// Indexes of results that were not held any more: another sender has, or had, the delivery.
    pub stale: Vec<usize>,
    /// Subscriptions that these results have disabled.
    pub disabled: Vec<(SubscriptionId, DisabledReason)>,
}

/// The arrays that `handOutDue` packs.
#[derive(Deserialize)]
struct LeaseAnswer<'a> {
    now_ms: u64,
    next_due: &'a str,
    token: &'a str,
    #[serde(borrow)]
    taken: Vec<LeaseItem<'a>>,
    given_up: u64,
}

#[derive(Deserialize)]
struct LeaseItem<'a> {
    subscription: &'a str,
    version: &'a str,
    entry: &'a str,
    attempt: u32,
    /// Names and values in turn.
    #[serde(borrow)]
    fields: Vec<&'a str>,
    leases_lost: u32,
    is_rate_limited: bool,
}

impl LeaseItem<'_> {
    fn lease(&self, token: &Arc<str>, leased_ms: u64, since: Instant) -> Result<Lease> {
        let delivery = entry::delivery_of_fields(&self.fields)?;
        Ok(Lease {
            subscription: self.subscription.parse().map_err(|_| unreadable("a subscription's id"))?,
            version: entry::stream_id(self.version)?,
            entry: entry::stream_id(self.entry)?,
            event: delivery.event,
            copy: delivery.copy,
            attempt: self.attempt,
            attempts_before: delivery.attempts_before,
            leases_lost: self.leases_lost,
            is_rate_limited: self.is_rate_limited,
            token: token.clone(),
            leased_ms,
            since,
        })
    }
}

/// An array as `settle.lua` reads it.
#[derive(Serialize)]
struct SettleItem<'a> {
    subscription: String,
    entry: String,
    token: &'a str,
    outcome: &'static str,
    delay_or_reason: DelayOrReason,
    retry_after_ms: u64,
    weight: u8,
    event: String,
    copy: u16,
    /// With the nonce, the event's; `None` where nothing was sent.
    event_type: Option<&'a str>,
    attempts: u32,
    status: u16,
    error: &'a str,
    /// -1 where no attempt was made.
    bucket: i8,
    micros: u64,
    nonce: Option<u32>,
    /// As `owe` in `references.lua` keeps it; `None` where nothing was sent.
    owed: Option<String>,
    /// Travels beside the batch.
    #[serde(skip)]
    record: Vec<u8>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum DelayOrReason {
    Delay(u64),
    Reason(&'static str),
}

impl<'a> SettleItem<'a> {
    fn of(settled: &'a Settled) -> Self {
        let lease = &settled.lease;
        let mut item = Self {
            subscription: lease.subscription.to_string(),
            entry: lease.entry.to_string(),
            token: &lease.token,
            outcome: "release",
            delay_or_reason: DelayOrReason::Delay(0),
            retry_after_ms: 0,
            weight: 0,
            event: lease.event.to_string(),
            copy: lease.copy,
            event_type: None,
            attempts: lease.attempt_number(),
            status: 0,
            error: "",
            bucket: -1,
            micros: 0,
            nonce: None,
            owed: None,
            record: Vec::new(),
        };
        match &settled.ending {
            Ending::Released => {}
            Ending::Deferred { delay_ms } => item.delay_or_reason = DelayOrReason::Delay(*delay_ms),
            Ending::Failed { reason, error } => {
                item.outcome = "dead";
                item.delay_or_reason = DelayOrReason::Reason(reason.name());
                item.attempts = lease.attempt_number().saturating_sub(1);
                item.error = error;
            }
            Ending::Attempted { outcome, attempt, event_bytes } => {
                item.status = attempt.status().unwrap_or(0);
                item.error = attempt.failure_text();
                item.bucket = bucket_of(attempt.response_time_ms) as i8;
                item.micros = (attempt.response_time_ms * 1000.0).round() as u64;
                item.event_type = Some(&attempt.event_type);
                item.nonce = Some(attempt.event.nonce);
                item.owed = Some(format!("{event_bytes} {}", attempt.tenant));
                item.record = entry::write_attempt(attempt);
                item.set_outcome(*outcome);
            }
        }
        item
    }

    fn set_outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Delivered => self.outcome = "ok",
            Outcome::Retry { delay_ms, retry_after_ms, is_overload } => {
                self.outcome = "retry";
                self.delay_or_reason = DelayOrReason::Delay(delay_ms);
                self.retry_after_ms = retry_after_ms.unwrap_or(0);
                self.weight = if is_overload { 2 } else { 1 };
            }
            Outcome::DeadLetter { reason, retry_after_ms } => {
                self.outcome = "dead";
                self.delay_or_reason = DelayOrReason::Reason(reason.name());
                self.retry_after_ms = retry_after_ms.unwrap_or(0);
                self.weight = 1;
            }
            Outcome::Gone => {
                self.outcome = "gone";
                self.delay_or_reason = DelayOrReason::Reason(Reason::Gone.name());
            }
        }
    }
}

impl Streams {
    /// Leases what is due on a shard, at most `room` deliveries: as many as can be sent at once.
    pub async fn lease(&self, shard: ShardId, room: usize) -> Result<Leased> {
        let since = Instant::now();
        let mut command = self.script(&scripts::LEASE, shard);
        limit_handing_out(&mut command, room);
        command.arg(self.0.limits.max_dead);
        let packed: Vec<u8> = self.0.connections.call(&scripts::LEASE, &command).await?;
        Leased::read(&packed, since)
    }

    /// Renews leases of one shard that are still ours; returns the indexes of those that are not.
    pub async fn renew(&self, shard: ShardId, leases: &[Lease]) -> Result<Vec<usize>> {
        let items: Vec<(String, String, &str)> = leases
            .iter()
            .map(|lease| (lease.subscription.to_string(), lease.entry.to_string(), &*lease.token))
            .collect();
        let mut command = self.script(&scripts::RENEW, shard);
        command.arg(LEASE.as_millis() as u64).arg(pack(&items));
        self.0.connections.call(&scripts::RENEW, &command).await
    }

    /// Takes in what became of up to [`SETTLE_AT_MOST`] leases of one shard. A repeat changes nothing.
    pub async fn settle(&self, shard: ShardId, batch: &[Settled]) -> Result<SettleAnswer> {
        let items: Vec<SettleItem<'_>> = batch.iter().map(SettleItem::of).collect();
        let mut command = self.script(&scripts::SETTLE, shard);
        let Limits { max_dead, disable_after, .. } = self.0.limits;
        command.arg(max_dead).arg(disable_after.as_millis() as u64).arg(pack(&items));
        for item in &items {
            command.arg(&item.record);
        }
        type Reply = (u64, String, Vec<usize>, Vec<(String, String)>);
        let (now_ms, next_due, stale, disabled): Reply = self.0.connections.call(&scripts::SETTLE, &command).await?;
        let disabled = disabled.iter().filter_map(|(id, why)| Some((id.parse().ok()?, entry::disabled_reason(why)?)));
        Ok(SettleAnswer { now_ms, next_due_ms: read_due(&next_due)?, stale, disabled: disabled.collect() })
    }

    /// Waits on connections of its own for hints that something fell due, each the shard's number.
    pub async fn bells(&self) -> Result<Bells> {
        let channels: Vec<String> = self.shards().map(|shard| self.keys().bell(shard)).collect();
        let subscribed = self.0.connections.subscribed(&channels).await?;
        Ok(Bells { channels, subscribed, since: Instant::now() })
    }
}

/// Adds what `handOutDue` in `leasing.lua` goes by: how much, for how long, and what makes the token differ from others of the
/// same millisecond.
pub(super) fn limit_handing_out(command: &mut redis::Cmd, room: usize) {
    command.arg(SUBSCRIPTIONS_A_LEASE).arg(room.min(LEASE_AT_MOST)).arg(LEASE.as_millis() as u64);
    command.arg(format!("{:08x}", rand::random::<u32>()));
}

fn read_due(text: &str) -> Result<Option<u64>> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse::<f64>().map(|due| Some(due as u64)).map_err(|_| unreadable("a due time"))
}

/// Hints that something fell due. They may be lost: a delivery may not wait for one.
pub struct Bells {
    channels: Vec<String>,
    subscribed: Subscribed,
    since: Instant,
}

impl Bells {
    /// The next shard that something fell due on; `None` when a connection has ended, a channel has moved
    /// from it, or some were not to be heard.
    pub async fn next(&mut self) -> Option<ShardId> {
        loop {
            let is_whole = self.subscribed.is_whole;
            let quiet = if is_whole { QUIET_AT_MOST } else { GAP_AT_MOST.saturating_sub(self.since.elapsed()) };
            let push = match tokio::time::timeout(quiet, self.subscribed.pushes.recv()).await {
                Ok(push) => push?,
                Err(_) if !is_whole => return None,
                // A connection that is cut off says nothing, as a quiet one does.
                Err(_) => {
                    for connection in &mut self.subscribed.connections {
                        connection.run::<()>(&redis::cmd("PING")).await.ok()?;
                    }
                    continue;
                }
            };
            if matches!(push.kind, redis::PushKind::Disconnection | redis::PushKind::SUnsubscribe) {
                return None;
            }
            let channel: Option<String> = push.data.into_iter().next().and_then(|v| redis::from_redis_value(v).ok());
            let index = self.channels.iter().position(|name| Some(name) == channel.as_ref());
            if let (redis::PushKind::SMessage, Some(index)) = (push.kind, index) {
                return Some(index as ShardId);
            }
        }
    }
}

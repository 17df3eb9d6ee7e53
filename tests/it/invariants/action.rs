//! A call of the program's own interface with all its arguments, so that it can be made again.

use posthaste::{
    domain::{
        id::{DeliveryId, StreamId, SubscriptionId},
        outcome::Reason,
        subscription::Subscription,
    },
    streams::{
        Append, Appended, Error, Expanded, Expansion, Job, Lease, Leased, Queued, Redriven, Resend, Settled, Streams,
    },
};

use crate::support::samples::{Facts, Verdict, settled};

/// The one shard that the tests use.
pub const SHARD: u16 = 0;

#[derive(Debug, Clone)]
pub enum Action {
    Append { call: String, batch: Vec<Append> },
    Create(Box<Subscription>),
    Update { subscription: Box<Subscription>, version: StreamId, clears_faults: bool },
    SetActive(SubscriptionId, bool),
    Delete(SubscriptionId),
    Purge(SubscriptionId),
    Expand { chunks: Vec<Expansion>, room: usize },
    Lease { room: usize },
    Renew(Vec<Lease>),
    Settle(Vec<(Lease, Verdict, Facts)>),
    DropBacklog(SubscriptionId, StreamId),
    Redrive(SubscriptionId, Vec<StreamId>),
    Discard(SubscriptionId, Vec<StreamId>),
    Resend { id: DeliveryId, call: String },
    CreateJob(Job),
    Replay { job: Job, next: StreamId, is_last: bool, events: Vec<StreamId> },
    Trim(StreamId),
    Audit(SubscriptionId),
    Recount,
}

#[derive(Debug)]
pub enum Answer {
    Appended(Vec<Appended>),
    /// Whether there was something to do it to.
    Done(bool),
    Count(u64),
    /// With what was handed out then.
    Expanded(Expanded, Vec<Lease>),
    Leased(Leased),
    /// Indexes of results that came too late.
    Stale(Vec<usize>),
    Redriven(Redriven),
    Queued(Queued),
    Resent(Resend),
}

/// What was leased is judged lease by lease, and equals nothing.
impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Appended(a), Self::Appended(b)) => a == b,
            (Self::Done(a), Self::Done(b)) => a == b,
            (Self::Count(a), Self::Count(b)) => a == b,
            (Self::Expanded(a, _), Self::Expanded(b, _)) => (a.done, &a.refusal) == (b.done, &b.refusal),
            (Self::Stale(a), Self::Stale(b)) => a == b,
            (Self::Redriven(a), Self::Redriven(b)) => a == b,
            (Self::Queued(a), Self::Queued(b)) => a == b,
            (Self::Resent(a), Self::Resent(b)) => a == b,
            _ => false,
        }
    }
}

impl Action {
    pub async fn perform(&self, streams: &Streams) -> Result<Answer, Error> {
        Ok(match self {
            Self::Append { call, batch } => Answer::Appended(streams.append(SHARD, call, batch, None).await?),
            Self::Create(subscription) => Answer::Done(streams.create_subscription(subscription).await?.is_some()),
            Self::Update { subscription, version, clears_faults } => {
                let changed = streams.update_subscription(subscription, *version, *clears_faults).await?;
                Answer::Done(changed.is_some())
            }
            Self::SetActive(id, is_active) => Answer::Done(streams.set_active(*id, *is_active).await?),
            Self::Delete(id) => Answer::Done(streams.delete_subscription(*id).await?),
            Self::Purge(id) => Answer::Done(streams.purge(*id).await?),
            Self::Expand { chunks, room } => {
                let (expanded, leased) = streams.expand_and_lease(SHARD, chunks, *room).await?;
                Answer::Expanded(expanded, leased.map(|leased| leased.leases).unwrap_or_default())
            }
            Self::Lease { room } => Answer::Leased(streams.lease(SHARD, *room).await?),
            Self::Renew(leases) => Answer::Count((leases.len() - streams.renew(SHARD, leases).await?.len()) as u64),
            Self::Settle(results) => {
                let batch: Vec<Settled> =
                    results.iter().map(|(lease, verdict, facts)| settled(lease, *verdict, facts)).collect();
                Answer::Stale(streams.settle(SHARD, &batch).await?.stale)
            }
            Self::DropBacklog(id, last) => {
                let dropped = streams.drop_backlog(*id, *last, Reason::Overflow, "skipped", StreamId::ZERO).await?;
                Answer::Count(dropped.0)
            }
            Self::Redrive(id, letters) => Answer::Redriven(streams.redrive(*id, letters).await?),
            Self::Discard(id, letters) => Answer::Count(streams.discard(*id, letters).await?),
            Self::Resend { id, call } => Answer::Resent(streams.resend(*id, call).await?),
            Self::CreateJob(job) => {
                streams.create_job(job).await?;
                Answer::Done(true)
            }
            Self::Replay { job, next, is_last, events } => {
                Answer::Queued(streams.replay(job, *next, *is_last, events).await?)
            }
            Self::Trim(last) => Answer::Count(streams.trim_events(SHARD, *last).await?.0),
            Self::Audit(id) => Answer::Count(streams.audit(*id).await?),
            Self::Recount => Answer::Count(streams.recount(SHARD, "0").await?.1),
        })
    }
}

//! One delivery in hand: posted, and what became of it decided.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, MutexGuard, OwnedSemaphorePermit, Semaphore, SemaphorePermit, mpsc},
    task::JoinSet,
};

use super::{
    held::Held,
    material::{Found, Material, Parts},
    post::Post,
    request::Target,
    settle::Report,
};
use crate::{
    backoff::Backoff,
    domain::{
        attempt::Attempt, event::Event, outcome, outcome::Outcome, outcome::Reason,
        subscription::LONGEST_TIMEOUT_SECONDS, trace::TraceContext,
    },
    metrics,
    shutdown::Shutdown,
    streams::{Ending, Lease, START_WITHIN_MS, Settled},
    traces::Traces,
};

/// Past its request's timeout a lease is not renewed any more: the task hangs.
const GRACE_PAST_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a request whose own is not known yet.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(LONGEST_TIMEOUT_SECONDS as u64);
/// A delivery that outlived so many senders in a row is sent alone: if it is what stops them, it stops no other.
const ALONE_FROM: u32 = 3;
/// How long it waits for the others to end, and how long before it is tried again where that, or its turn, did not come.
const ALONE_WITHIN: Duration = Duration::from_secs(60);
const SUSPECT_WAITS_MS: u64 = 1_000;
/// How long what cannot be read, or what its record does not let be sent, waits.
const UNREADABLE_FOR_MS: u64 = 30_000;

/// What all deliveries of a sender share.
pub struct Deliverer {
    pub material: Material,
    pub post: Post,
    pub held: Arc<Held>,
    pub slots: Arc<Semaphore>,
    /// How many slots there are.
    pub slot_count: u32,
    /// Held by the delivery that is sent alone.
    pub suspect: Mutex<()>,
    pub reports: mpsc::Sender<Report>,
    pub max_age: Duration,
    pub traces: Traces,
    pub shutdown: Shutdown,
}

impl Deliverer {
    /// Delivers the leases of one call, each with its slot.
    pub async fn deliver_all(self: Arc<Self>, leases: Vec<(Lease, OwnedSemaphorePermit)>) {
        let found = self.find(&leases).await;
        let mut deliveries = JoinSet::new();
        for (lease, slot) in leases {
            let parts = found.as_ref().map(|found| found.parts(&lease));
            deliveries.spawn(self.clone().deliver(lease, parts, slot));
        }
        // One that is slow holds its own event, not those of all.
        drop(found);
        while let Some(joined) = deliveries.join_next().await {
            if let Err(error) = joined {
                tracing::error!(%error, "a delivery's task failed: another sender takes it over");
            }
        }
    }

    /// What the leases are made of; `None` when Redis does not say it, or not before it must stop.
    async fn find(&self, leases: &[(Lease, OwnedSemaphorePermit)]) -> Option<Found> {
        let leases: Vec<Lease> = leases.iter().map(|(lease, _)| lease.clone()).collect();
        for lease in &leases {
            self.held.insert(lease, lease.since + LONGEST_TIMEOUT + GRACE_PAST_TIMEOUT);
        }
        metrics::in_flight(self.held.count());
        let shard = leases.first()?.subscription.shard;
        let mut backoff = Backoff::new("reading what is to be sent");
        loop {
            match self.material.find(shard, &leases).await {
                Ok(found) => {
                    backoff.recovered();
                    return Some(found);
                }
                Err(error) if error.is_passing() => tokio::select! {
                    () = backoff.pause(&error) => {}
                    () = self.shutdown.stopping() => return None,
                },
                Err(error) => {
                    tracing::error!(%error, shard, "what is to be sent cannot be read: it is tried again later");
                    return None;
                }
            }
        }
    }

    async fn deliver(self: Arc<Self>, lease: Lease, parts: Option<Parts>, slot: OwnedSemaphorePermit) {
        if lease.leases_lost > 0 {
            metrics::lease_lost();
        }
        let ending = self.ending(&lease, parts.as_ref()).await;
        let event = parts.and_then(|parts| parts.event);
        let published_ms = event.map_or(0, |event| event.id.at.ms);
        let end_to_end = Duration::from_millis(lease.redis_now_ms().saturating_sub(published_ms));
        let report = Report { settled: Settled { lease, ending }, end_to_end, slot };
        if self.reports.send(report).await.is_err() {
            tracing::debug!("the sender has ended: the lease of this delivery runs out");
        }
    }

    async fn ending(&self, lease: &Lease, parts: Option<&Parts>) -> Ending {
        let Some(parts) = parts.filter(|parts| !parts.is_unusable) else {
            return Ending::Deferred { delay_ms: UNREADABLE_FOR_MS };
        };
        // Where the subscription was deleted meanwhile, its purge clears the rest.
        let Some(target) = &parts.target else { return Ending::Released };
        let Some(event) = &parts.event else {
            tracing::error!(delivery_id = %lease.delivery(), "the event of this delivery is nowhere: a defect, or lost data");
            let error = "the event is not in Redis any more".to_owned();
            return Ending::Failed { reason: Reason::BodyMissing, error };
        };
        if lease.leases_lost < ALONE_FROM {
            return self.attempt(lease, target, event).await;
        }
        match self.alone().await {
            Some(_alone) => {
                tracing::warn!(delivery_id = %lease.delivery(), leases_lost = lease.leases_lost, "sent alone: senders stopped while they held it");
                self.attempt(lease, target, event).await
            }
            None => Ending::Deferred { delay_ms: SUSPECT_WAITS_MS },
        }
    }

    /// All other slots, for one that may be what stops senders: one such at a time, and not for ever.
    async fn alone(&self) -> Option<(MutexGuard<'_, ()>, SemaphorePermit<'_>)> {
        let only = self.suspect.try_lock().ok()?;
        let others = self.slots.acquire_many(self.slot_count - 1);
        let others = tokio::time::timeout(ALONE_WITHIN, others).await.ok()?.ok()?;
        Some((only, others))
    }

    /// Whether it is too late to start: it must stop, another sender may have it, or its send was paid for too long ago.
    fn must_go_back(&self, lease: &Lease, timeout: Duration) -> bool {
        self.shutdown.is_stopping()
            || lease.is_rate_limited && lease.since.elapsed() > Duration::from_millis(START_WITHIN_MS)
            || !self.held.extend(lease, Instant::now() + timeout + GRACE_PAST_TIMEOUT)
    }

    async fn attempt(&self, lease: &Lease, target: &Target, event: &Event) -> Ending {
        if self.must_go_back(lease, target.timeout()) {
            return Ending::Released;
        }
        if lease.leases_lost > 0 {
            metrics::possible_duplicate();
        }
        let (delivery, number) = (lease.delivery(), lease.attempt_number());
        let span = self.traces.attempt(event, delivery, number);
        // Where nothing is traced here the receiver goes on from where the publisher was.
        let trace = span.context().or(event.trace.as_deref().copied());
        let attempt = target.attempt(&self.post, event, delivery, number, trace).await;
        span.attempted(&attempt);
        metrics::attempt_made(&attempt);
        let age_ms = lease.redis_now_ms().saturating_sub(lease.entry.ms);
        let jitter = rand::random_range(-1.0..=1.0);
        let retry = &target.subscription.retry;
        let max_age_ms = self.max_age.as_millis() as u64;
        let outcome = outcome::decide(&attempt.answer, lease.attempt, retry, age_ms, max_age_ms, jitter);
        log(&attempt, trace, &outcome);
        Ending::Attempted { outcome, attempt: Box::new(attempt), event_bytes: event.data.len() }
    }
}

fn log(attempt: &Attempt, trace: Option<TraceContext>, outcome: &Outcome) {
    let (outcome, retry_in_ms) = match outcome {
        Outcome::Delivered => ("delivered", None),
        Outcome::Retry { delay_ms, .. } => ("retry", Some(*delay_ms)),
        Outcome::DeadLetter { reason, .. } => (reason.name(), None),
        Outcome::Gone => (Reason::Gone.name(), None),
    };
    tracing::info!(
        tenant = attempt.tenant,
        webhook_id = %attempt.subscription,
        event_id = %attempt.event,
        delivery_id = %attempt.delivery(),
        event_type = attempt.event_type,
        attempt = attempt.number,
        response_status = attempt.status(),
        error_kind = attempt.failure().map(|failure| failure.kind.name()),
        error = attempt.failure().map(|failure| failure.text.as_str()),
        response_time_ms = attempt.response_time_ms,
        outcome,
        retry_in_ms,
        trace_id = trace.as_ref().map(TraceContext::trace_id_hex),
        "attempt"
    );
}

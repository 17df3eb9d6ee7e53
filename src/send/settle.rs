//! Reports what became of deliveries, in batches, until Redis has it. The calls of a batch, one a shard, are under way at
//! once, so that they share a sync of the disk.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep_until, timeout_at},
};

use super::{Wake, held::Held};
use crate::{
    backoff::Backoff,
    domain::outcome::Outcome,
    metrics,
    streams::{Ending, Error, LEASE, SETTLE_AT_MOST, SettleAnswer, Settled, ShardId, Streams},
};

/// How long a result waits for others while more are under way.
const LINGER: Duration = Duration::from_millis(2);

/// A result on its way, with the slot that its delivery takes up.
pub struct Report {
    pub settled: Settled,
    /// From publishing to now.
    pub end_to_end: Duration,
    pub slot: OwnedSemaphorePermit,
}

/// The reports of one shard in a batch; the slots come back when it is dropped.
#[derive(Default)]
struct Part {
    settled: Vec<Settled>,
    ages: Vec<Duration>,
    slots: Vec<OwnedSemaphorePermit>,
}

impl Part {
    fn push(&mut self, report: Report) {
        self.settled.push(report.settled);
        self.ages.push(report.end_to_end);
        self.slots.push(report.slot);
    }
}

/// Takes reports until every sender of them is gone.
pub struct Settler {
    pub streams: Streams,
    pub held: Arc<Held>,
    pub reports: mpsc::Receiver<Report>,
    pub wakes: mpsc::Sender<Wake>,
}

impl Settler {
    pub async fn run(mut self) {
        let mut backoff = Backoff::new("settling deliveries");
        let (mut late, mut retry_at, mut is_last) = (Vec::<(ShardId, Part)>::new(), Instant::now(), false);
        let mut late_since = Instant::now();
        while !is_last || !late.is_empty() {
            let parts = tokio::select! {
                report = self.reports.recv(), if !is_last => match report {
                    Some(first) => self.collect(first).await.into_iter().collect(),
                    None => {
                        is_last = true;
                        continue;
                    }
                },
                () = sleep_until(retry_at), if !late.is_empty() => std::mem::take(&mut late),
            };
            let failure = self.settle(parts, &mut late).await;
            let is_away = matches!(failure, Some(Error::Unavailable(_)));
            if let Some(error) = failure {
                retry_at = Instant::now() + backoff.failed(&error);
            } else if late.is_empty() {
                backoff.recovered();
            }
            if late.is_empty() {
                late_since = Instant::now();
            } else if is_away && late_since.elapsed() > LEASE {
                // Others may have what is late: its slots are for what is on servers that are there. There is no more of it
                // than there were slots, as a server that is away leases nothing.
                late.iter_mut().for_each(|(_, part)| part.slots.clear());
            }
        }
    }

    /// As many as one call a shard takes. It lingers only while others are under way: a lone result goes at once.
    async fn collect(&mut self, first: Report) -> HashMap<ShardId, Part> {
        let deadline = Instant::now() + LINGER;
        let (mut parts, mut next, mut count) = (HashMap::new(), first, 0);
        loop {
            let part: &mut Part = parts.entry(next.settled.lease.subscription.shard).or_default();
            part.push(next);
            count += 1;
            if part.settled.len() == SETTLE_AT_MOST || self.held.count() <= count {
                return parts;
            }
            match timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(report)) => next = report,
                Ok(None) | Err(_) => return parts,
            }
        }
    }

    /// Settles each part; those that fail are `late`, with the last failure: a repeat of what was done changes nothing. What is
    /// on other servers does not wait for them.
    async fn settle(&self, parts: Vec<(ShardId, Part)>, late: &mut Vec<(ShardId, Part)>) -> Option<Error> {
        let mut failure = None;
        let calls = parts.iter().map(|(shard, part)| self.streams.settle(*shard, &part.settled));
        let answers = join_all(calls).await;
        for ((shard, part), answer) in parts.into_iter().zip(answers) {
            match answer {
                Ok(answer) => self.account(shard, &part, &answer),
                Err(error) => {
                    failure = Some(error);
                    late.push((shard, part));
                }
            }
        }
        failure
    }

    fn account(&self, shard: ShardId, part: &Part, answer: &SettleAnswer) {
        metrics::stale_settles(answer.stale.len());
        for (index, (result, age)) in part.settled.iter().zip(&part.ages).enumerate() {
            self.held.remove(&result.lease);
            if !answer.stale.contains(&index) {
                count(result, *age);
            }
        }
        for (webhook, reason) in &answer.disabled {
            metrics::webhook_disabled(*reason);
            tracing::warn!(webhook_id = %webhook, %reason, "a webhook is disabled: it keeps collecting until it is resumed");
        }
        metrics::in_flight(self.held.count());
        // A full queue means that the leasing loop is awake.
        let _ = self.wakes.try_send(Wake::at_redis_time(shard, answer.now_ms, answer.next_due_ms));
    }
}

fn count(result: &Settled, age: Duration) {
    match &result.ending {
        Ending::Released | Ending::Deferred { .. } => {}
        Ending::Failed { reason, .. } => metrics::dead_lettered(*reason),
        Ending::Attempted { outcome, .. } => match outcome {
            Outcome::Delivered => metrics::delivered(age),
            Outcome::Retry { .. } => metrics::retry_scheduled(),
            Outcome::DeadLetter { reason, .. } => metrics::dead_lettered(*reason),
            Outcome::Gone => metrics::dead_lettered(crate::domain::outcome::Reason::Gone),
        },
    }
}

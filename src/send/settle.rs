//! Reports what became of deliveries, in batches, until Redis has it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::{Instant, timeout_at},
};

use super::{Wake, held::Held};
use crate::{
    backoff::Backoff,
    domain::outcome::Outcome,
    metrics,
    streams::{Ending, SETTLE_AT_MOST, SettleAnswer, Settled, ShardId, Streams},
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
        while let Some(first) = self.reports.recv().await {
            let batch = self.collect(first).await;
            let mut by_shard: HashMap<ShardId, Part> = HashMap::new();
            for report in batch {
                let part = by_shard.entry(report.settled.lease.subscription.shard).or_default();
                part.settled.push(report.settled);
                part.ages.push(report.end_to_end);
                part.slots.push(report.slot);
            }
            for (shard, part) in by_shard {
                let answer = self.settle(shard, &part.settled, &mut backoff).await;
                self.account(shard, &part, &answer);
            }
        }
    }

    /// As many as one call takes. It lingers only while others are under way: a lone result goes at once.
    async fn collect(&mut self, first: Report) -> Vec<Report> {
        let deadline = Instant::now() + LINGER;
        let mut batch = vec![first];
        while batch.len() < SETTLE_AT_MOST && self.held.count() > batch.len() {
            match timeout_at(deadline, self.reports.recv()).await {
                Ok(Some(report)) => batch.push(report),
                Ok(None) | Err(_) => break,
            }
        }
        batch
    }

    /// Repeats until it is done: a repeat of what was done changes nothing.
    async fn settle(&self, shard: ShardId, settled: &[Settled], backoff: &mut Backoff) -> SettleAnswer {
        loop {
            match self.streams.settle(shard, settled).await {
                Ok(answer) => {
                    backoff.recovered();
                    return answer;
                }
                Err(error) => backoff.pause(&error).await,
            }
        }
    }

    fn account(&self, shard: ShardId, part: &Part, answer: &SettleAnswer) {
        metrics::stale_settles(answer.stale.len());
        for (index, (result, age)) in part.settled.iter().zip(&part.ages).enumerate() {
            self.held.remove(&result.lease);
            if !answer.stale.contains(&index) {
                count(result, *age);
            }
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

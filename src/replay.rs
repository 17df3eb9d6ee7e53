//! Replays: a range of the log put to one subscription once more, at a rate. For a new subscription it is the backfill.
//!
//! A replay is a job in Redis. Whoever leads its shard carries it on from its cursor, so a kill only interrupts it.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet, time::Instant};

use crate::{
    backoff::Backoff,
    clock,
    domain::{filter::Pattern, id::StreamId},
    shutdown::Shutdown,
    streams::{Job, JobState, LogEntry, Queued, REPLAY_AT_MOST, Result, ShardId, Streams},
};

/// Events read at once: each may be as large as `delivery.max_payload_bytes` allows, so fewer than one call could queue.
const EVENTS_A_PAGE: usize = 50;
const _: () = assert!(EVENTS_A_PAGE <= REPLAY_AT_MOST);
/// How often replays are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a replay waits while the backlog is full, or an event is still to be dispatched.
const LATER: Duration = Duration::from_secs(1);

/// Carries out the replays of the shards that are led, until it is told to stop.
pub async fn run(streams: Streams, led: watch::Receiver<Arc<[ShardId]>>, shutdown: Shutdown) {
    let replays = Replays { streams, led, running: Arc::default() };
    tokio::select! {
        () = shutdown.stopping() => {}
        () = replays.run() => {}
    }
}

/// The least time for a page, so that one that finds nothing to queue does not read the log without a pause.
const PAUSE_BETWEEN_PAGES: Duration = Duration::from_millis(2);

type Name = (ShardId, String);

struct Replays {
    streams: Streams,
    led: watch::Receiver<Arc<[ShardId]>>,
    running: Arc<Mutex<HashSet<Name>>>,
}

/// Takes a replay off the list of those that run when its task ends, however it ends.
struct Running(Arc<Mutex<HashSet<Name>>>, Name);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Replays {
    async fn run(self) {
        let mut backoff = Backoff::new("looking for replays");
        let (mut jobs, beat) = (JoinSet::new(), self.streams.aside());
        loop {
            let led = self.led.borrow().clone();
            match beat.running_jobs(&led).await {
                Ok(names) => {
                    backoff.recovered();
                    for name in names {
                        self.start(name, &mut jobs);
                    }
                    clock::beat(LOOK_EVERY).await;
                }
                Err(error) => backoff.pause(&error).await,
            }
            while jobs.try_join_next().is_some() {}
        }
    }

    fn start(&self, name: Name, jobs: &mut JoinSet<()>) {
        if !self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone()) {
            return;
        }
        let running = Running(self.running.clone(), name);
        let (streams, led) = (self.streams.clone(), self.led.clone());
        jobs.spawn(async move {
            let (shard, id) = &running.1;
            let mut backoff = Backoff::new("replaying");
            while led.borrow().contains(shard) {
                match carry_out(&streams, *shard, id, &led).await {
                    Ok(()) => return,
                    Err(error) => backoff.pause(&error).await,
                }
            }
        });
    }
}

/// Carries a replay on from where it is, to its end or until its shard is led by another.
async fn carry_out(streams: &Streams, shard: ShardId, id: &str, led: &watch::Receiver<Arc<[ShardId]>>) -> Result<()> {
    while led.borrow().contains(&shard) {
        let started = Instant::now();
        let Some(job) = streams.job(shard, id).await? else { return streams.forget_job(shard, id).await };
        if job.state != JobState::Running {
            return streams.forget_job(shard, id).await;
        }
        match step(streams, &job).await? {
            Queued::Done(count) => {
                tokio::time::sleep_until(started + pause_after(count, job.rate).max(PAUSE_BETWEEN_PAGES)).await;
            }
            Queued::MovedOn(_) => {}
            Queued::Later => tokio::time::sleep(LATER).await,
            Queued::Gone => return Ok(()),
        }
    }
    Ok(())
}

/// How long so many deliveries take at the rate.
fn pause_after(count: u64, rate: Option<u32>) -> Duration {
    rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) * count as u32 / rate.max(1))
}

/// Looks at the next events of the range and queues those that are wanted.
async fn step(streams: &Streams, job: &Job) -> Result<Queued> {
    let shard = job.subscription.shard;
    let Some(subscription) = streams.subscription(job.subscription).await? else {
        return streams.replay(job, job.cursor, true, &[]).await;
    };
    let page_size = job.rate.map_or(EVENTS_A_PAGE, |rate| (rate as usize).clamp(1, EVENTS_A_PAGE));
    let page = streams.log_page(shard, job.cursor, job.until, page_size).await?;
    let pattern: Option<Pattern> = job.pattern.as_deref().and_then(|pattern| pattern.parse().ok());
    let wanted: Vec<StreamId> = page
        .iter()
        .filter_map(|entry| match entry {
            LogEntry::Event(event) => {
                subscription.subscription.is_replayed(event, pattern.as_ref()).then_some(event.id.at)
            }
            LogEntry::Unreadable(_) => None,
        })
        .collect();
    let is_last = page.len() < page_size;
    let next = page.last().map_or(job.until, |entry| entry.at().next());
    streams.replay(job, next, is_last, &wanted).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_sets_the_pause() {
        let check = |count, rate, ms| assert_eq!(pause_after(count, rate), Duration::from_millis(ms));
        check(200, None, 0);
        check(0, Some(10), 0);
        check(10, Some(10), 1000);
        check(5, Some(10), 500);
    }
}

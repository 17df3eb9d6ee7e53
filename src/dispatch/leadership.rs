//! Which shards this process leads: its fair part of them, and any that nobody leads.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    backoff::Backoff,
    clock, metrics,
    shutdown::Shutdown,
    streams::{Error, Result, Seat, ShardId, Streams},
};

/// How often leadership is renewed, and looked for.
const EVERY: Duration = Duration::from_secs(1);
/// A shard that nobody has led for so long is taken by anyone.
const UNLED_AT_MOST: Duration = Duration::from_secs(1);
/// How long a leader that cannot reach Redis goes on as one; the key lives no longer.
const GOOD_FOR: Duration = Duration::from_secs(3);
/// The list of workers must stand still for so long before a shard is left to another: a process that died stays in it
/// for a while, and would be left shards that it never takes.
const STEADY_AFTER: Duration = Duration::from_secs(4);
/// What a process that dispatches calls itself in the list of workers, before its own name.
pub const ROLE: &str = "dispatcher:";

/// Competes for the shards.
pub struct Leadership {
    streams: Streams,
    process: String,
    led: watch::Sender<Arc<[ShardId]>>,
    renewed: Instant,
    unled_since: HashMap<ShardId, Instant>,
    dispatchers: (Vec<String>, Instant),
}

impl Leadership {
    /// The receiver always has the shards that are led.
    pub fn new(streams: Streams, process: String) -> (Self, watch::Receiver<Arc<[ShardId]>>) {
        let (led, receiver) = watch::channel(Arc::from([]));
        let now = Instant::now();
        let leadership =
            Self { streams, process, led, renewed: now, unled_since: HashMap::new(), dispatchers: (Vec::new(), now) };
        (leadership, receiver)
    }

    /// Competes until it is told to stop, then lets go.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut backoff = Backoff::new("looking for shards to lead");
        while !shutdown.is_stopping() {
            match self.turn().await {
                Ok(()) => {
                    backoff.recovered();
                    tokio::select! {
                        () = clock::beat(EVERY) => {}
                        () = shutdown.stopping() => {}
                    }
                }
                Err(error) => {
                    if self.renewed.elapsed() > GOOD_FOR {
                        self.set_led(Vec::new());
                    }
                    tokio::select! {
                        () = backoff.pause(&error) => {}
                        () = shutdown.stopping() => {}
                    }
                }
            }
        }
        if let Err(error) = self.let_go().await {
            tracing::debug!(%error, "could not let go of the shards: others take over in a few seconds");
        }
    }

    async fn turn(&mut self) -> Result<()> {
        let worker = self.worker();
        let led = self.led.borrow().clone();
        let (held, others): (Vec<ShardId>, Vec<ShardId>) = self.streams.shards().partition(|shard| led.contains(shard));
        let (held_seats, other_seats) = (seats(&held), seats(&others));
        let asked_at = Instant::now();
        // All of it shares a round trip: while nothing changes, that is all.
        let (alive, kept, leaders) = tokio::join!(
            self.streams.check_in(&worker),
            self.streams.lead(&held_seats, &self.process),
            self.streams.leaders(&other_seats)
        );
        // In a cluster a part may be away and the rest not: nobody leads what is, and the list is as it was.
        let is_cluster = self.streams.is_cluster();
        let is_part_there = alive.is_ok() || !held.is_empty() && kept.is_ok() || !others.is_empty() && leaders.is_ok();
        let is_any_there = is_cluster && is_part_there;
        let alive = but_for_absence(alive, is_any_there)?.unwrap_or_else(|| self.dispatchers.0.clone());
        let kept = but_for_absence(kept, is_any_there)?.unwrap_or_else(|| vec![false; held.len()]);
        let leaders = but_for_absence(leaders, is_any_there)?.unwrap_or_else(|| vec![None; others.len()]);
        let mut dispatchers: Vec<String> = alive.into_iter().filter(|worker| worker.starts_with(ROLE)).collect();
        // They come in the order in which they were last seen.
        dispatchers.sort_unstable();
        if self.dispatchers.0 != dispatchers {
            self.dispatchers = (dispatchers, Instant::now());
        }
        let mine: Vec<ShardId> = held.into_iter().zip(kept).filter(|(_, kept)| *kept).map(|(shard, _)| shard).collect();
        // Another process may have had the name of this one, and have led.
        let is_free = |leader: &Option<String>| leader.as_ref().is_none_or(|leader| *leader == self.process);
        let free = others.into_iter().zip(leaders).filter(|(_, leader)| is_free(leader));
        let free: Vec<ShardId> = free.map(|(shard, _)| shard).collect();
        let fair = self.streams.shards().len().div_ceil(self.dispatchers.0.len().max(1));
        let (stays, goes) = mine.split_at(if self.is_steady() { fair.min(mine.len()) } else { mine.len() });
        let asked = self.wanted(&free, stays.len(), fair);
        self.renewed = asked_at;
        // What is another's, or goes, is known whatever becomes of the next call.
        self.set_led(stays.to_vec());
        // As was just seen, others are.
        let got =
            but_for_absence(self.streams.lead(&seats(&asked), &self.process).await, is_cluster)?.unwrap_or_default();
        let got = asked.iter().zip(got).filter(|(_, got)| *got).map(|(shard, _)| shard);
        let mut led: Vec<ShardId> = stays.iter().chain(got).copied().collect();
        led.sort_unstable();
        self.set_led(led);
        // Let go only after it is dispatched no more, so that the next leader starts from what is done.
        self.streams.resign(&seats(goes), &self.process).await
    }

    fn is_steady(&self) -> bool {
        self.dispatchers.1.elapsed() > STEADY_AFTER
    }

    /// What nobody leads: as much as there is room for within the fair part at once, the rest after a while.
    fn wanted(&mut self, free: &[ShardId], led: usize, fair: usize) -> Vec<ShardId> {
        self.unled_since.retain(|shard, _| free.contains(shard));
        let mut wanted = Vec::new();
        for shard in free {
            let since = *self.unled_since.entry(*shard).or_insert_with(Instant::now);
            if led + wanted.len() < fair || since.elapsed() > UNLED_AT_MOST {
                wanted.push(*shard);
            }
        }
        wanted
    }

    fn set_led(&self, led: Vec<ShardId>) {
        metrics::shards_led(led.len(), self.streams.shards().len());
        self.led.send_if_modified(|before| {
            let is_changed = **before != *led;
            if is_changed {
                *before = led.into();
            }
            is_changed
        });
    }

    async fn let_go(&self) -> Result<()> {
        let led = seats(&self.led.borrow());
        self.set_led(Vec::new());
        self.streams.resign(&led, &self.process).await?;
        self.streams.check_out(&self.worker()).await
    }

    /// What the list of workers has of this process as a dispatcher.
    fn worker(&self) -> [String; 1] {
        [format!("{ROLE}{}", self.process)]
    }
}

/// `None` where a server is away and others are there.
fn but_for_absence<T>(answer: Result<T>, is_any_there: bool) -> Result<Option<T>> {
    match answer {
        Err(Error::Unavailable(_)) if is_any_there => Ok(None),
        answer => answer.map(Some),
    }
}

fn seats(shards: &[ShardId]) -> Vec<Seat> {
    shards.iter().map(|shard| Seat::Shard(*shard)).collect()
}

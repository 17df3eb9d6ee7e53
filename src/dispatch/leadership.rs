//! Which shards this process leads: its fair part of them, and any that nobody leads.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    backoff::Backoff,
    metrics,
    shutdown::Shutdown,
    streams::{Result, Seat, ShardId, Streams},
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
                        () = tokio::time::sleep(EVERY) => {}
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
        let worker = format!("{ROLE}{}", self.process);
        let shards: Vec<ShardId> = self.streams.shards().collect();
        let seats: Vec<Seat> = shards.iter().map(|shard| Seat::Shard(*shard)).collect();
        let (alive, leaders) = tokio::try_join!(self.streams.check_in(&worker), self.streams.leaders(&seats))?;
        let mut dispatchers: Vec<String> = alive.into_iter().filter(|worker| worker.starts_with(ROLE)).collect();
        // They come in the order in which they were last seen.
        dispatchers.sort_unstable();
        if self.dispatchers.0 != dispatchers {
            self.dispatchers = (dispatchers, Instant::now());
        }
        let mine: Vec<ShardId> = shards.iter().copied().filter(|shard| self.leads(&leaders, *shard)).collect();
        let fair = shards.len().div_ceil(self.dispatchers.0.len().max(1));
        let wanted = self.wanted(&leaders, &mine, fair);
        let spare: Vec<ShardId> = mine.iter().copied().filter(|shard| !wanted.contains(shard)).collect();
        let asked: Vec<Seat> = wanted.iter().map(|shard| Seat::Shard(*shard)).collect();
        let got = self.streams.lead(&asked, &self.process).await?;
        self.renewed = Instant::now();
        self.set_led(wanted.iter().zip(got).filter(|(_, got)| *got).map(|(shard, _)| *shard).collect());
        // Let go only after it is dispatched no more, so that the next leader starts from what is done.
        let spare: Vec<Seat> = spare.into_iter().map(Seat::Shard).collect();
        self.streams.resign(&spare, &self.process).await
    }

    fn leads(&self, leaders: &[Option<String>], shard: ShardId) -> bool {
        leaders[usize::from(shard)].as_ref() == Some(&self.process)
    }

    /// What is led now up to the fair part, then what nobody leads: within the fair part at once, else after a while.
    fn wanted(&mut self, leaders: &[Option<String>], mine: &[ShardId], fair: usize) -> Vec<ShardId> {
        let is_steady = self.dispatchers.1.elapsed() > STEADY_AFTER;
        let mut wanted: Vec<ShardId> = mine.iter().copied().take(if is_steady { fair } else { mine.len() }).collect();
        for (shard, leader) in leaders.iter().enumerate() {
            let shard = shard as ShardId;
            if leader.is_some() {
                self.unled_since.remove(&shard);
                continue;
            }
            let since = *self.unled_since.entry(shard).or_insert_with(Instant::now);
            if wanted.len() < fair || since.elapsed() > UNLED_AT_MOST {
                wanted.push(shard);
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
        let led: Vec<Seat> = self.led.borrow().iter().map(|shard| Seat::Shard(*shard)).collect();
        self.set_led(Vec::new());
        self.streams.resign(&led, &self.process).await?;
        self.streams.check_out(&format!("{ROLE}{}", self.process)).await
    }
}

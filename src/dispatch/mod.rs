//! Dispatching: log -> matching subscriptions -> delivery streams, in log order and each once.
//!
//! One process leads each shard. A leader that was thought dead and comes back does no harm: `expand` takes an event only
//! when it is the oldest that is not done, and only from where it stands.

mod leadership;
mod matcher;
mod worker;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};

pub use leadership::{Leadership, ROLE};
use matcher::Matcher;
use worker::{Progress, ShardWorker};

use crate::{
    backoff::Backoff,
    domain::id::StreamId,
    shutdown::Shutdown,
    streams::{Error, LogEntry, LogReader, RecentEvents, Result, ShardId, Streams},
    traces::Traces,
};

/// How long a read waits for new events; after an empty one, what is pending is looked at again.
const BLOCK: Duration = Duration::from_secs(5);
/// Events read at once.
const EVENTS_A_READ: usize = 32;

/// Reads the logs of the shards it leads until it is told to stop.
///
/// It keeps what it dispatches in `events`, if there is a sender in this process that will want it.
pub async fn run(
    streams: Streams,
    led: watch::Receiver<Arc<[ShardId]>>,
    events: Option<RecentEvents>,
    traces: Traces,
    shutdown: Shutdown,
) {
    let mut dispatcher = Dispatcher {
        streams,
        led,
        events,
        traces,
        matchers: HashMap::new(),
        stragglers: HashSet::new(),
        reader: None,
        backoff: Backoff::new("dispatching"),
    };
    tokio::select! {
        () = shutdown.stopping() => {}
        () = dispatcher.dispatch() => {}
    }
}

struct Dispatcher {
    streams: Streams,
    led: watch::Receiver<Arc<[ShardId]>>,
    events: Option<RecentEvents>,
    traces: Traces,
    matchers: HashMap<ShardId, Matcher>,
    /// Shards that may have events which were read and not done.
    stragglers: HashSet<ShardId>,
    reader: Option<LogReader>,
    backoff: Backoff,
}

impl Dispatcher {
    async fn dispatch(&mut self) {
        loop {
            match self.turn().await {
                Ok(()) => self.backoff.recovered(),
                Err(error) => {
                    self.reader = None;
                    self.stragglers.extend(self.led.borrow().iter());
                    self.recover(error).await;
                }
            }
        }
    }

    async fn recover(&mut self, error: Error) {
        if matches!(error, Error::NoGroup) {
            let led = self.led.borrow().clone();
            for shard in led.iter() {
                if self.streams.create_dispatchers_group(*shard).await.is_err() {
                    break;
                }
            }
        }
        self.backoff.pause(&error).await;
    }

    /// One read and what follows from it.
    async fn turn(&mut self) -> Result<()> {
        let led = self.take_over().await?;
        if led.is_empty() {
            // An error means that leadership has ended, and with it this process.
            drop(self.led.changed().await);
            return Ok(());
        }
        for shard in led.iter().filter(|shard| self.stragglers.contains(shard)).copied().collect::<Vec<_>>() {
            self.catch_up(shard).await?;
        }
        let Some(read) = self.read_new(&led).await? else { return Ok(()) };
        if read.is_empty() {
            self.stragglers.extend(led.iter());
        }
        let mut by_shard: HashMap<ShardId, Vec<LogEntry>> = HashMap::new();
        for (shard, entry) in read {
            by_shard.entry(shard).or_default().push(entry);
        }
        self.expand_shards(by_shard).await
    }

    /// Notices a change of the shards it leads: what the leader before left behind comes first.
    async fn take_over(&mut self) -> Result<Arc<[ShardId]>> {
        let led = self.led.borrow_and_update().clone();
        let before: HashSet<ShardId> = self.matchers.keys().copied().collect();
        self.matchers.retain(|shard, _| led.contains(shard));
        for shard in led.iter().filter(|shard| !before.contains(shard)) {
            self.streams.create_dispatchers_group(*shard).await?;
            self.matchers.insert(*shard, Matcher::new(self.streams.clone(), *shard));
            self.stragglers.insert(*shard);
        }
        Ok(led)
    }

    async fn reader(&mut self) -> Result<&mut LogReader> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.streams.log_reader(BLOCK).await?,
        };
        Ok(self.reader.insert(reader))
    }

    /// New events; `None` when the shards to read have changed meanwhile.
    async fn read_new(&mut self, led: &[ShardId]) -> Result<Option<Vec<(ShardId, LogEntry)>>> {
        self.reader().await?;
        let Some(mut reader) = self.reader.take() else { return Ok(None) };
        tokio::select! {
            read = reader.new_events(led, EVENTS_A_READ) => {
                self.reader = Some(reader);
                read.map(Some)
            }
            // The connection goes with its read. Events that it is still handed stay pending, and are caught up with.
            _ = self.led.changed() => {
                self.stragglers.extend(led);
                Ok(None)
            }
        }
    }

    /// Expands what was read before and is not done.
    async fn catch_up(&mut self, shard: ShardId) -> Result<()> {
        loop {
            let pending = self.reader().await?.pending(shard, StreamId::ZERO, EVENTS_A_READ).await?;
            if pending.is_empty() {
                self.stragglers.remove(&shard);
                return Ok(());
            }
            self.expand_shards(HashMap::from([(shard, pending)])).await?;
        }
    }

    /// Expands the events of each shard, all shards at once.
    async fn expand_shards(&mut self, by_shard: HashMap<ShardId, Vec<LogEntry>>) -> Result<()> {
        let mut shards = JoinSet::new();
        for (shard, entries) in by_shard {
            // A shard that is not led any more is its new leader's.
            let Some(matcher) = self.matchers.remove(&shard) else { continue };
            let worker = ShardWorker {
                streams: self.streams.clone(),
                shard,
                matcher,
                events: self.events.clone(),
                traces: self.traces.clone(),
            };
            shards.spawn(worker.expand_all(entries));
        }
        let mut answer = Ok(());
        while let Some(joined) = shards.join_next().await {
            let (shard, matcher, result) = joined.map_err(|error| Error::Unreadable(error.to_string()))?;
            self.matchers.insert(shard, matcher);
            match result {
                Ok(Progress::Done) => {}
                Ok(Progress::Behind) => drop(self.stragglers.insert(shard)),
                Err(error) => answer = Err(error),
            }
        }
        answer
    }
}

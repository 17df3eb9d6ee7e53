//! Dispatching: log -> matching subscriptions -> delivery streams, in log order and each once.
//!
//! One process leads each shard. It reads the log by range, from the last event that is expanded on. A leader that was thought
//! dead and comes back does no harm: `expand` takes an event only when the one before it is the last that is expanded, and
//! only from where it stands.

mod leadership;
mod matcher;
mod worker;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};

pub use leadership::{Leadership, ROLE};
use matcher::Matcher;
use worker::ShardWorker;

use crate::{
    backoff::Backoff,
    domain::id::StreamId,
    handover::Handover,
    shutdown::Shutdown,
    streams::{Error, LogEntry, LogReader, Result, ShardId, Streams},
    traces::Traces,
};

/// How long a read waits for new events.
const BLOCK: Duration = Duration::from_secs(15);
/// Events read at once.
const EVENTS_A_READ: usize = 32;

/// Reads the logs of the shards it leads until it is told to stop.
///
/// What it dispatches it hands to the `sender` of this process, if there is one.
pub async fn run(
    streams: Streams,
    led: watch::Receiver<Arc<[ShardId]>>,
    sender: Option<Handover>,
    traces: Traces,
    shutdown: Shutdown,
) {
    let mut dispatcher = Dispatcher {
        streams,
        led,
        sender,
        traces,
        shards: HashMap::new(),
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
    sender: Option<Handover>,
    traces: Traces,
    shards: HashMap<ShardId, Shard>,
    reader: Option<LogReader>,
    backoff: Backoff,
}

/// A shard that is led.
struct Shard {
    matcher: Matcher,
    /// Up to where its log is expanded; `None` where that is to be asked for.
    place: Option<StreamId>,
    /// The last call failed. Redis may have done it, and what it leased then is known to nobody: the next leases nothing.
    has_failed: bool,
}

impl Dispatcher {
    async fn dispatch(&mut self) {
        loop {
            match self.turn().await {
                Ok(()) => self.backoff.recovered(),
                Err(error) => {
                    self.reader = None;
                    self.shards.values_mut().for_each(|shard| shard.place = None);
                    self.backoff.pause(&error).await;
                }
            }
        }
    }

    /// One read and what follows from it.
    async fn turn(&mut self) -> Result<()> {
        self.take_over();
        if self.shards.is_empty() {
            // What it still reads would be of places that others pass meanwhile.
            self.reader = None;
            // An error means that leadership has ended, and with it this process.
            drop(self.led.changed().await);
            return Ok(());
        }
        let places = self.places().await?;
        let Some(read) = self.read(&places).await? else { return Ok(()) };
        if read.is_empty() {
            // Redis may have lost the end of a log, and events have come since at places before ours.
            self.shards.values_mut().for_each(|shard| shard.place = None);
        }
        self.expand(read).await
    }

    /// Notices a change of the shards it leads.
    fn take_over(&mut self) {
        let led = self.led.borrow_and_update().clone();
        self.shards.retain(|shard, _| led.contains(shard));
        for shard in led.iter() {
            let new = || Shard { matcher: Matcher::new(self.streams.clone(), *shard), place: None, has_failed: false };
            self.shards.entry(*shard).or_insert_with(new);
        }
    }

    /// From where each log is to be read.
    async fn places(&mut self) -> Result<BTreeMap<ShardId, StreamId>> {
        let unknown = self.shards.iter().filter(|(_, shard)| shard.place.is_none());
        let unknown: Vec<ShardId> = unknown.map(|(id, _)| *id).collect();
        for (id, place) in unknown.iter().zip(self.streams.expanded_up_to(&unknown).await?) {
            self.shards.entry(*id).and_modify(|shard| shard.place = Some(place));
        }
        Ok(self.shards.iter().map(|(id, shard)| (*id, shard.place.unwrap_or(StreamId::ZERO))).collect())
    }

    /// New events; `None` when the shards to read have changed meanwhile.
    async fn read(&mut self, places: &BTreeMap<ShardId, StreamId>) -> Result<Option<Vec<(ShardId, Vec<LogEntry>)>>> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => self.streams.log_reader(BLOCK).await?,
        };
        tokio::select! {
            read = reader.read(places, EVENTS_A_READ) => {
                self.reader = Some(reader);
                read.map(Some)
            }
            _ = self.led.changed() => Ok(None),
        }
    }

    /// Expands the events of each shard, all shards at once.
    async fn expand(&mut self, read: Vec<(ShardId, Vec<LogEntry>)>) -> Result<()> {
        let mut shards = JoinSet::new();
        for (shard, entries) in read {
            // What is not led any more is its new leader's.
            let Some(Shard { matcher, place: Some(place), has_failed }) = self.shards.remove(&shard) else { continue };
            let worker = ShardWorker {
                streams: self.streams.clone(),
                shard,
                matcher,
                place,
                sender: self.sender.clone().filter(|_| !has_failed),
                traces: self.traces.clone(),
            };
            shards.spawn(worker.expand_all(entries));
        }
        let mut answer = Ok(());
        while let Some(joined) = shards.join_next().await {
            let (shard, matcher, result) = joined.map_err(|error| Error::Unreadable(error.to_string()))?;
            let has_failed = result.is_err();
            let place = result.unwrap_or_else(|error| {
                answer = Err(error);
                None
            });
            self.shards.insert(shard, Shard { matcher, place, has_failed });
        }
        answer
    }
}

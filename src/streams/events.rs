//! The event log: read by dispatchers, expanded to delivery streams, and looked at.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use bytes::Bytes;
use redis::Value;

use super::{
    Leased, ShardId, Streams,
    connections::Readers,
    deliveries::limit_handing_out,
    entry::{self, unreadable},
    error::{Error, Result},
    pack,
    raw::{self, RawEntry},
    scripts,
};
use crate::domain::{
    event::Event,
    id::{EventId, StreamId, SubscriptionId},
};

/// Bodies read at once: each may be as large as `delivery.max_payload_bytes` allows.
const BODIES_A_READ: usize = 32;

/// One chunk of an event's expansion.
#[derive(Debug, Clone)]
pub struct Expansion {
    /// The event before it in the log.
    pub previous: StreamId,
    pub event: StreamId,
    /// Of the event's public id.
    pub nonce: u32,
    pub event_type: String,
    pub tenant: String,
    /// Bytes of its data.
    pub size: usize,
    /// The last subscription of the chunk before, if there was one.
    pub after: Option<SubscriptionId>,
    /// The last subscription of this chunk, unless it is the event's last chunk.
    pub up_to: Option<SubscriptionId>,
    /// Whether each target is noted in the event's status, or only those to which something happened.
    pub is_tracked: bool,
    /// Sorted.
    pub targets: Vec<SubscriptionId>,
}

/// What an expand call did: how many chunks, and why it stopped there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expanded {
    pub done: usize,
    pub refusal: Option<Refusal>,
    /// Deliveries that became dead letters, as their subscription's backlog was full.
    pub overflowed: u64,
}

/// Why expanding stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The log is expanded up to here, and what follows comes first.
    Order(StreamId),
    /// The event has been expanded up to here.
    Cursor(Option<SubscriptionId>),
}

impl Streams {
    /// Prepares to read logs as their dispatcher.
    pub async fn log_reader(&self, block: Duration) -> Result<LogReader> {
        Ok(LogReader { streams: self.clone(), readers: Readers::new(self.0.connections.clone(), block), block })
    }

    /// Up to where the log of each shard is expanded.
    pub async fn expanded_up_to(&self, shards: &[ShardId]) -> Result<Vec<StreamId>> {
        let asked = |shard: &ShardId| {
            let mut command = redis::cmd("HGET");
            command.arg(self.keys().of(*shard, "meta")).arg("hwm");
            command
        };
        let place = |found: Option<String>| found.map_or(Ok(StreamId::ZERO), |found| entry::stream_id(&found));
        let answers = self.0.connections.run_each(shards.iter().map(asked).collect()).await;
        answers.into_iter().map(|found| found.and_then(place)).collect()
    }

    pub(super) async fn create_group(&self, key: &str, group: &str, from: &str) -> Result<()> {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(key).arg(group).arg(from).arg("MKSTREAM");
        match self.0.connections.run::<()>(&command).await {
            Err(Error::Refused(text)) if text.contains("BUSYGROUP") => Ok(()),
            other => other,
        }
    }

    /// Puts events on the delivery streams of their targets, in log order.
    ///
    /// # Errors
    /// [`Error::Full`] when memory is short.
    pub async fn expand(&self, shard: ShardId, chunks: &[Expansion]) -> Result<Expanded> {
        let (expanded, _) = self.expand_and_lease(shard, chunks, 0).await?;
        Ok(expanded)
    }

    /// The same; then leases what is due on the shard, as [`lease`](Self::lease) does: nothing where there is no room.
    ///
    /// # Errors
    /// As [`expand`](Self::expand); what cannot be leased is none.
    pub fn expand_and_lease(
        &self,
        shard: ShardId,
        chunks: &[Expansion],
        room: usize,
    ) -> impl Future<Output = Result<(Expanded, Option<Leased>)>> + Send + use<> {
        let text = |id: &Option<SubscriptionId>| id.map(|id| id.to_string()).unwrap_or_default();
        let items: Vec<_> = chunks
            .iter()
            .map(|chunk| {
                let targets: Vec<String> = chunk.targets.iter().map(SubscriptionId::to_string).collect();
                let tracked = u8::from(chunk.is_tracked);
                let part = (text(&chunk.after), text(&chunk.up_to), tracked);
                let places = (chunk.previous.to_string(), chunk.event.to_string());
                let event = (&chunk.event_type, chunk.nonce, &chunk.tenant, chunk.size);
                (places.0, places.1, part.0, part.1, part.2, event.0, event.1, event.2, event.3, targets)
            })
            .collect();
        let since = Instant::now();
        let mut command = self.script(&scripts::EXPAND, shard);
        command.arg(self.0.limits.max_backlog).arg(self.0.limits.max_dead).arg(pack(&items));
        limit_handing_out(&mut command, room);
        let streams = self.clone();
        async move {
            let (done, refusal, argument, overflowed, leased): (usize, String, String, u64, Vec<u8>) =
                streams.0.connections.call(&scripts::EXPAND, &command).await?;
            let refusal = match refusal.as_str() {
                "" => None,
                "ORDER" => Some(Refusal::Order(entry::stream_id(&argument)?)),
                "CURSOR" if argument.is_empty() => Some(Refusal::Cursor(None)),
                "CURSOR" => Some(Refusal::Cursor(Some(argument.parse().map_err(|_| unreadable("a cursor"))?))),
                _ => return Err(unreadable("a refusal of expand")),
            };
            let leased = if leased.is_empty() { None } else { Some(Leased::read(&leased, since)?) };
            Ok((Expanded { done, refusal, overflowed }, leased))
        }
    }

    /// Makes a dead letter of an event of the log that can't be read or expanded, and passes over it; `false` when the log
    /// is not expanded up to `previous`, the event before it, or is further on.
    pub async fn bury_event(&self, shard: ShardId, previous: StreamId, at: StreamId, reason: &str) -> Result<bool> {
        let log = self.keys().of(shard, "events");
        let reply: Value =
            self.0.connections.run(redis::cmd("XRANGE").arg(&log).arg(at.to_string()).arg(at.to_string())).await?;
        let raw: HashMap<String, Bytes> = raw::read_entries(reply)?.first().map(RawEntry::shown).unwrap_or_default();
        let tenant = raw.get("tn").map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
        let mut command = self.script(&scripts::BURY, shard);
        command.arg(previous.to_string()).arg(at.to_string()).arg(tenant).arg(reason).arg(pack(&raw));
        self.0.connections.call(&scripts::BURY, &command).await
    }

    /// Events by their places: from the log, or from what the trim keeps beside it. In the order asked, `None` where it
    /// is neither here nor there.
    pub async fn events(&self, shard: ShardId, places: &[StreamId]) -> Result<Vec<Option<Event>>> {
        let mut events = Vec::with_capacity(places.len());
        for page in places.chunks(BODIES_A_READ) {
            events.append(&mut self.events_page(shard, page).await?);
        }
        Ok(events)
    }

    async fn events_page(&self, shard: ShardId, places: &[StreamId]) -> Result<Vec<Option<Event>>> {
        let mut pipeline = redis::pipe();
        for place in places {
            pipeline.cmd("XRANGE").arg(self.keys().of(shard, "events")).arg(place.to_string()).arg(place.to_string());
        }
        let replies: Vec<Value> = self.0.connections.run_all(&pipeline).await?;
        let mut events = Vec::with_capacity(places.len());
        for reply in replies {
            events.push(raw::read_entries(reply)?.pop().and_then(|found| event(shard, found)));
        }
        // The trim moves one way only: what was not in the log a moment ago is beside it, or nowhere.
        for (event, place) in events.iter_mut().zip(places) {
            if event.is_none() {
                *event = self.spilled(shard, *place).await?;
            }
        }
        Ok(events)
    }

    async fn spilled(&self, shard: ShardId, place: StreamId) -> Result<Option<Event>> {
        let map: HashMap<String, Value> =
            self.0.connections.run(redis::cmd("HGETALL").arg(self.keys().one(shard, "pay", place))).await?;
        Ok(entry::event(shard, place, &map))
    }

    /// One event by its public id; `None` where it is not, or another one stands in its place.
    pub async fn event(&self, id: EventId) -> Result<Option<Event>> {
        if !self.shards().contains(&id.shard) {
            return Ok(None);
        }
        let found = self.events(id.shard, &[id.at]).await?.pop().flatten();
        Ok(found.filter(|event| event.id == id))
    }

    /// A page of the log in its order: up to `limit` events from `from` to `until`, both included.
    pub async fn log_page(
        &self,
        shard: ShardId,
        from: StreamId,
        until: StreamId,
        limit: usize,
    ) -> Result<Vec<LogEntry>> {
        self.log_range("XRANGE", shard, [from, until], limit).await
    }

    /// The same from the other end: up to `limit` events from `newest` back to `oldest`.
    pub async fn newest_log_page(
        &self,
        shard: ShardId,
        newest: StreamId,
        oldest: StreamId,
        limit: usize,
    ) -> Result<Vec<LogEntry>> {
        self.log_range("XREVRANGE", shard, [newest, oldest], limit).await
    }

    async fn log_range(
        &self,
        command: &str,
        shard: ShardId,
        bounds: [StreamId; 2],
        limit: usize,
    ) -> Result<Vec<LogEntry>> {
        let mut command = redis::cmd(command);
        command.arg(self.keys().of(shard, "events")).arg(&bounds.map(|bound| bound.to_string()));
        let reply: Value = self.0.connections.run(command.arg("COUNT").arg(limit)).await?;
        Ok(raw::read_entries(reply)?.into_iter().map(|found| log_entry(shard, found)).collect())
    }
}

/// What stands at a place of the log.
#[derive(Debug, Clone)]
pub enum LogEntry {
    Event(Event),
    /// Something that is no event.
    Unreadable(StreamId),
}

impl LogEntry {
    /// Its place.
    pub fn at(&self) -> StreamId {
        match self {
            Self::Event(event) => event.id.at,
            Self::Unreadable(at) => *at,
        }
    }
}

fn event(shard: ShardId, found: RawEntry) -> Option<Event> {
    entry::event(shard, found.at, &found.into_named()?)
}

fn log_entry(shard: ShardId, found: RawEntry) -> LogEntry {
    let at = found.at;
    event(shard, found).map_or(LogEntry::Unreadable(at), LogEntry::Event)
}

/// Reads logs as they grow, on connections of its own.
pub struct LogReader {
    streams: Streams,
    readers: Readers,
    block: Duration,
}

impl LogReader {
    /// Waits for what follows these places, for as long as it may block: up to `count` entries of each log, in its order.
    pub async fn read(
        &mut self,
        places: &BTreeMap<ShardId, StreamId>,
        count: usize,
    ) -> Result<Vec<(ShardId, Vec<LogEntry>)>> {
        let (keys, connections) = (self.streams.keys(), &self.streams.0.connections);
        let shards: Vec<ShardId> = places.keys().copied().collect();
        let command = |shards: &[ShardId], block: Option<Duration>| {
            let mut command = redis::cmd("XREAD");
            command.arg("COUNT").arg(count);
            if let Some(block) = block {
                command.arg("BLOCK").arg(block.as_millis() as u64);
            }
            command.arg("STREAMS");
            for shard in shards {
                command.arg(keys.of(*shard, "events"));
            }
            for shard in shards {
                command.arg(places[shard].to_string());
            }
            command
        };
        let mut read = self.readers.read(&shards, |shards| command(shards, Some(self.block))).await?;
        // A server that has become a replica is read as before, and may get nothing new. What is shared leads to the primary, as
        // it writes; in a cluster a replica refuses the read.
        if read.is_empty() && !connections.is_cluster() {
            read = raw::read_by_stream(connections.run(&command(&shards, None)).await?)?;
            if !read.is_empty() {
                self.readers = Readers::new(connections.clone(), self.block);
            }
        }
        let mut found = Vec::new();
        for (key, entries) in read {
            let shard = shards.iter().find(|shard| keys.of(**shard, "events") == key);
            let shard = *shard.ok_or_else(|| unreadable("a stream nobody asked for"))?;
            found.push((shard, entries.into_iter().map(|read| log_entry(shard, read)).collect()));
        }
        Ok(found)
    }
}

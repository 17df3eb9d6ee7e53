//! Sources of events besides the API: the front door, a stream that any Redis client can add to.
//!
//! One process moves what arrives there into the logs. Each entry is moved once whatever is killed when: the script that
//! appends it remembers its id until it is known to be gone from the front door.

pub mod format;

use std::{collections::HashMap, time::Duration};

use crate::{
    backoff::Backoff,
    domain::id::StreamId,
    metrics,
    shutdown::Shutdown,
    streams::{APPEND_AT_MOST, Append, Appended, Error, FrontDoor, FrontDoorEntry, Result, Seat, ShardId, Streams},
};

/// How long a read waits for new entries; after an empty one, what is pending is looked at again.
const BLOCK: Duration = Duration::from_secs(5);
/// How often the mover's leadership is renewed, and looked for.
const LEAD_EVERY: Duration = Duration::from_secs(1);

/// Moves what arrives at the front door until it is told to stop.
pub async fn run(streams: Streams, process: String, max_payload_bytes: usize, shutdown: Shutdown) {
    let worker = format!("sources:{process}");
    let mut backoff = Backoff::new("moving events from the front door");
    let mut mover = Mover { streams: streams.clone(), max_payload_bytes, gone: HashMap::new() };
    let work = async {
        loop {
            let turn = async {
                streams.check_in(&worker).await?;
                if streams.lead(&[Seat::FrontDoor], &worker).await? == [true] {
                    return lead(&streams, &worker, &mut mover).await;
                }
                tokio::time::sleep(LEAD_EVERY).await;
                Ok(())
            };
            match turn.await {
                Ok(()) => backoff.recovered(),
                Err(error) => backoff.pause(&error).await,
            }
        }
    };
    tokio::select! {
        () = shutdown.stopping() => {}
        () = work => {}
    }
    let left = async {
        streams.resign(&[Seat::FrontDoor], &worker).await?;
        streams.check_out(&worker).await
    };
    if let Err(error) = left.await {
        tracing::debug!(%error, "could not let go of the front door: another takes over in a few seconds");
    }
}

/// Moves as long as it leads.
async fn lead(streams: &Streams, worker: &str, mover: &mut Mover) -> Result<()> {
    let stay = async {
        loop {
            tokio::time::sleep(LEAD_EVERY).await;
            streams.check_in(worker).await?;
            if streams.lead(&[Seat::FrontDoor], worker).await? != [true] {
                return Ok(());
            }
        }
    };
    tokio::select! {
        left = stay => left,
        failed = mover.run() => failed,
    }
}

struct Mover {
    streams: Streams,
    max_payload_bytes: usize,
    /// Ids that are gone from the front door, which the shard need not remember any more.
    gone: HashMap<ShardId, Vec<StreamId>>,
}

impl Mover {
    /// Ends only with an error.
    async fn run(&mut self) -> Result<()> {
        self.streams.create_movers_group().await?;
        let mut door = self.streams.front_door(BLOCK).await?;
        loop {
            self.move_pending(&mut door).await?;
            loop {
                let entries = match door.read(None, APPEND_AT_MOST).await {
                    Err(Error::NoGroup) => return self.streams.create_movers_group().await,
                    other => other?,
                };
                if entries.is_empty() {
                    break;
                }
                self.move_all(entries).await?;
            }
        }
    }

    /// What was read before and is not gone: a mover that was killed left it.
    async fn move_pending(&mut self, door: &mut FrontDoor) -> Result<()> {
        let mut after = StreamId::ZERO;
        loop {
            let entries = door.read(Some(after), APPEND_AT_MOST).await?;
            let Some(last) = entries.last() else { return Ok(()) };
            after = last.id;
            self.move_all(entries).await?;
        }
    }

    async fn move_all(&mut self, entries: Vec<FrontDoorEntry>) -> Result<()> {
        let ids: Vec<StreamId> = entries.iter().map(|entry| entry.id).collect();
        let mut by_shard: HashMap<ShardId, Vec<Append>> = HashMap::new();
        for entry in entries {
            match self.read(&entry).await? {
                Some((shard, append)) => by_shard.entry(shard).or_default().push(append),
                None => metrics::malformed(),
            }
        }
        let shards: Vec<ShardId> = by_shard.keys().copied().collect();
        for (shard, batch) in by_shard {
            let gone = self.gone.get(&shard).map(Vec::as_slice).unwrap_or_default();
            let call = format!("{:032x}", rand::random::<u128>());
            let results = self.streams.append(shard, &call, &batch, gone).await?;
            self.gone.remove(&shard);
            results.iter().for_each(count);
        }
        self.streams.leave_front_door(&ids).await?;
        for shard in shards {
            self.gone.entry(shard).or_default().extend(&ids);
        }
        Ok(())
    }

    /// Where an entry goes; `None` when it names no valid tenant, and was put with those.
    async fn read(&self, entry: &FrontDoorEntry) -> Result<Option<(ShardId, Append)>> {
        let source_id = entry.id;
        match format::read(&entry.fields, self.max_payload_bytes) {
            Ok(event) => {
                let shard = self.streams.shard_of(&event.tenant);
                Ok(Some((shard, Append::Event { event, source_id: Some(source_id) })))
            }
            Err(fault) => {
                tracing::warn!(entry = %source_id, reason = fault.reason, "an entry of the front door is no event: it is a dead letter now");
                let raw = format::raw(&entry.fields);
                let Some(tenant) = fault.tenant else {
                    self.streams.bury_homeless(&fault.reason, &raw).await?;
                    return Ok(None);
                };
                let shard = self.streams.shard_of(&tenant);
                Ok(Some((shard, Append::Bad { tenant, reason: fault.reason, raw, source_id })))
            }
        }
    }
}

fn count(result: &Appended) {
    match result {
        Appended::Event(_) => metrics::event_published(),
        Appended::Bad(_) => metrics::malformed(),
        Appended::Repeated(_) | Appended::Conflict | Appended::Moved => {}
    }
}

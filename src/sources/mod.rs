//! Sources of events besides the API: the front door, a stream that any Redis client can add to.
//!
//! One process moves what arrives there into the logs. Each entry is moved once whatever is killed when: the script that
//! appends it remembers its id until it is known to be gone from the front door, and takes from nobody but the one that moves
//! now.

pub mod format;

use std::{collections::HashMap, panic::resume_unwind, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use self::format::{Fault, Fields};
use crate::{
    backoff::Backoff,
    clock,
    domain::id::StreamId,
    manage::{ManageError, Manager},
    metrics,
    publish::{PublishError, TypeChecker},
    shutdown::Shutdown,
    streams::{
        APPEND_AT_MOST, APPEND_BYTES, Append, Appended, Error, FrontDoor, FrontDoorEntry, Homeless, Moving, Result,
        Seat, ShardId, Streams,
    },
    traces::{Span, Traces},
};

/// How long a read waits for new entries.
const BLOCK: Duration = Duration::from_secs(10);
/// How often what is pending is looked at again: a mover that has lost its lead may still have read something.
const PENDING_EVERY: Duration = Duration::from_secs(10);
/// How often the mover's leadership is renewed, and looked for.
const LEAD_EVERY: Duration = Duration::from_secs(1);

/// Moves what arrives at the front door until it is told to stop.
pub async fn run(
    streams: Streams,
    manager: Manager,
    types: TypeChecker,
    worker: String,
    max_payload_bytes: usize,
    traces: Traces,
    shutdown: Shutdown,
) {
    let beat = streams.aside();
    let mut backoff = Backoff::new("moving events from the front door");
    while !shutdown.is_stopping() {
        let turn = async {
            if leads(&beat, &worker).await? {
                // What the one before had still to forget is forgotten after an hour.
                let (streams, manager, types) = (streams.clone(), manager.clone(), types.clone());
                let (name, traces) = (format!("{:032x}", rand::random::<u128>()), traces.clone());
                let gone = HashMap::new();
                let mover =
                    Mover { name, streams, manager, types, max_payload_bytes, traces, gone, has_caught_up: false };
                return lead(&beat, &worker, mover, &shutdown).await;
            }
            tokio::select! {
                () = clock::beat(LEAD_EVERY) => {}
                () = shutdown.stopping() => {}
            }
            Ok(())
        };
        match turn.await {
            Ok(()) => backoff.recovered(),
            Err(error) => tokio::select! {
                () = backoff.pause(&error) => {}
                () = shutdown.stopping() => {}
            },
        }
    }
    if let Err(error) = beat.resign(&[Seat::FrontDoor], &worker).await {
        tracing::debug!(%error, "could not let go of the front door: another takes over in a few seconds");
    }
}

/// Whether it is the one that moves.
async fn leads(streams: &Streams, worker: &str) -> Result<bool> {
    Ok(streams.lead(&[Seat::FrontDoor], worker).await? == [true])
}

/// Moves as long as it leads: in a task of its own, so that what it has to read holds up nobody's leadership.
async fn lead(beat: &Streams, worker: &str, mover: Mover, shutdown: &Shutdown) -> Result<()> {
    let stay = async {
        loop {
            clock::beat(LEAD_EVERY).await;
            if !leads(beat, worker).await? {
                return Ok(());
            }
        }
    };
    let mut moving = JoinSet::new();
    moving.spawn(mover.run());
    let end = tokio::select! {
        left = stay => left,
        Some(moved) = moving.join_next() => moved.unwrap_or_else(|panic| resume_unwind(panic.into_panic())),
        () = shutdown.stopping() => Ok(()),
    };
    moving.shutdown().await;
    end
}

struct Mover {
    /// Another at each start: what was sent under the name before comes too late.
    name: String,
    streams: Streams,
    manager: Manager,
    types: TypeChecker,
    max_payload_bytes: usize,
    traces: Traces,
    /// Ids of each shard that are gone from the front door, which it need not remember any more.
    gone: HashMap<ShardId, Vec<StreamId>>,
    /// All that was pending at its start has come. Before, nothing may be forgotten: with what is gone goes what is hours old.
    has_caught_up: bool,
}

/// The entries of one shard, and what each is known by at the front door.
#[derive(Default)]
struct Part {
    ids: Vec<StreamId>,
    batch: Vec<Append>,
    spans: Vec<Span>,
}

/// Where an entry goes.
enum Goes {
    Shard(ShardId, Append),
    Nowhere(Homeless),
}

impl Mover {
    /// Ends only with an error.
    async fn run(mut self) -> Result<()> {
        self.streams.create_movers_group().await?;
        // Before anything is read.
        self.streams.begin_moving(&self.name).await?;
        let mut door = self.streams.front_door(BLOCK).await?;
        loop {
            self.move_pending(&mut door).await?;
            self.has_caught_up = true;
            let looked = Instant::now();
            while looked.elapsed() < PENDING_EVERY {
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
        let mut by_shard: HashMap<ShardId, Part> = HashMap::new();
        let mut homeless = Vec::new();
        for FrontDoorEntry { id, fields } in &entries {
            let Some(fields) = fields else {
                tracing::warn!(entry = %id, "an entry of the front door was deleted before it was moved");
                continue;
            };
            match self.read(*id, fields).await? {
                Goes::Shard(shard, mut append) => {
                    let part = by_shard.entry(shard).or_default();
                    part.ids.push(*id);
                    part.spans.push(self.trace(&mut append));
                    part.batch.push(append);
                }
                Goes::Nowhere(entry) => homeless.push(entry),
            }
        }
        for (shard, part) in &mut by_shard {
            self.append(*shard, &part.batch, std::mem::take(&mut part.spans)).await?;
        }
        // Last: while a shard refuses, all of this is done again.
        let ids: Vec<StreamId> = entries.iter().map(|entry| entry.id).collect();
        self.streams.leave_front_door(&ids, &homeless).await?;
        homeless.iter().for_each(|_| metrics::malformed());
        for (shard, part) in by_shard {
            self.gone.entry(shard).or_default().extend(part.ids);
        }
        Ok(())
    }

    /// The span of an entry; of one that is no event it is empty.
    fn trace(&self, append: &mut Append) -> Span {
        match append {
            Append::Event { event, .. } => self.traces.publish(event),
            Append::Bad { .. } => Span::none(),
        }
    }

    async fn append(&mut self, shard: ShardId, batch: &[Append], spans: Vec<Span>) -> Result<()> {
        let (mut rest, mut spans) = (batch, spans.into_iter());
        while !rest.is_empty() {
            let (part, later) = rest.split_at(part_length(rest));
            let gone = if self.has_caught_up { self.gone.remove(&shard).unwrap_or_default() } else { Vec::new() };
            let call = format!("{:032x}", rand::random::<u128>());
            let moving = Moving { mover: &self.name, gone: &gone };
            let results = self.streams.append(shard, &call, part, Some(moving)).await?;
            results.iter().zip(&mut spans).for_each(|(result, span)| count(result, span));
            rest = later;
        }
        Ok(())
    }

    async fn read(&self, source_id: StreamId, fields: &Fields) -> Result<Goes> {
        let (tenant, read) = match format::read(fields, self.max_payload_bytes) {
            Ok(event) => (event.tenant.clone(), Ok(event)),
            Err(Fault { tenant: Some(tenant), reason }) => (tenant, Err(reason)),
            Err(Fault { tenant: None, reason }) => return Ok(homeless(source_id, fields, reason)),
        };
        match self.manager.ensure_tenant(&tenant).await {
            Ok(()) => {}
            Err(ManageError::Redis(error)) => return Err(error),
            Err(refused) => return Ok(homeless(source_id, fields, refused.to_string())),
        }
        let checked = match read {
            Ok(event) => match self.types.check(&event).await {
                Ok(()) => Ok(event),
                Err(PublishError::Redis(error)) => return Err(error),
                Err(refused @ (PublishError::Invalid(_) | PublishError::Conflict | PublishError::TenantFull)) => {
                    Err(refused.to_string())
                }
            },
            Err(reason) => Err(reason),
        };
        let append = match checked {
            Ok(event) => Append::Event { event, source_id: Some(source_id) },
            Err(reason) => {
                warn_of(source_id, &reason);
                Append::Bad { tenant: tenant.clone(), reason, raw: format::raw(fields), source_id }
            }
        };
        Ok(Goes::Shard(self.streams.shard_of(&tenant), append))
    }
}

fn homeless(source_id: StreamId, fields: &Fields, reason: String) -> Goes {
    warn_of(source_id, &reason);
    Goes::Nowhere(Homeless { raw: format::raw(fields), reason })
}

fn warn_of(source_id: StreamId, reason: &str) {
    tracing::warn!(entry = %source_id, reason, "an entry of the front door is no event: it becomes a dead letter");
}

/// How many of a batch one call takes: at least one.
fn part_length(batch: &[Append]) -> usize {
    let mut bytes = 0;
    let fitting = batch.iter().take_while(|append| {
        bytes += append.size();
        bytes <= APPEND_BYTES
    });
    fitting.count().max(1)
}

fn count(result: &Appended, span: Span) {
    match result {
        Appended::Event(id) => {
            metrics::event_published();
            span.published(*id, false);
        }
        Appended::Bad(_) => metrics::malformed(),
        Appended::Repeated(id) => span.published(*id, true),
        Appended::Conflict | Appended::TenantFull | Appended::Moved => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_takes_as_many_as_its_bytes_allow_and_at_least_one() {
        let check = |kib: &[usize], expected: usize| {
            let bad = |kib: &usize| Append::Bad {
                tenant: "acme".to_owned(),
                reason: "data: missing".to_owned(),
                raw: vec![0; kib * 1024].into(),
                source_id: StreamId::ZERO,
            };
            assert_eq!(part_length(&kib.iter().map(bad).collect::<Vec<_>>()), expected);
        };
        check(&[1, 1], 2);
        check(&[512, 512, 1], 2);
        check(&[2000, 1], 1);
        check(&[1, 2000], 1);
    }
}

//! Expanding the events of one shard, in their order.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::{EVENTS_A_READ, matcher::Matcher};
use crate::{
    domain::{
        event::Event,
        id::{StreamId, SubscriptionId},
        outcome::Reason,
    },
    handover::Handover,
    metrics,
    streams::{Error, Expanded, Expansion, LogEntry, Refusal, Result, ShardId, Streams, TRACKED_TARGETS},
    traces::Traces,
};

/// Targets of one chunk, and of one expand call.
const TARGETS_A_CALL: usize = 200;
/// How often an event must fail alone, with an error that does not pass, until it counts as poison.
const POISON_AFTER: u32 = 3;
const BETWEEN_FAILURES: Duration = Duration::from_millis(500);

/// How a batch of events ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// The log is not expanded up to where they were read from.
    Behind,
}

/// Expands events of one shard.
pub(super) struct ShardWorker {
    pub streams: Streams,
    pub shard: ShardId,
    pub matcher: Matcher,
    /// The last entry of the log that is done.
    pub place: StreamId,
    /// The sender of this process, if anything is to be leased for it.
    pub sender: Option<Handover>,
    pub traces: Traces,
}

impl ShardWorker {
    /// Expands what follows its place in the log. Gives back the matcher, and where it is now; no place where that is to be
    /// asked for.
    pub async fn expand_all(mut self, entries: Vec<LogEntry>) -> (ShardId, Matcher, Result<Option<StreamId>>) {
        let result = self.expand_in_order(entries).await;
        let place = self.place;
        (self.shard, self.matcher, result.map(|progress| (progress == Progress::Done).then_some(place)))
    }

    /// Takes runs of readable events together; one that is not readable ends the run before it.
    async fn expand_in_order(&mut self, entries: Vec<LogEntry>) -> Result<Progress> {
        let mut run = Vec::new();
        for entry in entries {
            match entry {
                LogEntry::Event(event) => run.push(event),
                LogEntry::Unreadable(at) => {
                    if let Progress::Behind = self.expand_run(std::mem::take(&mut run)).await? {
                        return Ok(Progress::Behind);
                    }
                    if let Progress::Behind =
                        self.bury(at, "not an event: fields are missing or of another form").await?
                    {
                        return Ok(Progress::Behind);
                    }
                }
            }
        }
        self.expand_run(run).await
    }

    async fn expand_run(&mut self, events: Vec<Event>) -> Result<Progress> {
        match self.expand(&events).await {
            Err(error) if !error.is_passing() => self.expand_singly(events).await,
            other => other,
        }
    }

    /// After an error that does not pass: the event that alone makes it again and again is poison, the others are not.
    async fn expand_singly(&mut self, events: Vec<Event>) -> Result<Progress> {
        // What a call that failed has leased is known to nobody.
        self.sender = None;
        for event in events {
            // Who wants it cannot be known: not the event's fault.
            self.matcher.targets(&event).await?;
            let mut failures = 0;
            loop {
                match self.expand(std::slice::from_ref(&event)).await {
                    Ok(Progress::Done) => break,
                    Ok(Progress::Behind) => return Ok(Progress::Behind),
                    Err(error) if error.is_passing() => return Err(error),
                    Err(error) => {
                        failures += 1;
                        if failures == POISON_AFTER {
                            // Nothing can be expanded at all: not the event's fault either.
                            self.streams.expand(self.shard, &[]).await?;
                            match self.bury(event.id.at, &error.to_string()).await? {
                                Progress::Done => break,
                                Progress::Behind => return Ok(Progress::Behind),
                            }
                        }
                        tokio::time::sleep(BETWEEN_FAILURES).await;
                    }
                }
            }
        }
        Ok(Progress::Done)
    }

    async fn bury(&mut self, at: StreamId, reason: &str) -> Result<Progress> {
        if !self.streams.bury_event(self.shard, self.place, at, reason).await? {
            return Ok(Progress::Behind);
        }
        self.place = at;
        tracing::error!(shard = self.shard, entry = %at, reason, "an event of the log cannot be dispatched: it is a dead letter now");
        metrics::malformed();
        Ok(Progress::Done)
    }

    async fn expand(&mut self, events: &[Event]) -> Result<Progress> {
        let began = SystemTime::now();
        let (mut chunks, mut counts) = (Vec::new(), Vec::new());
        let (mut dispatched, mut unmatched) = (0, 0);
        let mut previous = self.place;
        for event in events {
            let targets = self.matcher.targets(event).await?;
            dispatched += 1;
            unmatched += u64::from(targets.is_empty());
            chunks.extend(chunks_of(event, previous, &targets, None));
            previous = event.id.at;
            if let Some(sender) = self.sender.as_ref().filter(|_| !targets.is_empty()) {
                sender.events.keep(Arc::new(event.clone()));
            }
            counts.push(targets.len());
        }
        let mut done = 0;
        while done < chunks.len() {
            let batch = &chunks[done..done + batch_length(&chunks[done..])];
            let expanded = self.expand_and_hand_over(batch).await?;
            done += expanded.done;
            (0..expanded.overflowed).for_each(|_| metrics::dead_lettered(Reason::Overflow));
            match expanded.refusal {
                None => {}
                Some(Refusal::Order(_)) => return Ok(Progress::Behind),
                // Somebody has expanded a part of this event: its other chunks are cut anew.
                Some(Refusal::Cursor(after)) => {
                    let Expansion { previous, event: at, .. } = chunks[done];
                    let Some(event) = events.iter().find(|event| event.id.at == at) else {
                        return Ok(Progress::Behind);
                    };
                    let targets = self.matcher.targets(event).await?;
                    let same = chunks[done..].iter().take_while(|chunk| chunk.event == at).count();
                    chunks.splice(done..done + same, chunks_of(event, previous, &targets, after));
                }
            }
        }
        self.place = previous;
        events.iter().zip(counts).for_each(|(event, targets)| self.traces.dispatched(event, began, targets));
        metrics::events_dispatched(dispatched, unmatched);
        Ok(Progress::Done)
    }

    /// Hands to the sender of this process what is due then, as far as it has slots for these targets.
    async fn expand_and_hand_over(&self, batch: &[Expansion]) -> Result<Expanded> {
        let targets = batch.iter().map(|chunk| chunk.targets.len()).sum();
        let beside = self.sender.as_ref().and_then(|sender| Some((sender.clone(), sender.take_slots(targets)?)));
        let Some((sender, slots)) = beside else { return self.streams.expand(self.shard, batch).await };
        let (call, shard) = (self.streams.expand_and_lease(self.shard, batch, slots.num_permits()), self.shard);
        // It goes on when the dispatcher must stop: what it leases is known, and handed back.
        let call = tokio::spawn(async move {
            let (expanded, leased) = call.await?;
            if let Some(leased) = leased {
                sender.hand(shard, leased, slots);
            }
            Ok(expanded)
        });
        call.await.map_err(|error| Error::Unreadable(error.to_string()))?
    }
}

/// The chunks of an event whose targets up to `after` are done. There is a last one even when no target is left: it is
/// what marks the event as expanded.
fn chunks_of(
    event: &Event,
    previous: StreamId,
    targets: &[SubscriptionId],
    after: Option<SubscriptionId>,
) -> Vec<Expansion> {
    let left = &targets[after.map_or(0, |after| targets.partition_point(|target| *target <= after))..];
    let parts: Vec<&[SubscriptionId]> =
        if left.is_empty() { vec![left] } else { left.chunks(TARGETS_A_CALL).collect() };
    let last = parts.len() - 1;
    let mut cursor = after;
    parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            let up_to = if index == last { None } else { part.last().copied() };
            Expansion {
                previous,
                event: event.id.at,
                nonce: event.id.nonce,
                event_type: event.event_type.clone(),
                tenant: event.tenant.clone(),
                size: event.data.len(),
                after: std::mem::replace(&mut cursor, up_to),
                up_to,
                is_tracked: targets.len() as u64 <= TRACKED_TARGETS,
                targets: part.to_vec(),
            }
        })
        .collect()
}

/// How many of the chunks go into one call.
fn batch_length(chunks: &[Expansion]) -> usize {
    let mut targets = 0;
    let fitting = chunks.iter().take(EVENTS_A_READ).take_while(|chunk| {
        targets += chunk.targets.len();
        targets <= TARGETS_A_CALL
    });
    fitting.count().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::EventId;

    fn event() -> Event {
        Event {
            id: EventId { at: StreamId { ms: 5, seq: 0 }, shard: 0, nonce: 1 },
            tenant: "acme".into(),
            event_type: "a.b".into(),
            timestamp_ms: 5,
            data: "{}".into(),
            conversation_id: None,
            only_for: None,
            config_version: StreamId::ZERO,
            trace: None,
        }
    }

    fn targets(count: u64) -> Vec<SubscriptionId> {
        (0..count).map(|random| SubscriptionId { ms: 1, shard: 0, random }).collect()
    }

    #[test]
    fn chunks_follow_on_each_other_and_cover_each_target_once() {
        let check = |count: u64, after: Option<u64>, chunks: usize| {
            let targets = targets(count);
            let after = after.map(|index| targets[index as usize]);
            let cut = chunks_of(&event(), StreamId::ZERO, &targets, after);
            assert_eq!(cut.len(), chunks, "{count} {after:?}");
            assert_eq!(cut[0].after, after);
            for pair in cut.windows(2) {
                assert_eq!(pair[0].up_to, pair[1].after);
                assert_eq!(pair[0].up_to, pair[0].targets.last().copied());
            }
            assert_eq!(cut.last().map(|chunk| chunk.up_to), Some(None));
            let covered: Vec<_> = cut.iter().flat_map(|chunk| chunk.targets.clone()).collect();
            assert_eq!(covered, targets.into_iter().filter(|t| after.is_none_or(|a| *t > a)).collect::<Vec<_>>());
        };
        check(0, None, 1);
        check(1, None, 1);
        check(1, Some(0), 1);
        check(200, None, 1);
        check(201, None, 2);
        check(1000, Some(399), 3);
    }

    #[test]
    fn a_call_takes_as_many_chunks_as_fit_and_never_none() {
        let chunk =
            |count| Expansion { targets: targets(count), ..chunks_of(&event(), StreamId::ZERO, &[], None).remove(0) };
        let check = |sizes: &[u64], length: usize| {
            let chunks: Vec<_> = sizes.iter().map(|count| chunk(*count)).collect();
            assert_eq!(batch_length(&chunks), length, "{sizes:?}");
        };
        check(&[1, 1, 1], 3);
        check(&[200, 1], 1);
        check(&[100, 100, 1], 2);
        check(&[0; 100], EVENTS_A_READ);
    }
}

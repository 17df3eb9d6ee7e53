//! Attempts as they are made, whoever makes them.

use std::time::Duration;

use redis::{Cmd, streams::StreamRangeReply};

use super::{
    ShardId, Streams,
    connections::Readers,
    entry::{self, unreadable},
    error::Result,
    raw::RawEntry,
};
use crate::domain::{
    attempt::Attempt,
    id::{AttemptId, StreamId},
};

/// Attempts read at once.
const AT_ONCE: usize = 500;

/// Reads the attempts of some shards as they are made, on connections of its own.
pub struct AttemptTail {
    streams: Streams,
    readers: Readers,
    block: Duration,
    /// The last attempt seen of each.
    seen: Vec<(ShardId, StreamId)>,
}

impl Streams {
    /// Reads the attempts of `shards` that are made from now on.
    pub async fn attempt_tail(
        &self,
        shards: impl IntoIterator<Item = ShardId>,
        block: Duration,
    ) -> Result<AttemptTail> {
        let shards: Vec<ShardId> = shards.into_iter().collect();
        let newest = |shard: &ShardId| {
            let mut command = Cmd::new();
            command.arg("XREVRANGE").arg(self.keys().of(*shard, "attempts")).arg("+").arg("-").arg("COUNT").arg(1);
            command
        };
        let newest: Vec<StreamRangeReply> = self
            .0
            .connections
            .run_each(shards.iter().map(newest).collect())
            .await
            .into_iter()
            .collect::<Result<_>>()?;
        let last = |reply: &StreamRangeReply| reply.ids.first().map_or(Ok(StreamId::ZERO), entry::place);
        let seen = shards.into_iter().zip(&newest).map(|(shard, reply)| Ok((shard, last(reply)?)));
        Ok(AttemptTail {
            streams: self.clone(),
            readers: Readers::new(self.0.connections.clone(), block),
            block,
            seen: seen.collect::<Result<_>>()?,
        })
    }
}

impl AttemptTail {
    /// Waits for attempts, for as long as it may block; those that cannot be read are left out.
    pub async fn next(&mut self) -> Result<Vec<(AttemptId, Attempt)>> {
        let shards: Vec<ShardId> = self.seen.iter().map(|(shard, _)| *shard).collect();
        let (keys, seen) = (self.streams.keys(), &self.seen);
        let block = self.block.as_millis() as u64;
        let read = self.readers.read(&shards, |shards| {
            let asked = || seen.iter().filter(|(shard, _)| shards.contains(shard));
            let mut command = redis::cmd("XREAD");
            command.arg("COUNT").arg(AT_ONCE).arg("BLOCK").arg(block).arg("STREAMS");
            for (shard, _) in asked() {
                command.arg(keys.of(*shard, "attempts"));
            }
            for (_, seen) in asked() {
                command.arg(seen.to_string());
            }
            command
        });
        let mut found = Vec::new();
        for (key, entries) in read.await? {
            let index = self.seen.iter().position(|(shard, _)| self.key(*shard) == key);
            let index = index.ok_or_else(|| unreadable("a stream nobody asked for"))?;
            for read in entries {
                self.seen[index].1 = read.at;
                found.extend(attempt(self.seen[index].0, read));
            }
        }
        Ok(found)
    }

    fn key(&self, shard: ShardId) -> String {
        self.streams.keys().of(shard, "attempts")
    }
}

fn attempt(shard: ShardId, read: RawEntry) -> Option<(AttemptId, Attempt)> {
    let id = AttemptId { at: read.at, shard };
    Some((id, entry::read_attempt(&read.into_named()?).ok()?))
}

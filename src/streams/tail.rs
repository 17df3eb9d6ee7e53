//! Attempts as they are made, whoever makes them.

use std::time::Duration;

use redis::{Value, aio::MultiplexedConnection, streams::StreamRangeReply};

use super::{
    ShardId, Streams, entry,
    entry::unreadable,
    error::Result,
    raw::{self, RawEntry},
};
use crate::domain::{
    attempt::Attempt,
    id::{AttemptId, StreamId},
};

/// Attempts read at once.
const AT_ONCE: usize = 500;

/// Reads the attempts of some shards as they are made, on a connection of its own.
pub struct AttemptTail {
    streams: Streams,
    connection: MultiplexedConnection,
    block: Duration,
    /// The last attempt seen of each.
    seen: Vec<(ShardId, StreamId)>,
}

impl Streams {
    /// Reads the attempts of `shards` (all on one server) that are made from now on.
    pub async fn attempt_tail(
        &self,
        shards: impl IntoIterator<Item = ShardId>,
        block: Duration,
    ) -> Result<AttemptTail> {
        let shards: Vec<ShardId> = shards.into_iter().collect();
        let mut pipeline = redis::pipe();
        for shard in &shards {
            pipeline.cmd("XREVRANGE").arg(self.keys().of(*shard, "attempts")).arg("+").arg("-").arg("COUNT").arg(1);
        }
        let newest: Vec<StreamRangeReply> = self.0.connections.run_all(&pipeline).await?;
        let last = |reply: &StreamRangeReply| reply.ids.first().map_or(Ok(StreamId::ZERO), entry::place);
        let seen = shards.into_iter().zip(&newest).map(|(shard, reply)| Ok((shard, last(reply)?)));
        Ok(AttemptTail {
            streams: self.clone(),
            connection: self.0.connections.dedicated(block).await?,
            block,
            seen: seen.collect::<Result<_>>()?,
        })
    }
}

impl AttemptTail {
    /// Waits for attempts, for as long as it may block; those that cannot be read are left out.
    pub async fn next(&mut self) -> Result<Vec<(AttemptId, Attempt)>> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(AT_ONCE).arg("BLOCK").arg(self.block.as_millis() as u64).arg("STREAMS");
        for (shard, _) in &self.seen {
            command.arg(self.key(*shard));
        }
        for (_, seen) in &self.seen {
            command.arg(seen.to_string());
        }
        let reply: Value = command.query_async(&mut self.connection).await?;
        let mut found = Vec::new();
        for (key, entries) in raw::read_by_stream(reply)? {
            let index = self.seen.iter().position(|(shard, _)| self.key(*shard) == key);
            let index = index.ok_or_else(|| unreadable("a stream nobody asked for"))?;
            for read in entries {
                self.seen[index].1 = read.at;
                found.extend(attempt(self.seen[index].0, read));
            }
        }
        Ok(found)
    }

    /// Goes on where it was, after its connection has broken.
    pub async fn reconnect(&mut self) -> Result<()> {
        self.connection = self.streams.0.connections.dedicated(self.block).await?;
        Ok(())
    }

    fn key(&self, shard: ShardId) -> String {
        self.streams.keys().of(shard, "attempts")
    }
}

fn attempt(shard: ShardId, read: RawEntry) -> Option<(AttemptId, Attempt)> {
    let id = AttemptId { at: read.at, shard };
    Some((id, entry::read_attempt(&read.into_named()?).ok()?))
}

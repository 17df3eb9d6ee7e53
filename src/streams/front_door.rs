//! The front door: a stream that any Redis client may add to, in front of the logs.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use redis::{aio::MultiplexedConnection, streams::StreamReadReply};

use super::{
    Streams, entry,
    error::Result,
    keys::{CONSUMER, MOVERS},
};
use crate::domain::id::{BadId, StreamId};

/// An entry at the front door, as any client may have written it.
#[derive(Debug, Clone)]
pub struct FrontDoorEntry {
    pub id: StreamId,
    pub fields: HashMap<String, Bytes>,
}

impl Streams {
    /// Makes the movers' group where it is missing.
    pub async fn create_movers_group(&self) -> Result<()> {
        self.create_group(&self.keys().global("in"), MOVERS, "0").await
    }

    /// Prepares to read the front door.
    pub async fn front_door(&self, block: Duration) -> Result<FrontDoor> {
        Ok(FrontDoor { streams: self.clone(), connection: self.0.connections.dedicated(block).await?, block })
    }

    /// Takes entries out of the front door, after they were moved.
    pub async fn leave_front_door(&self, ids: &[StreamId]) -> Result<()> {
        let key = self.keys().global("in");
        let ids: Vec<String> = ids.iter().map(StreamId::to_string).collect();
        let mut pipeline = redis::pipe();
        pipeline.cmd("XACK").arg(&key).arg(MOVERS).arg(&ids).ignore();
        pipeline.cmd("XDEL").arg(&key).arg(&ids).ignore();
        self.0.connections.run_all(&pipeline).await
    }

    /// Keeps an entry of the front door that names no valid tenant. A repeat after a lost answer keeps it twice.
    pub async fn bury_homeless(&self, reason: &str, raw: &Bytes) -> Result<BadId> {
        let mut command = redis::cmd("XADD");
        command.arg(self.keys().global("deadin")).arg("*").arg("why").arg(reason).arg("raw").arg(&raw[..]);
        let id: String = self.0.connections.run(&command).await?;
        Ok(BadId { at: entry::stream_id(&id)?, shard: BadId::NO_SHARD })
    }
}

/// Reads the front door as the movers' group does, on a connection of its own.
pub struct FrontDoor {
    streams: Streams,
    connection: MultiplexedConnection,
    block: Duration,
}

impl FrontDoor {
    /// What was read and not yet taken out, after `after`; or, with `None`, what is new, for which it waits.
    pub async fn read(&mut self, after: Option<StreamId>, count: usize) -> Result<Vec<FrontDoorEntry>> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(MOVERS).arg(CONSUMER).arg("COUNT").arg(count);
        if after.is_none() {
            command.arg("BLOCK").arg(self.block.as_millis() as u64);
        }
        command.arg("STREAMS").arg(self.streams.keys().global("in"));
        command.arg(after.map_or_else(|| ">".to_owned(), |id| id.to_string()));
        let reply: Option<StreamReadReply> = command.query_async(&mut self.connection).await?;
        let entries = reply.map(|reply| reply.keys).unwrap_or_default().into_iter().flat_map(|stream| stream.ids);
        entries
            .map(|read| {
                let fields = read.map.iter().filter_map(|(name, value)| {
                    Some((name.clone(), redis::from_redis_value::<Vec<u8>>(value.clone()).ok()?.into()))
                });
                Ok(FrontDoorEntry { id: entry::place(&read)?, fields: fields.collect() })
            })
            .collect()
    }
}

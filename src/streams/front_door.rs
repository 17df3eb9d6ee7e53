//! The front door: a stream that any Redis client may add to, in front of the logs.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use redis::Value;

use super::{
    Streams,
    connections::{Dedicated, those_there_are},
    error::Result,
    keys::{CONSUMER, MOVERS},
    raw, scripts,
};
use crate::domain::id::StreamId;

/// An entry at the front door, as any client may have written it.
#[derive(Debug, Clone)]
pub struct FrontDoorEntry {
    pub id: StreamId,
    /// `None` where somebody deleted it after it was read and before it was moved.
    pub fields: Option<HashMap<Vec<u8>, Bytes>>,
}

/// An entry that belongs to no tenant: a dead letter with its raw fields.
#[derive(Debug, Clone)]
pub struct Homeless {
    pub reason: String,
    pub raw: Bytes,
}

impl Streams {
    /// Makes the movers' group where it is missing.
    pub async fn create_movers_group(&self) -> Result<()> {
        self.create_group(&self.keys().global("in"), MOVERS, "0").await
    }

    /// Makes `mover`, a name that no other has, the one whose entries of the front door each shard appends. Whoever reads the
    /// front door after that finds nothing that the mover before may still append: it is refused what it sends late. A node
    /// of a cluster that is away goes on refusing `mover` until this is asked once more.
    pub async fn begin_moving(&self, mover: &str) -> Result<()> {
        let commands = self.shards().map(|shard| self.setting_meta(shard, "mover", mover)).collect();
        let answers = self.0.connections.call_each(&scripts::SET_META, commands).await;
        those_there_are::<u64>(answers).map(drop)
    }

    /// Prepares to read the front door.
    pub async fn front_door(&self, block: Duration) -> Result<FrontDoor> {
        let connection = self.0.connections.dedicated(&self.keys().global("in"), block).await?;
        Ok(FrontDoor { streams: self.clone(), connection, block })
    }

    /// Takes entries out of the front door, after they were moved; those of them that belong to no tenant are kept with
    /// their like first, in another slot. A repeat after a lost answer, or a kill between the two, keeps them twice.
    pub async fn leave_front_door(&self, ids: &[StreamId], homeless: &[Homeless]) -> Result<()> {
        if !homeless.is_empty() {
            let mut pipeline = redis::pipe();
            pipeline.atomic();
            for Homeless { reason, raw } in homeless {
                pipeline.cmd("XADD").arg(self.keys().global("deadin")).arg("*");
                pipeline.arg("why").arg(reason).arg("raw").arg(&raw[..]).ignore();
            }
            self.0.connections.run_all::<()>(&pipeline).await?;
        }
        let key = self.keys().global("in");
        let ids: Vec<String> = ids.iter().map(StreamId::to_string).collect();
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("XACK").arg(&key).arg(MOVERS).arg(&ids).ignore();
        pipeline.cmd("XDEL").arg(&key).arg(&ids).ignore();
        self.0.connections.run_all(&pipeline).await
    }
}

/// Reads the front door as the movers' group does, on a connection of its own.
pub struct FrontDoor {
    streams: Streams,
    connection: Dedicated,
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
        let reply: Value = self.connection.run(&command).await?;
        let entries = raw::read_by_stream(reply)?.into_iter().flat_map(|(_, entries)| entries);
        Ok(entries.map(|entry| FrontDoorEntry { id: entry.at, fields: entry.fields }).collect())
    }
}

//! Reading the streams of several shards at once, on connections of their own: on one server in one call, in a cluster in one
//! for each shard, as it refuses keys of several slots in a call.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, select_all},
};
use redis::{Cmd, Value};

use super::{
    super::{
        ShardId,
        error::Result,
        raw::{self, RawEntry},
    },
    Connections, Dedicated,
    slots::key_of,
};

/// The connections of a reader; those of a cluster read all at once.
pub(in crate::streams) struct Readers {
    connections: Connections,
    block: Duration,
    /// By the shards that are read together.
    parts: BTreeMap<Vec<ShardId>, Part>,
}

enum Part {
    Idle(Box<Dedicated>),
    /// A read that began in an earlier call and has not ended: it goes on, so that nothing is lost that it is handed.
    Reading(BoxFuture<'static, (Box<Dedicated>, Result<Value>)>),
}

impl Readers {
    /// For reads that block so long at most.
    pub fn new(connections: Connections, block: Duration) -> Self {
        Self { connections, block, parts: BTreeMap::new() }
    }

    /// Waits for what `command` reads, which it is given some of the shards for: all of them, or one by one. What is found is
    /// named by its key. It may be given up at any time: the next call goes on with the reads that are under way, for shards
    /// that are still asked for.
    pub async fn read(
        &mut self,
        shards: &[ShardId],
        command: impl Fn(&[ShardId]) -> Cmd,
    ) -> Result<Vec<(String, Vec<RawEntry>)>> {
        let together = if self.connections.is_cluster() { 1 } else { shards.len().max(1) };
        let groups: Vec<Vec<ShardId>> = shards.chunks(together).map(<[ShardId]>::to_vec).collect();
        self.parts.retain(|group, _| groups.contains(group));
        for group in groups {
            let connection = match self.parts.remove(&group) {
                Some(Part::Reading(read)) => {
                    self.parts.insert(group, Part::Reading(read));
                    continue;
                }
                Some(Part::Idle(connection)) => connection,
                None => {
                    let command = command(&group);
                    let key = String::from_utf8_lossy(key_of(&command).unwrap_or_default());
                    Box::new(self.connections.dedicated(&key, self.block).await?)
                }
            };
            let read = read(connection, command(&group)).boxed();
            self.parts.insert(group, Part::Reading(read));
        }
        self.first().await
    }

    /// What the first read gives that ends, and all others that have ended too.
    async fn first(&mut self) -> Result<Vec<(String, Vec<RawEntry>)>> {
        let reading = self.parts.iter_mut().filter_map(|(group, part)| match part {
            Part::Reading(read) => Some(read.map(|ended| (group.clone(), ended))),
            Part::Idle(_) => None,
        });
        let reading: Vec<_> = reading.collect();
        if reading.is_empty() {
            return Ok(Vec::new());
        }
        let (first, _, others) = select_all(reading).await;
        let mut ended = vec![first];
        ended.extend(others.into_iter().filter_map(FutureExt::now_or_never));
        let mut found = Vec::new();
        for (group, (connection, answer)) in ended {
            match answer.and_then(raw::read_by_stream) {
                Ok(entries) => {
                    self.parts.insert(group, Part::Idle(connection));
                    found.extend(entries);
                }
                // Others have ended as well, and are not to be waited for once more.
                Err(error) => {
                    self.parts.clear();
                    return Err(error);
                }
            }
        }
        Ok(found)
    }
}

async fn read(mut connection: Box<Dedicated>, command: Cmd) -> (Box<Dedicated>, Result<Value>) {
    let answer = connection.run(&command).await;
    (connection, answer)
}

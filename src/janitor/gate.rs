//! The memory gate: publishing is refused before Redis is full.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    backoff::Backoff,
    clock, metrics,
    streams::{Memory, Result, ShardId, Streams},
};

/// How often the memory of Redis is looked at.
const GATE_EVERY: Duration = Duration::from_secs(1);
/// Parts of `maxmemory`, in percent, at which publishing is refused, and allowed again.
const CLOSE_ABOVE_PERCENT: u64 = 80;
const OPEN_BELOW_PERCENT: u64 = 70;

/// Refuses publishing before Redis is full, so that what is accepted can be delivered: on each server for its own shards.
pub async fn keep(streams: Streams, mut led: watch::Receiver<Arc<[ShardId]>>) {
    let mut backoff = Backoff::new("watching the memory of Redis");
    let mut closed = HashMap::new();
    loop {
        let shards = led.borrow_and_update().clone();
        match turn(&streams, &shards, &closed).await {
            Ok(now_closed) => {
                backoff.recovered();
                closed = now_closed;
                tokio::select! {
                    () = clock::beat(GATE_EVERY) => {}
                    // The leader before may have left it otherwise.
                    _ = led.changed() => closed.clear(),
                }
            }
            Err(error) => {
                // What is led may have changed, and some gates may be turned and others not.
                closed.clear();
                backoff.pause(&error).await;
            }
        }
    }
}

/// Turns what gates are not as they should be; says which are closed now, and which open.
async fn turn(
    streams: &Streams,
    shards: &[ShardId],
    was_closed: &HashMap<ShardId, bool>,
) -> Result<HashMap<ShardId, bool>> {
    // Who leads nothing turns nothing, and shows all the same how full it is.
    let memories = if shards.is_empty() {
        streams.memory(&streams.shards().collect::<Vec<_>>()).await?
    } else {
        streams.memory(shards).await?
    };
    let fullness = |memory: &Memory| memory.used_bytes as f64 / memory.max_bytes.max(1) as f64;
    if let Some(fullest) = memories.iter().max_by(|one, other| fullness(one).total_cmp(&fullness(other))) {
        metrics::redis_memory(fullest.used_bytes, fullest.max_bytes);
    }
    let mut closed = HashMap::new();
    if shards.is_empty() {
        return Ok(closed);
    }
    for Memory { shards, used_bytes: used, max_bytes: most } in memories {
        let before = |shard: &ShardId| was_closed.get(shard).copied();
        let is_reopening = shards.iter().any(|shard| before(shard) == Some(true));
        let threshold = if is_reopening { OPEN_BELOW_PERCENT } else { CLOSE_ABOVE_PERCENT };
        let is_closed = most > 0 && used.saturating_mul(100) > most.saturating_mul(threshold);
        let turned: Vec<ShardId> = shards.iter().filter(|shard| before(shard) != Some(is_closed)).copied().collect();
        for shard in &turned {
            streams.set_gate(*shard, is_closed).await?;
        }
        if is_closed && !turned.is_empty() {
            tracing::error!(
                used,
                most,
                "Redis is near its memory limit: publishing is refused until deliveries have drained"
            );
        } else if is_reopening && !is_closed {
            tracing::info!(used, most, "Redis has memory again: publishing goes on");
        }
        closed.extend(shards.into_iter().map(|shard| (shard, is_closed)));
    }
    Ok(closed)
}

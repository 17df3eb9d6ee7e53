//! The memory gate: publishing is refused before Redis is full.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    backoff::Backoff,
    clock, metrics,
    streams::{Result, ShardId, Streams},
};

/// How often the memory of Redis is looked at.
const GATE_EVERY: Duration = Duration::from_secs(1);
/// Parts of `maxmemory`, in percent, at which publishing is refused, and allowed again.
const CLOSE_ABOVE_PERCENT: u64 = 80;
const OPEN_BELOW_PERCENT: u64 = 70;

/// Refuses publishing before Redis is full, so that what is accepted can be delivered.
pub async fn keep(streams: Streams, mut led: watch::Receiver<Arc<[ShardId]>>) {
    let mut backoff = Backoff::new("watching the memory of Redis");
    let mut is_closed = None;
    loop {
        let shards = led.borrow_and_update().clone();
        match turn(&streams, &shards, is_closed).await {
            Ok(now_closed) => {
                backoff.recovered();
                is_closed = Some(now_closed);
                tokio::select! {
                    () = clock::beat(GATE_EVERY) => {}
                    // The leader before may have left it otherwise.
                    _ = led.changed() => is_closed = None,
                }
            }
            Err(error) => {
                // What is led may have changed, and some gates may be turned and others not.
                is_closed = None;
                backoff.pause(&error).await;
            }
        }
    }
}

async fn turn(streams: &Streams, shards: &[ShardId], was_closed: Option<bool>) -> Result<bool> {
    let (used, most) = streams.memory().await?;
    metrics::redis_memory(used, most);
    let threshold = if was_closed == Some(true) { OPEN_BELOW_PERCENT } else { CLOSE_ABOVE_PERCENT };
    let is_closed = most > 0 && used.saturating_mul(100) > most.saturating_mul(threshold);
    if was_closed != Some(is_closed) {
        for shard in shards {
            streams.set_gate(*shard, is_closed).await?;
        }
        if is_closed {
            tracing::error!(
                used,
                most,
                "Redis is near its memory limit: publishing is refused until deliveries have drained"
            );
        } else if was_closed == Some(true) {
            tracing::info!(used, most, "Redis has memory again: publishing goes on");
        }
    }
    Ok(is_closed)
}

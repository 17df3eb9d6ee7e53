//! The figures of what waits, and of the state of Redis.

use std::time::Duration;

use futures_util::future::join_all;

use super::{Failures, Janitor};
use crate::{
    metrics,
    streams::{ShardFigures, ShardId},
};

impl Janitor {
    /// Shows what waits on the shards that are led, and the state of Redis. A sum of which a part is not known is not shown.
    pub(super) async fn look(&self, led: &[ShardId], now_ms: u64, failures: &mut Failures) {
        let (mut all, mut is_whole) = (ShardFigures::default(), true);
        let front_door = async {
            match led.contains(&0) {
                true => self.streams.front_door_length().await.map(Some),
                false => Ok(None),
            }
        };
        let (figures, front_door, report) = tokio::join!(
            join_all(led.iter().map(|shard| self.streams.figures(*shard, now_ms))),
            front_door,
            self.streams.server_report(),
        );
        for figures in figures {
            let Some(figures) = failures.note(figures) else {
                is_whole = false;
                continue;
            };
            all.counts.fresh += figures.counts.fresh;
            all.counts.waiting += figures.counts.waiting;
            all.counts.leased += figures.counts.leased;
            all.counts.dead += figures.counts.dead;
            all.undispatched += figures.undispatched;
            all.due += figures.due;
            all.oldest_ms = all.oldest_ms.into_iter().chain(figures.oldest_ms).min();
            all.due_since_ms = all.due_since_ms.into_iter().chain(figures.due_since_ms).min();
        }
        // Where another process says how many there are, this one has none.
        let at_front_door = failures.note(front_door).map(Option::unwrap_or_default);
        if is_whole {
            show(&all, at_front_door, now_ms);
        }
        if let Some(report) = failures.note(report) {
            let aof = report.aof;
            metrics::redis_aof(aof.is_enabled, aof.is_written, aof.is_rewritten, aof.bytes);
            metrics::redis_findings("faults", report.faults.len());
            metrics::redis_findings("losses", report.losses_for(self.settings.durability).len());
            metrics::redis_findings("advice", report.advice.len());
        }
    }
}

/// Shows what waits; how much at the front door only where that is known.
pub(super) fn show(all: &ShardFigures, at_front_door: Option<u64>, now_ms: u64) {
    let since = |ms: Option<u64>| Duration::from_millis(ms.map_or(0, |ms| now_ms.saturating_sub(ms)));
    metrics::backlog("log", all.undispatched);
    metrics::backlog("fresh", all.counts.fresh);
    metrics::backlog("waiting", all.counts.waiting);
    metrics::backlog("leased", all.counts.leased);
    metrics::backlog("dead", all.counts.dead);
    if let Some(count) = at_front_door {
        metrics::backlog("front_door", count);
    }
    metrics::oldest_undelivered(since(all.oldest_ms));
    metrics::webhooks_due(all.due, since(all.due_since_ms));
}

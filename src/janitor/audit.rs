//! The audit of what belongs together: all of a shard once it is taken over, then again from time to time. On its way it
//! seals secrets anew, so that a key that was replaced is needed no longer once it has been through.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::Failures;
use crate::{
    backoff::Backoff,
    clock, metrics,
    streams::{Result, ShardId, Streams},
};

/// How often all of a shard is audited again.
const AUDIT_EVERY: Duration = Duration::from_secs(6 * 60 * 60);
/// Time between two turns, and how long one shard's part of a turn takes, about.
const TURN_EVERY: Duration = Duration::from_secs(1);
const TURN: Duration = Duration::from_millis(200);
/// Subscriptions audited in a step.
const SUBSCRIPTIONS: isize = 20;

/// How far the audit of a shard is.
enum Place {
    /// At the subscription of this rank.
    Subscriptions(isize),
    /// In the references to events: a cursor.
    References(String),
    /// At the end; the next one starts then.
    Done(Instant),
}

/// Audits the shards that are led, for as long as it is let.
pub async fn run(streams: Streams, led: watch::Receiver<Arc<[ShardId]>>) {
    let mut backoff = Backoff::new("the audit");
    let mut places: HashMap<ShardId, Place> = HashMap::new();
    loop {
        let shards = led.borrow().clone();
        places.retain(|shard, _| shards.contains(shard));
        let mut failures = Failures::default();
        for shard in shards.iter().copied() {
            let place = places.entry(shard).or_insert(Place::Subscriptions(0));
            let turned = turn(&streams, shard, place, &mut failures).await;
            failures.note(turned);
            if failures.is_cut_off() {
                break;
            }
        }
        match failures.first() {
            None => backoff.recovered(),
            Some(error) => backoff.pause(&error).await,
        }
        clock::beat(TURN_EVERY).await;
    }
}

async fn turn(streams: &Streams, shard: ShardId, place: &mut Place, failures: &mut Failures) -> Result<()> {
    let (until, mut mended, mut resealed) = (Instant::now() + TURN, 0, 0_u64);
    while Instant::now() < until && !failures.is_cut_off() {
        *place = match place {
            Place::Done(next) if *next > Instant::now() => break,
            Place::Done(_) => Place::Subscriptions(0),
            Place::Subscriptions(rank) => {
                let page = streams.subscriptions_by_rank(shard, *rank, SUBSCRIPTIONS).await?;
                for (subscription, _) in page.iter().filter(|(_, deleted_ms)| *deleted_ms == 0) {
                    mended += failures.note(streams.audit(*subscription).await).unwrap_or(0);
                    resealed += u64::from(failures.note(streams.reseal(*subscription).await).unwrap_or(false));
                }
                let is_last = (page.len() as isize) < SUBSCRIPTIONS;
                if is_last { Place::References("0".to_owned()) } else { Place::Subscriptions(*rank + SUBSCRIPTIONS) }
            }
            Place::References(cursor) => {
                let (next, found) = streams.recount(shard, cursor).await?;
                mended += found;
                if next == "0" { Place::Done(Instant::now() + AUDIT_EVERY) } else { Place::References(next) }
            }
        };
    }
    if resealed > 0 {
        tracing::info!(shard, webhooks = resealed, "secrets were sealed with the first key of secrets.key");
    }
    if mended > 0 {
        metrics::mended(mended);
        tracing::warn!(shard, mended, "the audit found entries amiss and mended them: was Redis killed, or restored?");
    }
    Ok(())
}

//! Events that a process has had in its hands lately.

use std::sync::Arc;

use quick_cache::{Weighter, sync::Cache};

use super::ShardId;
use crate::domain::{event::Event, id::StreamId};

/// What the cache is laid out for at first: bytes alone bound it.
const EXPECTED_EVENTS: usize = 4096;
/// What is dispatched now is sent within moments: more than that serves only who drains a backlog.
const BYTES: u64 = 16 * 1024 * 1024;

#[derive(Clone)]
struct Size;

impl Weighter<(ShardId, StreamId), Arc<Event>> for Size {
    fn weight(&self, _: &(ShardId, StreamId), event: &Arc<Event>) -> u64 {
        event.data.len() as u64 + 256
    }
}

/// Keeps events a while, up to 16 MiB: what a process has dispatched or sent it need not read once more. A clone shares
/// them.
#[derive(Clone)]
pub struct RecentEvents(Arc<Cache<(ShardId, StreamId), Arc<Event>, Size>>);

impl RecentEvents {
    /// None yet.
    pub fn new() -> Self {
        Self(Arc::new(Cache::with_weighter(EXPECTED_EVENTS, BYTES, Size)))
    }

    /// The event at a place, if it is kept.
    pub fn get(&self, shard: ShardId, at: StreamId) -> Option<Arc<Event>> {
        self.0.get(&(shard, at))
    }

    /// Forgets them all: a Redis that was away may have lost what it had not written, and given its place to another event.
    pub fn forget(&self) {
        self.0.clear();
    }

    /// Keeps an event.
    pub fn keep(&self, event: Arc<Event>) {
        self.0.insert((event.id.shard, event.id.at), event);
    }
}

impl Default for RecentEvents {
    fn default() -> Self {
        Self::new()
    }
}

//! The leases in our hands, renewed until their requests must be over.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    domain::id::{StreamId, SubscriptionId},
    streams::{Lease, ShardId, Streams},
};

/// How often leases are renewed: thrice in a lease, so that one lost call loses none.
const RENEW_EVERY: Duration = Duration::from_secs(5);

type Key = (SubscriptionId, StreamId);

/// The leases that this process holds.
#[derive(Default)]
pub struct Held {
    leases: Mutex<HashMap<Key, (Lease, Instant)>>,
}

impl Held {
    fn leases(&self) -> MutexGuard<'_, HashMap<Key, (Lease, Instant)>> {
        // No code that can panic runs while it is locked.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a lease until `until` at the latest: a task that hangs lets go.
    pub fn insert(&self, lease: &Lease, until: Instant) {
        self.leases().insert((lease.subscription, lease.entry), (lease.clone(), until));
    }

    /// Lets go, unless it was leased anew since.
    pub fn remove(&self, lease: &Lease) {
        let mut leases = self.leases();
        let key = (lease.subscription, lease.entry);
        if leases.get(&key).is_some_and(|(held, _)| held.token == lease.token) {
            leases.remove(&key);
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.leases().len()
    }

    /// All of them, by shard.
    pub fn by_shard(&self) -> HashMap<ShardId, Vec<Lease>> {
        let mut by_shard: HashMap<ShardId, Vec<Lease>> = HashMap::new();
        for (lease, _) in self.leases().values() {
            by_shard.entry(lease.subscription.shard).or_default().push(lease.clone());
        }
        by_shard
    }

    fn let_go_of_the_overdue(&self) {
        let now = Instant::now();
        self.leases().retain(|_, (_, until)| *until > now);
    }

    /// Renews for ever. A failure is not repeated: the next renewal comes before the lease ends.
    pub async fn keep_renewed(&self, streams: &Streams) {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            self.let_go_of_the_overdue();
            for (shard, leases) in self.by_shard() {
                if let Err(error) = streams.renew(shard, &leases).await {
                    tracing::debug!(%error, shard, "leases could not be renewed this time");
                }
            }
        }
    }
}

//! The leases in our hands, renewed until their requests must be over.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use crate::{
    domain::id::{StreamId, SubscriptionId},
    streams::{LEASE, Lease, ShardId, Streams},
};

/// How often leases are renewed: thrice in a lease, so that one lost call loses none.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// Leases that one call renews.
const RENEW_AT_MOST: usize = 256;

type Key = (SubscriptionId, StreamId);

struct Holding {
    lease: Lease,
    /// A task that hangs lets go then.
    until: Instant,
    /// Not later than when it was leased or renewed last.
    renewed: Instant,
}

/// The leases that this process holds.
#[derive(Default)]
pub struct Held {
    leases: Mutex<HashMap<Key, Holding>>,
}

impl Held {
    fn leases(&self) -> MutexGuard<'_, HashMap<Key, Holding>> {
        // No code that can panic runs while it is locked.
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a new lease until `until` at the latest.
    pub fn insert(&self, lease: &Lease, until: Instant) {
        let holding = Holding { lease: lease.clone(), until, renewed: lease.since };
        self.leases().insert((lease.subscription, lease.entry), holding);
    }

    /// Whether the lease is surely still ours: what another sender may have by now is not posted. If so, it is held until
    /// `until`.
    pub fn extend(&self, lease: &Lease, until: Instant) -> bool {
        let mut leases = self.leases();
        let Some(holding) = leases.get_mut(&(lease.subscription, lease.entry)) else { return false };
        let is_ours = holding.lease.token == lease.token && holding.renewed.elapsed() < LEASE;
        if is_ours {
            holding.until = until;
        }
        is_ours
    }

    /// Lets go, unless it was leased anew since.
    pub fn remove(&self, lease: &Lease) {
        let mut leases = self.leases();
        let key = (lease.subscription, lease.entry);
        if leases.get(&key).is_some_and(|holding| holding.lease.token == lease.token) {
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
        for holding in self.leases().values() {
            by_shard.entry(holding.lease.subscription.shard).or_default().push(holding.lease.clone());
        }
        by_shard
    }

    fn let_go_of_the_overdue(&self) {
        let now = Instant::now();
        self.leases().retain(|_, holding| holding.until > now);
    }

    fn note_renewal(&self, leases: &[Lease], lost: &[usize], at: Instant) {
        let mut held = self.leases();
        for (index, lease) in leases.iter().enumerate() {
            let key = (lease.subscription, lease.entry);
            let Some(holding) = held.get_mut(&key).filter(|holding| holding.lease.token == lease.token) else {
                continue;
            };
            if lost.contains(&index) {
                held.remove(&key);
            } else {
                holding.renewed = at;
            }
        }
    }

    /// Renews for ever. A failure is not repeated: the next renewal comes before the lease ends.
    pub async fn keep_renewed(&self, streams: &Streams) {
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            self.let_go_of_the_overdue();
            // All shards at once: one on a server that hangs does not keep the others' leases from being renewed.
            let renewals = self.by_shard().into_iter().map(async |(shard, leases)| {
                for page in leases.chunks(RENEW_AT_MOST) {
                    let asked = Instant::now();
                    match streams.renew(shard, page).await {
                        Ok(lost) => self.note_renewal(page, &lost, asked),
                        Err(error) => tracing::debug!(%error, shard, "leases could not be renewed this time"),
                    }
                }
            });
            join_all(renewals).await;
        }
    }
}

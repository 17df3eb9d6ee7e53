//! What a delivery is made of: the subscription as it stands and the event, each read once and kept a while.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use quick_cache::sync::Cache;

use super::request::Target;
use crate::{
    domain::{
        event::Event,
        id::{StreamId, SubscriptionId},
    },
    streams::{Lease, RecentEvents, Result, ShardId, Streams, Versioned},
};

const TARGETS_KEPT: usize = 10_000;

/// Reads and keeps subscriptions and events.
pub struct Material {
    streams: Streams,
    /// A target is as good as its version: a lease names the version it must be of.
    targets: Cache<SubscriptionId, (StreamId, Arc<Target>)>,
    events: RecentEvents,
}

/// What the leases of one call are made of; a subscription that is gone and an event that is nowhere are missing.
pub struct Found {
    targets: HashMap<SubscriptionId, Arc<Target>>,
    /// Subscriptions whose record cannot be used: nothing can be sent to them now.
    unusable: HashSet<SubscriptionId>,
    events: HashMap<StreamId, Arc<Event>>,
}

/// What one delivery is made of.
pub struct Parts {
    /// `None` where the subscription is gone.
    pub target: Option<Arc<Target>>,
    /// The subscription's record cannot be used.
    pub is_unusable: bool,
    /// `None` where the event is nowhere.
    pub event: Option<Arc<Event>>,
}

impl Found {
    /// Those of one of the leases.
    pub fn parts(&self, lease: &Lease) -> Parts {
        Parts {
            target: self.targets.get(&lease.subscription).cloned(),
            is_unusable: self.unusable.contains(&lease.subscription),
            event: self.events.get(&lease.event).cloned(),
        }
    }
}

impl Material {
    pub fn new(streams: Streams, events: RecentEvents) -> Self {
        Self { streams, targets: Cache::new(TARGETS_KEPT), events }
    }

    /// Finds what the leases of one shard are made of.
    pub async fn find(&self, shard: ShardId, leases: &[Lease]) -> Result<Found> {
        let events = self.events(shard, leases).await?;
        let mut found = Found { targets: HashMap::new(), unusable: HashSet::new(), events };
        self.add_targets(leases, &mut found).await?;
        Ok(found)
    }

    async fn add_targets(&self, leases: &[Lease], found: &mut Found) -> Result<()> {
        let mut missing = Vec::new();
        for lease in leases {
            match self.targets.get(&lease.subscription) {
                Some((version, target)) if version == lease.version => {
                    found.targets.insert(lease.subscription, target);
                }
                _ if missing.contains(&lease.subscription) => {}
                _ => missing.push(lease.subscription),
            }
        }
        for (id, read) in missing.iter().zip(self.streams.each_subscription(&missing).await?) {
            match read.map_err(|error| error.to_string()).and_then(ready) {
                Ok(Some((version, target))) => {
                    self.targets.insert(*id, (version, target.clone()));
                    found.targets.insert(*id, target);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(webhook_id = %id, error, "the record of this webhook cannot be used: its deliveries wait");
                    found.unusable.insert(*id);
                }
            }
        }
        Ok(())
    }

    async fn events(&self, shard: ShardId, leases: &[Lease]) -> Result<HashMap<StreamId, Arc<Event>>> {
        let mut found = HashMap::new();
        let mut missing = Vec::new();
        for lease in leases {
            match self.events.get(shard, lease.event) {
                Some(event) => drop(found.insert(lease.event, event)),
                None if missing.contains(&lease.event) => {}
                None => missing.push(lease.event),
            }
        }
        for (place, read) in missing.iter().zip(self.streams.events(shard, &missing).await?) {
            if let Some(event) = read {
                let event = Arc::new(event);
                self.events.keep(event.clone());
                found.insert(*place, event);
            }
        }
        Ok(found)
    }
}

fn ready(read: Option<Versioned>) -> Result<Option<(StreamId, Arc<Target>)>, String> {
    let Some(Versioned { subscription, version, .. }) = read else { return Ok(None) };
    let target = Target::new(subscription).map_err(|error| error.to_string())?;
    Ok(Some((version, Arc::new(target))))
}

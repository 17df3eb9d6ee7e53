//! Who wants an event: the subscriptions of a shard's tenants, indexed by what they want, as new as each event demands.

use std::collections::HashMap;

use crate::{
    domain::{
        event::Event,
        filter::{Index, Pattern},
        id::{StreamId, SubscriptionId},
    },
    streams::{Result, ShardId, Streams},
};

/// Subscriptions kept; above, all are forgotten and those still needed are read again.
const KEPT_AT_MOST: usize = 1_000_000;
const PAGE: usize = 500;

/// The subscriptions of a shard's tenants, read when first needed.
pub struct Matcher {
    streams: Streams,
    shard: ShardId,
    tenants: HashMap<String, Tenant>,
    kept: usize,
    /// The last change that the tenants here are known to contain.
    seen: Option<StreamId>,
}

#[derive(Default)]
struct Tenant {
    index: Index,
    patterns: HashMap<SubscriptionId, Vec<Pattern>>,
}

impl Tenant {
    fn set(&mut self, id: SubscriptionId, patterns: Option<Vec<Pattern>>) {
        if let Some(before) = self.patterns.remove(&id) {
            self.index.remove(id, &before);
        }
        if let Some(patterns) = patterns {
            self.index.insert(id, &patterns);
            self.patterns.insert(id, patterns);
        }
    }
}

impl Matcher {
    pub fn new(streams: Streams, shard: ShardId) -> Self {
        Self { streams, shard, tenants: HashMap::new(), kept: 0, seen: None }
    }

    /// The subscriptions that the event is owed to, sorted. Every change made before the event was published counts.
    pub async fn targets(&mut self, event: &Event) -> Result<Vec<SubscriptionId>> {
        if let Some(only) = event.only_for {
            return Ok(vec![only]);
        }
        self.catch_up(event.config_version).await?;
        if !self.tenants.contains_key(&event.tenant) {
            self.read_tenant(&event.tenant).await?;
        }
        let tenant = self.tenants.get(&event.tenant);
        Ok(tenant.map(|tenant| tenant.index.matching(&event.event_type)).unwrap_or_default())
    }

    async fn catch_up(&mut self, version: StreamId) -> Result<()> {
        let Some(seen) = self.seen else {
            self.seen = Some(self.streams.last_change(self.shard).await?);
            return Ok(());
        };
        if seen >= version {
            return Ok(());
        }
        let changes = self.streams.changes_since(self.shard, seen).await?.unwrap_or_default();
        // Some are not kept any more, or Redis lost them.
        let Some(last) = changes.last().copied() else { return self.forget().await };
        let ids: Vec<SubscriptionId> = changes.iter().map(|change| change.subscription).collect();
        for (id, found) in ids.iter().zip(self.streams.filters(&ids).await?) {
            self.apply(*id, found);
        }
        self.seen = Some(last.version);
        Ok(())
    }

    /// Starts anew: the changes in between are not known.
    async fn forget(&mut self) -> Result<()> {
        self.tenants.clear();
        self.kept = 0;
        self.seen = Some(self.streams.last_change(self.shard).await?);
        Ok(())
    }

    fn apply(&mut self, id: SubscriptionId, found: Option<(String, Vec<Pattern>)>) {
        match found {
            Some((tenant, patterns)) => {
                if let Some(tenant) = self.tenants.get_mut(&tenant) {
                    tenant.set(id, Some(patterns));
                }
            }
            // It is gone, and a tombstone does not say whose it was.
            None => self.tenants.values_mut().for_each(|tenant| tenant.set(id, None)),
        }
    }

    async fn read_tenant(&mut self, name: &str) -> Result<()> {
        if self.kept > KEPT_AT_MOST {
            self.tenants.clear();
            self.kept = 0;
        }
        let (mut tenant, mut after) = (Tenant::default(), None);
        loop {
            let ids = self.streams.subscription_ids(name, after, PAGE).await?;
            for (id, found) in ids.iter().zip(self.streams.filters(&ids).await?) {
                tenant.set(*id, found.map(|(_, patterns)| patterns));
            }
            if ids.len() < PAGE {
                break;
            }
            after = ids.last().copied();
        }
        // Without subscriptions a tenant still takes its name.
        self.kept += 1 + tenant.patterns.len();
        self.tenants.insert(name.to_owned(), tenant);
        Ok(())
    }
}

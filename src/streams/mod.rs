//! The only module that speaks Redis. It mirrors `streams/`: keys, scripts, and a file for each kind of thing kept there.
//!
//! Every change of more than one key is one script, so it happens wholly or not at all, on one shard.

mod answers;
mod api_keys;
mod append;
mod attempts;
mod connections;
mod dead_letters;
mod deliveries;
mod entry;
mod error;
mod event_types;
mod events;
mod front_door;
mod jobs;
pub mod keys;
mod leadership;
mod raw;
mod recent;
mod request_headers;
mod resend;
pub mod scripts;
mod server;
mod statistics;
mod statuses;
mod subscriptions;
mod tail;
mod tenants;
mod upkeep;

use std::{sync::Arc, time::Duration};

pub use api_keys::ApiKey;
pub use append::{APPEND_AT_MOST, APPEND_BYTES, Append, Appended, Moving};
pub use attempts::{AttemptFilter, AttemptPage};
pub use dead_letters::{BadEntry, DEAD_AT_MOST, DeadLetter, Redriven};
pub use deliveries::{Bells, Ending, LEASE_AT_MOST, Lease, Leased, SETTLE_AT_MOST, SettleAnswer, Settled};
pub use entry::{event as read_event, read_attempt, write_attempt};
pub use error::{Error, Result};
pub use event_types::{TYPES_AT_MOST, TYPES_BYTES, TypeAdded, read_event_type};
pub use events::{Expanded, Expansion, LogEntry, LogReader, Refusal};
pub use front_door::{FrontDoor, FrontDoorEntry, Homeless};
pub use jobs::{Job, JobState, Queued, REPLAY_AT_MOST};
pub use leadership::Seat;
pub use raw::shown_name;
pub use recent::RecentEvents;
pub use resend::Resend;
pub use server::{AppendOnlyFile, Memory, ServerReport};
pub use statuses::{EventStatus, Progress, Sought};
pub(crate) use statuses::{Noted, TRACKED_TARGETS};
pub use subscriptions::{Change, START_WITHIN_MS, Versioned};
pub use tail::AttemptTail;
pub use tenants::{Tenant, TenantLimits};
pub use upkeep::{Counts, ShardFigures};

use self::{connections::Connections, keys::Keys, scripts::Script};
use crate::secrets::Sealer;

/// A part of all tenants; its keys live together on one server.
pub type ShardId = u16;

/// The number of the protocol that this program speaks; another one found in Redis is refused.
const PROTOCOL: u32 = 1;

/// How long a sender holds a delivery without renewing it.
pub const LEASE: Duration = Duration::from_secs(15);

/// Limits that scripts keep.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Deliveries waiting for one subscription.
    pub max_backlog: u64,
    /// Dead letters kept of one subscription.
    pub max_dead: u64,
    /// How long a subscription may fail until it is disabled.
    pub disable_after: Duration,
}

/// A handle on Redis; cheap to clone.
#[derive(Clone)]
pub struct Streams(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    connections: Connections,
    aside: Connections,
    keys: Keys,
    shards: u16,
    limits: Limits,
    sealer: Sealer,
}

/// Why [`Streams::open`] did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Redis(#[from] Error),
    #[error("redis.shards is {asked}, but this Redis was set up with {stored}: set redis.shards = {stored}")]
    OtherShards { asked: u16, stored: u16 },
    #[error(
        "this Redis holds protocol {stored} of redis.prefix, and this program speaks {PROTOCOL}: use another prefix"
    )]
    OtherProtocol { stored: u32 },
}

impl Streams {
    /// Connects to a server, or to the cluster that it is a node of, and sets up what the first start on a Redis sets up: the
    /// number of shards.
    ///
    /// # Errors
    /// When Redis cannot be reached, or was set up otherwise.
    pub async fn open(url: &str, prefix: &str, shards: u16, limits: Limits, sealer: Sealer) -> Result<Self, OpenError> {
        let connections = Connections::open(url).await?;
        let inner = Inner { aside: connections.aside(), connections, keys: Keys::new(prefix), shards, limits, sealer };
        let streams = Self(Arc::new(inner));
        streams.agree_on_shards().await?;
        Ok(streams)
    }

    /// Written only where it is missing: a Redis that is full must not keep a sender from starting.
    async fn agree_on_shards(&self) -> Result<(), OpenError> {
        let meta = self.0.keys.global("meta");
        let mut read = redis::cmd("HMGET");
        read.arg(&meta).arg("shards").arg("protocol");
        let (stored, protocol): (Option<u16>, Option<u32>) = self.0.connections.run(&read).await?;
        let (stored, protocol) = match (stored, protocol) {
            (Some(stored), Some(protocol)) => (stored, protocol),
            _ => {
                let mut pipeline = redis::pipe();
                pipeline.cmd("HSETNX").arg(&meta).arg("shards").arg(self.0.shards).ignore();
                pipeline.cmd("HSETNX").arg(&meta).arg("protocol").arg(PROTOCOL).ignore();
                pipeline.add_command(read);
                let (found,): ((u16, u32),) = self.0.connections.run_all(&pipeline).await?;
                found
            }
        };
        if protocol != PROTOCOL {
            return Err(OpenError::OtherProtocol { stored: protocol });
        }
        if stored != self.0.shards {
            return Err(OpenError::OtherShards { asked: self.0.shards, stored });
        }
        Ok(())
    }

    /// The same handle for what is asked from beat to beat: over one connection, which all such handles share. What is asked at the
    /// same moment goes in one write, and waits for no large answer to something else. A cluster is asked as ever.
    #[must_use]
    pub fn aside(&self) -> Self {
        Self(Arc::new(Inner { connections: self.0.aside.clone(), ..(*self.0).clone() }))
    }

    /// Whether a part of it may be away and the rest not.
    pub fn is_cluster(&self) -> bool {
        self.0.connections.is_cluster()
    }

    /// Every shard.
    pub fn shards(&self) -> std::ops::Range<ShardId> {
        0..self.0.shards
    }

    /// Where a tenant lives: `crc16(tenant) mod N`, with the CRC of Redis Cluster's key slots.
    pub fn shard_of(&self, tenant: &str) -> ShardId {
        crc16::State::<crc16::XMODEM>::calculate(tenant.as_bytes()) % self.0.shards
    }

    fn keys(&self) -> &Keys {
        &self.0.keys
    }

    /// Starts a call of `script` on `shard`: `KEYS[1]` is `P:due`, `ARGV[1]` is `P`; more arguments may follow.
    fn script(&self, script: &Script, shard: ShardId) -> redis::Cmd {
        let mut command = script.on(&self.keys().of(shard, "due"));
        command.arg(self.keys().shard(shard));
        command
    }
}

/// MessagePack of a batch; a struct is an array, as the scripts read it.
fn pack<T: serde::Serialize + ?Sized>(batch: &T) -> Vec<u8> {
    rmp_serde::to_vec(batch).expect("numbers, text and bytes can always be packed")
}

/// What a script packed; `what` it is goes into the error.
fn unpack<'a, T: serde::Deserialize<'a>>(packed: &'a [u8], what: &str) -> Result<T> {
    rmp_serde::from_slice(packed).map_err(|error| Error::Unreadable(format!("{what}: {error}")))
}

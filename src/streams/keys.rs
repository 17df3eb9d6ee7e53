//! Every key and group name, spelled here once. `streams/README.md` says what each holds.

use super::ShardId;

/// The group of the dispatchers on `P:events`.
pub const DISPATCHERS: &str = "dispatchers";
/// The group of the movers on the front door.
pub const MOVERS: &str = "movers";
/// The one consumer of each group: who holds an entry is said by its lease, not by a consumer's name.
pub const CONSUMER: &str = "s";

/// A key's pattern and its Redis type.
pub struct Pattern {
    pub pattern: &'static str,
    pub kind: &'static str,
}

const fn of(pattern: &'static str, kind: &'static str) -> Pattern {
    Pattern { pattern, kind }
}

/// All keys there are; `P` is `<prefix>:{sK}` for shard K. `streams/README.md` has a row for each.
pub const ALL: &[Pattern] = &[
    of("<prefix>:meta", "hash"),
    of("<prefix>:in", "stream"),
    of("<prefix>:deadin", "stream"),
    of("<prefix>:workers", "zset"),
    of("<prefix>:tenants", "hash"),
    of("<prefix>:keys", "hash"),
    of("<prefix>:lead", "string"),
    of("P:events", "stream"),
    of("P:idem:<tenant>:<hash>", "string"),
    of("P:ans:<tenant>:<hash>", "string"),
    of("P:rl:<who>:<minute>", "string"),
    of("P:mv:<source>", "zset"),
    of("P:call:<id>", "string"),
    of("P:exp", "hash"),
    of("P:meta", "hash"),
    of("P:cfgv", "hash"),
    of("P:cfglog", "stream"),
    of("P:subs", "zset"),
    of("P:tsubs:<tenant>", "zset"),
    of("P:sub:<sub>", "string"),
    of("P:rt:<sub>", "hash"),
    of("P:dlv:<sub>", "stream"),
    of("P:inf:<sub>", "zset"),
    of("P:tok:<sub>", "hash"),
    of("P:rty:<sub>", "zset"),
    of("P:due", "zset"),
    of("P:refs", "hash"),
    of("P:pay:<ev>", "hash"),
    of("P:dead:<sub>", "stream"),
    of("P:deadidx", "zset"),
    of("P:tdead:<tenant>", "zset"),
    of("P:deadev", "stream"),
    of("P:evs:<ev>", "hash"),
    of("P:attempts", "stream"),
    of("P:att:<sub>", "list"),
    of("P:cnt", "hash"),
    of("P:old", "zset"),
    of("P:rpl:<job>", "hash"),
    of("P:jobs", "set"),
    of("P:lead", "string"),
    of("P:asleep", "string"),
    of("P:owed", "hash"),
    of("P:lim", "hash"),
    of("P:types:<tenant>", "hash"),
    of("P:st:<sub>:<hour>", "hash"),
    of("P:own:<tenant>", "set"),
];

/// The keys of one installation: all start with its prefix.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
}

impl Keys {
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// A key that belongs to no shard: `meta`, `in`, `deadin`, `workers`, `tenants`, `keys`, `lead`.
    pub fn global(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    /// `P`: what all keys of a shard start with. The braces put them all in one cluster slot.
    pub fn shard(&self, shard: ShardId) -> String {
        format!("{}:{{s{shard}}}", self.prefix)
    }

    /// A key of a shard: `events`, `due`, `cnt`, …
    pub fn of(&self, shard: ShardId, name: &str) -> String {
        format!("{}:{{s{shard}}}:{name}", self.prefix)
    }

    /// A key of one thing in a shard: `dlv` of a subscription, `evs` of an event, …
    pub fn one(&self, shard: ShardId, name: &str, id: impl std::fmt::Display) -> String {
        format!("{}:{{s{shard}}}:{name}:{id}", self.prefix)
    }

    /// The channel that wakes senders of a shard.
    pub fn bell(&self, shard: ShardId) -> String {
        self.of(shard, "bell")
    }
}

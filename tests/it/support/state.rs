//! All that Redis holds of one shard, read by plain commands and knowing nothing of the program's scripts.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use posthaste::domain::id::StreamId;
use redis::{Value, aio::MultiplexedConnection, from_redis_value};

/// A hash or the fields of an entry.
pub type Fields = BTreeMap<String, String>;

/// One event owed to one subscription, or a replay of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delivery {
    pub event: StreamId,
    pub subscription: String,
    pub copy: u16,
}

/// Where a delivery stands in the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Owed,
    Delivered,
    Dead,
    Cancelled,
}

/// An entry of a delivery stream or among the dead letters.
#[derive(Debug, Clone)]
pub struct Owed {
    pub entry: StreamId,
    pub event: StreamId,
    pub copy: u16,
    pub fields: Fields,
}

/// One subscription's keys.
#[derive(Debug, Clone, Default)]
pub struct Subscription {
    /// `P:rt`; empty when a deleted subscription is cleared.
    pub rt: Fields,
    pub has_record: bool,
    /// Its record names the type that tells of dead letters, or a pattern for it.
    pub wants_dead_letters: bool,
    pub has_group: bool,
    /// The id up to which the group has handed out entries.
    pub handed_out: StreamId,
    pub owed: Vec<Owed>,
    /// Pending entries, and how often each was handed out.
    pub pending: BTreeMap<StreamId, u64>,
    /// Leases and when they expire.
    pub leases: BTreeMap<StreamId, f64>,
    /// Retries and when they are due.
    pub retries: BTreeMap<StreamId, f64>,
    pub tokens: Fields,
    pub dead: Vec<Owed>,
    pub attempts: Vec<Vec<u8>>,
}

impl Subscription {
    pub fn number(&self, field: &str) -> u64 {
        self.rt.get(field).map_or(0, |text| text.parse::<f64>().unwrap_or_else(|_| panic!("{field} {text}")) as u64)
    }

    pub fn status(&self) -> &str {
        self.rt.get("st").map_or("", String::as_str)
    }

    pub fn is_fifo(&self) -> bool {
        self.number("fifo") == 1
    }

    /// Requests under way at once.
    pub fn cap(&self) -> usize {
        if self.is_fifo() || self.number("hold") > 0 { 1 } else { self.number("cap") as usize }
    }
}

/// One shard's keys.
#[derive(Debug, Default)]
pub struct State {
    /// Redis' clock: Unix milliseconds.
    pub now: u64,
    pub subscriptions: BTreeMap<String, Subscription>,
    pub events: BTreeMap<StreamId, Fields>,
    /// Up to where the log is expanded, and what comes after that.
    pub expanded: StreamId,
    pub undone: BTreeSet<StreamId>,
    /// Where the group of the dispatchers stands, and how far it lags behind.
    pub dispatchers: Option<(StreamId, u64)>,
    /// Events whose body is kept beside the log.
    pub spilled: BTreeSet<StreamId>,
    /// Of each event that is kept, in the log or beside it: its tenant, and the bytes of its body.
    pub bodies: BTreeMap<StreamId, (String, u64)>,
    pub statuses: BTreeMap<StreamId, Fields>,
    /// The attempts logged, and which of them count nowhere: those that came late, and test sends.
    pub attempts: BTreeMap<StreamId, bool>,
    pub bad: usize,
    /// Hashes and sorted sets that stand for themselves: `refs`, `meta`, `due`, `deadidx`, …, `tsubs:<tenant>`.
    pub hashes: HashMap<String, Fields>,
    pub zsets: HashMap<String, BTreeMap<String, f64>>,
    /// `own:<tenant>`.
    pub sets: BTreeMap<String, BTreeSet<String>>,
    /// Milliseconds that each key lives, -1 without an end, -2 where it ended while it was read.
    pub ttls: BTreeMap<String, i64>,
    /// Keys that have no business here.
    pub unknown: Vec<String>,
}

impl State {
    /// Reads every key that starts with `<shard>:`, as `prefix:{s0}:`.
    pub async fn read(connection: &mut MultiplexedConnection, shard: &str) -> Self {
        let mut keys: Vec<String> = command(connection, &["KEYS", &format!("{shard}:*")]).await;
        keys.sort();
        let (seconds, micros): (u64, u64) = command(connection, &["TIME"]).await;
        let mut state = Self { now: seconds * 1000 + micros / 1000, ..Self::default() };
        let mut pipeline = redis::pipe();
        for key in &keys {
            pipeline.cmd("PTTL").arg(key);
            ask(&mut pipeline, key, key[shard.len() + 1..].split(':').next().unwrap());
        }
        let values: Vec<Value> =
            if keys.is_empty() { Vec::new() } else { pipeline.query_async(connection).await.unwrap() };
        let mut values = values.into_iter();
        for key in &keys {
            let name = &key[shard.len() + 1..];
            state.ttls.insert(name.to_owned(), from_redis_value(values.next().unwrap()).unwrap());
            state.take(name, &mut values);
        }
        state.expanded = state.hash("meta").get("hwm").map_or(StreamId::ZERO, |hwm| place(hwm));
        state.undone = state.events.keys().copied().filter(|event| *event > state.expanded).collect();
        state
    }

    fn take(&mut self, name: &str, values: &mut impl Iterator<Item = Value>) {
        let (kind, id) = name.split_once(':').unwrap_or((name, ""));
        let mut next = || values.next().unwrap();
        match kind {
            "rt" => self.one(id).rt = get(next()),
            "sub" => {
                let record: String = get(next());
                let wants: serde_json::Value = serde_json::from_str(&record).unwrap();
                let wants = wants["events"].as_array().into_iter().flatten().filter_map(|pattern| pattern.as_str());
                let telling = ["posthaste.*", "posthaste.delivery.*", "posthaste.delivery.dead_lettered"];
                self.one(id).wants_dead_letters = wants.into_iter().any(|pattern| telling.contains(&pattern));
                self.one(id).has_record = !record.is_empty();
            }
            "dlv" => {
                let (entries, groups, pending) = (next(), next(), next());
                let subscription = self.one(id);
                subscription.owed = owed(entries);
                if let Some((read, _)) = group(groups, "senders") {
                    subscription.has_group = true;
                    subscription.handed_out = read;
                    subscription.pending = pending_counts(pending);
                }
            }
            "inf" => self.one(id).leases = scores(next()),
            "rty" => self.one(id).retries = scores(next()),
            "tok" => self.one(id).tokens = get(next()),
            "dead" => self.one(id).dead = owed(next()),
            "att" => self.one(id).attempts = get(next()),
            "events" => {
                let (entries, groups) = (next(), next());
                self.events = stream(entries).into_iter().collect();
                self.bodies.extend(self.events.iter().map(|(event, fields)| (*event, body(fields))));
                self.dispatchers = group(groups, "dispatchers");
            }
            "attempts" => {
                self.attempts = stream(next())
                    .into_iter()
                    .map(|(id, fields)| (id, fields["l"] == "1" || fields.contains_key("s")))
                    .collect();
            }
            "deadev" => self.bad = get::<usize>(next()),
            "cfglog" => drop(next()),
            "pay" => {
                self.spilled.insert(place(id));
                self.bodies.insert(place(id), body(&get(next())));
            }
            "evs" => {
                self.statuses.insert(place(id), get(next()));
            }
            "exp" | "meta" | "cfgv" | "refs" | "cnt" | "rpl" | "owed" | "lim" | "st" => {
                self.hashes.insert(name.to_owned(), get(next()));
            }
            "subs" | "tsubs" | "due" | "deadidx" | "tdead" | "old" | "mv" => {
                let members: Vec<(String, f64)> = get(next());
                self.zsets.insert(name.to_owned(), members.into_iter().collect());
            }
            "own" => {
                self.sets.insert(name.to_owned(), get(next()));
            }
            "idem" | "call" | "asleep" | "lead" | "jobs" => drop(next()),
            _ => {
                next();
                self.unknown.push(name.to_owned());
            }
        }
    }

    fn one(&mut self, id: &str) -> &mut Subscription {
        self.subscriptions.entry(id.to_owned()).or_default()
    }

    pub fn hash(&self, name: &str) -> Fields {
        self.hashes.get(name).cloned().unwrap_or_default()
    }

    pub fn zset(&self, name: &str) -> BTreeMap<String, f64> {
        self.zsets.get(name).cloned().unwrap_or_default()
    }

    /// A count of a subscription's statistics, over all hours.
    pub fn statistic(&self, id: &str, field: &str) -> u64 {
        let hours = self.hashes.iter().filter(|(name, _)| name.starts_with(&format!("st:{id}:")));
        hours.filter_map(|(_, counts)| counts.get(field)).map(|count| count.parse::<u64>().unwrap()).sum()
    }

    /// Where each delivery stands: by its entry, or where it has none any more by its event's status.
    pub fn ledger(&self) -> BTreeMap<Delivery, Standing> {
        let mut ledger = BTreeMap::new();
        for (event, status) in &self.statuses {
            for (name, value) in status {
                let Some((subscription, copy)) = name.split_once('#') else { continue };
                let standing = match &value[..1] {
                    "k" => Standing::Delivered,
                    "c" => Standing::Cancelled,
                    // An entry has to be there for it.
                    _ => continue,
                };
                let copy = copy.parse().unwrap();
                ledger.insert(Delivery { event: *event, subscription: subscription.to_owned(), copy }, standing);
            }
        }
        for (delivery, standing) in self.entries() {
            ledger.insert(delivery, standing);
        }
        ledger
    }

    /// Every entry of a delivery stream or among the dead letters.
    pub fn entries(&self) -> Vec<(Delivery, Standing)> {
        let mut entries = Vec::new();
        for (id, subscription) in &self.subscriptions {
            let of = |owed: &Owed| Delivery { event: owed.event, subscription: id.clone(), copy: owed.copy };
            entries.extend(subscription.owed.iter().map(|owed| (of(owed), Standing::Owed)));
            entries.extend(subscription.dead.iter().map(|owed| (of(owed), Standing::Dead)));
        }
        entries
    }
}

/// All that the senders hold; nothing, and no error, where there is no such group.
const PENDING: &str = "
    local rows = redis.pcall('XPENDING', KEYS[1], 'senders', '-', '+', 1000000)
    return rows.err and {} or rows";

/// Asks for all of a key, by what kind of key it is.
fn ask(pipeline: &mut redis::Pipeline, key: &str, kind: &str) {
    let with_groups = |pipeline: &mut redis::Pipeline| {
        pipeline.cmd("XRANGE").arg(key).arg("-").arg("+");
        pipeline.cmd("XINFO").arg("GROUPS").arg(key);
    };
    match kind {
        "dlv" => {
            with_groups(pipeline);
            pipeline.cmd("EVAL").arg(PENDING).arg(1).arg(key);
        }
        "events" => with_groups(pipeline),
        "dead" | "attempts" => drop(pipeline.cmd("XRANGE").arg(key).arg("-").arg("+")),
        "deadev" | "cfglog" => drop(pipeline.cmd("XLEN").arg(key)),
        "rt" | "tok" | "pay" | "evs" | "exp" | "meta" | "cfgv" | "refs" | "cnt" | "rpl" | "owed" | "lim" | "st" => {
            pipeline.cmd("HGETALL").arg(key);
        }
        "inf" | "rty" | "subs" | "tsubs" | "due" | "deadidx" | "tdead" | "old" | "mv" => {
            pipeline.cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES");
        }
        "att" => drop(pipeline.cmd("LRANGE").arg(key).arg(0).arg(-1)),
        "sub" => drop(pipeline.cmd("GET").arg(key)),
        "own" => drop(pipeline.cmd("SMEMBERS").arg(key)),
        _ => drop(pipeline.cmd("TYPE").arg(key)),
    }
}

/// Runs one command of words.
pub async fn command<T: redis::FromRedisValue>(connection: &mut MultiplexedConnection, words: &[&str]) -> T {
    redis::cmd(words[0]).arg(&words[1..]).query_async(connection).await.unwrap()
}

fn get<T: redis::FromRedisValue>(value: Value) -> T {
    from_redis_value(value).unwrap()
}

/// Whose an event is, and the bytes of its body: the tests publish text.
fn body(fields: &Fields) -> (String, u64) {
    (fields["tn"].clone(), fields["b"].len() as u64)
}

fn place(text: &str) -> StreamId {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no stream id"))
}

fn scores(value: Value) -> BTreeMap<StreamId, f64> {
    get::<Vec<(String, f64)>>(value).into_iter().map(|(id, score)| (place(&id), score)).collect()
}

fn stream(value: Value) -> Vec<(StreamId, Fields)> {
    let entries: Vec<(String, Vec<Value>)> = get(value);
    entries.into_iter().map(|(id, fields)| (place(&id), lossy(fields))).collect()
}

/// Fields as text, whatever bytes they are.
fn lossy(flat: Vec<Value>) -> Fields {
    let text = |value: &Value| String::from_utf8_lossy(&get::<Vec<u8>>(value.clone())).into_owned();
    flat.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect()
}

fn owed(value: Value) -> Vec<Owed> {
    let read = |(entry, fields): (StreamId, Fields)| Owed {
        entry,
        event: place(&fields["e"]),
        copy: fields.get("c").map_or(0, |copy| copy.parse().unwrap()),
        fields,
    };
    stream(value).into_iter().map(read).collect()
}

/// Up to which entry a group has handed out, and how many come after it.
fn group(value: Value, wanted: &str) -> Option<(StreamId, u64)> {
    let groups: Vec<HashMap<String, Value>> = get(value);
    let group = groups.into_iter().find(|group| get::<String>(group["name"].clone()) == wanted)?;
    let lag: Option<u64> = get(group["lag"].clone());
    Some((place(&get::<String>(group["last-delivered-id"].clone())), lag.unwrap_or(0)))
}

fn pending_counts(value: Value) -> BTreeMap<StreamId, u64> {
    let rows: Vec<(String, String, i64, u64)> = get(value);
    rows.into_iter().map(|(id, _, _, count)| (place(&id), count)).collect()
}

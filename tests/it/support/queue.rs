//! A queue of one shard on a Redis of its own, driven by the calls that the roles make.

use posthaste::{
    domain::{
        id::{EventId, StreamId, SubscriptionId},
        subscription::Subscription,
    },
    secrets::Sealer,
    streams::{Append, Appended, Expansion, Lease, Limits, Streams},
};
use redis::{aio::MultiplexedConnection, streams::StreamRangeReply};

use super::{
    checks::{Bounds, violations},
    clock,
    redis::TestRedis,
    samples::{BODY_BYTES, DISABLE_AFTER, Facts, TENANT, Verdict, event, settled},
    state::{State, command},
};

pub const SHARD: u16 = 0;
const PREFIX: &str = "q";
/// What the keys of the shard start with.
pub const KEYS: &str = "q:{s0}";

pub struct Queue {
    pub redis: TestRedis,
    pub streams: Streams,
    pub connection: MultiplexedConnection,
    limits: Limits,
    calls: u64,
}

impl Queue {
    pub async fn start() -> Self {
        Self::with(Limits { max_backlog: 100_000, max_dead: 10_000, disable_after: DISABLE_AFTER }).await
    }

    pub async fn with(limits: Limits) -> Self {
        let redis = TestRedis::start().await;
        let streams = Streams::open(&redis.url(), PREFIX, 1, limits, Sealer::new(&[])).await.unwrap();
        let connection = redis.connect().await;
        Self { redis, streams, connection, limits, calls: 0 }
    }

    pub async fn create(&self, subscription: Subscription) -> SubscriptionId {
        self.streams.create_subscription(&subscription).await.unwrap().expect("a new one");
        subscription.id
    }

    /// Publishes so many events, without expanding them.
    pub async fn publish(&mut self, count: usize) -> Vec<EventId> {
        self.calls += 1;
        let batch = vec![Append::Event { event: event("a.b"), source_id: None }; count];
        let answer = self.streams.append(SHARD, &format!("call{}", self.calls), &batch, None).await.unwrap();
        let id = |appended| match appended {
            Appended::Event(id) => id,
            other => panic!("{other:?}"),
        };
        answer.into_iter().map(id).collect()
    }

    /// The events that are not expanded, each with the one before it.
    pub async fn undone(&mut self) -> Vec<(StreamId, StreamId)> {
        let expanded: Option<String> = self.tamper(&["HGET", "meta", "hwm"]).await;
        let mut previous = expanded.map_or(StreamId::ZERO, |place| place.parse().unwrap());
        let rows: StreamRangeReply = self.tamper(&["XRANGE", "events", &format!("({previous}"), "+"]).await;
        let events = rows.ids.into_iter().map(|row| row.id.parse().unwrap());
        events.map(|event| (std::mem::replace(&mut previous, event), event)).collect()
    }

    /// Publishes events and puts them on the delivery streams of `targets`. What comes before them in the log, the engine's
    /// own events, is for nobody.
    pub async fn deliver(&mut self, count: usize, targets: &[SubscriptionId]) -> Vec<EventId> {
        let events = self.publish(count).await;
        let chunk = |(previous, at)| match events.iter().find(|id| id.at == at) {
            Some(id) => Expansion { nonce: id.nonce, ..whole(previous, at, targets) },
            None => whole(previous, at, &[]),
        };
        let chunks: Vec<Expansion> = self.undone().await.into_iter().map(chunk).collect();
        for chunk in chunks.chunks(64) {
            let expanded = self.streams.expand(SHARD, chunk).await.unwrap();
            assert_eq!((expanded.done, expanded.refusal), (chunk.len(), None));
        }
        events
    }

    pub async fn lease(&self, room: usize) -> Vec<Lease> {
        self.streams.lease(SHARD, room).await.unwrap().leases
    }

    /// The only lease there is to be had.
    pub async fn lease_one(&self) -> Lease {
        let mut leases = self.lease(10).await;
        assert_eq!(leases.len(), 1, "{leases:?}");
        leases.remove(0)
    }

    /// Settles; returns which results came too late.
    pub async fn settle(&self, results: &[(&Lease, Verdict)]) -> Vec<usize> {
        let batch: Vec<_> =
            results.iter().map(|(lease, verdict)| settled(lease, *verdict, &Facts::default())).collect();
        self.streams.settle(SHARD, &batch).await.unwrap().stale
    }

    pub async fn state(&mut self) -> State {
        State::read(&mut self.connection, KEYS).await
    }

    pub async fn elapse(&mut self, ms: u64) {
        let state = self.state().await;
        clock::elapse(&mut self.connection, KEYS, &state, ms).await;
    }

    /// Every lease is lost: its sender is gone.
    pub async fn lose_leases(&mut self) {
        self.elapse(15_001).await;
    }

    /// What breaks an invariant now.
    pub async fn violations(&mut self) -> Vec<String> {
        let (max_backlog, max_dead) = (self.limits.max_backlog as usize, self.limits.max_dead as usize);
        violations(&self.state().await, None, Bounds { max_backlog, max_dead, keeps_attempts: true })
    }

    /// All that is kept, but the log of attempts (a result that came too late is written there too) and how long
    /// something has been due.
    pub async fn books(&mut self) -> String {
        let mut state = self.state().await;
        for sub in state.subscriptions.values_mut() {
            sub.attempts.clear();
            sub.rt.remove("last");
        }
        for due in state.zsets.get_mut("due").into_iter().flat_map(|due| due.values_mut()) {
            *due = if *due > state.now as f64 { *due } else { 0.0 };
        }
        state.now = 0;
        state.attempts.clear();
        state.ttls.clear();
        let mut hashes: Vec<_> = state.hashes.drain().collect();
        let mut zsets: Vec<_> = state.zsets.drain().collect();
        hashes.sort();
        zsets.sort_by(|a, b| a.0.cmp(&b.0));
        format!("{state:#?}{hashes:#?}{zsets:#?}")
    }

    /// Runs a plain command on a key of the shard: the first word, the key, the rest.
    pub async fn tamper<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let key = format!("{KEYS}:{}", words[1]);
        let words: Vec<&str> = [&words[..1], &[&key], &words[2..]].concat();
        command(&mut self.connection, &words).await
    }
}

/// The whole expansion of an event, in one chunk.
pub fn whole(previous: StreamId, event: StreamId, targets: &[SubscriptionId]) -> Expansion {
    Expansion {
        previous,
        event,
        nonce: 0,
        event_type: "a.b".to_owned(),
        tenant: TENANT.to_owned(),
        size: BODY_BYTES,
        after: None,
        up_to: None,
        is_tracked: true,
        targets: targets.to_vec(),
    }
}

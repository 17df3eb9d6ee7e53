//! What is kept ages, what is left over is cleared, and nothing that is still owed goes with it.

use std::{sync::Arc, time::Duration};

use posthaste::{
    config::Durability,
    domain::{id::StreamId, outcome::Reason},
    janitor::{self, Settings},
    roles::Role,
    shutdown::Shutdown,
    streams::{AttemptFilter, ShardId},
};
use tokio::{sync::watch, task::JoinHandle};

use crate::support::{
    engine::{Engine, PATIENCE, new_event, quick_retry, wait_until},
    receiver::{Receiver, Reply},
    redis::TestRedis,
};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(300);

fn keep_all() -> Settings {
    Settings {
        events: LONG,
        events_max_bytes: None,
        attempts: LONG,
        attempts_max_bytes: None,
        dead_letters: LONG,
        max_age: LONG,
        durability: Durability::Relaxed,
        every: Duration::from_millis(50),
    }
}

/// A janitor that leads every shard; it ends with the value.
struct Janitor {
    task: JoinHandle<()>,
    _led: watch::Sender<Arc<[ShardId]>>,
}

impl Janitor {
    fn start(engine: &Engine, settings: Settings) -> Self {
        let (led, receiver) = watch::channel(Arc::from_iter(engine.streams.shards()));
        let task = tokio::spawn(janitor::run(engine.streams.clone(), settings, receiver, Shutdown::new()));
        Self { task, _led: led }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_attempts_go_when_they_are_old() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    let published = engine.publish("acme", "a.b", "1").await;
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    engine.wait_until_drained(webhook).await;
    let filter = AttemptFilter::default();
    let attempts = async || engine.streams.attempts_of(webhook, &filter, None, 10).await.expect("attempts").attempts;
    assert_eq!(attempts().await.len(), 1);

    let _janitor = Janitor::start(&engine, Settings { events: SHORT, attempts: SHORT, ..keep_all() });
    wait_until("the event is gone", async || engine.streams.event(published.id).await.expect("an answer").is_none())
        .await;
    // The attempt log is trimmed by whole nodes: the last one stays until it is full of what is old.
    for index in 0..200 {
        engine.publish("acme", "a.b", index.to_string()).await;
    }
    receiver.wait_for(|received| received.len() == 201, PATIENCE).await;
    wait_until("attempts are gone", async || {
        engine.streams.stream_length(published.id.shard, "attempts").await.expect("a length") < 201
    })
    .await;
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_below_its_bytes_and_keeps_what_is_still_owed() {
    const EVENTS: usize = 400;
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let mut engine = Engine::idle(&redis, &[]).await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    engine.run(Role::Dispatcher);
    let data = format!("\"{}\"", "x".repeat(2000));
    for _ in 0..EVENTS {
        engine.publish("acme", "a.b", data.clone()).await;
    }
    engine.wait_until_dispatched().await;
    let shard = engine.streams.shard_of("acme");
    let _janitor = Janitor::start(&engine, Settings { events_max_bytes: Some(200_000), ..keep_all() });
    wait_until("the log is small", async || {
        engine.streams.stream_bytes(shard, "events").await.expect("bytes") < 300_000
    })
    .await;
    engine.run(Role::Sender);
    receiver.wait_for(|received| received.len() == EVENTS, PATIENCE).await;
    engine.wait_until_drained(webhook).await;
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_is_followed_by_another_at_once_while_there_is_more_to_trim() {
    const EVENTS: usize = 3_000;
    let redis = TestRedis::start().await;
    let mut engine = Engine::idle(&redis, &[]).await;
    engine.run(Role::Dispatcher);
    let shard = engine.streams.shard_of("acme");
    let one_round = |settings: Settings| Settings { every: LONG, ..settings };
    let fill = async || {
        let mut submitted = Vec::new();
        for _ in 0..EVENTS {
            submitted.push(engine.publisher.submit(new_event("acme", "a.b", "1")).await.expect("a lane"));
        }
        for event in submitted {
            event.answer().await.expect("an event");
        }
        engine.wait_until_dispatched().await;
    };
    for settings in
        [Settings { events: Duration::ZERO, ..keep_all() }, Settings { events_max_bytes: Some(1), ..keep_all() }]
    {
        fill().await;
        let _janitor = Janitor::start(&engine, one_round(settings));
        wait_until("the log is empty", async || {
            engine.streams.stream_length(shard, "events").await.expect("a length") == 0
        })
        .await;
    }
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unreadable_somewhere_keeps_nothing_else_from_being_looked_after() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let mut engine = Engine::idle(&redis, &[]).await;
    let broken = engine.subscribe("acme", &receiver.url("/broken"), &["*"], |_| {}).await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    for id in [broken, webhook] {
        assert!(engine.streams.set_active(id, false).await.expect("an answer"));
    }
    engine.run(Role::Dispatcher);
    engine.publish("acme", "a.b", "1").await;
    engine.wait_until_dispatched().await;
    engine.stop(Role::Dispatcher).await;
    let mut connection = redis.connect().await;
    let mut set = async |key: String| {
        redis::cmd("SET").arg(key).arg("x").exec_async(&mut connection).await.expect("a key");
    };
    set(format!("posthaste:{{s{}}}:sub:{broken}", broken.shard)).await;
    for shard in engine.streams.shards() {
        set(format!("posthaste:{{s{shard}}}:attempts")).await;
    }
    let _janitor = Janitor::start(&engine, Settings { max_age: SHORT, ..keep_all() });
    for id in [broken, webhook] {
        wait_until("a dead letter", async || engine.dead_letters(id).await.len() == 1).await;
    }
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_go_when_they_are_old() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", vec![Reply::status(500); 3]);
    let engine = Engine::start(&redis).await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |s| s.retry = quick_retry(0)).await;
    for index in 0..3 {
        engine.publish("acme", "a.b", index.to_string()).await;
    }
    wait_until("three dead letters", async || engine.state(webhook).await.state.dead == 3).await;
    let _janitor = Janitor::start(&engine, Settings { dead_letters: SHORT, ..keep_all() });
    wait_until("no dead letters", async || engine.state(webhook).await.state.dead == 0).await;
    assert!(engine.dead_letters(webhook).await.is_empty());
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_too_long_for_a_paused_webhook_becomes_a_dead_letter() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let mut engine = Engine::idle(&redis, &[]).await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    assert!(engine.streams.set_active(webhook, false).await.expect("an answer"));
    engine.run(Role::Dispatcher);
    engine.publish("acme", "a.b", "1").await;
    engine.wait_until_dispatched().await;
    let _janitor = Janitor::start(&engine, Settings { max_age: SHORT, ..keep_all() });
    wait_until("a dead letter", async || engine.state(webhook).await.state.dead == 1).await;
    assert_eq!(engine.dead_letters(webhook).await[0].reason, Reason::MaxAge);
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_purge_of_a_deleted_webhook_goes_on_where_it_was_interrupted() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let mut engine = Engine::idle(&redis, &[]).await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    engine.run(Role::Dispatcher);
    for index in 0..500 {
        engine.publish("acme", "a.b", index.to_string()).await;
    }
    engine.wait_until_dispatched().await;
    assert!(engine.streams.delete_subscription(webhook).await.expect("an answer"));
    assert!(!engine.streams.purge(webhook).await.expect("an answer"), "one page of several");
    let _janitor = Janitor::start(&engine, keep_all());
    let shard = webhook.shard;
    wait_until("nothing is counted any more", async || {
        let now_ms = engine.streams.now_ms().await.expect("Redis' time");
        engine.streams.figures(shard, now_ms).await.expect("figures").counts.fresh == 0
    })
    .await;
    let (trimmed, kept) = engine.streams.trim_events(shard, StreamId::MAX).await.expect("an answer");
    assert_eq!((trimmed, kept), (50, 0), "no event is owed to anybody");
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_closes_before_redis_is_full_and_opens_again() {
    let redis = TestRedis::start().await;
    redis.fill().await;
    let engine = Engine::idle(&redis, &[]).await;
    let _janitor = Janitor::start(&engine, keep_all());
    let used = engine.streams.memory(&[0]).await.expect("memory")[0].used_bytes;
    let mut connection = redis.connect().await;
    let mut set_limit = async |bytes: u64| {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("maxmemory").arg(bytes);
        command.exec_async(&mut connection).await.expect("a limit");
    };
    set_limit(used * 110 / 100).await;
    wait_until("publishing is refused", async || {
        engine.publisher.publish(crate::support::engine::new_event("acme", "a.b", "1")).await.is_err()
    })
    .await;
    set_limit(used * 10).await;
    wait_until("publishing is allowed", async || {
        engine.publisher.publish(crate::support::engine::new_event("acme", "a.b", "1")).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_sealed_anew_so_that_a_key_that_was_replaced_can_go() {
    const KEY: &str = "POSTHASTE_SECRETS__KEY";
    let [old, new] = [b'o', b'n'].map(|byte| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, [byte; 32]));
    let redis = TestRedis::start().await;
    let before = Engine::idle(&redis, &[(KEY, &old)]).await;
    let id = before.subscribe("acme", "https://example.com/", &["*"], |_| ()).await;
    let was = before.state(id).await;

    let after = Engine::idle(&redis, &[(KEY, &new)]).await;
    assert!(after.streams.subscription(id).await.is_err(), "the new key alone does not open it yet");
    let both = Engine::idle(&redis, &[(KEY, &format!("{new},{old}"))]).await;
    let _janitor = Janitor::start(&both, keep_all());
    wait_until("the new key alone opens it", async || after.streams.subscription(id).await.is_ok()).await;
    let is = after.state(id).await;
    assert_eq!(is.subscription, was.subscription);
    assert!(is.version > was.version, "senders read it anew");
}

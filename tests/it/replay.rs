//! A range of the log, once more: for what went wrong, and as the backfill of a new webhook.

use std::time::{Duration, Instant};

use posthaste::{
    domain::id::{StreamId, SubscriptionId},
    roles::Role,
    streams::{Job, JobState},
};

use crate::support::{
    engine::{Engine, PATIENCE, wait_until},
    receiver::Receiver,
    redis::TestRedis,
};

fn job(webhook: SubscriptionId, pattern: Option<&str>, rate: Option<u32>) -> Job {
    Job {
        id: format!("{:08x}", rand::random::<u32>()),
        subscription: webhook,
        from: StreamId::ZERO,
        until: StreamId::MAX,
        pattern: pattern.map(str::to_owned),
        rate,
        cursor: StreamId::ZERO,
        queued: 0,
        state: JobState::Running,
    }
}

async fn wait_until_done(engine: &Engine, job: &Job) -> Job {
    let stored =
        async || engine.streams.job(job.subscription.shard, &job.id).await.expect("an answer").expect("a replay");
    wait_until("the replay is done", async || stored().await.state == JobState::Done).await;
    stored().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_webhook_is_filled_with_what_it_wants_of_the_past() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    for index in 0..300 {
        let event_type = ["message.created", "message.read", "contact.created"][index % 3];
        engine.publish("acme", event_type, index.to_string()).await;
    }
    engine.publish("globex", "message.created", "0").await;
    engine.wait_until_dispatched().await;
    let webhook = engine.subscribe("acme", &receiver.url("/new"), &["message.*"], |_| {}).await;
    let job = job(webhook, Some("message.created"), None);
    engine.streams.create_job(&job).await.expect("a replay");
    let done = wait_until_done(&engine, &job).await;
    assert_eq!(done.queued, 100);
    let received = receiver.wait_for(|received| received.len() == 100, PATIENCE).await;
    assert!(received.iter().all(|request| request.header("x-webhook-event") == Some("message.created")));
    engine.wait_until_drained(webhook).await;
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_to_a_webhook_that_had_the_event_is_another_delivery_of_the_same_event() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    engine.publish("acme", "a.b", "1").await;
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    let job = job(webhook, None, None);
    engine.streams.create_job(&job).await.expect("a replay");
    let received = receiver.wait_for(|received| received.len() == 2, PATIENCE).await;
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    assert_ne!(received[0].header("x-webhook-delivery"), received[1].header("x-webhook-delivery"));
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_keeps_its_rate_and_a_killed_one_goes_on_where_it_was() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let mut engine = Engine::start(&redis).await;
    for index in 0..60 {
        engine.publish("acme", "a.b", index.to_string()).await;
    }
    engine.wait_until_dispatched().await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    let job = job(webhook, None, Some(20));
    let started = Instant::now();
    engine.streams.create_job(&job).await.expect("a replay");
    receiver.wait_for(|received| received.len() >= 20, PATIENCE).await;
    engine.kill(Role::Dispatcher).await;
    engine.run(Role::Dispatcher);
    let done = wait_until_done(&engine, &job).await;
    assert_eq!(done.queued, 60);
    receiver.wait_for(|received| received.len() == 60, PATIENCE).await;
    assert!(started.elapsed() >= Duration::from_secs(2), "three batches of 20, a second apart");
    engine.wait_until_drained(webhook).await;
    engine.stop_all().await;
    assert_eq!(receiver.count(), 60);
}

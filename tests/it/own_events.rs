//! What tells a tenant how his endpoints do: the engine's own events, delivered like any other, and statistics.

use std::time::Duration;

use posthaste::{
    config::Config,
    domain::{
        address::AddressRules,
        event::DEAD_LETTERED,
        id::{StreamId, SubscriptionId},
        subscription::Status,
    },
    manage::{ManageError, Manager},
    streams::LogEntry,
};
use serde_json::Value;

use crate::support::{
    engine::{Engine, PATIENCE, quick_retry, wait_until},
    receiver::{Receiver, Reply},
    redis::TestRedis,
};

const DAY: Duration = Duration::from_secs(86_400);

/// The types of the tenant's events that are the engine's own, in the order of the log.
async fn told(engine: &Engine, tenant: &str) -> Vec<String> {
    let shard = engine.streams.shard_of(tenant);
    let page = engine.streams.log_page(shard, StreamId::ZERO, StreamId::MAX, 1_000).await.expect("the log");
    let events = page.into_iter().map(|entry| match entry {
        LogEntry::Event(event) => event,
        LogEntry::Unreadable(at) => panic!("{at} cannot be read"),
    });
    events
        .filter(|event| event.tenant == tenant)
        .map(|event| event.event_type)
        .filter(|t| t.starts_with("posthaste."))
        .collect()
}

/// The body of the first request for an event of this type.
fn body_of(receiver: &Receiver, path: &str, event_type: &str) -> Value {
    let received = receiver.received(path);
    let found = received.iter().find(|request| request.header("x-webhook-event") == Some(event_type));
    serde_json::from_slice(&found.unwrap_or_else(|| panic!("{path}: {received:?}")).body).expect("JSON")
}

async fn wait_for_status(engine: &Engine, webhook: SubscriptionId, wanted: Status) {
    wait_until("the status is as it should be", async || engine.state(webhook).await.state.status == wanted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_webhook_is_told_to_those_of_its_tenant_who_named_the_event() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/gone", [Reply::status(410)]);
    let engine = Engine::start(&redis).await;
    let gone = engine.subscribe("acme", &receiver.url("/gone"), &["a.b"], |_| {}).await;
    for (tenant, path, pattern) in [
        ("acme", "/exact", "posthaste.webhook.disabled"),
        ("acme", "/all-own", "posthaste.*"),
        ("acme", "/everything", "*"),
        ("acme", "/other", "posthaste.webhook.recovered"),
        ("globex", "/stranger", "posthaste.*"),
    ] {
        engine.subscribe(tenant, &receiver.url(path), &[pattern], |_| {}).await;
    }
    engine.publish("acme", "a.b", "1").await;
    wait_for_status(&engine, gone, Status::Disabled).await;
    receiver
        .wait_for(|all| ["/exact", "/all-own"].iter().all(|path| all.iter().any(|one| one.path == *path)), PATIENCE)
        .await;
    engine.wait_until_dispatched().await;
    for webhook in engine.webhooks().await.into_iter().filter(|webhook| *webhook != gone) {
        engine.wait_until_drained(webhook).await;
    }

    let body = body_of(&receiver, "/exact", "posthaste.webhook.disabled");
    assert_eq!(body["tenant"], "acme");
    assert_eq!((&body["data"]["webhook_id"], &body["data"]["reason"]), (&gone.to_string().into(), &"gone".into()));
    let dead = body_of(&receiver, "/all-own", DEAD_LETTERED);
    let of_gone = &receiver.received("/gone")[0];
    assert_eq!(dead["data"]["reason"], "gone");
    assert_eq!(dead["data"]["delivery_id"].as_str(), of_gone.header("x-webhook-delivery"));
    assert_eq!(dead["data"]["event_id"].as_str(), of_gone.header("webhook-id"));
    let counts = ["/exact", "/all-own", "/everything", "/other", "/stranger"].map(|path| receiver.received(path).len());
    assert_eq!(counts, [1, 2, 1, 0, 0], "the event itself goes to everything");
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_told_of_its_own_failures_and_fails_is_not_told_of_that() {
    for (status, expected) in [(500, vec![DEAD_LETTERED]), (410, vec![DEAD_LETTERED, "posthaste.webhook.disabled"])] {
        let redis = TestRedis::start().await;
        let receiver = Receiver::start().await;
        receiver.otherwise(move |_| Reply::status(status));
        let engine = Engine::start(&redis).await;
        let patterns = ["*", "posthaste.*"];
        let webhook = engine.subscribe("acme", &receiver.url("/"), &patterns, |s| s.retry = quick_retry(0)).await;
        engine.publish("acme", "a.b", "1").await;
        let deliveries = 1 + expected.len();
        // One that is disabled is resumed, to get what tells of it, as often as it takes.
        wait_until("everything is a dead letter", async || {
            engine.streams.set_active(webhook, true).await.expect("an answer");
            engine.dead_letters(webhook).await.len() == deliveries
        })
        .await;
        engine.wait_until_dispatched().await;
        engine.wait_until_drained(webhook).await;
        assert_eq!(told(&engine, "acme").await, expected, "{status}");
        assert_eq!(engine.dead_letters(webhook).await.len(), deliveries, "{status}");
        engine.stop_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_statistics_of_a_webhook_are_those_of_its_attempts() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::status(200), Reply::status(404), Reply::close(), Reply::status(503)]);
    let engine = Engine::start(&redis).await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |s| s.retry = quick_retry(2)).await;
    for number in 1..3 {
        engine.publish("acme", "a.b", number.to_string()).await;
        engine.wait_until_dispatched().await;
        engine.wait_until_drained(webhook).await;
    }
    let config = Config::load(None, [], None).expect("the defaults");
    let manager = Manager::new(engine.streams.clone(), &config, AddressRules::default());
    let id = webhook.to_string();
    let stats = manager.webhook_stats("acme", &id, DAY).await.expect("statistics");
    assert_eq!(stats.window.classes, [1, 0, 1, 0, 1, 1]);
    assert_eq!((stats.window.success_rate(), stats.window.dead), (Some(0.25), 1));
    assert_eq!((stats.state.delivered, stats.state.failed, stats.state.fresh), (1, 1, 0));
    assert!(stats.window.average_ms().is_some_and(|ms| ms > 0.0));
    assert_eq!(stats.hours.len(), 24);
    assert!(stats.hours.windows(2).all(|pair| pair[0].0 + 3_600_000 == pair[1].0));

    let refused = manager.webhook_stats("acme", &id, Duration::from_secs(5_400)).await;
    assert!(matches!(refused, Err(ManageError::Invalid(invalid)) if invalid.field == "window"));
    let not_theirs = manager.webhook_stats("globex", &id, DAY).await;
    assert!(matches!(not_theirs, Err(ManageError::NotFound("webhook"))));
    engine.stop_all().await;
}

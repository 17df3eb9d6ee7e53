//! `explain`: why each webhook got an event or did not, and what came of it.

use posthaste::{domain::event::NewEvent, roles::Role};
use serde_json::{Value, json};

use crate::support::{
    engine::{Engine, PATIENCE, quick_retry, wait_until},
    program::Program,
    receiver::{Receiver, Reply},
    redis::TestRedis,
};

async fn explain(program: &Program, event: &str) -> Value {
    program.run(&["explain", event, "--tenant", "acme", "--json"]).await.json()
}

/// What is said of a webhook among those that got the event, or those that did not.
fn decision<'v>(explanation: &'v Value, list: &str, webhook: &str) -> &'v Value {
    let decisions = explanation[list].as_array().unwrap();
    let found = decisions.iter().find(|decision| decision["webhook_id"] == webhook);
    found.unwrap_or_else(|| panic!("{webhook} in {list} of {explanation:#}"))
}

#[tokio::test]
async fn every_webhook_is_told_of_with_the_rule_and_every_attempt() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/flaky", [Reply::status(500)]);
    let engine = Engine::start(&redis).await;
    let exact = engine.subscribe("acme", &receiver.url("/exact"), &["mail.*", "order.paid"], |_| ()).await.to_string();
    let flaky = engine.subscribe("acme", &receiver.url("/flaky"), &["order.*"], |_| ()).await.to_string();
    let other = engine.subscribe("acme", &receiver.url("/other"), &["mail.*", "call.*"], |_| ()).await.to_string();
    engine.subscribe("globex", &receiver.url("/globex"), &["*"], |_| ()).await;
    let id = engine.publish("acme", "order.paid", "1").await.id.to_string();
    for webhook in engine.webhooks().await {
        engine.wait_until_dispatched().await;
        engine.wait_until_drained(webhook).await;
    }
    let later = engine.subscribe("acme", &receiver.url("/later"), &["*"], |_| ()).await.to_string();
    let deleted = engine.subscribe("acme", &receiver.url("/deleted"), &["gone.*"], |_| ()).await;
    let gone = engine.publish("acme", "gone.soon", "1").await.id.to_string();
    engine.wait_until_dispatched().await;
    engine.wait_until_drained(deleted).await;
    assert!(engine.streams.delete_subscription(deleted).await.unwrap());
    engine.streams.purge(deleted).await.unwrap();

    let program = Program::on(&redis);
    let explained = explain(&program, &id).await;
    assert_eq!((&explained["event"]["id"], &explained["is_dispatched"]), (&json!(id), &json!(true)));
    assert_eq!((&explained["wanted_total"], &explained["unwanted_total"]), (&json!(2), &json!(2)));
    assert_eq!(decision(&explained, "wanted", &exact)["rule"], "order.paid");
    let retried = decision(&explained, "wanted", &flaky);
    let attempts = retried["deliveries"][0]["attempt_log"].as_array().unwrap();
    let statuses: Vec<_> = attempts.iter().map(|attempt| attempt["response_status"].clone()).collect();
    assert_eq!((&retried["rule"], json!(statuses)), (&json!("order.*"), json!([500, 200])));
    assert_eq!(decision(&explained, "unwanted", &other)["why"], "none of its filters matches: mail.*, call.*");
    let missed = decision(&explained, "unwanted", &later);
    assert!(missed["why"].as_str().unwrap().starts_with("it was created after the event was published"), "{missed}");

    let explained = explain(&program, &gone).await;
    let was = decision(&explained, "wanted", &deleted.to_string());
    assert_eq!((&was["why"], &was["url"]), (&json!("it was deleted since"), &Value::Null));
    assert_eq!(decision(&explained, "wanted", &later)["rule"], "*");

    assert!(engine.streams.set_active(flaky.parse().unwrap(), false).await.unwrap());
    assert_eq!(decision(&explain(&program, &id).await, "wanted", &flaky)["status"], "paused");
    let text = program.run(&["explain", &id, "--tenant", "acme"]).await.done();
    assert!(text.contains("/flaky  (paused)\n"), "{text}");
    assert!(text.contains("\n2 webhooks got it, 2 did not\n"), "{text}");
    assert!(
        text.contains("  wanted: its filter `order.*` matches\n") && text.contains("delivered after 2 attempts"),
        "{text}"
    );
    program.run(&["explain", &id]).await.refused(1, "there is no such event");
    engine.stop_all().await;
}

#[tokio::test]
async fn an_event_that_waits_says_for_what() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(|_| Reply::status(500));
    let mut engine = Engine::idle(&redis, &[]).await;
    let webhook = engine
        .subscribe("acme", &receiver.url("/"), &["*"], |webhook| {
            webhook.retry = quick_retry(3);
            webhook.retry.policy =
                posthaste::domain::retry::RetryPolicy::Schedule { delays_ms: vec![3_600_000], jitter: 0.0 };
        })
        .await;
    let alone = engine.subscribe("acme", "https://example.com/", &["never"], |_| ()).await;
    let event = NewEvent {
        tenant: "acme".into(),
        event_type: "ingested".into(),
        data: "1".into(),
        only_for: Some(alone),
        ..Default::default()
    };
    let only = engine.publisher.publish(event).await.unwrap().id.to_string();
    let id = engine.publish("acme", "order.paid", "1").await.id.to_string();
    let late = engine.subscribe("acme", "https://example.com/", &["*"], |_| ()).await.to_string();
    let program = Program::on(&redis);
    let explained = explain(&program, &id).await;
    assert_eq!(explained["is_dispatched"], json!(false));
    // Whoever dispatches it may know of one that is newer than the event, or not.
    assert_eq!((&explained["unknown_total"], &explained["unwanted_total"]), (&json!(1), &json!(1)));
    decision(&explained, "unknown", &late);
    let waiting = decision(&explained, "wanted", &webhook.to_string());
    assert_eq!((&waiting["rule"], &waiting["deliveries"]), (&json!("*"), &json!([])));
    let explained = explain(&program, &only).await;
    assert_eq!(decision(&explained, "wanted", &alone.to_string())["why"], "the event was published for it alone");
    let why = format!("the event was published for {alone} alone");
    assert_eq!(decision(&explained, "unwanted", &webhook.to_string())["why"], why);

    engine.run(Role::Dispatcher);
    engine.run(Role::Sender);
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    wait_until("the attempt is noted", async || {
        explain(&program, &id).await["wanted"][0]["deliveries"][0]["status"] == "failed"
    })
    .await;
    let explained = explain(&program, &id).await;
    let delivery = &decision(&explained, "wanted", &webhook.to_string())["deliveries"][0];
    assert!(delivery["next_attempt_at"].is_string(), "{delivery}");
    engine.stop_all().await;
}

#[tokio::test]
async fn of_an_event_for_very_many_those_that_wait_are_found_where_they_wait() {
    const TARGETS: u64 = 1_001;
    let redis = TestRedis::start().await;
    let mut engine = Engine::idle(&redis, &[]).await;
    let mut targets = Vec::new();
    for _ in 0..TARGETS {
        targets.push(engine.subscribe("acme", "https://example.com/", &["order.*"], |_| ()).await);
    }
    let id = engine.publish("acme", "order.paid", "1").await.id.to_string();
    engine.run(Role::Dispatcher);
    engine.wait_until_dispatched().await;
    let later = engine.subscribe("acme", "https://example.com/", &["*"], |_| ()).await.to_string();
    let changed = engine.streams.subscription(targets[0]).await.unwrap().unwrap();
    let version = changed.version;
    let mut changed = changed.subscription;
    changed.events = vec!["mail.*".parse().unwrap()];
    engine.streams.update_subscription(&changed, version, false).await.unwrap().expect("a change");

    let explained = explain(&Program::on(&redis), &id).await;
    assert_eq!((&explained["wanted_total"], &explained["unwanted_total"]), (&json!(TARGETS), &json!(1)));
    assert_eq!(explained["wanted"].as_array().unwrap().len(), 100);
    let waiting = decision(&explained, "wanted", &targets[0].to_string());
    assert_eq!((&waiting["rule"], &waiting["deliveries"][0]["status"]), (&Value::Null, &json!("pending")));
    let waiting = decision(&explained, "wanted", &targets[1].to_string());
    assert_eq!((&waiting["rule"], &waiting["deliveries"][0]["status"]), (&json!("order.*"), &json!("pending")));
    let missed = decision(&explained, "unwanted", &later);
    assert!(missed["why"].as_str().unwrap().starts_with("it was created after"), "{missed}");
    engine.stop_all().await;
}

//! A test send asks an endpoint at once, shows what it did, and leaves everything else as it was.

use std::time::{Duration, UNIX_EPOCH};

use posthaste::{
    config::Config,
    domain::{
        address::AddressRules,
        attempt::{Answer, Attempt, FailureKind},
        id::SubscriptionId,
        signature::verify,
        subscription::{PayloadFormat, Subscription},
    },
    manage::{ManageError, Manager},
    send::post::{Post, PostConfig},
    streams::Streams,
    test_send::{PING, TestSender},
};
use serde_json::Value;

use crate::support::{
    engine::{PATIENCE, SECRET},
    queue::Queue,
    receiver::{Receiver, Reply},
    samples::{TENANT, subscription},
};

fn sender(streams: &Streams, allow: &[&str]) -> TestSender {
    let config = Config::load(None, vec![], None).unwrap();
    let allow_cidrs = allow.iter().map(|network| network.parse().unwrap()).collect();
    let rules = AddressRules { require_https: false, allow_cidrs, ..AddressRules::default() };
    let manager = Manager::new(streams.clone(), &config, rules.clone());
    let settings = PostConfig { rules, response_keep_bytes: 4096, ca_file: None, max_idle_per_host: 4, proxy: None };
    TestSender::new(streams.clone(), manager, Post::new(settings).unwrap())
}

/// A webhook that points to the receiver and wants nothing that a test sends.
async fn webhook(queue: &Queue, url: String, change: impl FnOnce(&mut Subscription)) -> SubscriptionId {
    let mut webhook = Subscription { url, events: vec!["order.paid".parse().unwrap()], ..subscription(1) };
    webhook.secrets.current = SECRET.to_owned();
    webhook.headers = [("X-Env".to_owned(), "prod".to_owned())].into();
    change(&mut webhook);
    queue.create(webhook).await
}

/// What the log has of a webhook.
async fn logged(queue: &Queue, id: SubscriptionId) -> Vec<Attempt> {
    let page = queue.streams.attempts_of(id, &Default::default(), None, 10).await.unwrap();
    page.attempts.into_iter().map(|(_, attempt)| attempt).collect()
}

fn failure_kind(attempt: &Attempt) -> FailureKind {
    match &attempt.answer {
        Answer::Failure(failure) => failure.kind,
        Answer::Response(response) => panic!("{response:?}"),
    }
}

#[tokio::test]
async fn a_ping_arrives_signed_past_filters_and_queue_and_is_logged_as_a_test() {
    let mut queue = Queue::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::body("thanks")]);
    let id = webhook(&queue, receiver.url("/hook"), |_| {}).await;
    queue.streams.set_active(id, false).await.unwrap();
    let before = queue.books().await;
    let sender = sender(&queue.streams, &["127.0.0.0/8"]);
    let (place, attempt) = sender.send(TENANT, &id.to_string(), PING, None).await.unwrap();

    assert!(attempt.is_success() && attempt.is_test && attempt.timings.first_byte.is_some(), "{attempt:?}");
    let request = receiver.received("/hook").remove(0);
    let now_s = request.at_system.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let schemes = verify(SECRET, |name| request.header(name), &request.body, now_s, 300);
    assert!(schemes.len() == 3 && schemes.iter().all(|scheme| scheme.result.is_ok()), "{schemes:?}");
    assert_eq!((request.header("x-webhook-event"), request.header("x-env")), (Some(PING), Some("prod")));
    assert_eq!(request.header("x-webhook-attempt"), Some("1"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!((&body["type"], &body["tenant"]), (&Value::from(PING), &Value::from(TENANT)));
    assert!(body["data"]["message"].is_string(), "{body}");
    assert_eq!(body["id"], request.header("webhook-id").unwrap());

    assert_eq!(queue.books().await, before, "nothing but the log has changed");
    assert_eq!(logged(&queue, id).await, [attempt]);
    let found = queue.streams.attempts(id.shard, &[place.unwrap().at]).await.unwrap();
    assert!(found[0].1.is_test);
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn data_of_the_callers_own_are_sent_in_the_webhooks_format() {
    let queue = Queue::start().await;
    let receiver = Receiver::start().await;
    let id = webhook(&queue, receiver.url("/raw"), |webhook| webhook.payload_format = PayloadFormat::Raw).await;
    let sender = sender(&queue.streams, &["127.0.0.0/8"]);
    sender.send(TENANT, &id.to_string(), "message.created", Some("[ 1,\t2 ]".into())).await.unwrap();
    let request = receiver.received("/raw").remove(0);
    assert_eq!((&request.body[..], request.header("x-event-type")), (&b"[ 1,\t2 ]"[..], Some("message.created")));
}

#[tokio::test]
async fn a_test_that_succeeds_lets_go_on_what_failures_hold_back_and_one_that_fails_changes_nothing() {
    let mut queue = Queue::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::status(500), Reply::status(410), Reply::status(204)]);
    let id = webhook(&queue, receiver.url("/hook"), |_| {}).await;
    queue.deliver(3, &[id]).await;
    let hold = (queue.streams.now_ms().await.unwrap() + 200_000).to_string();
    let (rt, id_text) = (format!("rt:{id}"), id.to_string());
    queue.tamper::<()>(&["HSET", &rt, "cf", "9", "cfat", "1", "hold", &hold]).await;
    queue.tamper::<()>(&["ZADD", "due", &hold, &id_text]).await;
    let before = queue.books().await;

    let sender = sender(&queue.streams, &["127.0.0.0/8"]);
    for _ in 0..2 {
        assert!(!sender.send(TENANT, &id_text, PING, None).await.unwrap().1.is_success());
        assert_eq!(queue.books().await, before);
        assert!(queue.lease(10).await.is_empty());
    }
    assert!(sender.send(TENANT, &id_text, PING, None).await.unwrap().1.is_success());
    let state = queue.state().await;
    let cleared = ["cf", "cfat", "hold"].map(|field| state.subscriptions[&id_text].number(field));
    assert_eq!(cleared, [0, 0, 0]);
    assert_eq!(queue.lease(10).await.len(), 3);
    assert_eq!(logged(&queue, id).await.len(), 3);
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn what_goes_wrong_is_told_and_logged() {
    let queue = Queue::start().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(|_| Reply::hang());
    let id = webhook(&queue, receiver.url("/hang"), |webhook| webhook.timeout_seconds = 1).await;
    let id_text = id.to_string();
    let hung = sender(&queue.streams, &["127.0.0.0/8"]).send(TENANT, &id_text, PING, None).await.unwrap().1;
    assert_eq!(failure_kind(&hung), FailureKind::Timeout);
    assert!(hung.response_time_ms >= 1_000.0, "{hung:?}");

    let blocked = sender(&queue.streams, &[]).send(TENANT, &id_text, PING, None).await.unwrap().1;
    assert_eq!(failure_kind(&blocked), FailureKind::BlockedAddress);
    assert_eq!(receiver.count(), 1);
    assert_eq!(logged(&queue, id).await, [blocked, hung]);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_by_its_field() {
    let queue = Queue::start().await;
    let receiver = Receiver::start().await;
    let id = webhook(&queue, receiver.url("/hook"), |_| {}).await.to_string();
    let sender = sender(&queue.streams, &["127.0.0.0/8"]);
    for (tenant, webhook, event_type, data, expected) in [
        ("globex", id.as_str(), PING, "1", "there is no such webhook"),
        (TENANT, "wh_1", PING, "1", "there is no such webhook"),
        (TENANT, &id, "a b", "1", "type: "),
        (TENANT, &id, PING, "{", "data: "),
    ] {
        let refused = sender.send(tenant, webhook, event_type, Some(data.into())).await.unwrap_err();
        let is_known = matches!(refused, ManageError::NotFound(_) | ManageError::Invalid(_));
        assert!(is_known && refused.to_string().starts_with(expected), "{refused:?}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_is_answered_though_redis_goes_away_meanwhile() {
    let mut queue = Queue::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::status(200).after(Duration::from_secs(1))]);
    let id = webhook(&queue, receiver.url("/hook"), |_| {}).await.to_string();
    let sender = sender(&queue.streams, &["127.0.0.0/8"]);
    let sending = tokio::spawn(async move { sender.send(TENANT, &id, PING, None).await });
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    queue.redis.kill();
    let (place, attempt) = sending.await.unwrap().unwrap();
    assert_eq!((place, attempt.status()), (None, Some(200)));
}

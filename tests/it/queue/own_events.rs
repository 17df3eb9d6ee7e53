//! The engine's own events: what makes one, what is in it, and that none is made by a delivery of another.

use std::time::Duration;

use posthaste::{
    domain::{
        event::DEAD_LETTERED,
        id::{DeliveryId, EventId, StreamId, SubscriptionId},
        outcome::Reason,
        subscription::Subscription,
    },
    streams::{Ending, Expansion, Lease, Limits},
};
use serde_json::{Value, json};

use crate::support::{
    queue::{Queue, SHARD, whole},
    samples::{Facts, TENANT, Verdict, settled, subscription},
    state::command,
};

const SOON: Verdict = Verdict::Retry { delay_ms: 1, retry_after_ms: None };
const DISABLED: &str = "posthaste.webhook.disabled";
const RECOVERED: &str = "posthaste.webhook.recovered";

/// The engine's own events in the log, oldest first: type and data.
async fn told(queue: &mut Queue) -> Vec<(String, Value)> {
    let state = queue.state().await;
    let own = state.events.values().filter(|fields| fields["t"].starts_with("posthaste."));
    own.map(|fields| {
        assert_eq!(fields["tn"], TENANT);
        (fields["t"].clone(), serde_json::from_str(&fields["b"]).unwrap())
    })
    .collect()
}

fn types(told: &[(String, Value)]) -> Vec<&str> {
    told.iter().map(|(event_type, _)| event_type.as_str()).collect()
}

/// One that wants the engine's own events.
fn watcher(number: u64) -> Subscription {
    Subscription { events: vec!["posthaste.*".parse().unwrap()], ..subscription(number) }
}

async fn settle_as(queue: &mut Queue, verdict: Verdict, event_type: &str) {
    let lease = queue.lease_one().await;
    settle_one(queue, &lease, verdict, event_type).await;
}

async fn settle_one(queue: &mut Queue, lease: &Lease, verdict: Verdict, event_type: &str) {
    let bytes = queue.state().await.bodies[&lease.event].1 as usize;
    let facts = Facts { event_type: event_type.to_owned(), bytes, ..Facts::default() };
    queue.streams.settle(SHARD, &[settled(lease, verdict, &facts)]).await.unwrap();
}

/// Puts the engine's own events that wait in the log on the delivery stream of `target`.
async fn deliver_own(queue: &mut Queue, target: SubscriptionId) -> usize {
    let undone = queue.undone().await;
    let bodies = queue.state().await.bodies;
    for (previous, event) in &undone {
        let size = bodies[event].1 as usize;
        let chunk = Expansion { event_type: DEAD_LETTERED.to_owned(), size, ..whole(*previous, *event, &[target]) };
        queue.streams.expand(SHARD, &[chunk]).await.unwrap();
    }
    undone.len()
}

#[tokio::test]
async fn ids_are_written_by_scripts_as_everywhere_else() {
    let mut queue = Queue::start().await;
    let common = include_str!("../../../streams/common.lua");
    let references = include_str!("../../../streams/references.lua");
    let dead_letters = include_str!("../../../streams/dead_letters.lua");
    let script = format!(
        "#!lua\nlocal arguments = ARGV\n{common}\n{references}\n{dead_letters}\nreturn {{ eventId(arguments[1], arguments[2], arguments[3]), deliveryId(arguments[1], arguments[2], arguments[4]) }}"
    );
    let edges = [(0, 0, 0, 0, 0, 0), ((1 << 48) - 1, u32::MAX, u16::MAX, u64::MAX, u32::MAX, u16::MAX)];
    let random = || {
        let ms = rand::random::<u64>() >> 16;
        (ms, rand::random(), rand::random(), rand::random(), rand::random(), rand::random())
    };
    for (ms, seq, shard, random, nonce, copy) in edges.into_iter().chain((0..100).map(|_| random())) {
        let (event, subscription) = (StreamId { ms, seq: seq.into() }, SubscriptionId { ms, shard, random });
        let words = [event.to_string(), subscription.to_string(), nonce.to_string(), copy.to_string()];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let start = ["EVAL", script.as_str(), "1", "q:{s0}:due"];
        let written: Vec<String> = command(&mut queue.connection, &[&start[..], &words[..]].concat()).await;
        let expected =
            [EventId { at: event, shard, nonce }.to_string(), DeliveryId { event, subscription, copy }.to_string()];
        assert_eq!(written, expected);
    }
}

#[tokio::test]
async fn a_dead_letter_is_told_of_once_where_somebody_wants_to_know() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    settle_as(&mut queue, Verdict::Exhausted, "a.b").await;
    assert!(told(&mut queue).await.is_empty(), "nobody wants to know");

    let watcher = queue.create(watcher(2)).await;
    let event = queue.deliver(1, &[id]).await[0];
    let lease = queue.lease_one().await;
    for _ in 0..2 {
        let mut exhausted = settled(&lease, Verdict::Exhausted, &Facts::default());
        if let Ending::Attempted { attempt, .. } = &mut exhausted.ending {
            attempt.event = event;
        }
        queue.streams.settle(SHARD, &[exhausted]).await.unwrap();
    }
    let expected = json!({
        "delivery_id": lease.delivery().to_string(), "webhook_id": id.to_string(), "event_id": event.to_string(),
        "event_type": "a.b", "reason": "exhausted", "attempts": 1, "last_status": 500, "last_error": null,
    });
    assert_eq!(told(&mut queue).await, [(DEAD_LETTERED.to_owned(), expected)]);
    assert_eq!(queue.violations().await, [""; 0]);

    assert!(queue.streams.delete_subscription(watcher).await.unwrap());
    queue.deliver(1, &[id]).await;
    settle_as(&mut queue, Verdict::Exhausted, "a.b").await;
    assert_eq!(told(&mut queue).await.len(), 1, "nobody wants to know any more");
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn dead_letters_that_no_attempt_made_are_told_of_with_all_that_is_known() {
    let mut queue =
        Queue::with(Limits { max_backlog: 2, max_dead: 1, disable_after: Duration::from_secs(3_600) }).await;
    let (id, _) = (queue.create(subscription(1)).await, queue.create(watcher(2)).await);
    let events = queue.deliver(3, &[id]).await;
    // Its event has left the log, and is kept beside it.
    queue.streams.trim_events(SHARD, events[1].at).await.unwrap();
    for _ in 0..7 {
        queue.lease(1).await;
        queue.lose_leases().await;
    }
    queue.streams.drop_backlog(id, StreamId::MAX, Reason::MaxAge, "too old", StreamId::ZERO).await.unwrap();
    let told = told(&mut queue).await;
    let shown: Vec<_> = told.iter().map(|(_, data)| (&data["reason"], &data["event_id"], &data["attempts"])).collect();
    let [first, second, third] = [0, 1, 2].map(|index: usize| json!(events[index].to_string()));
    let (overflow, lost, old) = (json!("overflow"), json!("lease_lost"), json!("max_age"));
    let (none, one) = (json!(0), json!(1));
    assert_eq!(shown[..2], [(&overflow, &third, &none), (&lost, &first, &one)]);
    assert_eq!((shown[2].0, shown[2].1), (&old, &second));
    assert_eq!(told[2].1["last_error"], "too old");
    assert_eq!((told.len(), types(&told)), (3, vec![DEAD_LETTERED; 3]));
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn a_delivery_of_an_own_event_makes_none_whatever_becomes_of_it() {
    let mut queue = Queue::start().await;
    let (id, watcher) = (queue.create(subscription(1)).await, queue.create(watcher(2)).await);
    queue.deliver(2, &[id]).await;
    for lease in queue.lease(2).await {
        queue.settle(&[(&lease, Verdict::Exhausted)]).await;
    }
    assert_eq!(deliver_own(&mut queue, watcher).await, 2);
    settle_as_each(&mut queue, [Verdict::Exhausted, Verdict::Gone]).await;
    assert_eq!(deliver_own(&mut queue, watcher).await, 0);
    let state = queue.streams.subscription(watcher).await.unwrap().unwrap().state;
    assert_eq!((state.dead, state.disabled_reason.map(|reason| reason.name())), (2, Some("gone")));
    assert_eq!(told(&mut queue).await.len(), 2);
    assert_eq!(queue.violations().await, [""; 0]);
}

async fn settle_as_each(queue: &mut Queue, verdicts: [Verdict; 2]) {
    let leases = queue.lease(2).await;
    assert_eq!(leases.len(), 2);
    for (lease, verdict) in leases.iter().zip(verdicts) {
        settle_one(queue, lease, verdict, DEAD_LETTERED).await;
    }
}

#[tokio::test]
async fn a_disabled_webhook_is_told_of_once_and_its_recovery_after_it_was_resumed() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(3, &[id]).await;
    let leases = queue.lease(3).await;
    for lease in &leases[..2] {
        queue.settle(&[(lease, Verdict::Gone)]).await;
    }
    // One that was under way says nothing about an endpoint that is disabled.
    queue.settle(&[(&leases[2], Verdict::Delivered)]).await;
    let told_once = told(&mut queue).await;
    assert_eq!(types(&told_once), [DISABLED]);
    let state = queue.state().await;
    let event = state.events.values().last().unwrap();
    assert_eq!(event["v"], state.hash("cfgv")[TENANT], "whoever dispatches it knows of the change");
    let at = told_once[0].1["disabled_at_ms"].as_u64().unwrap();
    assert_eq!(told_once[0].1, json!({"webhook_id": id.to_string(), "reason": "gone", "disabled_at_ms": at}));
    assert!(at.abs_diff(queue.streams.now_ms().await.unwrap()) < 30_000);

    assert!(queue.streams.set_active(id, true).await.unwrap());
    for _ in 0..2 {
        queue.deliver(1, &[id]).await;
        settle_as(&mut queue, Verdict::Delivered, "a.b").await;
    }
    let told_twice = told(&mut queue).await;
    assert_eq!(types(&told_twice), [DISABLED, RECOVERED]);
    assert_eq!(told_twice[1].1["failing_since_ms"], at);
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn a_recovery_is_told_of_when_the_breaker_had_opened() {
    let mut queue = Queue::start().await;
    let id = queue.create(Subscription { max_concurrency: 1, ..subscription(1) }).await;
    queue.deliver(3, &[id]).await;
    // Failures that did not open it are nobody's business.
    for verdict in [SOON, Verdict::Delivered] {
        settle_as(&mut queue, verdict, "a.b").await;
        queue.elapse(3_000).await;
    }
    assert!(told(&mut queue).await.is_empty());
    for _ in 0..5 {
        settle_as(&mut queue, SOON, "a.b").await;
        queue.elapse(3_000).await;
    }
    assert!(queue.state().await.subscriptions[&id.to_string()].number("hold") > 0);
    settle_as(&mut queue, Verdict::Delivered, "posthaste.webhook.disabled").await;
    assert!(told(&mut queue).await.is_empty(), "a delivery of an own event makes none");
    settle_as(&mut queue, Verdict::Delivered, "a.b").await;
    let told = told(&mut queue).await;
    assert_eq!(types(&told), [RECOVERED]);
    let (since, at) = (&told[0].1["failing_since_ms"], &told[0].1["recovered_at_ms"]);
    // Time that has elapsed in a test has not passed.
    assert!(at.as_u64().unwrap() - since.as_u64().unwrap() >= 10_000, "{told:?}");
    assert_eq!(queue.violations().await, [""; 0]);
}

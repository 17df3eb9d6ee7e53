//! What is killed loses nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use posthaste::{domain::id::EventId, publish::Published, roles::Role};
use tokio::task::JoinSet;

use crate::support::{
    engine::{Engine, PATIENCE, new_event, quick_retry, wait_until},
    receiver::{Receiver, Reply},
    redis::TestRedis,
};

const EVENTS: usize = 300;
const WEBHOOKS: usize = 3;
/// Requests under way at once in a sender.
const IN_FLIGHT: usize = 16;
/// Requests answered before its kill.
const ANSWERED: usize = 20;

/// Publishes on its own until told to stop; says what was accepted.
struct Load {
    publishing: JoinSet<Vec<EventId>>,
}

impl Load {
    fn start(engine: &Engine, events: usize) -> Self {
        let mut publishing = JoinSet::new();
        for lane in 0..4 {
            let publisher = engine.publisher.clone();
            publishing.spawn(async move {
                let mut accepted = Vec::new();
                for index in 0..events / 4 {
                    let event = new_event("acme", "a.b", format!("\"{lane}-{index}\""));
                    // What is not accepted is not owed.
                    if let Ok(Published { id, .. }) = publisher.publish(event).await {
                        accepted.push(id);
                    }
                    tokio::task::yield_now().await;
                }
                accepted
            });
        }
        Self { publishing }
    }

    async fn accepted(self) -> Vec<EventId> {
        self.publishing.join_all().await.concat()
    }
}

/// How often each webhook was sent each event.
fn sent(receiver: &Receiver) -> HashMap<(String, String), usize> {
    let mut sent = HashMap::new();
    for path in (0..WEBHOOKS).map(|index| format!("/{index}")) {
        for request in receiver.received(&path) {
            let id = request.header("webhook-id").expect("an id").to_owned();
            *sent.entry((path.clone(), id)).or_default() += 1;
        }
    }
    sent
}

/// Waits until each accepted event was sent to each webhook and nothing is left to do; says how many requests were more than
/// that.
async fn wait_until_all_arrived(engine: &Engine, receiver: &Receiver, accepted: &[EventId]) -> usize {
    let owed: HashSet<(String, String)> =
        accepted.iter().flat_map(|id| (0..WEBHOOKS).map(move |index| (format!("/{index}"), id.to_string()))).collect();
    wait_until("every accepted event has arrived everywhere", async || {
        let sent = sent(receiver);
        owed.iter().all(|pair| sent.contains_key(pair))
    })
    .await;
    for webhook in engine.webhooks().await {
        engine.wait_until_drained(webhook).await;
    }
    sent(receiver).values().map(|count| count - 1).sum()
}

async fn start(redis: &TestRedis, receiver: &Receiver) -> Engine {
    let in_flight = IN_FLIGHT.to_string();
    let engine = Engine::with_settings(redis, &[("POSTHASTE_DELIVERY__MAX_IN_FLIGHT", &in_flight)]).await;
    for index in 0..WEBHOOKS {
        let url = receiver.url(&format!("/{index}"));
        engine.subscribe("acme", &url, &["*"], |s| s.retry = quick_retry(50)).await;
    }
    engine
}

async fn wait_for_requests(receiver: &Receiver, count: usize) {
    receiver.wait_for(|received| received.len() >= count, PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sender_loses_nothing_and_repeats_at_most_what_was_in_flight() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    // All that come past the first few are under way until it is killed.
    let (count, is_killed) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let killed = is_killed.clone();
    receiver.otherwise(move |_| match killed.load(SeqCst) || count.fetch_add(1, SeqCst) < ANSWERED {
        true => Reply::status(200),
        false => Reply::hang(),
    });
    let mut engine = start(&redis, &receiver).await;
    let load = Load::start(&engine, EVENTS);
    wait_for_requests(&receiver, ANSWERED + IN_FLIGHT).await;
    engine.kill(Role::Sender).await;
    is_killed.store(true, SeqCst);
    engine.run(Role::Sender);
    let accepted = load.accepted().await;
    assert_eq!(accepted.len(), EVENTS);
    let repeated = wait_until_all_arrived(&engine, &receiver, &accepted).await;
    assert!((1..=IN_FLIGHT).contains(&repeated), "{repeated} repeated");
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_dispatcher_loses_and_repeats_nothing() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let mut engine = start(&redis, &receiver).await;
    let load = Load::start(&engine, EVENTS);
    wait_for_requests(&receiver, 20).await;
    engine.kill(Role::Dispatcher).await;
    engine.run(Role::Dispatcher);
    let accepted = load.accepted().await;
    let repeated = wait_until_all_arrived(&engine, &receiver, &accepted).await;
    assert_eq!(repeated, 0);
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_loses_nothing_that_was_accepted() {
    let mut redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = start(&redis, &receiver).await;
    let load = Load::start(&engine, EVENTS);
    for kill in 1..=3 {
        wait_for_requests(&receiver, kill * 60).await;
        redis.kill();
        redis.restart().await;
    }
    let accepted = load.accepted().await;
    let repeated = wait_until_all_arrived(&engine, &receiver, &accepted).await;
    // What was in flight at a kill, and results that were on their way.
    assert!(repeated <= 3 * 2 * IN_FLIGHT, "{repeated} repeated");
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_sender_ends_what_is_under_way_and_hands_back_the_rest_unharmed() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(|request| {
        if request.path == "/hangs" { Reply::hang() } else { Reply::status(200).after(Duration::from_millis(300)) }
    });
    let mut engine = Engine::with_settings(&redis, &[("POSTHASTE_SHUTDOWN_GRACE_SECONDS", "2")]).await;
    let slow = engine.subscribe("acme", &receiver.url("/slow"), &["*"], |_| {}).await;
    let hanging = engine.subscribe("acme", &receiver.url("/hangs"), &["*"], |s| s.timeout_seconds = 60).await;
    engine.publish("acme", "a.b", "1").await;
    wait_for_requests(&receiver, 2).await;
    engine.stop(Role::Sender).await;

    let slow = engine.state(slow).await.state;
    assert_eq!((slow.delivered, slow.fresh + slow.waiting + slow.leased), (1, 0));
    let state = engine.state(hanging).await.state;
    assert_eq!((state.waiting, state.leased), (1, 0), "it was handed back");

    engine.run(Role::Sender);
    let received = receiver.wait_for(|received| received.len() == 3, PATIENCE).await;
    assert_eq!(received[2].header("x-webhook-attempt"), Some("1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_dispatcher_takes_over_within_five_seconds_of_a_kill() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let mut engine = start(&redis, &receiver).await;
    engine.publish("acme", "a.b", "1").await;
    wait_for_requests(&receiver, WEBHOOKS).await;
    engine.run(Role::Dispatcher);
    engine.kill(Role::Dispatcher).await;
    let killed = Instant::now();
    engine.publish("acme", "a.b", "2").await;
    wait_for_requests(&receiver, 2 * WEBHOOKS).await;
    assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_were_lost_with_all_data_are_made_anew_and_work_goes_on() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = start(&redis, &receiver).await;
    engine.publish("acme", "a.b", "1").await;
    wait_for_requests(&receiver, WEBHOOKS).await;
    let mut connection = redis.connect().await;
    redis::cmd("FLUSHALL").exec_async(&mut connection).await.expect("an empty Redis");
    engine.subscribe("acme", &receiver.url("/0"), &["*"], |_| {}).await;
    engine.publish("acme", "a.b", "2").await;
    wait_for_requests(&receiver, WEBHOOKS + 1).await;
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_of_the_append_only_file_costs_no_more_than_its_last_write() {
    let mut redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let mut engine = Engine::idle(&redis, &[]).await;
    engine.subscribe("acme", &receiver.url("/0"), &["*"], |_| {}).await;
    for index in 0..10 {
        engine.publish("acme", "a.b", index.to_string()).await;
    }
    redis.stop().await;
    redis.torn_tail(3);
    redis.restart().await;
    for role in [Role::Dispatcher, Role::Sender] {
        engine.run(role);
    }
    wait_for_requests(&receiver, 9).await;
    engine.wait_until_dispatched().await;
    for webhook in engine.webhooks().await {
        engine.wait_until_drained(webhook).await;
    }
    assert_eq!(receiver.count(), 9);
    engine.stop_all().await;
}

//! From a published event to a signed POST, and what happens when the endpoint does not take it.

use std::time::Duration;

use posthaste::domain::{
    delivery::DeliveryState,
    outcome::Reason,
    signature::verify,
    subscription::{DisabledReason, Ordering, PayloadFormat, Status},
};

use crate::support::{
    engine::{Engine, PATIENCE, SECRET, quick_retry, wait_until},
    receiver::{Receiver, Reply},
    redis::TestRedis,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_published_event_arrives_signed_at_those_who_want_it_and_at_no_other() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    let wanted = [("/all", "*"), ("/prefix", "message.*"), ("/exact", "message.created")];
    for (path, pattern) in wanted {
        engine.subscribe("acme", &receiver.url(path), &[pattern], |_| {}).await;
    }
    engine.subscribe("acme", &receiver.url("/other"), &["contact.*"], |_| {}).await;
    engine.subscribe("globex", &receiver.url("/globex"), &["*"], |_| {}).await;

    let published = engine.publish("acme", "message.created", "{ \"text\": \"hi\" }").await;
    let received = receiver.wait_for(|received| received.len() >= 3, PATIENCE).await;
    engine.wait_until_dispatched().await;

    let mut paths: Vec<&str> = received.iter().map(|request| request.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(paths, ["/all", "/exact", "/prefix"]);
    for request in &received {
        assert_eq!(request.method, "POST");
        assert_eq!(request.header("webhook-id"), Some(published.id.to_string().as_str()));
        assert_eq!(request.header("content-type"), Some("application/json"));
        assert_eq!(request.header("x-webhook-event"), Some("message.created"));
        assert_eq!(request.header("x-webhook-attempt"), Some("1"));
        assert!(request.header("x-webhook-delivery").is_some_and(|id| id.starts_with("dlv_")));
        assert!(String::from_utf8_lossy(&request.body).ends_with("\"data\":{ \"text\": \"hi\" }}"));
        let now_s = request.at_system.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let schemes = verify(SECRET, |name| request.header(name), &request.body, now_s, 300);
        assert_eq!(schemes.len(), 3);
        assert!(schemes.iter().all(|scheme| scheme.result.is_ok()), "{schemes:?}");
    }
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_webhook_gets_the_data_byte_for_byte() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    engine.subscribe("acme", &receiver.url("/raw"), &["*"], |s| s.payload_format = PayloadFormat::Raw).await;
    engine.publish("acme", "a.b", "[ 1,\t2 ]").await;
    let received = receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    assert_eq!(received[0].body, "[ 1,\t2 ]");
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_delivery_is_retried_with_the_same_id_until_it_is_taken() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::status(500), Reply::status(302), Reply::status(200)]);
    let engine = Engine::start(&redis).await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    let published = engine.publish("acme", "a.b", "{}").await;
    let received = receiver.wait_for(|received| received.len() == 3, PATIENCE).await;
    engine.wait_until_drained(webhook).await;

    for (index, request) in received.iter().enumerate() {
        assert_eq!(request.header("x-webhook-attempt"), Some((index + 1).to_string().as_str()));
        assert_eq!(request.header("webhook-id"), received[0].header("webhook-id"));
        assert_eq!(request.header("x-webhook-delivery"), received[0].header("x-webhook-delivery"));
    }
    let deliveries =
        engine.streams.event_status(published.id.shard, published.id.at).await.expect("deliveries").deliveries;
    assert_eq!(deliveries.len(), 1);
    assert_eq!(deliveries[0].state, DeliveryState::Delivered);
    assert_eq!((deliveries[0].attempts, deliveries[0].last_status), (3, Some(200)));
    assert_eq!(deliveries[0].attempt_log.len(), 3);
    let state = engine.state(webhook).await.state;
    assert_eq!((state.delivered, state.failed), (1, 0));
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_exhausts_its_retries_is_a_dead_letter_and_can_be_sent_once_more() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", vec![Reply::status(503); 3]);
    let engine = Engine::start(&redis).await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |s| s.retry = quick_retry(2)).await;
    engine.publish("acme", "a.b", "{}").await;
    engine.wait_until_dispatched().await;
    engine.wait_until_drained(webhook).await;

    let dead = engine.dead_letters(webhook).await;
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].reason, dead[0].attempts, dead[0].last_status), (Reason::Exhausted, 3, Some(503)));
    assert_eq!(dead[0].event_type, "a.b");

    let redriven = engine.streams.redrive(webhook, &[dead[0].entry]).await.expect("an answer");
    assert_eq!(redriven.count, 1);
    let received = receiver.wait_for(|received| received.len() == 4, PATIENCE).await;
    assert_eq!(received[3].header("x-webhook-attempt"), Some("4"));
    assert_eq!(received[3].header("x-webhook-delivery"), received[0].header("x-webhook-delivery"));
    engine.wait_until_drained(webhook).await;
    assert!(engine.dead_letters(webhook).await.is_empty());
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_disables_the_webhook_which_goes_on_collecting() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::status(410)]);
    let engine = Engine::start(&redis).await;
    let webhook = engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    engine.publish("acme", "a.b", "1").await;
    wait_until("it is disabled", async || engine.state(webhook).await.state.status == Status::Disabled).await;
    assert_eq!(engine.state(webhook).await.state.disabled_reason, Some(DisabledReason::Gone));
    assert_eq!(engine.dead_letters(webhook).await[0].reason, Reason::Gone);

    engine.publish("acme", "a.b", "2").await;
    engine.wait_until_dispatched().await;
    assert_eq!(engine.state(webhook).await.state.fresh, 1);
    assert!(engine.streams.set_active(webhook, true).await.expect("an answer"));
    receiver.wait_for(|received| received.len() == 2, PATIENCE).await;
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_endpoint_does_not_hold_up_others() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(|request| if request.path == "/hangs" { Reply::hang() } else { Reply::status(200) });
    let engine = Engine::with_settings(&redis, &[("POSTHASTE_DELIVERY__MAX_IN_FLIGHT", "32")]).await;
    let hanging = engine.subscribe("acme", &receiver.url("/hangs"), &["*"], |s| s.timeout_seconds = 60).await;
    engine.subscribe("acme", &receiver.url("/healthy"), &["*"], |_| {}).await;
    for index in 0..100 {
        engine.publish("acme", "a.b", index.to_string()).await;
    }
    receiver
        .wait_for(|received| received.iter().filter(|request| request.path == "/healthy").count() == 100, PATIENCE)
        .await;
    // The requests that hang are as many as its concurrency allows.
    assert_eq!(receiver.received("/hangs").len(), 10);
    assert_eq!(engine.state(hanging).await.state.leased, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifo_keeps_the_order_of_the_log_through_failures() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/fifo", (0..30).map(|index| Reply::status(if index % 3 == 1 { 500 } else { 200 })));
    let engine = Engine::start(&redis).await;
    let webhook = engine
        .subscribe("acme", &receiver.url("/fifo"), &["*"], |s| {
            s.ordering = Ordering::Fifo;
            s.payload_format = PayloadFormat::Raw;
        })
        .await;
    for index in 0..20 {
        engine.publish("acme", "a.b", index.to_string()).await;
    }
    engine.wait_until_dispatched().await;
    engine.wait_until_drained(webhook).await;
    let bodies: Vec<u32> = receiver
        .received("/fifo")
        .iter()
        .map(|request| String::from_utf8_lossy(&request.body).parse().expect("a number"))
        .collect();
    let mut taken = bodies.clone();
    taken.dedup();
    assert_eq!(taken, (0..20).collect::<Vec<_>>(), "{bodies:?}");
    assert!(bodies.len() > 20, "some were sent twice");
    assert_eq!(receiver.max_concurrent(), 1);
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_webhook_collects_and_resumes_in_order() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    let webhook = engine
        .subscribe("acme", &receiver.url("/hook"), &["*"], |s| {
            s.ordering = Ordering::Fifo;
            s.payload_format = PayloadFormat::Raw;
        })
        .await;
    assert!(engine.streams.set_active(webhook, false).await.expect("an answer"));
    for index in 0..10 {
        engine.publish("acme", "a.b", index.to_string()).await;
    }
    engine.wait_until_dispatched().await;
    assert_eq!(receiver.count(), 0);
    assert!(engine.streams.set_active(webhook, true).await.expect("an answer"));
    let received = receiver.wait_for(|received| received.len() == 10, PATIENCE).await;
    let bodies: Vec<String> = received.iter().map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect();
    assert_eq!(bodies, (0..10).map(|index| index.to_string()).collect::<Vec<_>>());
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_limit_holds_in_every_window() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    // 1,200 a minute: an interval of 51 ms.
    engine.subscribe("acme", &receiver.url("/hook"), &["*"], |s| s.rate_limit_per_minute = Some(1200)).await;
    for index in 0..60 {
        engine.publish("acme", "a.b", index.to_string()).await;
    }
    let received = receiver.wait_for(|received| received.len() == 60, PATIENCE).await;
    let window = Duration::from_secs(1);
    for first in &received {
        let within = received.iter().filter(|r| r.at >= first.at && r.at < first.at + window).count();
        // I9: B - 1 + ceil((W + 500 ms) / T) with B = 1, T = 51 ms.
        assert!(within <= 30, "{within} in a second");
    }
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_keeps_the_whole_webhook_away() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::status(429).with_header("retry-after", "2")]);
    let engine = Engine::start(&redis).await;
    engine.subscribe("acme", &receiver.url("/hook"), &["*"], |s| s.max_concurrency = 1).await;
    engine.publish("acme", "a.b", "1").await;
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    engine.publish("acme", "a.b", "2").await;
    let received = receiver.wait_for(|received| received.len() == 3, PATIENCE).await;
    for later in &received[1..] {
        let away = later.at - received[0].at;
        assert!(away >= Duration::from_millis(1990), "{away:?}");
    }
    engine.stop_all().await;
}

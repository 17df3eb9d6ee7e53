//! Any Redis client can publish: what is added to the front door becomes an event, or a dead letter that says why.

use posthaste::{
    domain::id::{BadId, StreamId},
    roles::Role,
    streams::BadEntry,
};
use redis::aio::MultiplexedConnection;

use crate::support::{
    engine::{Engine, PATIENCE, wait_until},
    receiver::Receiver,
    redis::TestRedis,
};

async fn add(connection: &mut MultiplexedConnection, fields: &[(&str, &[u8])]) {
    let mut command = redis::cmd("XADD");
    command.arg("posthaste:in").arg("*");
    for (name, value) in fields {
        command.arg(*name).arg(*value);
    }
    command.exec_async(connection).await.expect("an added entry");
}

async fn bad_entries(engine: &Engine, tenant: Option<&str>) -> Vec<BadEntry> {
    let shard = tenant.map(|tenant| engine.streams.shard_of(tenant));
    engine.streams.bad_entries(shard, StreamId::MAX, StreamId::ZERO, 100).await.expect("entries")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_form_is_delivered_and_leaves_the_front_door() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    for tenant in ["default", "acme"] {
        engine.subscribe(tenant, &receiver.url(&format!("/{tenant}")), &["*"], |_| {}).await;
    }
    let mut connection = redis.connect().await;
    add(&mut connection, &[("type", b"a.b"), ("data", b"{\"n\":1}")]).await;
    add(&mut connection, &[("tenant", b"acme"), ("type", b"a.b"), ("data", b"{\"n\":2}"), ("idem", b"k")]).await;
    add(&mut connection, &[("tenant", b"acme"), ("type", b"a.b"), ("data", b"{\"n\":2}"), ("idem", b"k")]).await;
    add(&mut connection, &[("tenant", b"acme"), ("data", b"{\"type\":\"c.d\",\"payload\":{\"n\":3}}")]).await;
    add(&mut connection, &[("tenant", b"acme"), ("type", b"e.f"), ("m", &[0x81, 0xa1, b'n', 4])]).await;
    let received = receiver.wait_for(|received| received.len() == 4, PATIENCE).await;
    let mut bodies: Vec<serde_json::Value> =
        received.iter().map(|request| serde_json::from_slice(&request.body).expect("JSON")).collect();
    bodies.sort_by_key(|body| body["data"]["n"].as_u64());
    let seen: Vec<_> = bodies.iter().map(|body| (body["tenant"].as_str(), body["type"].as_str())).collect();
    let acme = Some("acme");
    assert_eq!(seen, [(Some("default"), Some("a.b")), (acme, Some("a.b")), (acme, Some("c.d")), (acme, Some("e.f"))]);
    wait_until("the front door is empty", async || engine.streams.front_door_length().await.expect("a length") == 0)
        .await;
    engine.stop_all().await;
    assert_eq!(receiver.count(), 4, "the idempotency key was honoured");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_a_dead_letter_with_its_raw_fields_and_blocks_nothing() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    let mut connection = redis.connect().await;
    add(&mut connection, &[("tenant", b"acme"), ("type", b"a.b"), ("data", b"not json")]).await;
    add(&mut connection, &[("tenant", b"no tenant"), ("type", b"a.b"), ("data", b"1")]).await;
    add(&mut connection, &[("tenant", b"acme"), ("other", b"\xff")]).await;
    add(&mut connection, &[("tenant", b"acme"), ("type", b"a.b"), ("data", b"1")]).await;
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    wait_until("the front door is empty", async || engine.streams.front_door_length().await.expect("a length") == 0)
        .await;

    let acme = bad_entries(&engine, Some("acme")).await;
    assert_eq!(acme.len(), 2);
    assert!(acme[0].error.starts_with("data: missing"), "{}", acme[0].error);
    assert_eq!(acme[0].raw["other"], &b"\xff"[..]);
    assert!(acme[1].error.starts_with("data: not JSON"), "{}", acme[1].error);
    assert_eq!(acme[1].raw["data"], &b"not json"[..]);
    let homeless = bad_entries(&engine, None).await;
    assert_eq!(homeless.len(), 1);
    assert_eq!((homeless[0].id.shard, homeless[0].tenant.as_deref()), (BadId::NO_SHARD, None));
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_mover_moves_nothing_twice_and_leaves_nothing_behind() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let mut engine = Engine::start(&redis).await;
    engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    let mut connection = redis.connect().await;
    for index in 0..500 {
        add(&mut connection, &[("tenant", b"acme"), ("type", b"a.b"), ("data", index.to_string().as_bytes())]).await;
        if index % 100 == 50 {
            engine.kill(Role::Sources).await;
            engine.run(Role::Sources);
        }
    }
    wait_until("the front door is empty", async || engine.streams.front_door_length().await.expect("a length") == 0)
        .await;
    receiver.wait_for(|received| received.len() >= 500, PATIENCE).await;
    engine.stop_all().await;
    assert_eq!(receiver.count(), 500);
}

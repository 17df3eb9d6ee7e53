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

#[tokio::test(flavor = "multi_thread")]
async fn a_field_whose_name_is_no_text_spoils_its_own_entry_only() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    let mut connection = redis.connect().await;
    let mut command = redis::cmd("XADD");
    command.arg("posthaste:in").arg("*").arg("tenant").arg("acme").arg("type").arg("a.b").arg("data").arg("1");
    command.arg(b"\xff").arg("x").exec_async(&mut connection).await.expect("an added entry");
    // The log too is open to whoever has Redis.
    let mut command = redis::cmd("XADD");
    command.arg(format!("posthaste:{{s{}}}:events", engine.streams.shard_of("acme"))).arg("*").arg("tn").arg("acme");
    command.arg(b"\xff").arg("x").exec_async(&mut connection).await.expect("an added entry");
    add(&mut connection, &[("tenant", b"acme"), ("type", b"a.b"), ("data", b"2")]).await;
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    wait_until("two dead letters", async || bad_entries(&engine, Some("acme")).await.len() == 2).await;
    let bad = bad_entries(&engine, Some("acme")).await;
    assert!(bad.iter().all(|entry| entry.raw["\\xff"] == b"x"[..]), "{bad:?}");
    assert!(bad.iter().any(|entry| entry.error.starts_with("\\xff: the name")), "{bad:?}");
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_deleted_after_it_was_read_holds_nothing_up() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let mut engine = Engine::idle(&redis, &[]).await;
    engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    engine.streams.create_movers_group().await.expect("a group");
    let mut connection = redis.connect().await;
    add(&mut connection, &[("tenant", b"acme"), ("type", b"a.b"), ("data", b"1")]).await;
    let mut door = engine.streams.front_door(std::time::Duration::from_secs(1)).await.expect("a reader");
    let read = door.read(None, 10).await.expect("entries");
    let mut command = redis::cmd("XDEL");
    command.arg("posthaste:in").arg(read[0].id.to_string()).exec_async(&mut connection).await.expect("a deletion");
    add(&mut connection, &[("tenant", b"acme"), ("type", b"a.b"), ("data", b"2")]).await;
    for role in [Role::Dispatcher, Role::Sender, Role::Sources] {
        engine.run(role);
    }
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    wait_until("nothing is pending", async || door.read(Some(StreamId::ZERO), 10).await.expect("entries").is_empty())
        .await;
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_gate_keeps_all_at_the_front_door_and_buries_nothing_twice() {
    let redis = TestRedis::start().await;
    let mut engine = Engine::idle(&redis, &[]).await;
    let shard = engine.streams.shard_of("acme");
    engine.streams.set_gate(shard, true).await.expect("a closed gate");
    let mut connection = redis.connect().await;
    add(&mut connection, &[("tenant", b"no tenant"), ("type", b"a.b"), ("data", b"1")]).await;
    add(&mut connection, &[("tenant", b"acme"), ("type", b"a.b"), ("data", b"1")]).await;
    engine.run(Role::Sources);
    wait_until("the mover has tried several times", async || {
        let mut command = redis::cmd("XPENDING");
        command.arg("posthaste:in").arg("movers").arg("-").arg("+").arg(1);
        let pending: Vec<(String, String, u64, u64)> = command.query_async(&mut connection).await.unwrap_or_default();
        pending.first().is_some_and(|(.., times_read)| *times_read >= 3)
    })
    .await;
    engine.streams.set_gate(shard, false).await.expect("an open gate");
    wait_until("the front door is empty", async || engine.streams.front_door_length().await.expect("a length") == 0)
        .await;
    assert_eq!(bad_entries(&engine, None).await.len(), 1);
    engine.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_comes_into_being_here_only_where_it_may() {
    let redis = TestRedis::start().await;
    let mut engine = Engine::idle(&redis, &[("POSTHASTE_API__AUTO_CREATE_TENANTS", "false")]).await;
    let mut connection = redis.connect().await;
    add(&mut connection, &[("tenant", b"acme"), ("type", b"a.b"), ("data", b"1")]).await;
    engine.run(Role::Sources);
    wait_until("a dead letter", async || bad_entries(&engine, None).await.len() == 1).await;
    let error = &bad_entries(&engine, None).await[0].error;
    assert!(error.contains("auto_create_tenants"), "{error}");
    assert!(engine.streams.tenant("acme").await.expect("an answer").is_none());
    engine.stop_all().await;
}

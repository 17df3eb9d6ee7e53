//! Tenants have types of their own, and with `api.strict_types` only events of known types that fit are taken.

use std::time::{Duration, Instant};

use posthaste::{
    config::Config,
    domain::{Invalid, catalog, id::StreamId},
    manage::{ManageError, Manager, NewEventType},
    publish::PublishError,
    roles::Role,
    streams::TYPES_AT_MOST,
};

use crate::support::{
    engine::{Engine, PATIENCE, new_event, wait_until},
    receiver::Receiver,
    redis::TestRedis,
};

const STRICT: &[(&str, &str)] = &[("POSTHASTE_API__STRICT_TYPES", "true")];
/// A check must not take longer on a busy machine, and would take years were it not guarded.
const SOON: Duration = Duration::from_secs(10);

fn manager(engine: &Engine) -> Manager {
    let config = Config::load(None, [], None).expect("settings");
    Manager::new(engine.streams.clone(), &config, config.address_rules(false))
}

fn new_type(event_type: &str, sample: &str, schema: Option<&str>) -> NewEventType {
    NewEventType {
        event_type: event_type.to_owned(),
        category: "test".to_owned(),
        description: "It happened.".to_owned(),
        sample: sample.to_owned(),
        schema: schema.map(str::to_owned),
    }
}

/// The field that is refused, and why; `None` for what is published.
async fn refusal(engine: &Engine, tenant: &str, event_type: &str, data: &str) -> Option<Invalid> {
    match engine.publisher.publish(new_event(tenant, event_type, data.to_owned())).await {
        Ok(_) => None,
        Err(PublishError::Invalid(invalid)) => Some(invalid),
        Err(other) => panic!("{other}"),
    }
}

fn field(refused: Option<Invalid>) -> Option<&'static str> {
    refused.map(|invalid| invalid.field)
}

#[tokio::test]
async fn a_tenants_types_are_its_own() {
    let redis = TestRedis::start().await;
    let engine = Engine::idle(&redis, &[]).await;
    let manager = manager(&engine);
    let order = || new_type("order.paid", "{\"id\": 1}", Some("{\"required\": [\"id\"]}"));
    let added = manager.add_event_type("acme", order()).await.unwrap();
    assert_eq!(manager.add_event_type("acme", order()).await.unwrap(), added, "the same once more is no conflict");
    assert_eq!(manager.event_type("acme", "order.paid").await.unwrap(), Some(added.clone()));
    assert_eq!(manager.event_type("globex", "order.paid").await.unwrap(), None);
    assert_eq!(manager.event_type("globex", "ping").await.unwrap().as_ref(), catalog::find("ping"));

    let names = async |tenant: &str| {
        let all = manager.event_types(tenant).await.unwrap();
        all.into_iter().map(|info| info.event_type).collect::<Vec<_>>()
    };
    let built_in: Vec<String> = catalog::built_in().map(|info| info.event_type.clone()).collect();
    assert_eq!(names("globex").await, built_in);
    let mut merged = [built_in.clone(), vec!["order.paid".to_owned()]].concat();
    merged.sort();
    assert_eq!(names("acme").await, merged);

    let other = manager.add_event_type("acme", new_type("order.paid", "{}", None)).await;
    assert!(matches!(other, Err(ManageError::AlreadyExists(_))), "{other:?}");
    let known = manager.add_event_type("acme", new_type("ping", "{}", None)).await;
    assert!(matches!(known, Err(ManageError::AlreadyExists(_))), "{known:?}");
    let strange = manager.remove_event_type("globex", "order.paid").await;
    assert!(matches!(strange, Err(ManageError::NotFound(_))), "{strange:?}");
    manager.remove_event_type("acme", "order.paid").await.unwrap();
    assert_eq!(names("acme").await, built_in);

    manager.add_event_type("acme", order()).await.unwrap();
    manager.delete_tenant("acme").await.unwrap();
    assert_eq!(names("acme").await, built_in, "a tenant's types go with it");
}

#[tokio::test]
async fn a_tenant_has_so_many_types_and_so_many_bytes_of_them() {
    let redis = TestRedis::start().await;
    let engine = Engine::idle(&redis, &[]).await;
    let manager = manager(&engine);
    let refused = async |tenant: &str, new: NewEventType| {
        let answer = manager.add_event_type(tenant, new).await;
        assert!(matches!(&answer, Err(ManageError::Conflict(text)) if text.contains("remove some")), "{answer:?}");
    };
    for n in 0..TYPES_AT_MOST {
        manager.add_event_type("many", new_type(&format!("t{n}"), "{}", None)).await.unwrap();
    }
    refused("many", new_type("one.more", "{}", None)).await;
    manager.remove_event_type("many", "t0").await.unwrap();
    manager.add_event_type("many", new_type("one.more", "{}", None)).await.unwrap();

    let large = format!("\"{}\"", "x".repeat(60 * 1024));
    for n in 0..68 {
        manager.add_event_type("large", new_type(&format!("t{n}"), &large, None)).await.unwrap();
    }
    refused("large", new_type("one.more", &large, None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_types_take_what_is_known_and_fits_of_each_tenant() {
    let redis = TestRedis::start().await;
    let engine = Engine::idle(&redis, STRICT).await;
    let manager = manager(&engine);
    let schema = r#"{"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}"#;
    manager.add_event_type("acme", new_type("order.paid", "{\"id\": 1}", Some(schema))).await.unwrap();
    manager.add_event_type("acme", new_type("free", "{}", None)).await.unwrap();
    let check = async |tenant: &str, event_type: &str, data: &str, expected: Option<&str>| {
        let refused = field(refusal(&engine, tenant, event_type, data).await);
        assert_eq!(refused, expected, "{tenant} {event_type} {data}");
    };
    check("acme", "order.paid", "{\"id\": 7}", None).await;
    check("acme", "order.paid", "{\"id\": \"7\"}", Some("data")).await;
    check("acme", "free", "[1, null]", None).await;
    check("globex", "order.paid", "{\"id\": 7}", Some("type")).await;
    check("globex", "free", "{}", Some("type")).await;
    check("globex", "message.created", "{\"text\": \"hello\", \"more\": 1}", None).await;
    check("globex", "message.created", "{}", Some("data")).await;
    for info in catalog::built_in().filter(|info| !info.event_type.starts_with("posthaste.")) {
        check("globex", &info.event_type, &info.sample, None).await;
    }
    let refused = refusal(&engine, "acme", "order.paid", "{\"id\": \"secret\"}").await.expect("a refusal");
    assert_eq!(refused.problem, "at /id: the value is not of type \"integer\"");
    let unknown = refusal(&engine, "acme", "order.payed", "{}").await.expect("a refusal");
    assert!(unknown.problem.contains("types add"), "{unknown}");

    // What was changed is seen within seconds.
    manager.remove_event_type("acme", "free").await.unwrap();
    manager.remove_event_type("acme", "order.paid").await.unwrap();
    manager
        .add_event_type("acme", new_type("order.paid", "{}", Some("{\"required\": [\"number\"]}")))
        .await
        .unwrap_err();
    manager.add_event_type("acme", new_type("order.paid", "{}", None)).await.unwrap();
    wait_until("the removed type is unknown", async || refusal(&engine, "acme", "free", "{}").await.is_some()).await;
    wait_until("the new schema holds", async || refusal(&engine, "acme", "order.paid", "[]").await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_at_the_front_door_is_a_dead_letter_and_the_rest_is_delivered() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let mut engine = Engine::idle(&redis, STRICT).await;
    engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    manager(&engine).add_event_type("acme", new_type("order.paid", "{}", None)).await.unwrap();
    let mut connection = redis.connect().await;
    let events =
        [("order.payed", "{}"), ("message.created", "{\"text\": 7}"), ("order.paid", "{}"), ("call", "no JSON")];
    for (event_type, data) in events {
        let mut entry = redis::cmd("XADD");
        entry.arg("posthaste:in").arg("*").arg("tenant").arg("acme").arg("type").arg(event_type).arg("data").arg(data);
        entry.exec_async(&mut connection).await.unwrap();
    }
    // A broken record of a type must not hold up the front door either.
    let types = format!("posthaste:{{s{}}}:types:acme", engine.streams.shard_of("acme"));
    redis::cmd("HSET").arg(types).arg("broken").arg("{").exec_async(&mut connection).await.unwrap();
    let mut entry = redis::cmd("XADD");
    entry.arg("posthaste:in").arg("*").arg("tenant").arg("acme").arg("type").arg("broken").arg("data").arg("1");
    entry.exec_async(&mut connection).await.unwrap();
    for role in [Role::Dispatcher, Role::Sender, Role::Sources] {
        engine.run(role);
    }
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    wait_until("the front door is empty", async || engine.streams.front_door_length().await.expect("a length") == 0)
        .await;
    let shard = engine.streams.shard_of("acme");
    let bad = engine.streams.bad_entries(Some(shard), StreamId::MAX, StreamId::ZERO, 10).await.expect("entries");
    let mut reasons: Vec<&str> = bad.iter().map(|entry| entry.error.as_str()).collect();
    reasons.sort_unstable();
    let starts = [
        "data: at /text: the value is not of type \"string\"",
        "data: not JSON",
        "type: `order.payed` is not known",
        "type: unreadable in Redis: the event type broken: remove",
    ];
    assert_eq!(reasons.len(), starts.len(), "{reasons:?}");
    for (reason, start) in reasons.iter().zip(starts) {
        assert!(reason.starts_with(start), "{reason}");
    }
    assert!(bad.iter().all(|entry| entry.raw.contains_key("data")), "{bad:?}");
    engine.stop_all().await;
    assert_eq!(receiver.count(), 1);
}

#[tokio::test]
async fn a_schema_with_an_evil_pattern_holds_nobody_up() {
    let redis = TestRedis::start().await;
    // One thread: a check that lasted would hold up all else.
    let engine = Engine::idle(&redis, STRICT).await;
    let schema = r#"{"type": "array", "items": {"anyOf": [{"pattern": "^(a+)+$"}, {"pattern": "^(a|aa)*$"}]}}"#;
    manager(&engine).add_event_type("acme", new_type("evil", "[]", Some(schema))).await.unwrap();
    let data = format!("[\"{}!\"]", "a".repeat(200_000));
    let started = Instant::now();
    let evil = refusal(&engine, "acme", "evil", &data);
    let others = async {
        for n in 0..20 {
            assert_eq!(refusal(&engine, "globex", "message.created", &format!("{{\"text\": \"{n}\"}}")).await, None);
        }
    };
    let (refused, ()) = tokio::join!(evil, others);
    assert_eq!(field(refused), Some("data"));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[tokio::test]
async fn with_strict_types_off_nothing_is_looked_up() {
    let redis = TestRedis::start().await;
    let engine = Engine::idle(&redis, &[]).await;
    let mut connection = redis.connect().await;
    let types = format!("posthaste:{{s{}}}:types:acme", engine.streams.shard_of("acme"));
    // Whoever looked there would fail.
    redis::cmd("SET").arg(types).arg("no hash").exec_async(&mut connection).await.unwrap();
    assert_eq!(refusal(&engine, "acme", "no.such.type", "[]").await, None);
    assert!(manager(&engine).event_types("acme").await.is_err());
}

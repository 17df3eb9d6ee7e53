//! The repeat of a request with an Idempotency-Key is answered as the first was.

use posthaste::domain::id::SubscriptionId;

use super::*;

fn new_webhook() -> Value {
    json!({ "url": "https://example.com/hook", "events": ["*"] })
}

async fn post(service: &Service, path: &str, key: &str, body: &Value) -> Answer {
    let request = service.keyed("POST", path).header("content-type", "application/json");
    service.send(request.header("idempotency-key", key), body.to_string()).await
}

/// The one answer that is kept: its key and its text.
async fn kept(service: &Service) -> (String, String) {
    let mut redis = service.redis.connect().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*:ans:*").query_async(&mut redis).await.unwrap();
    assert_eq!(keys.len(), 1, "{keys:?}");
    let text = redis::cmd("GET").arg(&keys[0]).query_async(&mut redis).await.unwrap();
    (keys[0].clone(), text)
}

#[tokio::test]
async fn a_repeat_is_answered_as_the_first_was_secrets_and_all_and_makes_nothing() {
    let service = Service::alone().await;
    let first = post(&service, "/api/v1/webhooks", "k", &new_webhook()).await.expect(201);
    let again = post(&service, "/api/v1/webhooks", "k", &new_webhook()).await;
    assert_eq!(again.headers["idempotent-replayed"], "true");
    assert_eq!(again.expect(201), first);
    let other = json!({ "url": "https://example.com/other", "events": ["*"] });
    let refused = post(&service, "/api/v1/webhooks", "k", &other).await;
    assert_eq!(refused.problem(409, "idempotency_conflict").as_deref(), Some("Idempotency-Key"));
    post(&service, "/api/v1/webhooks", "l", &new_webhook()).await.expect(201);
    service.list("/api/v1/webhooks", 2).await;
    service.stop().await;
}

#[tokio::test]
async fn a_kept_answer_holds_no_readable_secret() {
    let service = Service::alone().await;
    let first = post(&service, "/api/v1/webhooks", "k", &new_webhook()).await.expect(201);
    let (_, text) = kept(&service).await;
    for name in ["secret", "ingest_secret"] {
        assert!(!text.contains(first[name].as_str().unwrap().strip_prefix("whsec_").unwrap()), "{name}");
    }
    service.stop().await;
}

#[tokio::test]
async fn what_was_refused_may_be_corrected_with_the_same_key() {
    let service = Service::alone().await;
    post(&service, "/api/v1/webhooks", "k", &json!({ "url": "https://example.com/" })).await.problem(422, "invalid");
    post(&service, "/api/v1/webhooks", "k", &new_webhook()).await.expect(201);
    service.stop().await;
}

#[tokio::test]
async fn requests_with_one_key_at_once_make_one_thing() {
    let service = Service::alone().await;
    let body = new_webhook();
    let requests = (0..8).map(|_| post(&service, "/api/v1/webhooks", "k", &body));
    let answers = futures_util::future::join_all(requests).await;
    let made: std::collections::BTreeSet<String> =
        answers.iter().filter(|answer| answer.status == 201).map(|answer| text(&answer.json()["id"])).collect();
    assert_eq!(made.len(), 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 201) {
        answer.problem(409, "in_progress");
    }
    service.list("/api/v1/webhooks", 1).await;
    service.stop().await;
}

#[tokio::test]
async fn the_repeat_of_what_was_broken_off_finds_what_it_had_made() {
    let service = Service::alone().await;
    let id = text(&post(&service, "/api/v1/webhooks", "k", &new_webhook()).await.expect(201)["id"]);
    let made: SubscriptionId = id.parse().unwrap();
    // As it stands when a process is killed between making the webhook and keeping the answer.
    let (key, text) = kept(&service).await;
    let fingerprint = text.split(' ').nth(1).unwrap();
    let mut redis = service.redis.connect().await;
    let pending = format!("pending {fingerprint} 0 {} {} 0", made.ms, made.random);
    redis::cmd("SET").arg(key).arg(pending).exec_async(&mut redis).await.unwrap();
    let refused = post(&service, "/api/v1/webhooks", "k", &new_webhook()).await;
    assert_eq!(refused.json()["id"], json!(id));
    refused.problem(409, "already_created");
    // And so it is answered from then on.
    post(&service, "/api/v1/webhooks", "k", &new_webhook()).await.problem(409, "already_created");
    service.list("/api/v1/webhooks", 1).await;
    service.stop().await;
}

#[tokio::test]
async fn repeats_at_once_of_what_was_broken_off_are_done_once() {
    let service = Service::alone().await;
    let webhook = service.webhook("https://example.com/").await;
    let path = format!("/api/v1/webhooks/{webhook}/rotate-secret");
    let first = post(&service, &path, "k", &json!({})).await.expect(200);
    let (key, text) = kept(&service).await;
    let broken_off = format!("pending {} 0 5 7 0", text.split(' ').nth(1).unwrap());
    let mut redis = service.redis.connect().await;
    redis::cmd("SET").arg(key).arg(broken_off).exec_async(&mut redis).await.unwrap();
    let body = json!({});
    let answers = futures_util::future::join_all((0..8).map(|_| post(&service, &path, "k", &body))).await;
    let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    let secrets: std::collections::BTreeSet<String> =
        done.iter().map(|answer| answer.json()["secret"].to_string()).collect();
    assert_eq!(secrets.len(), 1);
    assert!(!secrets.contains(&first["secret"].to_string()));
    for answer in refused {
        answer.problem(409, "in_progress");
    }
    service.stop().await;
}

#[tokio::test]
async fn the_key_of_an_event_may_stand_in_the_header_or_in_the_body() {
    let service = Service::alone().await;
    let event = |data: u32| json!({ "type": "a", "data": data });
    let first = post(&service, "/api/v1/events", "k", &event(1)).await.expect(202);
    assert_eq!(post(&service, "/api/v1/events", "k", &event(1)).await.expect(202), first);
    let in_body = json!({ "type": "a", "data": 1, "idempotency_key": "k" });
    assert_eq!(service.post("/api/v1/events", in_body.clone()).await.expect(202), first);
    post(&service, "/api/v1/events", "k", &event(2)).await.problem(409, "idempotency_conflict");
    let refused = post(&service, "/api/v1/events", "other", &in_body).await;
    assert_eq!(refused.problem(422, "invalid").as_deref(), Some("idempotency_key"));
    let batch = json!([event(3), event(4)]);
    let results = post(&service, "/api/v1/events/batch", "b", &batch).await.expect(202);
    assert_eq!(post(&service, "/api/v1/events/batch", "b", &batch).await.expect(202), results);
    service.stop().await;
}

#[tokio::test]
async fn a_replay_of_the_log_starts_once_for_a_key() {
    let service = Service::alone().await;
    let webhook = service.webhook("https://example.com/").await;
    let path = format!("/api/v1/webhooks/{webhook}/replay");
    let first = post(&service, &path, "k", &json!({ "from": "1h" })).await.expect(202);
    assert_eq!((&first["state"], &first["webhook_id"]), (&json!("running"), &json!(webhook)));
    assert_eq!(post(&service, &path, "k", &json!({ "from": "1h" })).await.expect(202), first);
    let shown = service.get(&format!("/api/v1/webhooks/{webhook}/replays/{}", text(&first["id"]))).await.expect(200);
    assert_eq!(shown["id"], first["id"]);
    let dry = service.post(&path, json!({ "from": "1h", "dry_run": true })).await.expect(200);
    assert_eq!(dry, json!({ "count": 0, "dry_run": true }));
    service.get(&format!("/api/v1/webhooks/{webhook}/replays/nothing")).await.problem(404, "not_found");
    service.stop().await;
}

#[tokio::test]
async fn a_batch_that_was_broken_off_is_not_published_twice() {
    let service = Service::alone().await;
    let batch = json!([{ "type": "a", "data": 1 }, { "type": "a", "data": 1 }]);
    let results = post(&service, "/api/v1/events/batch", "k", &batch).await.expect(202);
    assert_ne!(results["data"][0], results["data"][1]);
    // As it stands when a process is killed between publishing and keeping the answer: the seed is that of the claim.
    let (key, text) = kept(&service).await;
    let fingerprint = text.split(' ').nth(1).unwrap().to_owned();
    let mut redis = service.redis.connect().await;
    let broken_off = format!("pending {fingerprint} 0 5 7 0");
    redis::cmd("SET").arg(&key).arg(&broken_off).exec_async(&mut redis).await.unwrap();
    let again = post(&service, "/api/v1/events/batch", "k", &batch).await.expect(202);
    redis::cmd("SET").arg(&key).arg(&broken_off).exec_async(&mut redis).await.unwrap();
    assert_eq!(post(&service, "/api/v1/events/batch", "k", &batch).await.expect(202), again);
    service.stop().await;
}

#[tokio::test]
async fn an_answer_takes_the_place_of_its_own_note_or_of_nothing_but_never_of_another() {
    let service = Service::alone().await;
    let streams = &service.engine.streams;
    let swap = async |kept: &str, note: Option<&str>| {
        streams.swap_answer("acme", "name", kept, note, Duration::from_secs(60)).await.unwrap()
    };
    // Redis has lost the note, as after a failover.
    assert!(swap("mine", Some("answered")).await);
    assert!(swap("mine", Some("answered")).await, "the call was repeated");
    assert!(!swap("mine", Some("other")).await);
    assert!(!swap("mine", None).await);
    assert!(swap("answered", None).await);
    service.stop().await;
}

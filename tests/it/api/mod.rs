//! The HTTP API does what docs/api.md says, and refuses the rest in words that help.

mod idempotency;
mod ingest;
mod keys;
mod limits;
mod looking;
mod openapi;
mod routes;

use std::time::Duration;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use metrics_exporter_prometheus::PrometheusBuilder;
use posthaste::{
    api::{self, Api},
    config::Config,
    manage::Manager,
    send::post::Post,
    shutdown::Shutdown,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::support::{
    engine::{Engine, wait_until},
    receiver::{Receiver, Reply},
    redis::TestRedis,
};

const KEY: &str = "test-key";
const MAX_PAYLOAD_BYTES: usize = 1_000;

/// An engine with the API in front of it.
struct Service {
    redis: TestRedis,
    engine: Engine,
    address: std::net::SocketAddr,
    shutdown: Shutdown,
    serving: JoinHandle<anyhow::Result<()>>,
    client: Client<HttpConnector, Body>,
}

fn settings() -> api::Settings {
    api::Settings {
        max_payload_bytes: MAX_PAYLOAD_BYTES,
        rate_limit_per_minute: 10_000,
        ingest_webhook_limit: 8,
        ingest_address_limit: 20,
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        public_host: None,
        trusts_locality: false,
    }
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON of an answer that must have this status.
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The field at fault in a problem with this status and code.
    fn problem(self, status: u16, code: &str) -> Option<String> {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        problem["field"].as_str().map(str::to_owned)
    }
}

impl Service {
    async fn start() -> Self {
        let redis = TestRedis::start().await;
        let engine = Engine::start(&redis).await;
        Self::before(redis, engine).await
    }

    /// With nobody who dispatches or sends.
    async fn alone() -> Self {
        let redis = TestRedis::start().await;
        let engine = Engine::idle(&redis, &[]).await;
        Self::before(redis, engine).await
    }

    /// With nobody who dispatches or sends, and a limit of requests a minute.
    async fn limited(rate_limit_per_minute: u32) -> Self {
        let redis = TestRedis::start().await;
        let engine = Engine::idle(&redis, &[]).await;
        Self::with_settings(redis, engine, api::Settings { rate_limit_per_minute, ..settings() }).await
    }

    async fn before(redis: TestRedis, engine: Engine) -> Self {
        Self::with_settings(redis, engine, settings()).await
    }

    async fn with_settings(redis: TestRedis, engine: Engine, settings: api::Settings) -> Self {
        let env = [("POSTHASTE_TARGETS__ALLOW_CIDRS".to_owned(), "127.0.0.0/8".to_owned())];
        let config = Config::load(None, env, None).unwrap();
        let manager = Manager::new(engine.streams.clone(), &config, config.address_rules(false));
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let (streams, publisher) = (engine.streams.clone(), engine.publisher.clone());
        let post = Post::of(&config, false).unwrap();
        let api = Api::new(streams, manager, publisher, post, metrics, KEY, settings);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
        let serving = tokio::spawn(api::serve(listener, api, shutdown.clone()));
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { redis, engine, address, shutdown, serving, client }
    }

    async fn send(&self, request: http::request::Builder, body: impl Into<Body>) -> Answer {
        let response = self.client.request(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(Body::new(body), usize::MAX).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    fn request(&self, method: &str, path: &str) -> http::request::Builder {
        let method: Method = method.parse().unwrap();
        Request::builder().method(method).uri(format!("http://{}{path}", self.address))
    }

    fn keyed(&self, method: &str, path: &str) -> http::request::Builder {
        self.request(method, path).header("authorization", format!("Bearer {KEY}")).header("x-tenant", "acme")
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.keyed("GET", path), Body::empty()).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call("POST", path, body).await
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        let request = self.keyed(method, path).header("content-type", "application/json");
        self.send(request, body.to_string()).await
    }

    /// A key of a role, for a tenant.
    async fn key(&self, role: &str, tenant: &str) -> String {
        text(&self.post("/api/v1/keys", json!({ "role": role, "tenant": tenant })).await.expect(201)["key"])
    }

    /// A request with a key, for the tenant that the key is for.
    async fn call_as(&self, key: &str, method: &str, path: &str, body: &Value) -> Answer {
        let request = self.request(method, path).header("authorization", format!("Bearer {key}"));
        match body {
            Value::Null => self.send(request, Body::empty()).await,
            body => self.send(request.header("content-type", "application/json"), body.to_string()).await,
        }
    }

    async fn webhook(&self, url: &str) -> String {
        let body = json!({ "url": url, "events": ["*"], "retry": { "kind": "schedule", "delays_ms": [50] } });
        text(&self.post("/api/v1/webhooks", body).await.expect(201)["id"])
    }

    async fn publish(&self, data: Value) -> String {
        text(&self.post("/api/v1/events", json!({ "type": "order.paid", "data": data })).await.expect(202)["id"])
    }

    /// Waits until a list has so many items, and gives them.
    async fn list(&self, path: &str, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        wait_until(&format!("{path} has {count}"), async || {
            found = self.get(path).await.expect(200)["data"].as_array().unwrap().clone();
            found.len() == count
        })
        .await;
        found
    }

    async fn stop(self) {
        self.shutdown.stop();
        self.serving.await.unwrap().unwrap();
        self.engine.stop_all().await;
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

fn fields(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_webhook_is_created_shown_changed_listed_and_deleted() {
    let service = Service::alone().await;
    let body = json!({
        "url": "https://example.com/hook", "events": ["message.*"], "name": "crm", "retry": "steady",
        "headers": { "X-Env": "prod" }, "secret": "sixteen characters",
    });
    let created = service.post("/api/v1/webhooks", body).await.expect(201);
    assert_eq!(created["secret"], "sixteen characters");
    assert!(text(&created["standard_secret"]).starts_with("whsec_"));
    assert_eq!(created["retry"], json!({ "kind": "schedule", "delays_ms": [4000, 8000, 10000], "jitter": 0.0 }));
    assert_eq!((&created["tenant"], &created["retry_count"]), (&json!("acme"), &json!(3)));

    let path = format!("/api/v1/webhooks/{}", text(&created["id"]));
    let shown = service.get(&path).await.expect(200);
    for (name, value) in shown.as_object().unwrap() {
        assert_eq!(value, &created[name], "{name}");
    }
    assert!(!fields(&shown).iter().any(|name| name.contains("secret")), "{shown}");

    let change = json!({ "name": null, "retry_count": 7, "is_active": false });
    let changed = service.call("PATCH", &path, change).await.expect(200);
    assert_eq!((&changed["name"], &changed["retry_count"]), (&Value::Null, &json!(7)));
    assert_eq!((&changed["status"], &changed["is_active"]), (&json!("paused"), &json!(false)));
    assert_eq!(changed["headers"], json!({ "X-Env": "prod" }));
    assert_eq!(service.get("/api/v1/webhooks").await.expect(200)["data"], json!([changed]));
    let resumed = service.send(service.keyed("POST", &format!("{path}/resume")), Body::empty()).await.expect(200);
    assert_eq!(resumed["status"], "active");
    let paused = service.send(service.keyed("POST", &format!("{path}/pause")), Body::empty()).await.expect(200);
    assert_eq!(paused["status"], "paused");

    let others = service.keyed("GET", &path).header("x-tenant", "other");
    assert_eq!(service.send(others, Body::empty()).await.problem(422, "invalid").as_deref(), Some("tenant"));
    let other = service.request("GET", &format!("{path}?tenant=other")).header("authorization", "Bearer test-key");
    service.send(other, Body::empty()).await.problem(404, "not_found");
    assert_eq!(service.send(service.keyed("DELETE", &path), Body::empty()).await.expect(204), Value::Null);
    service.get(&path).await.problem(404, "not_found");
    service.send(service.keyed("DELETE", &path), Body::empty()).await.problem(404, "not_found");
    service.stop().await;
}

#[tokio::test]
async fn lists_come_in_pages() {
    let service = Service::alone().await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(service.webhook(&format!("https://example.com/{n}")).await);
    }
    made.sort();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("/api/v1/webhooks?limit=2{cursor}")).await.expect(200);
        let data = page["data"].as_array().unwrap();
        assert!((1..=2).contains(&data.len()));
        seen.extend(data.iter().map(|webhook| text(&webhook["id"])));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, made);
    for (query, field) in [("limit=0", "limit"), ("limit=251", "limit"), ("cursor=x", "cursor"), ("page=2", "page")] {
        let refused = service.get(&format!("/api/v1/webhooks?{query}")).await;
        assert_eq!(refused.problem(422, "invalid").as_deref(), Some(field));
    }
    service.stop().await;
}

#[tokio::test]
async fn an_event_is_delivered_and_every_attempt_can_be_looked_at() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::status(500)]);
    let webhook = service.webhook(&receiver.url("/hook")).await;
    let id = service.publish(json!({ "n": 1 })).await;
    let logs = format!("/api/v1/webhooks/{webhook}/logs");
    let attempts = service.list(&logs, 2).await;
    assert_eq!((&attempts[0]["attempt"], &attempts[0]["response_status"]), (&json!(2), &json!(200)));
    assert_eq!((&attempts[1]["attempt"], &attempts[1]["is_success"]), (&json!(1), &json!(false)));
    assert_eq!(attempts[0]["event_id"], json!(id));

    let first = service.get(&format!("{logs}?limit=1")).await.expect(200);
    let second = service.get(&format!("{logs}?limit=1&cursor={}", text(&first["next_cursor"]))).await.expect(200);
    assert_eq!([&first["data"][0], &second["data"][0]], [&attempts[0], &attempts[1]]);
    for (query, count) in [
        ("status=success", 1),
        ("status=failed", 1),
        ("type=order.paid", 2),
        ("type=order", 0),
        ("since=1h", 2),
        ("until=2020-01-01", 0),
        (format!("event_id={id}").as_str(), 2),
        (format!("event_id={id}&status=failed").as_str(), 1),
    ] {
        service.list(&format!("{logs}?{query}"), count).await;
    }
    assert_eq!(service.get(&format!("{logs}?status=bad")).await.problem(422, "invalid").as_deref(), Some("status"));

    let event = service.get(&format!("/api/v1/events/{id}")).await.expect(200);
    assert_eq!((&event["type"], &event["data"]), (&json!("order.paid"), &json!({ "n": 1 })));
    let deliveries = service.get(&format!("/api/v1/events/{id}/deliveries")).await.expect(200);
    let delivery = &deliveries["data"][0];
    assert_eq!(
        (&delivery["status"], &delivery["attempts"], &delivery["webhook_id"]),
        (&json!("delivered"), &json!(2), &json!(webhook)),
    );
    let shown = service.get(&format!("/api/v1/webhooks/{webhook}")).await.expect(200);
    assert_eq!((&shown["successful_deliveries"], &shown["failed_deliveries"]), (&json!(1), &json!(0)));
    assert!(shown["last_triggered_at"].is_string());

    // The log of a deleted webhook stays, for its tenant.
    service.send(service.keyed("DELETE", &format!("/api/v1/webhooks/{webhook}")), Body::empty()).await.expect(204);
    service.list(&logs, 2).await;
    let other = service.request("GET", &format!("{logs}?tenant=other")).header("authorization", "Bearer test-key");
    service.send(other, Body::empty()).await.problem(404, "not_found");
    service.stop().await;
}

#[tokio::test]
async fn data_goes_in_and_comes_out_byte_for_byte() {
    let service = Service::alone().await;
    let data = r#"{ "b": 1.10, "a" : [ "\u00e9" ] }"#;
    let request = service.keyed("POST", "/api/v1/events").header("content-type", "application/json; charset=utf-8");
    let body =
        format!(r#"{{"type":"a.b","data":{data},"timestamp":"2026-01-31T12:00:00+01:00","conversation_id":"c"}}"#);
    let id = text(&service.send(request, body).await.expect(202)["id"]);
    let answer = service.get(&format!("/api/v1/events/{id}")).await;
    assert!(String::from_utf8_lossy(&answer.body).contains(data), "{answer:?}");
    let event = answer.expect(200);
    assert_eq!((&event["timestamp"], &event["conversation_id"]), (&json!("2026-01-31T11:00:00.000Z"), &json!("c")));
    service.stop().await;
}

#[tokio::test]
async fn an_idempotency_key_makes_one_event_and_refuses_another() {
    let service = Service::alone().await;
    let event = |data: u32| json!({ "type": "a", "data": data, "idempotency_key": "k" });
    let first = service.post("/api/v1/events", event(1)).await.expect(202);
    assert_eq!(service.post("/api/v1/events", event(1)).await.expect(202), first);
    let refused = service.post("/api/v1/events", event(2)).await;
    assert_eq!(refused.problem(409, "idempotency_conflict").as_deref(), Some("idempotency_key"));
    service.stop().await;
}

#[tokio::test]
async fn a_bad_event_does_not_sink_the_rest_of_its_batch() {
    let service = Service::alone().await;
    let large = "x".repeat(MAX_PAYLOAD_BYTES);
    let items = [
        json!({ "type": "a", "data": 1 }),
        json!({ "type": "a b", "data": 1 }),
        json!({ "type": "a", "data": large }),
        json!(7),
        json!({ "type": "b", "data": { "n": 2 } }),
    ];
    let array = service.post("/api/v1/events/batch", json!(items)).await.expect(202);
    let lines = items.iter().map(|item| format!("{item}\n")).collect::<String>();
    let request = service.keyed("POST", "/api/v1/events/batch").header("content-type", "application/x-ndjson");
    let ndjson = service.send(request, lines + "\nnot json\n").await.expect(202);
    assert_eq!(ndjson["data"][5]["error"]["code"], "invalid_json");
    for results in [array, ndjson] {
        let results = results["data"].as_array().unwrap().clone();
        let codes: Vec<&Value> = results[..5].iter().map(|result| &result["error"]["code"]).collect();
        assert_eq!(
            codes,
            [&Value::Null, &json!("invalid"), &json!("payload_too_large"), &json!("invalid_json"), &Value::Null]
        );
        for good in [&results[0], &results[4]] {
            let id = text(&good["id"]);
            service.get(&format!("/api/v1/events/{id}")).await.expect(200);
        }
    }
    let many: Vec<Value> = (0..1_001).map(|n| json!({ "type": "a", "data": n })).collect();
    service.post("/api/v1/events/batch", json!(many)).await.problem(413, "payload_too_large");
    let most = service.post("/api/v1/events/batch", json!(many[..1_000])).await.expect(202);
    assert!(most["data"].as_array().unwrap().iter().all(|result| result["id"].is_string()));
    service.stop().await;
}

#[tokio::test]
async fn dead_letters_are_shown_replayed_and_thrown_away() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(|_| Reply::status(500));
    let webhook = service.webhook(&receiver.url("/hook")).await;
    for n in 1..=3 {
        service.publish(json!({ "n": n })).await;
    }
    let letters = service.list("/api/v1/dead-letters", 3).await;
    let letter = &letters[0];
    assert_eq!(
        fields(letter),
        ["attempts", "data", "died_at", "event_id", "id", "last_error", "last_status", "reason", "type", "webhook_id"],
    );
    assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("exhausted"), &json!(2)));
    assert_eq!((&letter["last_status"], &letter["webhook_id"]), (&json!(500), &json!(webhook)));
    let one = format!("/api/v1/dead-letters/{}", text(&letter["id"]));
    assert_eq!(&service.get(&one).await.expect(200), letter);
    for (query, count) in [
        (format!("webhook_id={webhook}"), 3),
        ("type=order.paid".to_owned(), 3),
        ("reason=gone".to_owned(), 0),
        ("since=1h".to_owned(), 3),
    ] {
        service.list(&format!("/api/v1/dead-letters?{query}"), count).await;
    }
    assert_eq!(
        service.get("/api/v1/dead-letters?reason=bored").await.problem(422, "invalid").as_deref(),
        Some("reason"),
    );

    receiver.otherwise(|_| Reply::status(200));
    let replay = "/api/v1/dead-letters/replay";
    let dry = service.post(replay, json!({ "dry_run": true, "since": "1h" })).await.expect(200);
    assert_eq!(dry, json!({ "count": 3, "dry_run": true }));
    service.send(service.keyed("DELETE", &one), Body::empty()).await.expect(204);
    service.send(service.keyed("DELETE", &one), Body::empty()).await.problem(404, "not_found");
    let second = format!("/api/v1/dead-letters/{}/replay", text(&letters[1]["id"]));
    let done = json!({ "count": 1, "dry_run": false });
    assert_eq!(service.send(service.keyed("POST", &second), Body::empty()).await.expect(200), done);
    service.send(service.keyed("POST", &second), Body::empty()).await.problem(404, "not_found");
    let rest = service.post(replay, json!({ "type": "order.paid", "rate": 100 })).await.expect(200);
    assert_eq!(rest, done);
    let logs = format!("/api/v1/webhooks/{webhook}/logs?status=success");
    service.list(&logs, 2).await;
    service.list("/api/v1/dead-letters", 0).await;
    service.stop().await;
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_a_dead_letter_with_its_raw_fields() {
    let service = Service::start().await;
    let mut redis = service.redis.connect().await;
    let prefix = Config::load(None, [], None).unwrap().redis.prefix;
    let mut command = redis::cmd("XADD");
    command.arg(format!("{prefix}:in")).arg("*").arg("tenant").arg("acme").arg("type").arg("a b").arg("data").arg("{}");
    command.exec_async(&mut redis).await.unwrap();
    let letters = service.list("/api/v1/dead-letters?reason=malformed", 1).await;
    let letter = &letters[0];
    assert!(text(&letter["id"]).starts_with("bad_"));
    assert_eq!((&letter["webhook_id"], &letter["data"]["type"]), (&Value::Null, &json!("a b")));
    let id = text(&letter["id"]);
    let replayed =
        service.send(service.keyed("POST", &format!("/api/v1/dead-letters/{id}/replay")), Body::empty()).await;
    assert_eq!(replayed.problem(422, "invalid").as_deref(), Some("id"));
    let path = format!("/api/v1/dead-letters/{id}");
    service.send(service.keyed("DELETE", &path), Body::empty()).await.expect(204);
    service.get(&path).await.problem(404, "not_found");
    service.stop().await;
}

#[tokio::test]
async fn only_the_key_opens_and_only_by_a_name_of_this_machine() {
    let service = Service::alone().await;
    for key in [None, Some("Bearer wrong"), Some("Basic dGVzdC1rZXk="), Some("test-key")] {
        for path in ["/api/v1/webhooks", "/api/v1/events/batch", "/api/v1/dead-letters/replay"] {
            let request = service.request("GET", path);
            let request = key.into_iter().fold(request, |request, key| request.header("authorization", key));
            service.send(request, Body::empty()).await.problem(401, "unauthorized");
        }
    }
    for host in ["evil.example", "localhost.evil.example:8080", ""] {
        let request = service.keyed("GET", "/api/v1/webhooks").header("host", host);
        service.send(request, Body::empty()).await.problem(403, "forbidden_host");
        let request = service.request("GET", "/metrics").header("host", host);
        service.send(request, Body::empty()).await.problem(403, "forbidden_host");
    }
    let request = service.keyed("GET", "/api/v1/webhooks").header("host", "localhost:1");
    service.send(request, Body::empty()).await.expect(200);
    service.stop().await;
}

#[tokio::test]
async fn every_refusal_is_a_problem_and_carries_the_name_of_its_request() {
    let service = Service::alone().await;
    let refused = service.get("/api/v1/nothing").await;
    assert!(!refused.headers["x-request-id"].is_empty());
    refused.problem(404, "not_found");
    service.send(service.request("GET", "/nothing"), Body::empty()).await.problem(404, "not_found");
    let refused = service.send(service.keyed("PUT", "/api/v1/webhooks"), Body::empty()).await;
    let allowed = refused.headers["allow"].to_str().unwrap().to_owned();
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
    refused.problem(405, "method_not_allowed");
    service.send(service.request("POST", "/healthz"), Body::empty()).await.problem(405, "method_not_allowed");

    for path in ["/api/v1/webhooks", "/api/v1/events", "/api/v1/events/batch"] {
        service.send(service.keyed("POST", path), "{}").await.problem(415, "unsupported_media_type");
        let json = || service.keyed("POST", path).header("content-type", "application/json");
        service.send(json(), "{").await.problem(400, "invalid_json");
        service.send(json(), vec![b' '; 17 * 1024 * 1024]).await.problem(413, "payload_too_large");
    }
    let check = async |path: &str, body: Value, field: &str| {
        assert_eq!(service.post(path, body).await.problem(422, "invalid").as_deref(), Some(field));
    };
    check("/api/v1/webhooks", json!({ "events": ["*"] }), "url").await;
    check("/api/v1/webhooks", json!({ "url": "https://example.com", "evnts": ["*"] }), "evnts").await;
    check("/api/v1/webhooks", json!({ "url": "https://example.com", "events": [7] }), "events[0]").await;
    check("/api/v1/webhooks", json!({ "url": "https://10.0.0.1/", "events": ["*"] }), "url").await;
    check("/api/v1/events", json!({ "type": "posthaste.x", "data": 1 }), "type").await;

    let traced = service.keyed("GET", "/api/v1/events/evt_x").header("x-request-id", "mine-1");
    let refused = service.send(traced, Body::empty()).await;
    assert_eq!(refused.headers["x-request-id"], "mine-1");
    refused.problem(404, "not_found");
    let traced = service.keyed("GET", "/api/v1/webhooks").header("x-request-id", "not mine");
    assert_ne!(service.send(traced, Body::empty()).await.headers["x-request-id"], "not mine");
    service.stop().await;
}

#[tokio::test]
async fn health_tells_a_living_process_from_one_that_can_work() {
    let mut service = Service::alone().await;
    let open = async |service: &Service, path: &str| service.send(service.request("GET", path), Body::empty()).await;
    open(&service, "/healthz").await.expect(200);
    open(&service, "/readyz").await.expect(200);
    let metrics = open(&service, "/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.headers["content-type"].to_str().unwrap().starts_with("text/plain"));

    service.redis.kill();
    open(&service, "/healthz").await.expect(200);
    let refused = open(&service, "/readyz").await;
    assert!(refused.headers.contains_key("retry-after"));
    refused.problem(503, "unavailable");
    service.get("/api/v1/webhooks").await.problem(503, "unavailable");
    service.redis.restart().await;
    wait_until("it is ready again", async || open(&service, "/readyz").await.status == 200).await;
    service.stop().await;
}

#[tokio::test]
async fn a_full_redis_is_told_with_a_time_to_try_again() {
    let service = Service::alone().await;
    let mut redis = service.redis.connect().await;
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(1).exec_async(&mut redis).await.unwrap();
    for (path, body) in [
        ("/api/v1/events", json!({ "type": "a", "data": 1 })),
        ("/api/v1/events/batch", json!([{ "type": "a", "data": 1 }])),
    ] {
        let refused = service.post(path, body).await;
        assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
        refused.problem(503, "full");
    }
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).exec_async(&mut redis).await.unwrap();
    wait_until("there is room again", async || {
        service.post("/api/v1/events", json!({ "type": "a", "data": 1 })).await.status == 202
    })
    .await;
    service.stop().await;
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_closes_what_is_idle() {
    let service = Service::alone().await;
    let mut idle = TcpStream::connect(service.address).await.unwrap();
    let mut slow = TcpStream::connect(service.address).await.unwrap();
    let body = r#"{"type":"a","data":1}"#;
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut begun = [0; 25];
    slow.read_exact(&mut begun).await.unwrap();
    assert!(begun.starts_with(b"HTTP/1.1 100 Continue"));
    service.shutdown.stop();
    let mut nothing = Vec::new();
    idle.read_to_end(&mut nothing).await.unwrap();
    assert!(nothing.is_empty());
    slow.write_all(body.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 202"), "{}", String::from_utf8_lossy(&answer));
    assert!(TcpStream::connect(service.address).await.is_err());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_types_refuse_what_is_unknown_or_does_not_fit() {
    let redis = TestRedis::start().await;
    let engine = Engine::idle(&redis, &[("POSTHASTE_API__STRICT_TYPES", "true")]).await;
    let service = Service::before(redis, engine).await;
    let event = |event_type: &str, data: Value| json!({ "type": event_type, "data": data });
    let good = event("message.created", json!({ "text": "hello" }));
    service.post("/api/v1/events", good.clone()).await.expect(202);
    let unknown = service.post("/api/v1/events", event("mesage.created", json!({}))).await;
    assert_eq!(unknown.problem(422, "invalid").as_deref(), Some("type"));
    let misfit = service.post("/api/v1/events", event("message.created", json!({ "text": 7 }))).await;
    assert!(misfit.json()["detail"].as_str().unwrap().starts_with("data: at /text: "), "{misfit:?}");
    assert_eq!(misfit.problem(422, "invalid").as_deref(), Some("data"));
    let batch = json!([good, event("message.created", json!({}))]);
    let results = service.post("/api/v1/events/batch", batch).await.expect(202);
    assert!(results["data"][0]["id"].is_string(), "{results}");
    assert_eq!(results["data"][1]["error"]["field"], "data");
    service.stop().await;
}

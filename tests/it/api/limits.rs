//! Requests are bounded in size and time, and refused before Redis is full.

use super::*;

/// Longer than any client may take to send its head or body, or to read its answer on.
const LONGER_THAN_ALLOWED: Duration = Duration::from_secs(50);

async fn connect(service: &Service) -> TcpStream {
    TcpStream::connect(service.address).await.unwrap()
}

/// All that still comes until the other side ends the connection.
async fn until_the_end(mut stream: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    // A reset ends it as well.
    let reading = stream.read_to_end(&mut received);
    let _ = tokio::time::timeout(LONGER_THAN_ALLOWED, reading).await.expect("the connection is ended");
    received
}

#[tokio::test]
async fn slow_clients_are_cut() {
    let service = Service::alone().await;
    let half_a_head = async {
        let mut stream = connect(&service).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: local").await.unwrap();
        until_the_end(stream).await
    };
    let half_a_body = async {
        let mut stream = connect(&service).await;
        let head = format!(
            "POST /api/v1/webhooks HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\
             content-type: application/json\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        until_the_end(stream).await
    };
    // Requests without end whose answers nobody reads: once no more fit on the way, the connection is ended.
    let no_reader = async {
        let mut stream = connect(&service).await;
        let requests = "GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(100);
        let writing = async { while stream.write_all(requests.as_bytes()).await.is_ok() {} };
        tokio::time::timeout(LONGER_THAN_ALLOWED, writing).await.expect("the connection is ended");
    };
    let (head, body, ()) = tokio::join!(half_a_head, half_a_body, no_reader);
    assert!(!head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    assert!(body.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&body));
    service.stop().await;
}

#[tokio::test]
async fn heads_and_bodies_have_a_largest_size() {
    let service = Service::alone().await;
    let large = "x".repeat(256 * 1024);
    let refused = service.send(service.keyed("GET", "/healthz").header("x-large", &large), Body::empty()).await;
    assert_eq!(refused.status, 431);
    let body = json!({ "url": "https://example.com/", "events": ["*"], "name": "x".repeat(300 * 1024) });
    service.post("/api/v1/webhooks", body).await.problem(413, "payload_too_large");
    service.stop().await;
}

#[tokio::test]
async fn publishing_is_refused_with_a_time_before_redis_is_full_and_all_else_goes_on() {
    let mut service = Service::alone().await;
    service.engine.run(posthaste::roles::Role::Dispatcher);
    let webhook = service.webhook("https://example.com/").await;
    service.redis.fill().await;
    let mut redis = service.redis.connect().await;
    let info: String = redis::cmd("INFO").arg("memory").query_async(&mut redis).await.unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim();
    let used: u64 = used.parse().unwrap();
    // Nine tenths are used: not full, but near it.
    let set = async |redis: &mut redis::aio::MultiplexedConnection, bytes: u64| {
        redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).exec_async(redis).await.unwrap();
    };
    set(&mut redis, used * 10 / 9).await;
    let event = json!({ "type": "a", "data": 1 });
    wait_until("publishing is refused", async || service.post("/api/v1/events", event.clone()).await.status == 503)
        .await;
    let refused = service.post("/api/v1/events", event.clone()).await;
    assert!(refused.headers.contains_key("retry-after"));
    refused.problem(503, "full");
    service.get(&format!("/api/v1/webhooks/{webhook}")).await.expect(200);
    service.send(service.keyed("DELETE", &format!("/api/v1/webhooks/{webhook}")), Body::empty()).await.expect(204);
    set(&mut redis, 0).await;
    wait_until("there is room again", async || service.post("/api/v1/events", event.clone()).await.status == 202).await;
    service.stop().await;
}

#[tokio::test]
async fn only_so_many_replays_run_at_once() {
    // Nobody carries them out.
    let service = Service::alone().await;
    let webhook = service.webhook("https://example.com/").await;
    let path = format!("/api/v1/webhooks/{webhook}/replay");
    for _ in 0..4 {
        service.post(&path, json!({ "from": "1h" })).await.expect(202);
    }
    service.post(&path, json!({ "from": "1h" })).await.problem(409, "conflict");
    let other = service.webhook("https://example.com/other").await;
    service.post(&format!("/api/v1/webhooks/{other}/replay"), json!({ "from": "1h" })).await.expect(202);
    service.stop().await;
}

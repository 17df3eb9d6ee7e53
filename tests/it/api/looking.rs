//! Events and deliveries one by one, sent again, and tests sent by hand.

use super::*;
use crate::support::engine::PATIENCE;

#[tokio::test]
async fn events_are_listed_newest_first_by_type_and_time() {
    let service = Service::alone().await;
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(service.publish(json!({ "n": n })).await);
    }
    service.post("/api/v1/events", json!({ "type": "other", "data": 1 })).await.expect(202);
    made.reverse();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = service.get(&format!("/api/v1/events?limit=2&type=order.paid{cursor}")).await.expect(200);
        seen.extend(page["data"].as_array().unwrap().iter().map(|event| text(&event["id"])));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, made);
    service.list("/api/v1/events", 6).await;
    service.list("/api/v1/events?since=1h&until=2020-01-01", 0).await;
    let of_other = service.request("GET", "/api/v1/events?tenant=other").header("authorization", "Bearer test-key");
    assert_eq!(service.send(of_other, Body::empty()).await.expect(200)["data"], json!([]));
    service.stop().await;
}

#[tokio::test]
async fn where_a_delivery_stands_is_told_and_it_can_be_sent_again() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::status(500), Reply::status(500)]);
    let webhook = service.webhook(&receiver.url("/hook")).await;
    let event = service.publish(json!({ "n": 1 })).await;
    let letter = text(&service.list("/api/v1/dead-letters", 1).await[0]["id"]);
    let path = format!("/api/v1/deliveries/{letter}");
    let shown = service.get(&path).await.expect(200);
    assert_eq!((&shown["status"], &shown["attempts"], &shown["event_id"]), (&json!("dead"), &json!(2), &json!(event)));
    assert_eq!(shown["attempt_log"].as_array().unwrap().len(), 2);

    let resent = service.call("POST", &format!("{path}/resend"), json!({})).await.expect(202);
    assert_eq!(resent, json!({ "id": letter, "how": "redriven" }));
    let status = async |id: &str| service.get(&format!("/api/webhooks/{id}/status")).await.expect(200);
    wait_until("it is delivered", async || status(&event).await["status"] == "delivered").await;
    assert_eq!(status(&letter).await["deliveries"][0]["attempts"], 3);
    let again = service.call("POST", &format!("{path}/resend"), json!({})).await.expect(202);
    assert_eq!(again["how"], "copied");
    assert_ne!(again["id"], json!(letter));
    receiver.wait_for(|received| received.len() == 4, PATIENCE).await;

    let of_webhook = format!("/api/webhooks/subscription/{webhook}");
    let deliveries = service.list(&of_webhook, 2).await;
    assert_eq!((&deliveries[0]["id"], &deliveries[1]["id"]), (&again["id"], &json!(letter)));
    let page = service.get(&format!("{of_webhook}?limit=1")).await.expect(200);
    let next = service.get(&format!("{of_webhook}?limit=1&cursor={}", text(&page["next_cursor"]))).await.expect(200);
    assert_eq!(next["data"][0]["id"], json!(letter));
    service.get("/api/webhooks/evt_nothing/status").await.problem(404, "not_found");
    service.stop().await;
}

#[tokio::test]
async fn an_attempt_can_be_copied_as_curl() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    let body =
        json!({ "url": receiver.url("/hook"), "events": ["*"], "headers": { "Authorization": "Bearer hunter2" } });
    let webhook = text(&service.post("/api/v1/webhooks", body).await.expect(201)["id"]);
    service.publish(json!({ "it's": 1 })).await;
    let attempt = text(&service.list(&format!("/api/v1/webhooks/{webhook}/logs"), 1).await[0]["id"]);
    let shown = service.get(&format!("/api/v1/attempts/{attempt}")).await.expect(200);
    let sent = receiver.received("/hook").remove(0);
    assert_eq!(shown["request_body"].as_str().unwrap().as_bytes(), &sent.body[..]);
    let curl = text(&shown["curl"]);
    assert!(curl.contains(sent.header("webhook-signature").unwrap()) && !curl.contains("hunter2"), "{curl}");

    // The line does what it says, in a shell of the user's own.
    let ran = tokio::process::Command::new("sh").arg("-c").arg(&curl).output().await.unwrap();
    if ran.status.success() {
        let again = receiver.received("/hook").remove(1);
        assert_eq!((&again.body, again.header("webhook-id")), (&sent.body, sent.header("webhook-id")));
    }
    service.stop().await;
}

#[tokio::test]
async fn a_test_is_sent_at_once_and_says_what_the_endpoint_did() {
    let service = Service::alone().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::status(200), Reply::status(503)]);
    let made = service.post("/api/v1/webhooks", json!({ "url": receiver.url("/hook"), "events": ["none"] })).await;
    let webhook = text(&made.expect(201)["id"]);
    let path = format!("/api/v1/webhooks/{webhook}/test");
    let good = service.send(service.keyed("POST", &path), Body::empty()).await.expect(200);
    assert_eq!(
        (&good["is_success"], &good["response_status"], &good["error"]),
        (&json!(true), &json!(200), &Value::Null)
    );
    assert!(good["timings_ms"]["first_byte"].is_number() && good["response_time_ms"].is_number());
    let bad = service.post(&path, json!({ "type": "order.paid", "data": { "n": 1 } })).await.expect(200);
    let refused = service.post(&path, json!({ "type": "order.paid" })).await;
    assert_eq!(refused.problem(422, "invalid").as_deref(), Some("data"));
    assert_eq!((&bad["is_success"], &bad["response_status"]), (&json!(false), &json!(503)));
    let sent = receiver.received("/hook");
    assert_eq!(sent[0].header("x-webhook-event"), Some("ping"));
    assert!(sent[1].body.ends_with(b"\"data\":{\"n\":1}}") && sent[1].header("webhook-signature").is_some());
    assert_eq!(service.post(&path, json!({ "type": "a b" })).await.problem(422, "invalid").as_deref(), Some("type"));
    let logs = service.list(&format!("/api/v1/webhooks/{webhook}/logs"), 2).await;
    assert!(logs.iter().all(|attempt| attempt["is_test"] == true));
    let stats = service.get(&format!("/api/v1/webhooks/{webhook}/stats")).await.expect(200);
    assert_eq!((&stats["total_attempts"], &stats["success_rate"]), (&json!(0), &Value::Null));
    service.stop().await;
}

#[tokio::test]
async fn a_tenants_own_limits_hold() {
    let service = Service::alone().await;
    let limits = json!({ "id": "acme", "name": "Acme", "max_stored_mb": 1, "rate_limit_per_minute": 2 });
    let tenant = service.post("/api/v1/tenants", limits).await.expect(201);
    assert_eq!((&tenant["max_stored_mb"], &tenant["rate_limit_per_minute"]), (&json!(1), &json!(2)));
    let key = service.key("read", "acme").await;
    let mut refused = 0;
    for _ in 0..5 {
        let answer = service.call_as(&key, "GET", "/api/v1/webhooks", &Value::Null).await;
        assert_eq!(answer.headers["ratelimit-limit"], "2");
        refused += u32::from(answer.status == 429);
    }
    assert!(refused > 0);
    service.stop().await;
}

#[tokio::test]
async fn the_catalogue_has_samples_and_a_tenant_adds_types_of_its_own() {
    let service = Service::alone().await;
    let catalogue = service.get("/api/v1/webhooks/events?limit=250").await.expect(200);
    let known = catalogue["data"].as_array().unwrap().clone();
    let created = known.iter().find(|info| info["type"] == "message.created").expect("message.created");
    assert!(created["sample"].is_object() && created["schema"].is_object() && created["category"].is_string());
    let own = json!({
        "type": "order.paid", "category": "order", "description": "An order was paid.", "sample": { "id": 1 },
        "schema": { "type": "object", "required": ["id"] },
    });
    assert_eq!(service.post("/api/v1/event-types", own.clone()).await.expect(201), own);
    service.list("/api/v1/webhooks/events?limit=250", known.len() + 1).await;
    let of_other = service.request("GET", "/api/v1/webhooks/events?limit=250&tenant=other");
    let of_other = service.send(of_other.header("authorization", "Bearer test-key"), Body::empty()).await.expect(200);
    assert_eq!(of_other["data"].as_array().unwrap().len(), known.len());
    let misfit = json!({ "type": "x", "description": "x", "sample": 1, "schema": { "type": "object" } });
    assert_eq!(service.post("/api/v1/event-types", misfit).await.problem(422, "invalid").as_deref(), Some("sample"));
    service
        .post("/api/v1/event-types", json!({ "type": "ping", "description": "x" }))
        .await
        .problem(409, "already_exists");
    let page = service.get("/api/v1/webhooks/events?limit=1").await.expect(200);
    let next = format!("/api/v1/webhooks/events?limit=1&cursor={}", text(&page["next_cursor"]));
    assert_ne!(service.get(&next).await.expect(200)["data"], page["data"]);

    let delete = async |path: &str| service.send(service.keyed("DELETE", path), Body::empty()).await;
    delete("/api/v1/event-types/order.paid").await.expect(204);
    delete("/api/v1/event-types?type=order.paid").await.problem(404, "not_found");
    assert_eq!(delete("/api/v1/event-types").await.problem(422, "invalid").as_deref(), Some("type"));
    service.stop().await;
}

#[tokio::test]
async fn statistics_say_how_a_webhook_does_hour_by_hour() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::status(200), Reply::status(500)]);
    let webhook = service.webhook(&receiver.url("/hook")).await;
    service.publish(json!(1)).await;
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    service.publish(json!(2)).await;
    let path = format!("/api/v1/webhooks/{webhook}/stats");
    let mut stats = Value::Null;
    // Attempts and deliveries are counted in one step, and read in two.
    wait_until("all is counted", async || {
        stats = service.get(&format!("{path}?window=2h")).await.expect(200);
        stats["total_attempts"] == 3 && stats["total_deliveries"] == 2
    })
    .await;
    assert_eq!((&stats["successful_attempts"], &stats["failed_attempts"]), (&json!(2), &json!(1)));
    assert_eq!((&stats["status_classes"]["2xx"], &stats["status_classes"]["5xx"]), (&json!(2), &json!(1)));
    assert_eq!(stats["backlog"], json!(0));
    assert_eq!(stats["hours"].as_array().unwrap().len(), 2);
    assert!(stats["p50_ms"].as_f64() <= stats["p99_ms"].as_f64() && stats["last_triggered_at"].is_string());
    for window in ["30m", "8d", "x", "0h"] {
        let refused = service.get(&format!("{path}?window={window}")).await;
        assert_eq!(refused.problem(422, "invalid").as_deref(), Some("window"), "{window}");
    }
    service.stop().await;
}

//! All routes, as the OpenAPI document lists them: none lets a key see or change what is another tenant's, and none does
//! more for a role than it says.

use std::collections::BTreeMap;

use super::*;

/// What stands in a path for each of its parameters: things of the tenant `acme`.
async fn things(service: &Service, receiver: &Receiver) -> BTreeMap<&'static str, String> {
    let webhook = service.webhook(&receiver.url("/hook")).await;
    let event = service.publish(json!({ "n": 1 })).await;
    let letter = text(&service.list("/api/v1/dead-letters", 1).await[0]["id"]);
    let replay =
        service.post(&format!("/api/v1/webhooks/{webhook}/replay"), json!({ "from": "1h", "type": "none" })).await;
    // The id of a dead letter is that of its delivery.
    service.post("/api/v1/event-types", json!({ "type": "order.paid", "description": "Paid." })).await.expect(201);
    let key = service.post("/api/v1/keys", json!({ "role": "read", "tenant": "acme" })).await.expect(201);
    BTreeMap::from([
        ("attempt_id", text(&service.list(&format!("/api/v1/webhooks/{webhook}/logs"), 2).await[0]["id"])),
        ("webhook_id", webhook),
        ("event_id", event.clone()),
        ("delivery_id", letter.clone()),
        ("event_or_delivery_id", event),
        ("dead_letter_id", letter),
        ("replay_id", text(&replay.expect(202)["id"])),
        ("key_id", text(&key["id"])),
        ("tenant_id", "acme".to_owned()),
        ("event_type", "order.paid".to_owned()),
    ])
}

/// Method, path with parameters, and the roles that the document names.
fn operations() -> Vec<(String, String, String)> {
    let document: Value = serde_json::from_str(&api::openapi::json()).unwrap();
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let description = operation["description"].as_str().unwrap_or_default();
            let roles = description.rsplit_once("Roles: ").map_or("", |(_, roles)| roles);
            operations.push((method.to_uppercase(), path.clone(), roles.to_owned()));
        }
    }
    assert!(operations.len() > 20);
    operations
}

/// The path with things for its parameters; `None` where it has none.
fn filled(path: &str, things: &BTreeMap<&'static str, String>) -> Option<String> {
    let mut filled = path.to_owned();
    for name in path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()) {
        let thing = things.get(name).unwrap_or_else(|| panic!("{path}: say in `things` what {name} is"));
        filled = filled.replace(&format!("{{{name}}}"), thing);
    }
    (filled != path).then_some(filled)
}

/// A body that would do, were it one's own.
fn body(method: &str, path: &str) -> Value {
    match (method, path) {
        ("GET" | "DELETE", _) => Value::Null,
        (_, path) if path.ends_with("/replay") => json!({ "from": "1h" }),
        _ => json!({}),
    }
}

#[tokio::test]
async fn another_tenants_things_are_not_there_on_any_route() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(|_| Reply::status(500));
    let things = things(&service, &receiver).await;
    let key = service.key("tenant", "other").await;
    let mut tried = 0;
    for (method, path, roles) in operations().into_iter().filter(|(_, _, roles)| !roles.is_empty()) {
        let Some(filled) = filled(&path, &things) else { continue };
        let answer = service.call_as(&key, &method, &filled, &body(&method, &path)).await;
        if roles.contains("`tenant`") {
            answer.problem(404, "not_found");
        } else {
            answer.problem(403, "forbidden");
        }
        tried += 1;
    }
    assert!(tried > 15, "{tried}");
    // All is as it was.
    service.get(&format!("/api/v1/webhooks/{}", things["webhook_id"])).await.expect(200);
    service.list("/api/v1/dead-letters", 1).await;
    service.list("/api/v1/keys?tenant=acme", 1).await;
    service.stop().await;
}

#[tokio::test]
async fn a_role_does_what_the_document_says_and_no_more() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(|_| Reply::status(500));
    let things = things(&service, &receiver).await;
    let mut keys = BTreeMap::new();
    for role in ["tenant", "publish", "read"] {
        // Of a tenant that has nothing: whatever is allowed changes nothing.
        keys.insert(role, service.key(role, "other").await);
    }
    for (method, path, roles) in operations().into_iter().filter(|(_, _, roles)| !roles.is_empty()) {
        let filled = filled(&path, &things).unwrap_or(path.clone());
        service.call_as("rubbish", &method, &filled, &Value::Null).await.problem(401, "unauthorized");
        for (role, key) in &keys {
            let answer = service.call_as(key, &method, &filled, &body(&method, &path)).await;
            let is_forbidden = answer.status == 403;
            assert_eq!(!is_forbidden, roles.contains(&format!("`{role}`")), "{role}: {method} {path}: {answer:?}");
            assert!(answer.headers.contains_key("ratelimit-limit"), "{method} {path}");
        }
    }
    service.stop().await;
}

#[tokio::test]
async fn what_is_no_method_no_text_and_no_object_is_refused_as_that() {
    let service = Service::alone().await;
    let webhook = service.webhook("https://example.com/hook").await;
    let path = format!("/api/v1/webhooks/{webhook}");
    let nameless = service.request("TRACE", &path).header("authorization", format!("Bearer {KEY}"));
    service.send(nameless.header("x-tenant", ""), Body::empty()).await.problem(405, "method_not_allowed");
    for path in ["/api/v1/webhooks/%ff".to_owned(), format!("{path}/replays/%ff")] {
        service.get(&path).await.problem(404, "not_found");
    }
    let rotate = format!("{path}/rotate-secret");
    service.post(&rotate, json!(["sixteen characters", 0])).await.problem(400, "invalid_json");
    let webhook = json!(["https://example.com/hook", ["*"]]);
    service.post("/api/v1/webhooks", webhook).await.problem(400, "invalid_json");
    service.stop().await;
}

#[tokio::test]
async fn data_may_be_null_and_so_may_a_body_that_may_be_left_out() {
    let service = Service::alone().await;
    let webhook = service.webhook("https://example.com/hook").await;
    service.post(&format!("/api/v1/webhooks/{webhook}/resume"), Value::Null).await.expect(200);
    let event = service.publish(Value::Null).await;
    let shown = service.get(&format!("/api/v1/events/{event}")).await.expect(200);
    assert_eq!(shown.get("data"), Some(&Value::Null));
    service.post("/api/v1/events", json!({ "type": "a" })).await.problem(422, "invalid");
    service.stop().await;
}

#[tokio::test]
async fn a_replay_has_a_rate_that_can_be_kept() {
    let service = Service::alone().await;
    let webhook = service.webhook("https://example.com/hook").await;
    for rate in [0, 1_000_001] {
        for (path, asked) in [
            (format!("/api/v1/webhooks/{webhook}/replay"), json!({ "from": "1h", "rate": rate, "dry_run": true })),
            ("/api/v1/dead-letters/replay".to_owned(), json!({ "rate": rate, "dry_run": true })),
        ] {
            let refused = service.post(&path, asked).await;
            assert_eq!(refused.problem(422, "invalid").as_deref(), Some("rate"), "{path} {rate}");
        }
    }
    service.stop().await;
}

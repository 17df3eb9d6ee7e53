//! What others post, signed, becomes one event for one webhook; what is not signed right becomes nothing.

use posthaste::domain::signature::{SigningKeys, header, verify};

use super::*;
use crate::support::engine::PATIENCE;

struct Hook {
    id: String,
    secret: String,
    ingest_secret: String,
}

async fn hook(service: &Service, url: &str) -> Hook {
    let body = json!({ "url": url, "events": ["nothing.of.this"] });
    let made = service.post("/api/v1/webhooks", body).await.expect(201);
    Hook { id: text(&made["id"]), secret: text(&made["secret"]), ingest_secret: text(&made["ingest_secret"]) }
}

/// Headers of a scheme, by a secret.
fn signed(scheme: &str, secret: &str, body: &str, age_s: u64) -> Vec<(&'static str, String)> {
    let now_s = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - age_s;
    let made = SigningKeys::new(secret, None).unwrap().headers("msg_1", now_s, body.as_bytes());
    match scheme {
        "hub" => vec![(header::HUB_SIGNATURE_256, made.hub_signature_256)],
        _ => vec![
            (header::WEBHOOK_ID, "msg_1".to_owned()),
            (header::WEBHOOK_TIMESTAMP, now_s.to_string()),
            (header::WEBHOOK_SIGNATURE, made.webhook_signature),
        ],
    }
}

async fn ingest(service: &Service, id: &str, headers: &[(&'static str, String)], body: &str) -> Answer {
    let mut request = service.request("POST", &format!("/api/webhooks/ingest/{id}"));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    service.send(request.header("x-webhook-event", "order.paid"), body.to_owned()).await
}

#[tokio::test]
async fn a_signed_post_becomes_an_event_for_that_webhook_alone_and_its_repeat_does_not() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    let hook = hook(&service, &receiver.url("/ours")).await;
    service.webhook(&receiver.url("/all")).await;
    let body = r#"{ "n" : 1 }"#;
    for scheme in ["hub", "standard"] {
        let headers = signed(scheme, &hook.ingest_secret, body, 0);
        let first = ingest(&service, &hook.id, &headers, body).await;
        assert!(first.headers.contains_key("ratelimit-remaining"));
        let first = first.expect(202);
        let id = text(&first[&hook.id]);
        assert_eq!(ingest(&service, &hook.id, &headers, body).await.expect(202), first, "{scheme}");
        let event = service.get(&format!("/api/v1/events/{id}")).await.expect(200);
        assert_eq!((&event["type"], &event["data"]), (&json!("order.paid"), &json!({ "n": 1 })));
    }
    service.engine.wait_until_dispatched().await;
    for webhook in service.engine.webhooks().await {
        service.engine.wait_until_drained(webhook).await;
    }
    assert_eq!((receiver.received("/ours").len(), receiver.count()), (2, 2));

    // Both signatures of one request are known, so that neither alone makes it new.
    let both =
        [signed("hub", &hook.ingest_secret, "[2]", 0), signed("standard", &hook.ingest_secret, "[2]", 0)].concat();
    let first = ingest(&service, &hook.id, &both, "[2]").await.expect(202);
    assert_eq!(ingest(&service, &hook.id, &both[..1], "[2]").await.expect(202), first);
    assert_eq!(ingest(&service, &hook.id, &both[1..], "[2]").await.expect(202), first);
    service.stop().await;
}

#[tokio::test]
async fn what_is_not_signed_with_the_ingest_secret_is_refused_like_an_unknown_webhook() {
    let service = Service::alone().await;
    let hook = hook(&service, "https://example.com/").await;
    let unknown = SubscriptionIdText::other_than(&hook.id);
    let body = "{}";
    let refusals = [
        ingest(&service, &unknown.0, &signed("hub", &hook.ingest_secret, body, 0), body).await,
        ingest(&service, "rubbish", &signed("hub", &hook.ingest_secret, body, 0), body).await,
        ingest(&service, &hook.id, &[], body).await,
        ingest(&service, &hook.id, &signed("hub", "another secret, not ours", body, 0), body).await,
        ingest(&service, &hook.id, &signed("hub", &hook.ingest_secret, "{ }", 0), body).await,
        ingest(&service, &hook.id, &signed("standard", &hook.ingest_secret, body, 301), body).await,
        // A delivery of ours that somebody posts back.
        ingest(&service, &hook.id, &signed("hub", &hook.secret, body, 0), body).await,
    ];
    let bodies: std::collections::BTreeSet<Bytes> = refusals.iter().map(|answer| answer.body.clone()).collect();
    assert_eq!(bodies.len(), 1);
    for refusal in refusals {
        refusal.problem(401, "unauthorized");
    }
    let large = format!("\"{}\"", "x".repeat(MAX_PAYLOAD_BYTES));
    let headers = signed("hub", &hook.ingest_secret, &large, 0);
    ingest(&service, &hook.id, &headers, &large).await.problem(413, "payload_too_large");
    let no_json = signed("hub", &hook.ingest_secret, "no json", 0);
    let refused = ingest(&service, &hook.id, &no_json, "no json").await;
    assert_eq!(refused.problem(422, "invalid").as_deref(), Some("data"));
    service.stop().await;
}

/// An id of the right form that nobody has.
struct SubscriptionIdText(String);

impl SubscriptionIdText {
    fn other_than(id: &str) -> Self {
        let mut known: posthaste::domain::id::SubscriptionId = id.parse().unwrap();
        known.random ^= 1;
        Self(known.to_string())
    }
}

#[tokio::test]
async fn posts_are_limited_for_each_webhook_and_each_address() {
    let service = Service::alone().await;
    let hook = hook(&service, "https://example.com/").await;
    let mut statuses = Vec::new();
    for n in 0..17 {
        let body = n.to_string();
        let answer = ingest(&service, &hook.id, &signed("hub", &hook.ingest_secret, &body, 0), &body).await;
        if answer.status == 429 {
            assert!(answer.headers.contains_key("retry-after") && answer.headers["ratelimit-remaining"] == "0");
        }
        statuses.push(answer.status.as_u16());
    }
    assert!(statuses.contains(&202) && statuses.contains(&429), "{statuses:?}");
    // Whoever guesses is stopped by the address, and another address behind the proxy is not.
    let from = |address: &str| vec![("x-forwarded-for", address.to_owned())];
    let mut refused = 0;
    for _ in 0..41 {
        let answer = ingest(&service, &hook.id, &from("192.0.2.1"), "{}").await;
        refused += u32::from(answer.status == 429);
    }
    assert!(refused > 0);
    ingest(&service, &hook.id, &from("192.0.2.2"), "{}").await.problem(401, "unauthorized");
    service.stop().await;
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_old_one_and_is_shown_once() {
    let service = Service::start().await;
    let receiver = Receiver::start().await;
    let made =
        service.post("/api/v1/webhooks", json!({ "url": receiver.url("/hook"), "events": ["*"] })).await.expect(201);
    let path = format!("/api/v1/webhooks/{}", text(&made["id"]));
    let rotate = async |body: Value| service.post(&format!("{path}/rotate-secret"), body).await;
    assert_eq!(
        rotate(json!({ "overlap_seconds": 99_999_999 })).await.problem(422, "invalid").as_deref(),
        Some("overlap_seconds")
    );
    assert_eq!(rotate(json!({ "secret": "short" })).await.problem(422, "invalid").as_deref(), Some("secret"));
    let rotated = rotate(json!({ "with_ingest": true })).await.expect(200);
    let (old, new) = (text(&made["secret"]), text(&rotated["secret"]));
    assert_ne!(old, new);
    assert_ne!(made["ingest_secret"], rotated["ingest_secret"]);
    assert!(service.get(&path).await.expect(200).get("secret").is_none());

    service.publish(json!(1)).await;
    let received = receiver.wait_for(|received| !received.is_empty(), PATIENCE).await.remove(0);
    let now_s = received.header("webhook-timestamp").unwrap().parse().unwrap();
    for secret in [&old, &new] {
        let results = verify(secret, |name| received.header(name), &received.body, now_s, 1);
        assert_eq!(results[0].result, Ok(()), "by Standard Webhooks");
    }
    // The old ingest secret is taken as long.
    let id = text(&made["id"]);
    for secret in [text(&made["ingest_secret"]), text(&rotated["ingest_secret"])] {
        ingest(&service, &id, &signed("hub", &secret, "{}", 0), "{}").await.expect(202);
    }
    let ended = rotate(json!({ "overlap_seconds": 0 })).await.expect(200);
    service.publish(json!(2)).await;
    let received =
        receiver.wait_for(|received| received.iter().any(|r| r.body.ends_with(b"\"data\":2}")), PATIENCE).await;
    let last = received.iter().find(|r| r.body.ends_with(b"\"data\":2}")).unwrap();
    let holds =
        |secret: &str| verify(secret, |name| last.header(name), &last.body, now_s, 60).iter().all(|r| r.result.is_ok());
    assert!(holds(&text(&ended["secret"])) && !holds(&new));
    service.stop().await;
}

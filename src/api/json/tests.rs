use serde_json::{Value, json, to_value};

use super::*;
use crate::{
    domain::{
        attempt::{Answer, Attempt, Failure, FailureKind, Response, Timings},
        delivery::{DeliveryStatus, Standing},
        event::Event,
        id::{AttemptId, BadId, DeliveryId, EventId, StreamId, SubscriptionId},
        outcome::Reason,
        retry::Retry,
        subscription::{Ordering, PayloadFormat, Secrets, State, Subscription},
    },
    manage::{DeadItem, DeliverySummary, DeliveryView, StatusView},
    streams::{BadEntry, DeadLetter, Progress, Versioned},
};

const AT: StreamId = StreamId { ms: 1_795_553_805_123, seq: 1 };
const WEBHOOK: SubscriptionId = SubscriptionId { ms: AT.ms, shard: 3, random: 9 };

fn webhook(secret: &str) -> Versioned {
    let subscription = Subscription {
        id: WEBHOOK,
        tenant: "acme".into(),
        name: String::new(),
        url: "https://example.com/".into(),
        events: vec!["message.*".parse().unwrap(), "*".parse().unwrap()],
        retry: Retry::preset("fast").unwrap(),
        timeout_seconds: 30,
        max_concurrency: 10,
        rate_limit_per_minute: None,
        ordering: Ordering::Fifo,
        headers: [("X-Env".to_owned(), "prod".to_owned())].into(),
        payload_format: PayloadFormat::Raw,
        secrets: Secrets::only(secret.into()),
        ingest: Secrets::only("whsec_i".into()),
        created_at_ms: AT.ms,
        updated_at_ms: AT.ms,
    };
    let state = State { delivered: 3, failed: 1, ..State::default() };
    Versioned { subscription, state, version: AT }
}

#[test]
fn a_webhook_has_every_documented_field_and_no_secret() {
    let json = to_value(Webhook::of(&webhook("whsec_x"), false)).unwrap();
    let expected = json!({
        "id": WEBHOOK.to_string(), "tenant": "acme", "name": null, "url": "https://example.com/",
        "events": ["message.*", "*"], "filter": null, "status": "active", "disabled_reason": null,
        "is_active": true, "retry_count": 3,
        "retry": { "kind": "exponential", "base_ms": 1000, "factor": 2.0, "max_ms": 3_600_000, "jitter": 0.1 },
        "timeout_seconds": 30, "max_concurrency": 10, "rate_limit_per_minute": null, "ordering": "fifo",
        "headers": { "X-Env": "prod" }, "payload_format": "raw", "last_triggered_at": null,
        "total_deliveries": 4, "successful_deliveries": 3, "failed_deliveries": 1,
        "created_at": "2026-11-24T20:56:45.123Z", "updated_at": "2026-11-24T20:56:45.123Z",
    });
    assert_eq!(json, expected);
}

#[test]
fn a_new_webhook_shows_its_secrets_and_a_free_text_one_its_standard_form() {
    let secrets = |secret: &str| {
        let json = to_value(Webhook::of(&webhook(secret), true)).unwrap();
        (json["secret"].clone(), json.get("standard_secret").cloned(), json["ingest_secret"].clone())
    };
    assert_eq!(secrets("whsec_x"), (json!("whsec_x"), None, json!("whsec_i")));
    let (_, standard, _) = secrets("sixteen characters");
    assert_eq!(standard, Some(json!("whsec_c2l4dGVlbiBjaGFyYWN0ZXJz")));
}

fn attempted(answer: Answer) -> Attempt {
    Attempt {
        event: EventId { at: AT, shard: 3, nonce: 5 },
        subscription: WEBHOOK,
        copy: 0,
        tenant: "acme".into(),
        event_type: "message.created".into(),
        url: "https://example.com/".into(),
        number: 2,
        at_ms: AT.ms,
        request_headers: vec![("a".into(), "1".into()), ("a".into(), "2".into())],
        answer,
        response_time_ms: 12.5,
        timings: Timings { dns: Some(1.0), ..Timings::default() },
        is_late: false,
        payload_format: PayloadFormat::Envelope,
        is_test: false,
    }
}

fn attempt(answer: Answer) -> Value {
    to_value(AttemptJson::of(AttemptId { at: AT, shard: 3 }, &attempted(answer))).unwrap()
}

#[test]
fn a_test_send_shows_why_it_was_not_taken_in_plain_words() {
    let check = |answer: Answer, is_success: bool, error: Value, kind: Value| {
        let shown = to_value(TestResultJson::of(None, &attempted(answer))).unwrap();
        assert_eq!((&shown["is_success"], &shown["error"], &shown["error_kind"]), (&json!(is_success), &error, &kind));
        assert_eq!((&shown["response_time_ms"], &shown["attempt_id"]), (&json!(12.5), &Value::Null));
    };
    let answered = |status| {
        Answer::Response(Response { status, headers: vec![], body: bytes::Bytes::new(), retry_after_ms: None })
    };
    check(answered(204), true, Value::Null, Value::Null);
    check(answered(500), false, json!("the endpoint answered 500: only 2xx is success"), Value::Null);
    check(answered(301), false, json!("the endpoint answered 301: redirects are not followed"), Value::Null);
    let failed = Answer::Failure(Failure { kind: FailureKind::Dns, text: "no such name".into() });
    check(failed, false, json!("no such name"), json!("dns"));
}

#[test]
fn an_attempt_shows_either_an_answer_or_a_failure() {
    let headers = vec![("server".into(), "x".into())];
    let body = bytes::Bytes::from_static(b"no \xff");
    let answered = attempt(Answer::Response(Response { status: 500, headers, body, retry_after_ms: None }));
    assert_eq!(answered["request_headers"], json!({ "a": "1, 2" }));
    assert_eq!(answered["response_status"], json!(500));
    assert_eq!(answered["response_body"], json!("no \u{fffd}"));
    assert_eq!(answered["error"], Value::Null);
    assert_eq!(answered["timings_ms"], json!({ "dns": 1.0, "connect": null, "tls": null, "first_byte": null }));
    let failed = attempt(Answer::Failure(Failure { kind: FailureKind::Tls, text: "expired".into() }));
    assert_eq!(failed["response_status"], Value::Null);
    assert_eq!(failed["response_headers"], json!({}));
    assert_eq!(failed["error_kind"], json!("tls"));
    assert_eq!((&failed["is_success"], &failed["is_test"]), (&json!(false), &json!(false)));
}

#[test]
fn a_dead_letter_shows_its_event_as_published_and_an_unreadable_entry_its_raw_fields() {
    let event = Event {
        id: EventId { at: AT, shard: 3, nonce: 5 },
        tenant: "acme".into(),
        event_type: "message.created".into(),
        timestamp_ms: AT.ms,
        data: r#"{ "b":1.0,"a":2}"#.into(),
        conversation_id: None,
        only_for: None,
        trace: None,
        config_version: AT,
    };
    let letter = DeadLetter {
        delivery: DeliveryId { event: AT, subscription: WEBHOOK, copy: 0 },
        entry: AT,
        event_type: String::new(),
        reason: Reason::Overflow,
        attempts: 0,
        last_status: None,
        last_error: Some("full".into()),
    };
    let text = |item: DeadItem| serde_json::to_string(&DeadLetterJson::of(&item)).unwrap();
    let kept = text(DeadItem::Delivery { letter: letter.clone(), event: Some(event) });
    assert!(kept.ends_with(r#""data":{ "b":1.0,"a":2}}"#), "{kept}");
    assert!(kept.contains(r#""type":"message.created","reason":"overflow""#), "{kept}");
    let lost = text(DeadItem::Delivery { letter, event: None });
    assert!(lost.contains(r#""event_id":null,"type":null"#) && lost.ends_with(r#""data":null}"#), "{lost}");
    let raw = [("type".to_owned(), "a b".into())].into();
    let id = BadId { at: AT, shard: 3 };
    let bad = text(DeadItem::Unreadable(BadEntry { id, tenant: None, error: "type: no".into(), raw }));
    assert!(bad.contains(r#""webhook_id":null"#) && bad.ends_with(r#""data":{"type":"a b"}}"#), "{bad}");
}

#[test]
fn a_delivery_says_when_it_goes_on_and_an_event_where_it_stands() {
    let status = DeliveryStatus {
        attempts: 1,
        last_status: Some(500),
        ..DeliveryStatus::untried(DeliveryId { event: AT, subscription: WEBHOOK, copy: 0 }, AT)
    };
    let progress = Progress { next_attempt_at_ms: Some(AT.ms), is_under_way: false };
    let event = EventId { at: AT, shard: 3, nonce: 5 };
    let mut expected = json!({
        "id": status.id.to_string(), "event_id": event.to_string(), "event_type": "message.created",
        "webhook_id": WEBHOOK.to_string(), "status": "failed", "attempts": 1, "last_status": 500,
        "next_attempt_at": "2026-11-24T20:56:45.123Z", "is_under_way": false,
        "last_activity_at": "2026-11-24T20:56:45.123Z",
    });
    let named = Some((event, "message.created".to_owned()));
    let summary = DeliverySummary { status: status.clone(), event: named, progress, last_activity_ms: AT.ms };
    assert_eq!(to_value(DeliverySummaryJson::of(&summary)).unwrap(), expected);

    let view = DeliveryView { status, event: None, attempts: vec![], progress };
    let fields = expected.as_object_mut().unwrap();
    fields.remove("last_activity_at");
    fields.extend([("event_id".to_owned(), Value::Null), ("event_type".to_owned(), Value::Null)]);
    fields.insert("attempt_log".to_owned(), json!([]));
    let whole = StatusView {
        event_id: Some(event),
        event_type: Some("message.created".to_owned()),
        standing: Standing::Failed,
        deliveries: vec![view],
        total: 101,
    };
    let json = to_value(StatusJson::of(&event.to_string(), &whole)).unwrap();
    assert_eq!(json["deliveries"], json!([expected]));
    let id = json!(event.to_string());
    assert_eq!((&json["id"], &json["event_id"], &json["status"]), (&id, &id, &json!("failed")));
    assert_eq!(json["total_deliveries"], json!(101));
}

//! An event of 1 KiB, who gets it, and an attempt to deliver it.

use std::collections::BTreeMap;

use bytes::Bytes;
use posthaste::domain::{
    attempt::{Answer, Attempt, Response, Timings},
    event::Event,
    id::{DeliveryId, EventId, StreamId, SubscriptionId},
    retry::Retry,
    subscription::{Ordering, PayloadFormat, Secrets, Subscription},
};

pub const NOW_MS: u64 = 1_790_000_000_000;
pub const SHARD: u16 = 3;
const DATA_BYTES: usize = 1_024;

/// An order as a shop might tell of it: [`DATA_BYTES`] of objects, texts and numbers.
pub fn data() -> Bytes {
    let line =
        |number: usize| format!(r#"{{"article":"A-{number:05}","title":"Löffel","count":{number},"price":12.5}}"#);
    let lines: Vec<String> = (0..12).map(line).collect();
    let start = format!(r#"{{"order":"4711","paid":true,"coupon":null,"lines":[{}],"note":""#, lines.join(","));
    let note = "x".repeat(DATA_BYTES - start.len() - 2);
    format!(r#"{start}{note}"}}"#).into()
}

pub fn event() -> Event {
    Event {
        id: EventId { at: StreamId { ms: NOW_MS, seq: 7 }, shard: SHARD, nonce: 0x5eed_1234 },
        tenant: "acme".to_owned(),
        event_type: "shop.order.paid".to_owned(),
        timestamp_ms: NOW_MS - 1_234,
        data: data(),
        conversation_id: None,
        only_for: None,
        config_version: StreamId { ms: NOW_MS - 86_400_000, seq: 0 },
        trace: None,
    }
}

pub fn subscription() -> Subscription {
    Subscription {
        id: SubscriptionId { ms: NOW_MS - 86_400_000, shard: SHARD, random: 0x9e37_79b9_7f4a_7c15 },
        tenant: "acme".to_owned(),
        name: "orders".to_owned(),
        url: "https://hooks.example.com/orders".to_owned(),
        events: vec!["shop.order.*".parse().expect("an event filter")],
        retry: Retry::preset("fast").expect("a preset"),
        timeout_seconds: 30,
        max_concurrency: 10,
        rate_limit_per_minute: None,
        ordering: Ordering::None,
        headers: BTreeMap::from([("X-Env".to_owned(), "production".to_owned())]),
        payload_format: PayloadFormat::Envelope,
        secrets: Secrets::only("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
        ingest: Secrets::only("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".to_owned()),
        created_at_ms: NOW_MS - 86_400_000,
        updated_at_ms: NOW_MS - 86_400_000,
    }
}

pub fn delivery() -> DeliveryId {
    DeliveryId { event: event().id.at, subscription: subscription().id, copy: 0 }
}

/// An answer with the headers that servers send.
pub fn answer(status: u16, retry_after_ms: Option<u64>) -> Answer {
    let header = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let headers = [
        ("content-type", "application/json"),
        ("content-length", "11"),
        ("date", "Mon, 21 Sep 2026 14:13:20 GMT"),
        ("server", "nginx"),
    ];
    let body = Bytes::from_static(br#"{"ok":true}"#);
    Answer::Response(Response { status, headers: headers.map(header).into(), body, retry_after_ms })
}

/// The first attempt, with the headers it was sent with.
pub fn attempt(request_headers: Vec<(String, String)>) -> Attempt {
    let (event, subscription) = (event(), subscription());
    Attempt {
        event: event.id,
        subscription: subscription.id,
        copy: 0,
        tenant: event.tenant,
        event_type: event.event_type,
        url: subscription.url,
        number: 1,
        at_ms: NOW_MS,
        request_headers,
        answer: answer(200, None),
        response_time_ms: 12.345,
        timings: Timings { dns: None, connect: None, tls: None, first_byte: Some(11.9) },
        is_late: false,
        is_test: false,
        payload_format: PayloadFormat::Envelope,
    }
}

//! What is checked before it is kept, what is kept, and the ids it is found by.

use std::collections::HashMap;

use posthaste::{
    domain::{
        event,
        id::{DeliveryId, StreamId},
    },
    streams::{read_attempt as read, read_event as event_of, write_attempt as write},
};
use redis::Value;

use super::{Work, samples, sending, work};

pub fn check_json() -> Work {
    let data = samples::data();
    work(move || event::check_json(&data))
}

/// From the fields of its entry in the log.
pub fn read_event() -> Work {
    let event = samples::event();
    let fields = HashMap::from([
        field("i", event.id.nonce.to_string()),
        field("v", event.config_version.to_string()),
        field("t", event.event_type.clone()),
        field("tn", event.tenant.clone()),
        field("ts", event.timestamp_ms.to_string()),
        field("b", event.data.clone()),
    ]);
    assert_eq!(event_of(event.id.shard, event.id.at, &fields).as_ref(), Some(&event));
    work(move || event_of(event.id.shard, event.id.at, &fields))
}

pub fn read_stream_id() -> Work {
    let text = samples::event().id.at.to_string();
    work(move || text.parse::<StreamId>())
}

pub fn write_delivery_id() -> Work {
    let delivery = samples::delivery();
    work(move || delivery.to_string())
}

pub fn read_delivery_id() -> Work {
    let text = samples::delivery().to_string();
    work(move || text.parse::<DeliveryId>())
}

pub fn write_attempt() -> Work {
    let attempt = samples::attempt(sending::kept_headers());
    work(move || write(&attempt))
}

pub fn read_attempt() -> Work {
    let attempt = samples::attempt(sending::kept_headers());
    let fields = HashMap::from([field("r", write(&attempt))]);
    assert_eq!(read(&fields).ok(), Some(attempt));
    work(move || read(&fields))
}

fn field(name: &str, value: impl Into<Vec<u8>>) -> (String, Value) {
    (name.to_owned(), Value::BulkString(value.into()))
}

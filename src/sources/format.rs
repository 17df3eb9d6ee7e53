//! What an entry of the front door says, written by any client (streams/README.md).

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::{
    domain::{
        event::{DEFAULT_TENANT, NewEvent, check_json, check_tenant, is_array},
        time,
        trace::TRACEPARENT,
    },
    streams::shown_name,
};

/// Raw fields larger than this are kept as their length and digest only.
const RAW_KEPT_AT_MOST: usize = 256 * 1024;
/// MessagePack may take so many times the bytes of its JSON (an integer of one digit may take nine). Above, it is refused before it
/// is read: each of its bytes may become a value that takes 32.
const PACKED_TIMES: usize = 5;

/// The fields of an entry, by name.
pub type Fields = HashMap<Vec<u8>, Bytes>;

/// An entry that is no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// `None` where it names no valid tenant.
    pub tenant: Option<String>,
    /// What is wrong, in plain words.
    pub reason: String,
}

/// Reads an entry: `type`, `data` (JSON) or `m` (the same as MessagePack), and optionally `tenant`, `idem`, `timestamp`
/// (RFC 3339 or Unix milliseconds), `conversation_id` and `traceparent`. Without `type`, `data` is `{"type","payload"}`.
///
/// # Errors
/// What is wrong with the first field that is.
pub fn read(fields: &Fields, max_payload_bytes: usize) -> Result<NewEvent, Fault> {
    let tenant = text(fields, "tenant").map(|tenant| tenant.unwrap_or(DEFAULT_TENANT).to_owned());
    let tenant = tenant.and_then(|tenant| check_tenant(&tenant).map(|()| tenant).map_err(|error| error.to_string()));
    let tenant = tenant.map_err(|reason| Fault { tenant: None, reason })?;
    read_for(&tenant, fields, max_payload_bytes).map_err(|reason| Fault { tenant: Some(tenant), reason })
}

fn read_for(tenant: &str, fields: &Fields, max_payload_bytes: usize) -> Result<NewEvent, String> {
    if let Some(name) = fields.keys().find(|name| std::str::from_utf8(name).is_err()) {
        return Err(format!("{}: the name of this field is not UTF-8", shown_name(name)));
    }
    let data = data(fields, max_payload_bytes)?;
    let (event_type, data) = match text(fields, "type")? {
        Some(event_type) => (event_type.to_owned(), data),
        None => unwrap(&data)?,
    };
    let timestamp_ms = match text(fields, "timestamp")? {
        Some(timestamp) => Some(moment(timestamp).ok_or("timestamp: neither RFC 3339 nor Unix milliseconds")?),
        None => None,
    };
    let event = NewEvent {
        tenant: tenant.to_owned(),
        event_type,
        data,
        timestamp_ms,
        idempotency_key: text(fields, "idem")?.map(str::to_owned),
        conversation_id: text(fields, "conversation_id")?.map(str::to_owned),
        trace: text(fields, TRACEPARENT).ok().flatten().and_then(|text| text.parse().ok()).map(Box::new),
        ..NewEvent::default()
    };
    event.validate(max_payload_bytes).map_err(|error| error.to_string())?;
    Ok(event)
}

fn text<'f>(fields: &'f Fields, name: &str) -> Result<Option<&'f str>, String> {
    let value = fields.get(name.as_bytes()).map(|value| std::str::from_utf8(value));
    value.transpose().map_err(|_| format!("{name}: not UTF-8"))
}

fn moment(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| time::parse_rfc3339(text))
}

fn data(fields: &Fields, max_payload_bytes: usize) -> Result<Bytes, String> {
    match (fields.get(&b"data"[..]), fields.get(&b"m"[..])) {
        (Some(data), None) if data.len() > max_payload_bytes => Err(format!(
            "data: {} bytes; at most {max_payload_bytes} are allowed (delivery.max_payload_bytes)",
            data.len()
        )),
        (Some(data), None) => check_json(data).map(|()| data.clone()).map_err(|error| error.to_string()),
        (None, Some(packed)) if packed.len() > PACKED_TIMES * max_payload_bytes => Err(format!(
            "m: {} bytes; at most {} are allowed ({PACKED_TIMES} times delivery.max_payload_bytes)",
            packed.len(),
            PACKED_TIMES * max_payload_bytes
        )),
        (None, Some(packed)) => unpack(packed),
        (None, None) => Err("data: missing; an event has `data` (JSON) or `m` (MessagePack)".to_owned()),
        (Some(_), Some(_)) => Err("data: given twice, as `data` and as `m`".to_owned()),
    }
}

fn unpack(packed: &[u8]) -> Result<Bytes, String> {
    let value: serde_json::Value =
        rmp_serde::from_slice(packed).map_err(|error| format!("m: not MessagePack: {error}"))?;
    Ok(value.to_string().into())
}

/// The form of producers that put all into one field.
fn unwrap(data: &[u8]) -> Result<(String, Bytes), String> {
    #[derive(serde::Deserialize)]
    struct Wrapped<'a> {
        #[serde(rename = "type")]
        event_type: String,
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    let wrapped = if is_array(data) { None } else { serde_json::from_slice::<Wrapped<'_>>(data).ok() };
    let wrapped = wrapped.ok_or("type: missing, and `data` is not {\"type\", \"payload\"} either")?;
    Ok((wrapped.event_type, Bytes::copy_from_slice(wrapped.payload.get().as_bytes())))
}

/// The raw fields as a dead letter keeps them: MessagePack of name to bytes.
pub fn raw(fields: &Fields) -> Bytes {
    use sha2::Digest;
    let size: usize = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    let kept: HashMap<String, Bytes> = fields
        .iter()
        .map(|(name, value)| {
            if size <= RAW_KEPT_AT_MOST {
                return (shown_name(name), value.clone());
            }
            let digest = data_encoding::HEXLOWER.encode(&sha2::Sha256::digest(value));
            (shown_name(name), format!("{} bytes, SHA-256 {digest}", value.len()).into())
        })
        .collect();
    rmp_serde::to_vec(&kept).map(Bytes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &[u8])]) -> Fields {
        pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), Bytes::copy_from_slice(value))).collect()
    }

    #[test]
    fn every_documented_form_is_read() {
        let check = |pairs: &[(&str, &[u8])], tenant: &str, event_type: &str, data: &str| {
            let event = read(&fields(pairs), 1000).expect("an event");
            assert_eq!((event.tenant.as_str(), event.event_type.as_str()), (tenant, event_type));
            assert_eq!(event.data, data);
        };
        check(&[("type", b"a.b"), ("data", b"{ \"x\": 1 }")], "default", "a.b", "{ \"x\": 1 }");
        check(&[("tenant", b"acme"), ("type", b"a"), ("data", b"1")], "acme", "a", "1");
        check(&[("data", b"{\"type\":\"a.b\",\"payload\":{ \"x\":1 }}")], "default", "a.b", "{ \"x\":1 }");
        check(&[("type", b"a"), ("m", &[0x81, 0xa1, b'x', 1])], "default", "a", "{\"x\":1}");
        let packed = rmp_serde::to_vec(&serde_json::json!({"type": "a", "payload": [1]})).expect("packed");
        check(&[("m", &packed)], "default", "a", "[1]");
    }

    #[test]
    fn what_is_optional_is_taken_over() {
        let event = read(
            &fields(&[
                ("type", b"a"),
                ("data", b"1"),
                ("idem", b"k"),
                ("timestamp", b"2026-09-21T14:13:20.123Z"),
                ("conversation_id", b"c"),
                ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ]),
            10,
        )
        .expect("an event");
        assert_eq!(event.idempotency_key.as_deref(), Some("k"));
        assert_eq!(event.timestamp_ms, Some(1_790_000_000_123));
        assert_eq!(event.conversation_id.as_deref(), Some("c"));
        assert_eq!(event.trace.map(|trace| trace.trace_id[0]), Some(0x4b));
    }

    #[test]
    fn a_traceparent_that_is_none_is_ignored() {
        for rubbish in [&b"00-1-2-3"[..], b"\xff"] {
            let event = read(&fields(&[("type", b"a"), ("data", b"1"), ("traceparent", rubbish)]), 10);
            assert_eq!(event.expect("an event").trace, None);
        }
    }

    #[test]
    fn what_cannot_be_read_says_why_and_whose_it_is() {
        let check = |pairs: &[(&str, &[u8])], tenant: Option<&str>, reason: &str| {
            let fault = read(&fields(pairs), 10).expect_err("a fault");
            assert_eq!(fault.tenant.as_deref(), tenant);
            assert!(fault.reason.starts_with(reason), "{}", fault.reason);
        };
        check(&[], Some("default"), "data: missing");
        check(&[("tenant", b"a b")], None, "tenant:");
        check(&[("tenant", b"\xff")], None, "tenant: not UTF-8");
        check(&[("type", b"a"), ("data", b"nope")], Some("default"), "data: not JSON");
        check(&[("type", b"a"), ("data", b"[1,2,3,4,5]")], Some("default"), "data: 11 bytes");
        check(&[("type", b"a"), ("m", b"\xc1")], Some("default"), "m: not MessagePack");
        check(&[("type", b"a"), ("m", &[0xc0; 51])], Some("default"), "m: 51 bytes; at most 50 are allowed");
        check(&[("type", b"a"), ("m", b"\x01"), ("data", b"1")], Some("default"), "data: given twice");
        check(&[("type", b"a..b"), ("data", b"1")], Some("default"), "type:");
        check(&[("type", b"posthaste.x"), ("data", b"1")], Some("default"), "type:");
        check(&[("data", b"{}")], Some("default"), "type: missing");
        check(&[("data", b"[\"a\",1]")], Some("default"), "type: missing");
        check(&[("type", b"a"), ("data", b"1"), ("idem", b"")], Some("default"), "idempotency_key:");
        check(&[("type", b"a"), ("data", b"1"), ("timestamp", b"x")], Some("default"), "timestamp:");
    }

    #[test]
    fn raw_fields_are_kept_or_described_when_they_are_too_large() {
        let small: HashMap<String, Bytes> = rmp_serde::from_slice(&raw(&fields(&[("a", b"\xff")]))).expect("packed");
        assert_eq!(small["a"], &b"\xff"[..]);
        let large = vec![b'x'; RAW_KEPT_AT_MOST + 1];
        let large: HashMap<String, Bytes> = rmp_serde::from_slice(&raw(&fields(&[("a", &large)]))).expect("packed");
        assert!(large["a"].starts_with(b"262145 bytes, SHA-256 "));
    }
}

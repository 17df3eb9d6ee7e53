//! An event: what was published, whose it is, and what a publisher may say.

use bytes::Bytes;

use super::{
    Invalid,
    id::{EventId, StreamId, SubscriptionId},
    subscription::PayloadFormat,
    time,
    trace::TraceContext,
};

/// The tenant of what names none.
pub const DEFAULT_TENANT: &str = "default";

/// Types below this prefix are the engine's own: nobody else may publish them and `*` does not match them.
pub const OWN_TYPES: &str = "posthaste.";

/// What tells of a dead letter; the script that makes one appends it. There is one for each, so only where it is wanted.
pub const DEAD_LETTERED: &str = "posthaste.delivery.dead_lettered";

/// An event as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: EventId,
    pub tenant: String,
    pub event_type: String,
    /// When it happened, as its publisher says, or when it was published: Unix milliseconds.
    pub timestamp_ms: u64,
    /// JSON, as published, byte for byte.
    pub data: Bytes,
    pub conversation_id: Option<String>,
    /// Owed to this subscription only, past its filters.
    pub only_for: Option<SubscriptionId>,
    /// The newest change of the tenant's subscriptions when it was published: whoever matches it must know at least that.
    pub config_version: StreamId,
    /// Where its publishing is in a trace, if it is in one; most are in none, and shall not carry the room for it.
    pub trace: Option<Box<TraceContext>>,
}

impl Event {
    /// What a request about it holds: `{"id","type","timestamp","tenant","data"}`, or the data alone; the data byte for
    /// byte as published.
    pub fn body(&self, format: PayloadFormat) -> Bytes {
        if format == PayloadFormat::Raw {
            return self.data.clone();
        }
        let mut body = Vec::with_capacity(self.data.len() + 256);
        let text = |body: &mut Vec<u8>, start: &str, value: &str| {
            body.extend_from_slice(start.as_bytes());
            body.extend_from_slice(serde_json::Value::from(value).to_string().as_bytes());
        };
        text(&mut body, "{\"id\":", &self.id.to_string());
        text(&mut body, ",\"type\":", &self.event_type);
        text(&mut body, ",\"timestamp\":", &time::rfc3339(self.timestamp_ms));
        text(&mut body, ",\"tenant\":", &self.tenant);
        if let Some(conversation) = &self.conversation_id {
            text(&mut body, ",\"conversation_id\":", conversation);
        }
        body.extend_from_slice(b",\"data\":");
        body.extend_from_slice(&self.data);
        body.push(b'}');
        body.into()
    }
}

/// An event that somebody asks to publish.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewEvent {
    pub tenant: String,
    pub event_type: String,
    /// JSON, kept byte for byte.
    pub data: Bytes,
    pub timestamp_ms: Option<u64>,
    pub idempotency_key: Option<String>,
    pub conversation_id: Option<String>,
    pub only_for: Option<SubscriptionId>,
    /// What the signed request that it came by is known by: for a day a request known by one of these is the same event,
    /// whatever else it says.
    pub signatures: Vec<String>,
    /// Where its publisher is in a trace, if it said so.
    pub trace: Option<Box<TraceContext>>,
}

impl NewEvent {
    /// Checks every field but the JSON of `data` (see [`check_json`]).
    ///
    /// # Errors
    /// The first field that is not allowed.
    pub fn validate(&self, max_payload_bytes: usize) -> Result<(), Invalid> {
        check_tenant(&self.tenant)?;
        check_type("type", &self.event_type)?;
        if self.event_type.starts_with(OWN_TYPES) {
            return Err(Invalid::new("type", format!("types that start with `{OWN_TYPES}` are the engine's own")));
        }
        if self.data.len() > max_payload_bytes {
            let size = self.data.len();
            return Err(Invalid::new(
                "data",
                format!("{size} bytes; at most {max_payload_bytes} are allowed (delivery.max_payload_bytes)"),
            ));
        }
        for (field, value) in [("idempotency_key", &self.idempotency_key), ("conversation_id", &self.conversation_id)] {
            if let Some(value) = value
                && !(1..=255).contains(&value.len())
            {
                return Err(Invalid::new(field, format!("1 to 255 bytes are allowed, not {}", value.len())));
            }
        }
        Ok(())
    }
}

/// Checks that `data` is one JSON value in UTF-8, without building it.
///
/// # Errors
/// Where it stops being JSON.
pub fn check_json(data: &[u8]) -> Result<(), Invalid> {
    serde_json::from_slice::<serde::de::IgnoredAny>(data)
        .map(drop)
        .map_err(|error| Invalid::new("data", format!("not JSON: {error}")))?;
    std::str::from_utf8(data).map(drop).map_err(|error| Invalid::new("data", format!("not UTF-8: {error}")))
}

/// Whether JSON is an array. Where an object is wanted it has to be asked for: serde reads a struct from an array as well,
/// by the order of its fields.
pub fn is_array(json: &[u8]) -> bool {
    json.trim_ascii_start().starts_with(b"[")
}

/// Checks a tenant's id: `[A-Za-z0-9][A-Za-z0-9_.-]{0,63}`.
///
/// # Errors
/// When it is of another form.
pub fn check_tenant(tenant: &str) -> Result<(), Invalid> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"_.-".contains(&c);
    let bytes = tenant.as_bytes();
    if (1..=64).contains(&bytes.len()) && bytes[0].is_ascii_alphanumeric() && bytes.iter().all(|c| allowed(*c)) {
        return Ok(());
    }
    Err(Invalid::new("tenant", "1 to 64 letters, digits, `_`, `.` or `-`, the first a letter or digit"))
}

/// Checks an event type: `[A-Za-z0-9_.-]{1,128}`, no part between dots empty. `field` is who is told.
///
/// # Errors
/// When it is of another form.
pub fn check_type(field: &'static str, event_type: &str) -> Result<(), Invalid> {
    let allowed =
        |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"_-".contains(&c));
    if event_type.len() <= 128 && event_type.split('.').all(allowed) {
        return Ok(());
    }
    Err(Invalid::new(
        field,
        format!(
            "`{}` is not an event type: 1 to 128 letters, digits, `_`, `-`, in parts parted by single dots",
            event_type.chars().take(140).collect::<String>().escape_debug()
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: EventId { at: StreamId { ms: 1_790_000_000_000, seq: 0 }, shard: 1, nonce: 2 },
            tenant: "acme".into(),
            event_type: "message.created".into(),
            timestamp_ms: 1_790_000_000_123,
            data: "{ \"a\" : 1 }".into(),
            conversation_id: None,
            only_for: None,
            config_version: StreamId::ZERO,
            trace: None,
        }
    }

    #[test]
    fn the_envelope_is_json_around_the_data_as_published() {
        let body = event().body(PayloadFormat::Envelope);
        let text = std::str::from_utf8(&body).expect("UTF-8");
        assert!(text.ends_with(",\"data\":{ \"a\" : 1 }}"), "{text}");
        let value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(value["id"], event().id.to_string());
        assert_eq!(value["timestamp"], "2026-09-21T14:13:20.123Z");
        assert!(value.get("conversation_id").is_none());
        assert_eq!(event().body(PayloadFormat::Raw), "{ \"a\" : 1 }");
    }

    #[test]
    fn a_conversation_is_quoted_as_json_demands() {
        let body = Event { conversation_id: Some("a\"\\\n".into()), ..event() }.body(PayloadFormat::Envelope);
        let value: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(value["conversation_id"], "a\"\\\n");
    }

    #[test]
    fn types_are_taken_or_refused_by_their_grammar() {
        let check = |text: &str, good: bool| assert_eq!(check_type("type", text).is_ok(), good, "{text:?}");
        for good in ["a", "message.created", "group-participants.update", "A_b.0-1", &"x".repeat(128)] {
            check(good, true);
        }
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a*", "é", &"x".repeat(129), "a\n"] {
            check(bad, false);
        }
    }

    #[test]
    fn tenants_are_taken_or_refused_by_their_grammar() {
        let check = |text: &str, good: bool| assert_eq!(check_tenant(text).is_ok(), good, "{text:?}");
        for good in ["default", "acme", "0", "a.b_c-d", &"x".repeat(64)] {
            check(good, true);
        }
        for bad in ["", ".a", "-", "a/b", "a b", "{s1}", &"x".repeat(65)] {
            check(bad, false);
        }
    }

    #[test]
    fn a_refusal_names_its_field() {
        let good =
            NewEvent { tenant: "acme".into(), event_type: "a.b".into(), data: "{}".into(), ..Default::default() };
        assert_eq!(good.validate(2), Ok(()));
        let check = |event: NewEvent, field: &str| assert_eq!(event.validate(2).unwrap_err().field, field);
        check(NewEvent { tenant: "".into(), ..good.clone() }, "tenant");
        check(NewEvent { event_type: "posthaste.x".into(), ..good.clone() }, "type");
        check(NewEvent { data: "{ }".into(), ..good.clone() }, "data");
        check(NewEvent { idempotency_key: Some("".into()), ..good.clone() }, "idempotency_key");
        check(NewEvent { conversation_id: Some("x".repeat(256)), ..good }, "conversation_id");
    }

    #[test]
    fn json_is_one_value_and_nothing_else() {
        for good in ["{}", "null", " [1] ", "\"é\""] {
            assert_eq!(check_json(good.as_bytes()), Ok(()), "{good}");
        }
        for bad in [&b""[..], b"{", b"{} {}", b"nope", b"\"\xff\""] {
            assert_eq!(check_json(bad).unwrap_err().field, "data");
        }
    }
}

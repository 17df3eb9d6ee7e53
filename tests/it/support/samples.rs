//! Things to publish, subscribe and settle with, where their content does not matter.

use std::{collections::BTreeMap, time::Duration};

use posthaste::{
    domain::{
        attempt::{Answer, Attempt, Response, Timings},
        event::NewEvent,
        id::{EventId, SubscriptionId},
        outcome::{Outcome, Reason},
        retry::Retry,
        subscription::{Ordering, PayloadFormat, Secrets, Subscription},
    },
    streams::{Ending, Lease, Settled},
};

pub const TENANT: &str = "acme";
/// Bytes of the data of [`event`].
pub const BODY_BYTES: usize = 7;
/// Where a test is about something else: how long a subscription may fail until it is disabled.
pub const DISABLE_AFTER: Duration = Duration::from_secs(120 * 3_600);

/// What became of a delivery, as a test says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    Retry { delay_ms: u64, retry_after_ms: Option<u64> },
    Exhausted,
    Gone,
    Released,
    BodyMissing,
}

pub fn event(event_type: &str) -> NewEvent {
    NewEvent {
        tenant: TENANT.to_owned(),
        event_type: event_type.to_owned(),
        data: br#"{"n":1}"#[..].into(),
        ..NewEvent::default()
    }
}

/// A subscription to everything; `number` tells it from others.
pub fn subscription(number: u64) -> Subscription {
    Subscription {
        id: SubscriptionId { ms: 1_790_000_000_000, shard: 0, random: number },
        tenant: TENANT.to_owned(),
        name: format!("number {number}"),
        url: "https://example.com/".to_owned(),
        events: vec!["*".parse().unwrap()],
        retry: Retry::preset("fast").unwrap(),
        timeout_seconds: 30,
        max_concurrency: 10,
        rate_limit_per_minute: None,
        ordering: Ordering::None,
        headers: BTreeMap::new(),
        payload_format: PayloadFormat::Envelope,
        secrets: Secrets::only("whsec_c2VjcmV0".to_owned()),
        ingest: Secrets::only("whsec_aW5nZXN0".to_owned()),
        created_at_ms: 1_790_000_000_000,
        updated_at_ms: 1_790_000_000_000,
    }
}

/// What a result says of its event.
#[derive(Debug, Clone)]
pub struct Facts {
    pub nonce: u32,
    pub event_type: String,
    /// Of its data.
    pub bytes: usize,
}

impl Default for Facts {
    fn default() -> Self {
        Self { nonce: 1, event_type: "a.b".to_owned(), bytes: BODY_BYTES }
    }
}

/// What became of a leased delivery of such an event.
pub fn settled(lease: &Lease, verdict: Verdict, facts: &Facts) -> Settled {
    let attempted = |status: u16, outcome: Outcome| Ending::Attempted {
        outcome,
        attempt: Box::new(attempt(lease, status, facts)),
        event_bytes: facts.bytes,
    };
    let ending = match verdict {
        Verdict::Delivered => attempted(200, Outcome::Delivered),
        Verdict::Retry { delay_ms, retry_after_ms } => {
            attempted(500, Outcome::Retry { delay_ms, retry_after_ms, is_overload: false })
        }
        Verdict::Exhausted => attempted(500, Outcome::DeadLetter { reason: Reason::Exhausted, retry_after_ms: None }),
        Verdict::Gone => attempted(410, Outcome::Gone),
        Verdict::Released => Ending::Released,
        Verdict::BodyMissing => Ending::Failed { reason: Reason::BodyMissing, error: "it is gone".to_owned() },
    };
    Settled { lease: lease.clone(), ending }
}

fn attempt(lease: &Lease, status: u16, facts: &Facts) -> Attempt {
    Attempt {
        event: EventId { at: lease.event, shard: lease.subscription.shard, nonce: facts.nonce },
        subscription: lease.subscription,
        copy: lease.copy,
        tenant: TENANT.to_owned(),
        event_type: facts.event_type.clone(),
        url: "https://example.com/".to_owned(),
        number: lease.attempt_number(),
        at_ms: 1_790_000_000_000,
        request_headers: vec![],
        answer: Answer::Response(Response { status, headers: vec![], body: bytes::Bytes::new(), retry_after_ms: None }),
        response_time_ms: 1.0,
        timings: Timings::default(),
        is_late: false,
        payload_format: PayloadFormat::Envelope,
        is_test: false,
    }
}

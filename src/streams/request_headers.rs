//! The headers of a request as the record of its attempt keeps them: what the record tells anyway is not kept again.
//!
//! The engine puts the same headers on each request, most of them made of what the attempt is: kept as they are they would be
//! three quarters of its record.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::domain::attempt::Attempt;

/// Headers by number, in records that are kept: new ones go to the end.
const NAMES: [&str; 11] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "x-hub-signature-256",
    "x-hub-signature",
    "x-webhook-event",
    "x-event-type",
    "x-webhook-delivery",
    "x-webhook-attempt",
    "content-type",
    "user-agent",
];

/// A header in a record.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum KeptHeader<'a> {
    /// One of [`NAMES`], with the value that its attempt tells.
    Told(usize),
    /// One of [`NAMES`], with its value.
    Named(usize, Cow<'a, str>),
    Other(Cow<'a, str>, Cow<'a, str>),
}

/// The headers of an attempt, in their order.
pub(super) fn keep(attempt: &Attempt) -> Vec<KeptHeader<'_>> {
    let kept = attempt.request_headers.iter().enumerate().map(|(index, (name, value))| {
        let (name, value, before) = (name.as_str(), value.as_str(), &attempt.request_headers[..index]);
        match NAMES.iter().position(|known| *known == name) {
            Some(number) if told(attempt, before, number).is_some_and(|told| told == value) => KeptHeader::Told(number),
            Some(number) => KeptHeader::Named(number, value.into()),
            None => KeptHeader::Other(name.into(), value.into()),
        }
    });
    kept.collect()
}

/// Gives an attempt the headers that were kept of it. A number that stands for nothing is left out.
pub(super) fn restore(attempt: &mut Attempt, kept: Vec<KeptHeader<'_>>) {
    for header in kept {
        let restored = match header {
            KeptHeader::Other(name, value) => Some((name.into_owned(), value.into_owned())),
            KeptHeader::Named(number, value) => NAMES.get(number).map(|name| ((*name).to_owned(), value.into_owned())),
            // What is told may be told by a header before it.
            KeptHeader::Told(number) => told(attempt, &attempt.request_headers, number)
                .map(|value| (NAMES[number].to_owned(), value.into_owned())),
        };
        attempt.request_headers.extend(restored);
    }
}

/// What an attempt, and the headers `before` it, say the value of one of [`NAMES`] is, in most cases.
fn told<'a>(attempt: &'a Attempt, before: &'a [(String, String)], number: usize) -> Option<Cow<'a, str>> {
    match *NAMES.get(number)? {
        "webhook-id" => Some(attempt.event.to_string().into()),
        "webhook-timestamp" => Some((attempt.at_ms / 1000).to_string().into()),
        "x-hub-signature" => {
            let same = before.iter().find(|(name, _)| name == "x-hub-signature-256")?;
            Some(same.1.as_str().into())
        }
        "x-webhook-event" | "x-event-type" => Some(attempt.event_type.as_str().into()),
        "x-webhook-delivery" => Some(attempt.delivery().to_string().into()),
        "x-webhook-attempt" => Some(attempt.number.to_string().into()),
        "content-type" => Some("application/json".into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        attempt::{Answer, Failure, FailureKind, Timings},
        id::{EventId, StreamId, SubscriptionId},
        subscription::PayloadFormat,
    };

    fn attempt(headers: &[(&str, &str)]) -> Attempt {
        Attempt {
            event: EventId { at: StreamId { ms: 1_790_000_000_000, seq: 7 }, shard: 3, nonce: 9 },
            subscription: SubscriptionId { ms: 1, shard: 3, random: 5 },
            copy: 0,
            tenant: "acme".to_owned(),
            event_type: "message.created".to_owned(),
            url: "https://a.example/".to_owned(),
            number: 2,
            at_ms: 1_790_000_000_999,
            request_headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            answer: Answer::Failure(Failure { kind: FailureKind::Dns, text: String::new() }),
            response_time_ms: 1.0,
            timings: Timings::default(),
            is_late: false,
            is_test: false,
            payload_format: PayloadFormat::Envelope,
        }
    }

    #[test]
    fn headers_come_back_as_they_were_and_what_is_told_takes_a_byte() {
        let check = |headers: &[(&str, &str)], expected: &[KeptHeader<'_>]| {
            let attempt = attempt(headers);
            let kept = keep(&attempt);
            assert_eq!(kept, expected);
            let packed = rmp_serde::to_vec(&kept).unwrap();
            let mut restored = Attempt { request_headers: Vec::new(), ..attempt.clone() };
            restore(&mut restored, rmp_serde::from_slice(&packed).unwrap());
            assert_eq!(restored, attempt);
            packed.len()
        };
        let (id, delivery) = (attempt(&[]).event.to_string(), attempt(&[]).delivery().to_string());
        let told = [
            ("webhook-id", id.as_str()),
            ("webhook-timestamp", "1790000000"),
            ("x-webhook-event", "message.created"),
            ("x-event-type", "message.created"),
            ("x-webhook-delivery", &delivery),
            ("x-webhook-attempt", "2"),
            ("content-type", "application/json"),
        ];
        let length = check(&told, &[0, 1, 5, 6, 7, 8, 9].map(KeptHeader::Told));
        assert_eq!(length, 1 + told.len());
        check(&[], &[]);
        check(
            &[("x-env", "a"), ("x-env", "b")],
            &[("x-env", "a"), ("x-env", "b")].map(|(name, value)| KeptHeader::Other(name.into(), value.into())),
        );
        check(
            &[("x-webhook-attempt", "3"), ("webhook-signature", "v1,a")],
            &[KeptHeader::Named(8, "3".into()), KeptHeader::Named(2, "v1,a".into())],
        );
        check(
            &[("x-hub-signature-256", "s"), ("x-hub-signature", "s")],
            &[KeptHeader::Named(3, "s".into()), KeptHeader::Told(4)],
        );
        check(&[("x-hub-signature", "s")], &[KeptHeader::Named(4, "s".into())]);
        let reversed = [KeptHeader::Named(4, "s".into()), KeptHeader::Named(3, "s".into())];
        check(&[("x-hub-signature", "s"), ("x-hub-signature-256", "s")], &reversed);
    }

    #[test]
    fn a_number_that_stands_for_nothing_is_left_out() {
        let mut restored = attempt(&[]);
        restore(&mut restored, vec![KeptHeader::Told(99), KeptHeader::Named(99, "a".into()), KeptHeader::Told(2)]);
        assert_eq!(restored.request_headers, []);
    }
}

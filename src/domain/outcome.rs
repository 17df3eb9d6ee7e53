//! What becomes of a delivery after an attempt.

use super::{
    attempt::{Answer, Response},
    retry::Retry,
    time::parse_http_date,
};

/// Why a delivery, or an entry that could not be read, is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Every retry failed.
    Exhausted,
    /// The receiver answered `410 Gone`.
    Gone,
    /// It waited longer than `delivery.max_age_hours`.
    MaxAge,
    /// The subscription had `delivery.max_backlog` deliveries waiting, or its backlog was skipped.
    Overflow,
    /// The event was not to be found: a defect.
    BodyMissing,
    /// Sender after sender died with it.
    LeaseLost,
    /// The entry could not be read as an event.
    Malformed,
}

impl Reason {
    pub const ALL: [Self; 7] = [
        Self::Exhausted,
        Self::Gone,
        Self::MaxAge,
        Self::Overflow,
        Self::BodyMissing,
        Self::LeaseLost,
        Self::Malformed,
    ];

    /// The public word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Gone => "gone",
            Self::MaxAge => "max_age",
            Self::Overflow => "overflow",
            Self::BodyMissing => "body_missing",
            Self::LeaseLost => "lease_lost",
            Self::Malformed => "malformed",
        }
    }

    /// The reverse of [`Self::name`].
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What becomes of a delivery. A result, never an error: an error means that we failed, not they.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// Tried again after `delay_ms`.
    Retry {
        delay_ms: u64,
        /// The receiver asked that the whole subscription keep away for so long.
        retry_after_ms: Option<u64>,
        /// The receiver is overloaded (429, 502 or 504 without `Retry-After`): this failure counts double.
        is_overload: bool,
    },
    DeadLetter {
        reason: Reason,
        retry_after_ms: Option<u64>,
    },
    /// `410`: a dead letter, and the subscription is disabled.
    Gone,
}

/// The longest `Retry-After` that is honoured: 1 h.
pub const MAX_RETRY_AFTER_MS: u64 = 3_600_000;

/// Decides what becomes of a delivery after its attempt number `attempt` (1 for the first) got `answer`.
///
/// `age_ms` is how long the delivery has waited since it was owed; past `max_age_ms` it is not tried again. `jitter` is
/// for [`Retry::delay_ms_after`]. A receiver's `Retry-After` is a lower bound of the delay.
pub fn decide(answer: &Answer, attempt: u32, retry: &Retry, age_ms: u64, max_age_ms: u64, jitter: f64) -> Outcome {
    let (status, retry_after_ms) = match answer {
        Answer::Response(Response { status: 200..=299, .. }) => return Outcome::Delivered,
        Answer::Response(Response { status: 410, .. }) => return Outcome::Gone,
        Answer::Response(response) => (Some(response.status), response.retry_after_ms),
        Answer::Failure(_) => (None, None),
    };
    let retry_after_ms = retry_after_ms.map(|ms| ms.min(MAX_RETRY_AFTER_MS));
    if age_ms > max_age_ms {
        return Outcome::DeadLetter { reason: Reason::MaxAge, retry_after_ms };
    }
    match retry.delay_ms_after(attempt, jitter) {
        None => Outcome::DeadLetter { reason: Reason::Exhausted, retry_after_ms },
        Some(delay_ms) => Outcome::Retry {
            delay_ms: delay_ms.max(retry_after_ms.unwrap_or(0)),
            retry_after_ms,
            is_overload: matches!(status, Some(429 | 502 | 504)) && retry_after_ms.is_none(),
        },
    }
}

/// Reads the value of a `Retry-After` header (RFC 9110 §10.2.3), seconds or a date, as milliseconds from `now_ms`. A
/// date that is past is 0; the result is not capped yet. `None` for any other text: as if there were no header.
pub fn parse_retry_after(value: &str, now_ms: u64) -> Option<u64> {
    let value = value.trim_matches([' ', '\t']);
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit()) {
        // More digits than fit are still a number: the longest wait.
        return Some(value.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1_000));
    }
    parse_http_date(value, now_ms).map(|at_ms| at_ms.saturating_sub(now_ms))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::domain::attempt::{Failure, FailureKind};

    /// 2 attempts, 1 s apart.
    fn retry() -> Retry {
        Retry::schedule(vec![1_000], 0.0)
    }

    fn answered(status: u16, retry_after_ms: Option<u64>) -> Answer {
        Answer::Response(Response { status, headers: vec![], body: Bytes::new(), retry_after_ms })
    }

    fn again(delay_ms: u64, retry_after_ms: Option<u64>, is_overload: bool) -> Outcome {
        Outcome::Retry { delay_ms, retry_after_ms, is_overload }
    }

    fn dead(reason: Reason, retry_after_ms: Option<u64>) -> Outcome {
        Outcome::DeadLetter { reason, retry_after_ms }
    }

    #[test]
    fn a_status_decides_what_becomes_of_the_delivery() {
        let check = |status: u16, expected: Outcome| {
            assert_eq!(decide(&answered(status, None), 1, &retry(), 0, 10, 0.0), expected, "{status}");
        };
        for status in [200, 201, 202, 204, 299] {
            check(status, Outcome::Delivered);
        }
        check(410, Outcome::Gone);
        for status in [100, 199, 300, 301, 304, 308, 400, 401, 404, 409, 422, 500, 501, 503, 599] {
            check(status, again(1_000, None, false));
        }
        for status in [429, 502, 504] {
            check(status, again(1_000, None, true));
        }
    }

    #[test]
    fn every_failure_is_tried_again() {
        for kind in FailureKind::ALL {
            let answer = Answer::Failure(Failure { kind, text: "no".into() });
            assert_eq!(decide(&answer, 1, &retry(), 0, 10, 0.0), again(1_000, None, false), "{kind:?}");
            assert_eq!(decide(&answer, 2, &retry(), 0, 10, 0.0), dead(Reason::Exhausted, None), "{kind:?}");
        }
    }

    #[test]
    fn the_last_attempt_and_old_age_make_a_dead_letter() {
        let check = |status: u16, attempt: u32, age_ms: u64, expected: Outcome| {
            let outcome = decide(&answered(status, Some(5)), attempt, &retry(), age_ms, 10, 0.0);
            assert_eq!(outcome, expected, "{status}, attempt {attempt}, age {age_ms}");
        };
        check(500, 1, 10, again(1_000, Some(5), false));
        check(500, 1, 11, dead(Reason::MaxAge, Some(5)));
        check(500, 2, 10, dead(Reason::Exhausted, Some(5)));
        check(500, 2, 11, dead(Reason::MaxAge, Some(5)));
        check(204, 2, 11, Outcome::Delivered);
        check(410, 1, 11, Outcome::Gone);
    }

    #[test]
    fn retry_after_is_honoured_up_to_an_hour() {
        let check = |status: u16, retry_after_ms: u64, expected: Outcome| {
            assert_eq!(decide(&answered(status, Some(retry_after_ms)), 1, &retry(), 0, 10, 0.0), expected);
        };
        check(429, 30_000, again(30_000, Some(30_000), false));
        check(503, 500, again(1_000, Some(500), false));
        check(302, 0, again(1_000, Some(0), false));
        check(400, u64::MAX, again(MAX_RETRY_AFTER_MS, Some(MAX_RETRY_AFTER_MS), false));
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_a_date() {
        let now_ms = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        let check =
            |value: &str, expected: Option<u64>| assert_eq!(parse_retry_after(value, now_ms), expected, "{value}");
        check("0", Some(0));
        check(" 120\t", Some(120_000));
        check("99999999999999999999999", Some(u64::MAX));
        check("Sun, 06 Nov 1994 08:50:37 GMT", Some(60_000));
        check("Sunday, 06-Nov-94 08:49:38 GMT", Some(1_000));
        check("Sun Nov  6 08:49:39 1994", Some(2_000));
        check("Sat, 05 Nov 1994 08:49:37 GMT", Some(0));
        for bad in ["", " ", "-1", "+1", "1.5", "soon", "1994-11-06T08:50:37Z"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_reason_survives_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::of_name(reason.name()), Some(reason));
        }
        assert_eq!(Reason::of_name("tired"), None);
    }

    proptest! {
        #[test]
        fn a_retry_waits_as_long_as_the_policy_and_the_receiver_ask(
            status in 100u16..600, retry_after_ms: Option<u64>, attempt in 1u32..6,
            age_ms: u64, max_age_ms: u64, jitter in -1.0..=1.0,
        ) {
            let retry = Retry::preset("fast").unwrap();
            match decide(&answered(status, retry_after_ms), attempt, &retry, age_ms, max_age_ms, jitter) {
                Outcome::Delivered => prop_assert!((200..300).contains(&status)),
                Outcome::Gone => prop_assert_eq!(status, 410),
                Outcome::Retry { delay_ms, retry_after_ms: held_ms, .. } => {
                    prop_assert!(attempt <= 3 && age_ms <= max_age_ms);
                    prop_assert!(delay_ms >= retry.delay_ms_after(attempt, jitter).unwrap());
                    prop_assert!(delay_ms >= held_ms.unwrap_or(0));
                    prop_assert_eq!(held_ms.is_some(), retry_after_ms.is_some());
                }
                Outcome::DeadLetter { reason, .. } => {
                    prop_assert_eq!(reason == Reason::MaxAge, age_ms > max_age_ms);
                    prop_assert!(age_ms > max_age_ms || attempt > 3);
                }
            }
        }
    }
}

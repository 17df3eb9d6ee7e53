//! What becomes of a delivery after an attempt.

use posthaste::domain::{
    attempt::{Answer, Failure, FailureKind},
    outcome,
};

use super::{Work, samples, work};

const MAX_AGE_MS: u64 = 168 * 3_600_000;

/// After a success, an error, a receiver that is overloaded, and none that answers.
pub fn decide() -> Work {
    let retry = samples::subscription().retry;
    let timeout = Failure { kind: FailureKind::Timeout, text: "no answer within 30 s".to_owned() };
    let answers = [
        samples::answer(200, None),
        samples::answer(500, None),
        samples::answer(429, Some(2_000)),
        Answer::Failure(timeout),
    ];
    work(move || answers.each_ref().map(|answer| outcome::decide(answer, 2, &retry, 1_500, MAX_AGE_MS, 0.25)))
}

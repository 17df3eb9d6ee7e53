//! When the next attempt is made.

use super::Invalid;

/// No delay is longer, before jitter: 7 days.
pub const MAX_DELAY_MS: u64 = 7 * 24 * 3_600_000;

/// Attempts after the first, at most; also the most delays a schedule lists.
pub const MAX_COUNT: u32 = 100;

/// The names that [`Retry::preset`] knows.
pub const PRESETS: [&str; 3] = ["fast", "steady", "standard"];

/// How often, and after what delays, a failed delivery is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Attempts after the first.
    pub count: u32,
    pub policy: RetryPolicy,
}

/// The delays between attempts. A delay is multiplied by 1 ± `jitter`.
#[derive(Debug, Clone, PartialEq)]
pub enum RetryPolicy {
    /// `base_ms · factor^(n-1)` before the n-th retry, at most `max_ms`.
    Exponential { base_ms: u64, factor: f64, max_ms: u64, jitter: f64 },
    /// These, in order; the last is repeated.
    Schedule { delays_ms: Vec<u64>, jitter: f64 },
}

impl Retry {
    /// The policy of one of [`PRESETS`], as the built-in configuration has it.
    pub fn preset(name: &str) -> Option<Self> {
        const SECOND: u64 = 1_000;
        const MINUTE: u64 = 60 * SECOND;
        const HOUR: u64 = 60 * MINUTE;
        match name {
            "fast" => Some(Self {
                count: 3,
                policy: RetryPolicy::Exponential { base_ms: SECOND, factor: 2.0, max_ms: HOUR, jitter: 0.1 },
            }),
            "steady" => Some(Self::schedule(vec![4 * SECOND, 8 * SECOND, 10 * SECOND], 0.0)),
            "standard" => Some(Self::schedule(
                vec![5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR],
                0.0,
            )),
            _ => None,
        }
    }

    /// One retry after each of `delays_ms`.
    pub fn schedule(delays_ms: Vec<u64>, jitter: f64) -> Self {
        let count = u32::try_from(delays_ms.len()).unwrap_or(u32::MAX);
        Self { count, policy: RetryPolicy::Schedule { delays_ms, jitter } }
    }

    /// How long to wait after attempt number `attempt` (1 for the first) has failed; `None` when it was the last.
    /// `jitter`, from -1 to 1, says where in the policy's own range the delay falls.
    pub fn delay_ms_after(&self, attempt: u32, jitter: f64) -> Option<u64> {
        if attempt > self.count {
            return None;
        }
        let retries_before = attempt.saturating_sub(1);
        let (delay_ms, range) = match &self.policy {
            RetryPolicy::Exponential { base_ms, factor, max_ms, jitter } => {
                (exponential_ms(*base_ms, *factor, retries_before).min(*max_ms as f64), *jitter)
            }
            RetryPolicy::Schedule { delays_ms, jitter } => {
                let index = usize::try_from(retries_before).unwrap_or(usize::MAX);
                (*delays_ms.get(index).or(delays_ms.last())? as f64, *jitter)
            }
        };
        // A cast from a float saturates, and makes 0 of what is negative or not a number.
        Some((delay_ms * (1.0 + range * jitter.clamp(-1.0, 1.0))).round() as u64)
    }

    /// Checks that the policy is one that is allowed; fields are named as in docs/api.md.
    ///
    /// # Errors
    /// The first number out of its range.
    pub fn validate(&self) -> Result<(), Invalid> {
        check_range("retry_count", self.count, 0, MAX_COUNT)?;
        let jitter = match &self.policy {
            RetryPolicy::Exponential { base_ms, factor, max_ms, jitter } => {
                check_range("retry.base_ms", *base_ms, 0, MAX_DELAY_MS)?;
                check_range("retry.factor", *factor, 1.0, 100.0)?;
                check_range("retry.max_ms", *max_ms, *base_ms, MAX_DELAY_MS)?;
                *jitter
            }
            RetryPolicy::Schedule { delays_ms, jitter } => {
                if delays_ms.is_empty() || delays_ms.len() > MAX_COUNT as usize {
                    let problem = format!("1 to {MAX_COUNT} delays are allowed, not {}", delays_ms.len());
                    return Err(Invalid::new("retry.delays_ms", problem));
                }
                for delay_ms in delays_ms {
                    check_range("retry.delays_ms", *delay_ms, 0, MAX_DELAY_MS)?;
                }
                *jitter
            }
        };
        check_range("retry.jitter", jitter, 0.0, 1.0)
    }
}

/// As a float, so that no exponent overflows: what is past its range is its largest number.
fn exponential_ms(base_ms: u64, factor: f64, retries_before: u32) -> f64 {
    let exponent = i32::try_from(retries_before).unwrap_or(i32::MAX);
    base_ms as f64 * factor.powi(exponent).min(f64::MAX)
}

/// Refuses what is not from `least` to `most`, "not a number" included.
fn check_range<T: PartialOrd + std::fmt::Display>(
    field: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<(), Invalid> {
    if (&least..=&most).contains(&&value) {
        return Ok(());
    }
    Err(Invalid::new(field, format!("{least} to {most} is allowed, not {value}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exponential(base_ms: u64, factor: f64, max_ms: u64, jitter: f64) -> Retry {
        Retry { count: 3, policy: RetryPolicy::Exponential { base_ms, factor, max_ms, jitter } }
    }

    fn delays(retry: &Retry, jitter: f64) -> Vec<u64> {
        (1..).map_while(|attempt| retry.delay_ms_after(attempt, jitter)).collect()
    }

    #[test]
    fn presets_wait_as_documented() {
        let check = |name: &str, jitter: f64, expected: &[u64]| {
            let retry = Retry::preset(name).unwrap();
            assert_eq!(retry.validate(), Ok(()), "{name}");
            assert_eq!(delays(&retry, jitter), expected, "{name} at {jitter}");
        };
        check("fast", 0.0, &[1_000, 2_000, 4_000]);
        check("fast", -1.0, &[900, 1_800, 3_600]);
        check("fast", 0.5, &[1_050, 2_100, 4_200]);
        check("steady", 1.0, &[4_000, 8_000, 10_000]);
        let standard = [5_000, 300_000, 1_800_000, 7_200_000, 18_000_000, 36_000_000, 36_000_000];
        check("standard", -1.0, &standard);
        assert!(PRESETS.iter().all(|name| Retry::preset(name).is_some()));
        assert_eq!(Retry::preset("often"), None);
    }

    #[test]
    fn delays_grow_to_their_limit_and_a_schedule_repeats_its_last() {
        let check = |retry: Retry, jitter: f64, expected: &[u64]| assert_eq!(delays(&retry, jitter), expected);
        check(exponential(1_000, 10.0, 5_000, 0.0), 1.0, &[1_000, 5_000, 5_000]);
        check(exponential(1_000, 1.5, 5_000, 1.0), -1.0, &[0, 0, 0]);
        check(exponential(1_000, 1.5, 2_000, 1.0), 1.0, &[2_000, 3_000, 4_000]);
        check(exponential(0, 2.0, 5_000, 0.5), 1.0, &[0, 0, 0]);
        check(Retry { count: 5, ..Retry::schedule(vec![1, 2], 0.0) }, 0.0, &[1, 2, 2, 2, 2]);
        check(Retry { count: 1, ..Retry::schedule(vec![1, 2], 0.0) }, 0.0, &[1]);
        check(Retry { count: 0, ..Retry::schedule(vec![1, 2], 0.0) }, 0.0, &[]);
    }

    #[test]
    fn a_jitter_out_of_its_range_is_taken_as_its_end() {
        let retry = exponential(1_000, 2.0, 5_000, 0.1);
        assert_eq!(retry.delay_ms_after(1, 7.0), Some(1_100));
        assert_eq!(retry.delay_ms_after(1, f64::NEG_INFINITY), Some(900));
    }

    #[test]
    fn a_number_out_of_range_is_refused_by_its_public_name() {
        let check = |retry: Retry, field: &str| assert_eq!(retry.validate().unwrap_err().field, field);
        check(Retry { count: 101, ..Retry::schedule(vec![1], 0.0) }, "retry_count");
        check(exponential(MAX_DELAY_MS + 1, 2.0, MAX_DELAY_MS, 0.0), "retry.base_ms");
        for factor in [0.99, 100.1, f64::NAN, f64::INFINITY] {
            check(exponential(1, factor, 2, 0.0), "retry.factor");
        }
        check(exponential(2, 2.0, 1, 0.0), "retry.max_ms");
        check(exponential(2, 2.0, MAX_DELAY_MS + 1, 0.0), "retry.max_ms");
        for jitter in [-0.1, 1.1, f64::NAN] {
            check(exponential(1, 2.0, 2, jitter), "retry.jitter");
            check(Retry::schedule(vec![1], jitter), "retry.jitter");
        }
        for delays_ms in [vec![], vec![1, MAX_DELAY_MS + 1]] {
            check(Retry::schedule(delays_ms, 0.0), "retry.delays_ms");
        }
        check(Retry { count: 3, ..Retry::schedule(vec![1; 101], 0.0) }, "retry.delays_ms");
        assert_eq!(exponential(0, 1.0, 0, 1.0).validate(), Ok(()));
        assert_eq!(Retry::schedule(vec![MAX_DELAY_MS; 100], 1.0).validate(), Ok(()));
    }

    fn policy() -> impl Strategy<Value = RetryPolicy> {
        let exponential = (0..=MAX_DELAY_MS, 1.0..=100.0, 0.0..=1.0)
            .prop_flat_map(|(base_ms, factor, jitter)| (Just((base_ms, factor, jitter)), base_ms..=MAX_DELAY_MS))
            .prop_map(|((base_ms, factor, jitter), max_ms)| RetryPolicy::Exponential {
                base_ms,
                factor,
                max_ms,
                jitter,
            });
        let schedule = (proptest::collection::vec(0..=MAX_DELAY_MS, 1..=100), 0.0..=1.0)
            .prop_map(|(delays_ms, jitter)| RetryPolicy::Schedule { delays_ms, jitter });
        prop_oneof![exponential, schedule]
    }

    proptest! {
        #[test]
        fn an_allowed_policy_never_waits_twice_the_longest_delay_or_more_than_its_count(
            policy in policy(), count in 0..=MAX_COUNT, attempt in 1u32.., jitter in -1.0..=1.0,
        ) {
            let retry = Retry { count, policy };
            prop_assert_eq!(retry.validate(), Ok(()));
            let delay_ms = retry.delay_ms_after(attempt, jitter);
            prop_assert_eq!(delay_ms.is_none(), attempt > count);
            prop_assert!(delay_ms.unwrap_or(0) <= 2 * MAX_DELAY_MS);
            prop_assert_eq!(delays(&retry, jitter).len(), count as usize);
        }

        #[test]
        fn no_policy_at_all_panics(base_ms: u64, factor: f64, max_ms: u64, range: f64, attempt: u32, jitter: f64) {
            let exponential = RetryPolicy::Exponential { base_ms, factor, max_ms, jitter: range };
            let schedule = RetryPolicy::Schedule { delays_ms: vec![base_ms], jitter: range };
            for policy in [exponential, schedule] {
                let retry = Retry { count: u32::MAX, policy };
                prop_assert!(retry.delay_ms_after(attempt, jitter).is_some());
                let _ = retry.validate();
            }
        }
    }
}

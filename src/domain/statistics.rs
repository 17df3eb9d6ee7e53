//! What came of a subscription's attempts within an hour, and what follows from it: rates, averages and percentiles.
//!
//! Times are kept as counts in buckets, so that any number of attempts takes the same room and hours can be added up. A
//! percentile is therefore exact only up to its bucket; within it, attempts count as spread evenly.

use super::subscription::LONGEST_TIMEOUT_SECONDS;

/// Up to where each latency bucket but the last reaches, in milliseconds: about three for each power of ten.
pub const BOUNDS_MS: [u32; BUCKETS - 1] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000];
/// How many buckets there are.
pub const BUCKETS: usize = 16;
/// Where the last one ends.
const END_MS: u32 = LONGEST_TIMEOUT_SECONDS * 1_000;
/// Classes of statuses: no answer, then 1xx to 5xx.
pub const CLASSES: usize = 6;
/// Milliseconds of an hour: statistics are kept by Unix hours.
pub const HOUR_MS: u64 = 3_600_000;

/// The statistics of one hour, or of several added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Attempts by the class of their status: without an answer, then 1xx to 5xx.
    pub classes: [u64; CLASSES],
    /// Attempts by how long the answer took.
    pub buckets: [u64; BUCKETS],
    /// The time that all attempts took together.
    pub total_us: u64,
    /// Deliveries that became dead letters.
    pub dead: u64,
}

/// The bucket of an attempt whose answer took so long.
pub fn bucket_of(response_time_ms: f64) -> usize {
    BOUNDS_MS.iter().position(|bound| response_time_ms <= f64::from(*bound)).unwrap_or(BUCKETS - 1)
}

impl Statistics {
    /// Adds others.
    pub fn merge(&mut self, others: &Self) {
        self.classes.iter_mut().zip(others.classes).for_each(|(sum, count)| *sum += count);
        self.buckets.iter_mut().zip(others.buckets).for_each(|(sum, count)| *sum += count);
        self.total_us += others.total_us;
        self.dead += others.dead;
    }

    pub fn attempts(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Attempts that were answered with 2xx.
    pub fn successful(&self) -> u64 {
        self.classes[2]
    }

    pub fn failed(&self) -> u64 {
        self.attempts() - self.successful()
    }

    /// The part of all attempts that succeeded, from 0 to 1; `None` without attempts.
    pub fn success_rate(&self) -> Option<f64> {
        (self.attempts() > 0).then(|| self.successful() as f64 / self.attempts() as f64)
    }

    /// How long an attempt took, on average; `None` without attempts.
    pub fn average_ms(&self) -> Option<f64> {
        (self.attempts() > 0).then(|| self.total_us as f64 / 1000.0 / self.attempts() as f64)
    }

    /// The time within which a part of all attempts was over, as 0.95 for the 95th percentile; `None` without attempts.
    pub fn percentile_ms(&self, part: f64) -> Option<f64> {
        let count: u64 = self.buckets.iter().sum();
        let rank = part.clamp(0.0, 1.0) * count as f64;
        let mut below = 0;
        for (bucket, inside) in self.buckets.iter().copied().enumerate().filter(|(_, inside)| *inside > 0) {
            if (below + inside) as f64 >= rank {
                let (start, end) = bounds_ms(bucket);
                return Some(start + (end - start) * (rank - below as f64) / inside as f64);
            }
            below += inside;
        }
        None
    }
}

/// Where a bucket begins and ends.
fn bounds_ms(bucket: usize) -> (f64, f64) {
    let start = bucket.checked_sub(1).map_or(0, |before| BOUNDS_MS[before]);
    (start.into(), BOUNDS_MS.get(bucket).copied().unwrap_or(END_MS).into())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// So many attempts in each of some buckets, all of them successful.
    fn statistics(counts: &[(usize, u64)]) -> Statistics {
        let mut statistics = Statistics::default();
        for (bucket, count) in counts {
            statistics.buckets[*bucket] += count;
            statistics.classes[2] += count;
        }
        statistics
    }

    #[test]
    fn an_attempt_is_counted_in_the_first_bucket_that_reaches_as_far() {
        let check = |ms: f64, bucket: usize| assert_eq!(bucket_of(ms), bucket, "{ms}");
        check(0.0, 0);
        check(1.0, 0);
        check(1.001, 1);
        check(75.0, 6);
        check(1_000.0, 9);
        check(60_000.0, 14);
        check(60_000.001, 15);
        check(400_000.0, 15);
    }

    #[test]
    fn buckets_follow_on_each_other() {
        assert_eq!(bounds_ms(0), (0.0, 1.0));
        assert_eq!(bounds_ms(BUCKETS - 1), (60_000.0, 300_000.0));
        assert!((1..BUCKETS).all(|bucket| bounds_ms(bucket - 1).1 == bounds_ms(bucket).0));
        assert!(BOUNDS_MS.is_sorted());
    }

    #[test]
    fn without_attempts_there_is_no_rate_and_no_time() {
        let none = Statistics { dead: 3, ..Statistics::default() };
        assert_eq!((none.attempts(), none.success_rate(), none.average_ms()), (0, None, None));
        assert_eq!(none.percentile_ms(0.5), None);
    }

    #[test]
    fn rates_and_averages_are_of_attempts() {
        let mut all = Statistics { classes: [1, 0, 6, 0, 1, 2], total_us: 25_000, ..Statistics::default() };
        assert_eq!((all.attempts(), all.successful(), all.failed()), (10, 6, 4));
        assert_eq!((all.success_rate(), all.average_ms()), (Some(0.6), Some(2.5)));
        all.merge(&Statistics { classes: [0, 0, 10, 0, 0, 0], total_us: 0, dead: 2, ..Statistics::default() });
        assert_eq!((all.attempts(), all.success_rate(), all.average_ms()), (20, Some(0.8), Some(1.25)));
        assert_eq!(all.dead, 2);
    }

    #[test]
    fn a_percentile_lies_in_its_bucket_as_far_as_its_rank() {
        let check = |counts: &[(usize, u64)], part: f64, expected: f64| {
            assert_eq!(statistics(counts).percentile_ms(part), Some(expected), "{counts:?} {part}");
        };
        check(&[(6, 4)], 0.5, 75.0);
        check(&[(6, 4)], 1.0, 100.0);
        check(&[(0, 1)], 0.0, 0.0);
        check(&[(0, 90), (9, 10)], 0.5, 50.0 / 90.0);
        check(&[(0, 90), (9, 10)], 0.9, 1.0);
        check(&[(0, 90), (9, 10)], 0.95, 750.0);
        check(&[(15, 2)], 0.5, 180_000.0);
    }

    proptest! {
        #[test]
        fn percentiles_rise_and_stay_within_what_was_seen(
            counts in vec((0..BUCKETS, 1u64..1_000), 1..8), parts in (0.0..=1.0, 0.0..=1.0),
        ) {
            let all = statistics(&counts);
            let (lower, higher) = if parts.0 <= parts.1 { parts } else { (parts.1, parts.0) };
            let (low, high) = (all.percentile_ms(lower).unwrap(), all.percentile_ms(higher).unwrap());
            prop_assert!(low <= high, "{} {}", low, high);
            let first = counts.iter().map(|(bucket, _)| *bucket).min().unwrap();
            let last = counts.iter().map(|(bucket, _)| *bucket).max().unwrap();
            prop_assert!(low >= bounds_ms(first).0 && high <= bounds_ms(last).1, "{} {}", low, high);
        }

        #[test]
        fn merging_adds_up(counts in vec(vec((0..BUCKETS, 1u64..1_000), 0..4), 0..4)) {
            let mut merged = Statistics::default();
            counts.iter().for_each(|part| merged.merge(&statistics(part)));
            prop_assert_eq!(merged, statistics(&counts.concat()));
        }
    }
}

//! When the next attempt is made.

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

//! This machine's clock. What Redis decides goes by Redis' own.

use std::{
    sync::LazyLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// The next of the moments that come each `every`, the same for all of this process: what is asked of Redis from time to
/// time is asked at once, and shares its round trips.
pub fn next_beat(every: Duration) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let beats = START.elapsed().as_nanos() / every.as_nanos() + 1;
    *START + Duration::from_nanos((beats * every.as_nanos()) as u64)
}

/// Waits for the [next beat](next_beat).
pub async fn beat(every: Duration) {
    tokio::time::sleep_until(next_beat(every).into()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_of_all_come_together_and_within_their_time() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let before = Instant::now();
        let (one, other, rare) = (next_beat(second), next_beat(second), next_beat(minute));
        assert!(one > before && one <= Instant::now() + second);
        assert!(other == one || other == one + second);
        assert_eq!((rare - one).as_nanos() % second.as_nanos(), 0);
    }
}

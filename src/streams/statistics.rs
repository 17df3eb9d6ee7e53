//! The statistics of subscriptions, hour by hour.

use std::{collections::HashMap, ops::RangeInclusive};

use super::{Streams, error::Result};
use crate::domain::{id::SubscriptionId, statistics::Statistics};

impl Streams {
    /// What came of a subscription's attempts in each of some Unix hours, in their order; the last eight days are kept.
    pub async fn statistics(
        &self,
        subscription: SubscriptionId,
        hours: RangeInclusive<u64>,
    ) -> Result<Vec<Statistics>> {
        let mut pipeline = redis::pipe();
        for hour in hours {
            let id = format!("{subscription}:{hour}");
            pipeline.cmd("HGETALL").arg(self.keys().one(subscription.shard, "st", id));
        }
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let found: Vec<HashMap<String, u64>> = self.0.connections.run_all(&pipeline).await?;
        Ok(found.iter().map(read).collect())
    }
}

/// The statistics of an hour: `s0` to `s5` by class of status, `b0` to `b15` by latency, `us` in all, `dead`.
fn read(map: &HashMap<String, u64>) -> Statistics {
    let count = |name: &str| map.get(name).copied().unwrap_or(0);
    Statistics {
        classes: std::array::from_fn(|class| count(&format!("s{class}"))),
        buckets: std::array::from_fn(|bucket| count(&format!("b{bucket}"))),
        total_us: count("us"),
        dead: count("dead"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_the_names_that_the_script_gives_them() {
        let kept = [("s0", 1), ("s5", 2), ("b0", 3), ("b15", 4), ("us", 5), ("dead", 6), ("other", 7)];
        let found = read(&kept.map(|(name, count)| (name.to_owned(), count)).into());
        let mut expected = Statistics { classes: [1, 0, 0, 0, 0, 2], total_us: 5, dead: 6, ..Statistics::default() };
        (expected.buckets[0], expected.buckets[15]) = (3, 4);
        assert_eq!(found, expected);
    }
}

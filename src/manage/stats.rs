//! The statistics of a webhook over the last hours.

use std::time::Duration;

use super::{ManageError, Manager};
use crate::domain::{
    Invalid,
    id::SubscriptionId,
    statistics::{HOUR_MS, Statistics},
    subscription::State,
};

/// Hours of a window, at most: a week.
const HOURS_AT_MOST: u64 = 7 * 24;

/// How a webhook does.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookStats {
    pub webhook: SubscriptionId,
    /// The hours of the window, oldest first, each with its beginning in Unix milliseconds; the last one is under way.
    pub hours: Vec<(u64, Statistics)>,
    /// All of them together.
    pub window: Statistics,
    /// What waits for it, and what has come of its deliveries since it was created.
    pub state: State,
}

impl Manager {
    /// How a webhook did in the last hours: the one under way, and those before it that make up `window`.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's, and a window that is not 1 h to 7 d in whole hours.
    pub async fn webhook_stats(
        &self,
        tenant: &str,
        webhook: &str,
        window: Duration,
    ) -> Result<WebhookStats, ManageError> {
        let count = hours_of(window)?;
        let found = self.webhook(tenant, webhook).await?;
        let id = found.subscription.id;
        let last = self.streams.now_ms().await? / HOUR_MS;
        let first = (last + 1).saturating_sub(count);
        let statistics = self.streams.statistics(id, first..=last).await?;
        let mut all = Statistics::default();
        statistics.iter().for_each(|hour| all.merge(hour));
        let hours = (first..=last).map(|hour| hour * HOUR_MS).zip(statistics).collect();
        Ok(WebhookStats { webhook: id, hours, window: all, state: found.state })
    }
}

fn hours_of(window: Duration) -> Result<u64, Invalid> {
    let hours = window.as_secs() / 3_600;
    if (1..=HOURS_AT_MOST).contains(&hours) && Duration::from_secs(hours * 3_600) == window {
        Ok(hours)
    } else {
        Err(Invalid::new("window", "must be whole hours, from 1h to 7d"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_whole_hours_up_to_a_week() {
        let check = |seconds: u64, hours: Option<u64>| {
            assert_eq!(hours_of(Duration::from_secs(seconds)).ok(), hours, "{seconds}");
        };
        check(3_600, Some(1));
        check(86_400, Some(24));
        check(604_800, Some(168));
        check(0, None);
        check(3_599, None);
        check(5_400, None);
        check(608_400, None);
        assert_eq!(hours_of(Duration::from_millis(3_600_001)).unwrap_err().field, "window");
    }
}

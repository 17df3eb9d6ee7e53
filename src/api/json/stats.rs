//! The statistics of a webhook, as JSON.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{
        statistics::{CLASSES, Statistics},
        time::rfc3339,
    },
    manage::WebhookStats,
};

/// What statuses are counted by, in the order of [`Statistics::classes`].
const CLASS_NAMES: [&str; CLASSES] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// How a webhook does. Attempts, dead letters and times are those of the window; deliveries those since its creation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WebhookStats)]
pub struct WebhookStatsJson {
    pub webhook_id: String,
    pub window_hours: u64,
    pub total_attempts: u64,
    pub successful_attempts: u64,
    pub failed_attempts: u64,
    pub dead_letters: u64,
    /// From 0 to 1; null without attempts, as all times are.
    pub success_rate: Option<f64>,
    pub average_response_time_ms: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p95_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// Attempts by `1xx` to `5xx`, or `none` where no answer came.
    pub status_classes: BTreeMap<&'static str, u64>,
    /// Every hour of the window, oldest first; the last one is under way.
    pub hours: Vec<HourJson>,
    /// Deliveries that wait, or are under way, now.
    pub backlog: u64,
    pub total_deliveries: u64,
    pub successful_deliveries: u64,
    pub failed_deliveries: u64,
    pub last_triggered_at: Option<String>,
}

/// The attempts of an hour.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hour)]
pub struct HourJson {
    /// Its beginning.
    pub hour: String,
    pub attempts: u64,
    pub successful: u64,
    pub failed: u64,
    pub average_response_time_ms: Option<f64>,
}

impl WebhookStatsJson {
    pub fn of(stats: &WebhookStats) -> Self {
        let WebhookStats { window, state, .. } = stats;
        let percentile = |part| window.percentile_ms(part).map(to_micros);
        Self {
            webhook_id: stats.webhook.to_string(),
            window_hours: stats.hours.len() as u64,
            total_attempts: window.attempts(),
            successful_attempts: window.successful(),
            failed_attempts: window.failed(),
            dead_letters: window.dead,
            success_rate: window.success_rate(),
            average_response_time_ms: window.average_ms().map(to_micros),
            p50_ms: percentile(0.5),
            p95_ms: percentile(0.95),
            p99_ms: percentile(0.99),
            status_classes: CLASS_NAMES.into_iter().zip(window.classes).collect(),
            hours: stats.hours.iter().map(|(start_ms, hour)| HourJson::of(*start_ms, hour)).collect(),
            backlog: state.fresh + state.waiting + state.leased,
            total_deliveries: state.delivered + state.failed,
            successful_deliveries: state.delivered,
            failed_deliveries: state.failed,
            last_triggered_at: state.last_triggered_at_ms.map(rfc3339),
        }
    }
}

impl HourJson {
    fn of(start_ms: u64, hour: &Statistics) -> Self {
        Self {
            hour: rfc3339(start_ms),
            attempts: hour.attempts(),
            successful: hour.successful(),
            failed: hour.failed(),
            average_response_time_ms: hour.average_ms().map(to_micros),
        }
    }
}

/// Whole microseconds: more is noise.
fn to_micros(ms: f64) -> f64 {
    (ms * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{id::SubscriptionId, statistics::HOUR_MS, subscription::State};

    #[test]
    fn statistics_are_shown_for_the_window_and_hour_by_hour() {
        let mut hour = Statistics { classes: [1, 0, 2, 0, 0, 0], total_us: 10_000, dead: 1, ..Statistics::default() };
        hour.buckets[2] = 3;
        let stats = WebhookStats {
            webhook: SubscriptionId { ms: 1, shard: 0, random: 2 },
            hours: vec![(497_000 * HOUR_MS, Statistics::default()), (497_001 * HOUR_MS, hour)],
            window: hour,
            state: State { delivered: 7, failed: 2, fresh: 1, waiting: 2, leased: 3, dead: 2, ..State::default() },
        };
        let shown = serde_json::to_value(WebhookStatsJson::of(&stats)).unwrap();
        assert_eq!(
            shown,
            json!({
                "webhook_id": stats.webhook.to_string(), "window_hours": 2, "total_attempts": 3,
                "successful_attempts": 2, "failed_attempts": 1, "dead_letters": 1, "success_rate": 2.0 / 3.0,
                "average_response_time_ms": 3.333, "p50_ms": 3.5, "p95_ms": 4.85, "p99_ms": 4.97,
                "status_classes": {"none": 1, "1xx": 0, "2xx": 2, "3xx": 0, "4xx": 0, "5xx": 0},
                "hours": [
                    {"hour": "2026-09-12T08:00:00.000Z", "attempts": 0, "successful": 0, "failed": 0,
                     "average_response_time_ms": null},
                    {"hour": "2026-09-12T09:00:00.000Z", "attempts": 3, "successful": 2, "failed": 1,
                     "average_response_time_ms": 3.333},
                ],
                "backlog": 6, "total_deliveries": 9, "successful_deliveries": 7, "failed_deliveries": 2,
                "last_triggered_at": null,
            })
        );
    }

    #[test]
    fn without_attempts_rates_and_times_are_null() {
        let stats = WebhookStats {
            webhook: SubscriptionId { ms: 1, shard: 0, random: 2 },
            hours: vec![(0, Statistics::default())],
            window: Statistics::default(),
            state: State::default(),
        };
        let shown = serde_json::to_value(WebhookStatsJson::of(&stats)).unwrap();
        for name in ["success_rate", "average_response_time_ms", "p50_ms", "p95_ms", "p99_ms"] {
            assert!(shown[name].is_null(), "{name}");
        }
    }
}

//! How long the API takes for a page of the attempts of one webhook that has many.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;

use super::{
    api::Api,
    event::EVENT_TYPE,
    report::{Column, Figures},
    stage::Stage,
    webhooks::tenant,
};

pub const COLUMNS: [Column; 10] = [
    Column::new("ALL, MS", "all_p50_ms", 1),
    Column::new("MOST", "all_most_ms", 1),
    Column::new("SUCCESSES, MS", "success_p50_ms", 1),
    Column::new("MOST", "success_most_ms", 1),
    Column::new("A TYPE'S, MS", "type_p50_ms", 1),
    Column::new("MOST", "type_most_ms", 1),
    Column::new("ALL THREE, MS", "three_p50_ms", 1),
    Column::new("MOST", "three_most_ms", 1),
    Column::new("FAILURES (NONE), MS", "failed_p50_ms", 1),
    Column::new("MOST", "failed_most_ms", 1),
];

const PAGE: usize = 50;
const PAGES_AT_MOST: usize = 60;
/// How long the attempts of a run may take to be in the log after the last arrived.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(100);

/// Makes `count` attempts, then reads pages of them, newest first, by several filters.
///
/// # Errors
/// Not every event arrived, or the API refuses.
pub async fn run(stage: &Stage, count: u64) -> anyhow::Result<Figures> {
    let lists = Lists { api: Api::new(&stage.api, tenant(0)), stage };
    stage.publish_and_wait(count).await?;
    lists.wait_for(stage.warm_up() + count).await?;
    let mut figures = Figures::new();
    let filters = [
        ("all_p50_ms", "all_most_ms", String::new()),
        ("success_p50_ms", "success_most_ms", "&status=success".to_owned()),
        ("type_p50_ms", "type_most_ms", format!("&type={EVENT_TYPE}")),
        ("three_p50_ms", "three_most_ms", format!("&status=success&type={EVENT_TYPE}&since=2000-01-01T00:00:00Z")),
        ("failed_p50_ms", "failed_most_ms", "&status=failed".to_owned()),
    ];
    for (median, most, filter) in filters {
        let times = lists.pages(&filter).await?;
        figures.insert(median.into(), times[times.len() / 2]);
        figures.insert(most.into(), times[times.len() - 1]);
    }
    Ok(figures)
}

struct Lists<'s> {
    api: Api,
    stage: &'s Stage,
}

impl Lists<'_> {
    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.api.get(&format!("/webhooks/{}{path}", self.stage.webhook()?)).await
    }

    /// Waits until the log has so many attempts: a result is taken in a little after the event arrived.
    async fn wait_for(&self, count: u64) -> anyhow::Result<()> {
        let since = Instant::now();
        while since.elapsed() < PATIENCE {
            let webhook = self.get("").await?;
            if webhook["total_deliveries"].as_u64().is_some_and(|total| total >= count) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        bail!("the attempts of the run are not all in the log after {} s", PATIENCE.as_secs())
    }

    /// How long each page of a list took, in milliseconds, sorted.
    async fn pages(&self, filter: &str) -> anyhow::Result<Vec<f64>> {
        let (mut times, mut cursor) = (Vec::new(), String::new());
        loop {
            let since = Instant::now();
            let page = self.get(&format!("/logs?limit={PAGE}{filter}{cursor}")).await?;
            times.push(since.elapsed().as_secs_f64() * 1000.0);
            match page["next_cursor"].as_str() {
                Some(next) if times.len() < PAGES_AT_MOST => cursor = format!("&cursor={next}"),
                _ => break,
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times)
    }
}

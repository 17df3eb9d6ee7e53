//! How fast a backlog is delivered: what has waited for a paused webhook, once it is resumed.

use super::{
    event::now_us,
    measure::{beside_bare, deliveries, rate},
    report::{Column, Figures, medians},
    stage::Stage,
    webhooks::tenant,
};

/// A small backlog is drained several times, until it makes about so many deliveries.
const DELIVERIES: u64 = 20_000;

pub const COLUMNS: [Column; 8] = [
    Column::new("DRAINED/S", "deliveries_per_second", 0),
    Column::new("RATIO TO SMALL", "rate_ratio_to_small", 3),
    Column::new("RATIO TO BARE", "ratio_to_bare", 3),
    Column::new("QUEUED/S", "queued_per_second", 0),
    Column::new("CPU S/1,000: ENGINE", "engine_cpu_seconds_per_1000", 3),
    Column::new("REDIS", "redis_cpu_seconds_per_1000", 3),
    Column::new("REDIS B/PENDING", "redis_bytes_per_pending", 0),
    Column::new("ENGINE MB", "engine_peak_mb", 0),
];

/// Lets so many events wait for the webhook, then measures how they are delivered.
///
/// # Errors
/// Not every event arrived.
pub async fn run(stage: &Stage, pending: u64) -> anyhow::Result<Figures> {
    let mut rounds = Vec::new();
    for _ in 0..(DELIVERIES / pending).clamp(1, 10) {
        rounds.push(round(stage, pending).await?);
    }
    let mut figures = medians(&rounds);
    beside_bare(stage, pending, "deliveries_per_second", &mut figures).await?;
    Ok(figures)
}

async fn round(stage: &Stage, pending: u64) -> anyhow::Result<Figures> {
    let (manager, webhook) = (&stage.maker.manager, stage.webhook()?.to_string());
    stage.settled().await?;
    manager.pause_webhook(&tenant(0), &webhook).await?;
    stage.receiver.expect(pending, 1).await?;
    let (before, start_us) = (stage.reading().await?, now_us());
    stage.source.publish_all(pending).await?;
    stage.wait_until(pending, |owed| owed.events == 0 && owed.deliveries >= pending).await?;
    let queued_us = now_us();
    let after = stage.reading().await?;
    let deliver = async {
        manager.resume_webhook(&tenant(0), &webhook, false).await?;
        stage.arrivals(pending).await
    };
    let mut figures = deliveries(stage, pending, deliver).await?;
    // They have waited for the pause: how long says nothing.
    figures.retain(|name, _| !name.ends_with("_ms"));
    let bytes = after.redis.data_bytes as f64 - before.redis.data_bytes as f64;
    figures.insert("queued_per_second".into(), rate(pending, start_us, queued_us));
    figures.insert("redis_bytes_per_pending".into(), bytes / pending as f64);
    figures.insert("redis_pending_mb".into(), after.redis.data_bytes as f64 / 1024.0 / 1024.0);
    Ok(figures)
}

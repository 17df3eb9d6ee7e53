//! What all scenarios that deliver have in common: the figures of a run, and the limit beside them.

use std::sync::Arc;

use super::{
    direct::Direct,
    event::now_us,
    reading::between,
    receiver::{Arrivals, Latency},
    report::{Column, Figures},
    stage::Stage,
};

/// Posts that show the limit well enough.
const BARE_AT_MOST: u64 = 50_000;

/// What is shown of scenarios whose events are published as fast as they are taken.
pub const COLUMNS: [Column; 9] = [
    Column::new("DELIVERIES/S", "deliveries_per_second", 0),
    Column::new("RATIO TO BARE", "ratio_to_bare", 3),
    Column::new("CPU S/1,000: ENGINE", "engine_cpu_seconds_per_1000", 3),
    Column::new("REDIS", "redis_cpu_seconds_per_1000", 3),
    Column::new("PUBLISHER", "publisher_cpu_seconds_per_1000", 3),
    Column::new("BARE CLIENT", "bare_cpu_seconds_per_1000", 3),
    Column::new("COMMANDS", "redis_commands_per_delivery", 1),
    Column::new("ENGINE MB", "engine_peak_mb", 0),
    Column::new("DUPLICATES", "duplicates", 0),
];

/// The figures of `count` deliveries while `deliver` has them made, and of what becomes of them.
///
/// # Errors
/// Not all arrived.
pub async fn deliveries(
    stage: &Stage,
    count: u64,
    deliver: impl Future<Output = anyhow::Result<Arrivals>>,
) -> anyhow::Result<Figures> {
    let (before, start_us) = (stage.begin().await?, now_us());
    let arrivals = deliver.await?;
    stage.settled().await?;
    let mut figures = between(&before, &stage.reading().await?, count);
    figures.extend(times("", arrivals.latency));
    figures.insert("deliveries_per_second".into(), rate(count, start_us, arrivals.last_us));
    figures.insert("duplicates".into(), arrivals.duplicates as f64);
    figures.insert("attempts_per_delivery".into(), (count + arrivals.refused) as f64 / count as f64);
    Ok(figures)
}

/// Adds the limit to the figures: as many posts by a bare client, to an endpoint that takes all at once.
///
/// # Errors
/// The receiver does not take them.
pub async fn beside_bare(stage: &Stage, count: u64, rate_of: &str, figures: &mut Figures) -> anyhow::Result<()> {
    let count = count.min(BARE_AT_MOST);
    let direct = Arc::new(Direct::new(&stage.url())?);
    stage.receiver.expect(count, 1).await?;
    let (before, start_us) = (stage.reading().await?, now_us());
    direct.post_all(count).await?;
    let arrivals = stage.arrivals(count).await?;
    let after = stage.reading().await?;
    let per_second = rate(count, start_us, arrivals.last_us);
    let per_1000 = |seconds: f64| seconds / count as f64 * 1000.0;
    figures.insert("bare_posts_per_second".into(), per_second);
    figures.insert("bare_cpu_seconds_per_1000".into(), per_1000(after.publisher_cpu - before.publisher_cpu));
    figures.insert("bare_receiver_cpu_seconds_per_1000".into(), per_1000(after.receiver_cpu - before.receiver_cpu));
    if let Some(engine) = figures.get(rate_of).copied() {
        figures.insert("ratio_to_bare".into(), engine / per_second);
    }
    Ok(())
}

/// Quantiles in milliseconds, their names behind `prefix`.
pub fn times(prefix: &str, latency: Latency) -> Figures {
    let Latency { p50_us, p90_us, p99_us, p999_us, max_us } = latency;
    [("p50_ms", p50_us), ("p90_ms", p90_us), ("p99_ms", p99_us), ("p999_ms", p999_us), ("max_ms", max_us)]
        .into_iter()
        .map(|(name, us)| (format!("{prefix}{name}").into(), us as f64 / 1000.0))
        .collect()
}

/// So many a second.
pub fn rate(count: u64, start_us: u64, end_us: u64) -> f64 {
    count as f64 / (end_us.saturating_sub(start_us).max(1) as f64 / 1e6)
}

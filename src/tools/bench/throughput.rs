//! How many deliveries a second, when events are published as fast as they are taken.

use std::sync::Arc;

use super::{
    direct::Direct,
    event::now_us,
    report::{Column, Figures},
    stage::Stage,
};

pub const COLUMNS: [Column; 8] = [
    Column { title: "DELIVERIES/S", figure: "deliveries_per_second", decimals: 0 },
    Column { title: "BARE POST/S", figure: "bare_posts_per_second", decimals: 0 },
    Column { title: "RATIO", figure: "ratio_to_bare", decimals: 3 },
    Column { title: "CPU S/1,000: ENGINE", figure: "engine_cpu_seconds_per_1000", decimals: 3 },
    Column { title: "REDIS", figure: "redis_cpu_seconds_per_1000", decimals: 3 },
    Column { title: "PUBLISHER", figure: "publisher_cpu_seconds_per_1000", decimals: 3 },
    Column { title: "BARE CLIENT", figure: "bare_cpu_seconds_per_1000", decimals: 3 },
    Column { title: "DUPLICATES", figure: "duplicates", decimals: 0 },
];

/// Measures `count` events through the engine, then as many without it.
///
/// # Errors
/// Not every event arrived.
pub async fn run(stage: &Stage, count: u64) -> anyhow::Result<Figures> {
    let (before, start_us) = (stage.cpu_seconds()?, now_us());
    let arrivals = stage.publish_and_wait(count).await?;
    let after = stage.cpu_seconds()?;
    let per_second = rate(count, start_us, arrivals.last_us);

    let direct = Arc::new(Direct::new(&stage.url())?);
    stage.receiver.expect(count).await?;
    let (bare_before, bare_start_us) = (stage.cpu_seconds()?, now_us());
    direct.post_all(count).await?;
    let bare_arrivals = stage.arrivals(count).await?;
    let bare_after = stage.cpu_seconds()?;
    let bare_per_second = rate(count, bare_start_us, bare_arrivals.last_us);

    let per_1000 = |seconds: f64| seconds / count as f64 * 1000.0;
    Ok(Figures::from([
        ("deliveries_per_second", per_second),
        ("bare_posts_per_second", bare_per_second),
        ("ratio_to_bare", per_second / bare_per_second),
        ("engine_cpu_seconds_per_1000", per_1000(after.engine - before.engine)),
        ("redis_cpu_seconds_per_1000", per_1000(after.redis - before.redis)),
        ("publisher_cpu_seconds_per_1000", per_1000(after.publisher - before.publisher)),
        ("receiver_cpu_seconds_per_1000", per_1000(after.receiver - before.receiver)),
        ("bare_cpu_seconds_per_1000", per_1000(bare_after.publisher - bare_before.publisher)),
        ("bare_receiver_cpu_seconds_per_1000", per_1000(bare_after.receiver - bare_before.receiver)),
        ("duplicates", arrivals.duplicates as f64),
    ]))
}

fn rate(count: u64, start_us: u64, end_us: u64) -> f64 {
    count as f64 / (end_us.saturating_sub(start_us).max(1) as f64 / 1e6)
}

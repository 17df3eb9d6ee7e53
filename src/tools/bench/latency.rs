//! How long an event takes from when it is due to be published to its arrival, at a given rate.

use std::{sync::Arc, time::Duration};

use super::{
    direct::Direct,
    load,
    measure::{deliveries, times},
    report::{Column, Figures},
    stage::Stage,
};

pub const COLUMNS: [Column; 9] = [
    Column::new("P50 MS", "p50_ms", 2),
    Column::new("P90", "p90_ms", 2),
    Column::new("P99", "p99_ms", 2),
    Column::new("P99.9", "p999_ms", 2),
    Column::new("BARE: P50 MS", "bare_p50_ms", 2),
    Column::new("P99", "bare_p99_ms", 2),
    Column::new("CPU S/1,000: ENGINE", "engine_cpu_seconds_per_1000", 3),
    Column::new("REDIS", "redis_cpu_seconds_per_1000", 3),
    Column::new("DUPLICATES", "duplicates", 0),
];

/// Measures `per_second` events a second for so long through the engine, then as many without it.
///
/// # Errors
/// Not every event arrived.
pub async fn run(stage: &Stage, per_second: u32, time: Duration) -> anyhow::Result<Figures> {
    let count = load::due_within(time, per_second);
    let deliver = async {
        stage.receiver.expect(count, 1).await?;
        let source = stage.source.clone();
        let publish = move |mark| {
            let source = source.clone();
            async move { source.publish(mark).await.map(drop) }
        };
        load::open(count, per_second, publish).await?;
        stage.arrivals(count).await
    };
    let mut figures = deliveries(stage, count, deliver).await?;

    let direct = Arc::new(Direct::new(&stage.url())?);
    stage.receiver.expect(count, 1).await?;
    let post = move |mark| {
        let direct = direct.clone();
        async move { direct.post(mark).await }
    };
    load::open(count, per_second, post).await?;
    figures.extend(times("bare_", stage.arrivals(count).await?.latency));
    for (name, of) in [("p50_ratio_to_bare", "p50_ms"), ("p99_ratio_to_bare", "p99_ms")] {
        let ratio = figures[of] / figures[format!("bare_{of}").as_str()];
        figures.insert(name.into(), ratio);
    }
    Ok(figures)
}

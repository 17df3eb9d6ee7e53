//! What the engine uses while there is nothing to do, with many webhooks.

use std::time::{Duration, Instant};

use super::{
    report::{Column, Figures},
    stage::Stage,
};

const MEGABYTE: f64 = 1024.0 * 1024.0;

pub const COLUMNS: [Column; 6] = [
    Column::new("ROUND TRIPS/MIN A PROCESS", "redis_socket_reads_per_minute_and_process", 0),
    Column::new("COMMANDS/MIN", "redis_commands_per_minute", 0),
    Column::new("CPU %: ENGINE", "engine_cpu_percent", 2),
    Column::new("REDIS", "redis_cpu_percent", 2),
    Column::new("ENGINE MB", "engine_peak_mb", 0),
    Column::new("REDIS MB", "redis_memory_mb", 0),
];

/// Looks on for so long.
///
/// # Errors
/// Something has ended.
pub async fn run(stage: &Stage, time: Duration) -> anyhow::Result<Figures> {
    stage.settled().await?;
    let (before, since) = (stage.begin().await?, Instant::now());
    tokio::time::sleep(time).await;
    let (after, elapsed) = (stage.reading().await?, since.elapsed().as_secs_f64());
    let percent = |seconds: f64| seconds / elapsed * 100.0;
    let per_minute = |number: u64| number as f64 / (elapsed / 60.0);
    // The first look was counted before it was answered; the second is one more.
    let reads = (after.redis.socket_reads - before.redis.socket_reads).saturating_sub(1);
    let commands = (after.redis.commands - before.redis.commands).saturating_sub(1);
    let figures = [
        ("redis_socket_reads_per_minute_and_process", per_minute(reads) / stage.engine_processes as f64),
        ("redis_commands_per_minute", per_minute(commands)),
        ("engine_cpu_percent", percent(after.engine_cpu - before.engine_cpu)),
        ("redis_cpu_percent", percent(after.redis_cpu - before.redis_cpu)),
        ("engine_peak_mb", after.engine_peak_bytes as f64 / MEGABYTE),
        ("redis_memory_mb", after.redis.data_bytes as f64 / MEGABYTE),
    ];
    Ok(figures.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

//! What the engine uses while there is nothing to do, with many webhooks.
//!
//! Whoever takes over a shard audits all of its webhooks first, and again only hours later. That is waited for, and said apart:
//! it would be most of what a minute shows.

use std::time::{Duration, Instant};

use super::{
    report::{Column, Figures},
    stage::Stage,
};

const MEGABYTE: f64 = 1024.0 * 1024.0;

/// How long a look for quiet takes, and how many reads in a second are quiet: an audit makes a thousand and more, and the
/// upkeep that comes every few seconds some hundred at once.
const LOOK: Duration = Duration::from_secs(2);
const QUIET_READS_A_SECOND: f64 = 200.0;
/// How long the engine may take to come to rest, for itself and for each webhook. What is not quiet by then never is.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_EACH: Duration = Duration::from_millis(10);

pub const COLUMNS: [Column; 7] = [
    Column::new("ROUND TRIPS/MIN A PROCESS", "redis_socket_reads_per_minute_and_process", 0),
    Column::new("COMMANDS/MIN", "redis_commands_per_minute", 0),
    Column::new("CPU %: ENGINE", "engine_cpu_percent", 2),
    Column::new("REDIS", "redis_cpu_percent", 2),
    Column::new("ENGINE MB", "engine_peak_mb", 0),
    Column::new("REDIS MB", "redis_memory_mb", 0),
    Column::new("QUIET AFTER S", "quiet_after_seconds", 0),
];

/// Looks on for so long.
///
/// # Errors
/// Something has ended.
pub async fn run(stage: &Stage, time: Duration) -> anyhow::Result<Figures> {
    stage.settled().await?;
    let quiet_after = come_to_rest(stage).await?;
    let (before, since) = (stage.begin().await?, Instant::now());
    tokio::time::sleep(time).await;
    let (after, elapsed) = (stage.reading().await?, since.elapsed().as_secs_f64());
    let percent = |seconds: f64| seconds / elapsed * 100.0;
    let per_minute = |number: u64| number as f64 / (elapsed / 60.0);
    // A look is one read with two commands, and counts them before it is answered.
    let reads = (after.redis.socket_reads - before.redis.socket_reads).saturating_sub(1);
    let commands = (after.redis.commands - before.redis.commands).saturating_sub(2);
    let figures = [
        ("redis_socket_reads_per_minute_and_process", per_minute(reads) / stage.engine_processes as f64),
        ("redis_commands_per_minute", per_minute(commands)),
        ("engine_cpu_percent", percent(after.engine_cpu - before.engine_cpu)),
        ("redis_cpu_percent", percent(after.redis_cpu - before.redis_cpu)),
        ("engine_peak_mb", after.engine_peak_bytes as f64 / MEGABYTE),
        ("redis_memory_mb", after.redis.data_bytes as f64 / MEGABYTE),
        ("quiet_after_seconds", quiet_after.as_secs_f64()),
    ];
    Ok(figures.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

/// Waits until the engine asks Redis for little, and returns how long that took.
async fn come_to_rest(stage: &Stage) -> anyhow::Result<Duration> {
    let since = Instant::now();
    let patience = PATIENCE + PATIENCE_EACH * stage.source.layout.webhooks() as u32;
    let mut before = stage.reading().await?.redis.socket_reads;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stage.reading().await?.redis.socket_reads;
        let a_second = (now - before) as f64 / LOOK.as_secs_f64();
        if a_second < QUIET_READS_A_SECOND || since.elapsed() > patience {
            return Ok(since.elapsed());
        }
        before = now;
    }
}

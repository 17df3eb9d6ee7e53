//! How many deliveries a second, when events are published as fast as they are taken: to few webhooks, to very many, to
//! all of a tenant's at once, or to one that refuses some.

use super::{
    behaviour::Behaviour,
    measure::{beside_bare, deliveries},
    report::{Column, Figures},
    stage::Stage,
};

pub const RETRIES_COLUMNS: [Column; 8] = [
    Column::new("DELIVERIES/S", "deliveries_per_second", 0),
    Column::new("RATIO TO BARE", "ratio_to_bare", 3),
    Column::new("ATTEMPTS EACH", "attempts_per_delivery", 3),
    Column::new("CPU S/1,000: ENGINE", "engine_cpu_seconds_per_1000", 3),
    Column::new("REDIS", "redis_cpu_seconds_per_1000", 3),
    Column::new("COMMANDS", "redis_commands_per_delivery", 1),
    Column::new("ENGINE MB", "engine_peak_mb", 0),
    Column::new("DUPLICATES", "duplicates", 0),
];

pub const SCALING_COLUMNS: [Column; 9] = [
    Column::new("DELIVERIES/S", "deliveries_per_second", 0),
    Column::new("RATIO TO BARE", "ratio_to_bare", 3),
    Column::new("TO ONE SERVER", "rate_ratio_to_one_server", 2),
    Column::new("CPU S/1,000: ENGINE", "engine_cpu_seconds_per_1000", 3),
    Column::new("REDIS", "redis_cpu_seconds_per_1000", 3),
    Column::new("COMMANDS", "redis_commands_per_delivery", 1),
    Column::new("SOCKET READS", "redis_socket_reads_per_delivery", 2),
    Column::new("ENGINE MB", "engine_peak_mb", 0),
    Column::new("DUPLICATES", "duplicates", 0),
];

/// Measures so many events through the engine, then as many deliveries without it.
///
/// # Errors
/// Not every event arrived.
pub async fn run(stage: &Stage, events: u64) -> anyhow::Result<Figures> {
    let count = stage.deliveries(events);
    let mut figures = deliveries(stage, count, stage.publish_and_wait(events)).await?;
    beside_bare(stage, count, "deliveries_per_second", &mut figures).await?;
    Ok(figures)
}

/// The same to an endpoint that refuses 30 % of all requests.
///
/// # Errors
/// Not every event arrived.
pub async fn run_with_retries(stage: &Stage, events: u64) -> anyhow::Result<Figures> {
    stage.maker.turn(stage.webhook()?, Behaviour::Flaky).await?;
    run(stage, events).await
}

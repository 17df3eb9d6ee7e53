//! What an endpoint that misbehaves costs the others: of twenty webhooks, each of another tenant, the first may be bad.
//! Only what the others get is measured, at a fixed rate.

use std::time::Duration;

use super::{
    behaviour::Behaviour,
    event::{Mark, UNCOUNTED},
    load,
    measure::times,
    reading::between,
    report::{Column, Figures},
    stage::Stage,
};

/// Webhooks that share the events.
pub const WEBHOOKS: usize = 20;
/// Events a second, over all of them.
const PER_SECOND: u32 = 1_000;

pub const COLUMNS: [Column; 7] = [
    Column::new("OTHERS: P50 MS", "p50_ms", 2),
    Column::new("P99", "p99_ms", 2),
    Column::new("P99.9", "p999_ms", 2),
    Column::new("P99 RATIO TO QUIET", "p99_ratio_to_quiet", 2),
    Column::new("CPU S/1,000: ENGINE", "engine_cpu_seconds_per_1000", 3),
    Column::new("REDIS", "redis_cpu_seconds_per_1000", 3),
    Column::new("DUPLICATES", "duplicates", 0),
];

/// Measures what the others get for so long, while the first answers as `first` says.
///
/// # Errors
/// Not every event for the others arrived.
pub async fn run(stage: &Stage, first: Behaviour, time: Duration) -> anyhow::Result<Figures> {
    stage.maker.turn(stage.webhook()?, first).await?;
    let all = load::due_within(time, PER_SECOND);
    let counted = all - all.div_ceil(WEBHOOKS as u64);
    stage.receiver.expect(counted, 1).await?;
    let before = stage.begin().await?;
    let source = stage.source.clone();
    let publish = move |mark: Mark| {
        let (source, (webhook, number)) = (source.clone(), place(mark.number));
        async move { source.publish_to(webhook, Mark { number, ..mark }).await.map(drop) }
    };
    load::open(all, PER_SECOND, publish).await?;
    let arrivals = stage.arrivals(counted).await?;
    let mut figures = between(&before, &stage.reading().await?, all);
    figures.extend(times("", arrivals.latency));
    figures.insert("duplicates".into(), arrivals.duplicates as f64);
    Ok(figures)
}

/// To which webhook an event goes, and its number among those that are counted.
fn place(number: u64) -> (usize, u64) {
    let (round, webhook) = (number / WEBHOOKS as u64, number % WEBHOOKS as u64);
    let counted = if webhook == 0 { UNCOUNTED } else { number - round - 1 };
    (webhook as usize, counted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_the_others_are_counted_without_gaps() {
        let counted: Vec<u64> =
            (0..60).map(place).filter(|(webhook, _)| *webhook != 0).map(|(_, number)| number).collect();
        assert_eq!(counted, (0..57).collect::<Vec<_>>());
        assert_eq!(place(40), (0, UNCOUNTED));
    }
}

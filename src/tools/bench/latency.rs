//! How long an event takes from when it is due to be published to its arrival, at a given rate.
//!
//! The load is open: events are due at fixed times, whatever became of those before. What is late because something
//! before it was slow counts as late, so that no omission is coordinated with a stall.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, task::JoinHandle};

use super::{
    direct::Direct,
    event::{Mark, now_us},
    receiver::Latency,
    report::{Column, Figures},
    stage::Stage,
};

pub const COLUMNS: [Column; 9] = [
    Column { title: "P50 MS", figure: "p50_ms", decimals: 2 },
    Column { title: "P90", figure: "p90_ms", decimals: 2 },
    Column { title: "P99", figure: "p99_ms", decimals: 2 },
    Column { title: "P99.9", figure: "p999_ms", decimals: 2 },
    Column { title: "MAX", figure: "max_ms", decimals: 2 },
    Column { title: "BARE POST: P50 MS", figure: "bare_p50_ms", decimals: 2 },
    Column { title: "P99", figure: "bare_p99_ms", decimals: 2 },
    Column { title: "P99.9", figure: "bare_p999_ms", decimals: 2 },
    Column { title: "DUPLICATES", figure: "duplicates", decimals: 0 },
];

/// Measures `per_second` events a second for so many seconds through the engine, then as many without it.
///
/// # Errors
/// Not every event arrived.
pub async fn run(stage: &Stage, per_second: u32, seconds: u32) -> anyhow::Result<Figures> {
    let count = u64::from(per_second) * u64::from(seconds);
    stage.receiver.expect(count).await?;
    let source = stage.source.clone();
    fire(count, per_second, move |mark| {
        let source = source.clone();
        async move { source.publish(mark).await.map(drop) }
    })
    .await?;
    let arrivals = stage.arrivals(count).await?;

    let direct = Arc::new(Direct::new(&stage.url())?);
    stage.receiver.expect(count).await?;
    fire(count, per_second, move |mark| {
        let direct = direct.clone();
        async move { direct.post(mark).await }
    })
    .await?;
    let bare = stage.arrivals(count).await?;
    Ok(figures(arrivals.latency, bare.latency, arrivals.duplicates))
}

fn figures(engine: Latency, bare: Latency, duplicates: u64) -> Figures {
    let ms = |us: u64| us as f64 / 1000.0;
    Figures::from([
        ("p50_ms", ms(engine.p50_us)),
        ("p90_ms", ms(engine.p90_us)),
        ("p99_ms", ms(engine.p99_us)),
        ("p999_ms", ms(engine.p999_us)),
        ("max_ms", ms(engine.max_us)),
        ("bare_p50_ms", ms(bare.p50_us)),
        ("bare_p90_ms", ms(bare.p90_us)),
        ("bare_p99_ms", ms(bare.p99_us)),
        ("bare_p999_ms", ms(bare.p999_us)),
        ("bare_max_ms", ms(bare.max_us)),
        ("duplicates", duplicates as f64),
    ])
}

/// Starts `action` for each event when it is due, and waits for all of them.
async fn fire<A>(count: u64, per_second: u32, action: impl Fn(Mark) -> A + Send + 'static) -> anyhow::Result<()>
where
    A: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let runtime = Handle::current();
    // On a thread of its own: the runtime's timers are as coarse as a millisecond.
    let started: Vec<JoinHandle<_>> = tokio::task::spawn_blocking(move || {
        let (start, start_us) = (Instant::now(), now_us());
        (0..count)
            .map(|number| {
                let after_us = number * 1_000_000 / u64::from(per_second);
                let due = start + Duration::from_micros(after_us);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                runtime.spawn(action(Mark { number, due_us: start_us + after_us }))
            })
            .collect()
    })
    .await?;
    for one in started {
        one.await??;
    }
    Ok(())
}

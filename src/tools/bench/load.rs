//! Ways to put load on something: as fast as it is taken, or at given times.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    task::{JoinHandle, JoinSet},
};

use super::event::{Mark, now_us};

/// Does `action` for each number from 0 on, so many at once, each as soon as one before it is done.
///
/// # Errors
/// That of an action.
pub async fn closed<A>(
    count: u64,
    at_once: usize,
    action: impl Fn(u64) -> A + Send + Sync + 'static,
) -> anyhow::Result<()>
where
    A: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let (next, action) = (Arc::new(AtomicU64::new(0)), Arc::new(action));
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let (next, action) = (next.clone(), action.clone());
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return anyhow::Ok(());
                }
                action(number).await?;
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

/// How many events are due within so long: one at least.
pub fn due_within(time: Duration, per_second: u32) -> u64 {
    ((time.as_secs_f64() * f64::from(per_second)) as u64).max(1)
}

/// Starts `action` for each event when it is due, so many a second whatever became of those before, and waits for all.
/// What is late because something before it was slow counts as late, so that no omission is coordinated with a stall.
///
/// # Errors
/// That of an action.
pub async fn open<A>(count: u64, per_second: u32, action: impl Fn(Mark) -> A + Send + 'static) -> anyhow::Result<()>
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

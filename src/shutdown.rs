//! Stopping in two steps: first nothing new is taken and what is held is finished; then, at a second signal or when the
//! grace is over, what is left is dropped where it stands.
//!
//! Dropping loses nothing: what was held is leased again by whoever comes next. A [`Shutdown`] is handed to whoever must
//! stop; there is no process-wide state but the signals themselves.

use std::{io, pin::pin, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::{JoinError, JoinSet},
    time::sleep,
};
use tracing::{error, info, warn};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Running,
    Stopping,
    Aborted,
}

/// Tells its holders when to stop; clones share one state, which only goes forward.
#[derive(Debug, Clone)]
pub struct Shutdown {
    step: watch::Sender<Step>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// One that stops when somebody says so.
    pub fn new() -> Self {
        Self { step: watch::Sender::new(Step::Running) }
    }

    /// One that also stops at the first SIGTERM or SIGINT and aborts at the second. Needs a tokio runtime.
    ///
    /// # Errors
    /// The handlers could not be installed.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let told = shutdown.clone();
        tokio::spawn(async move {
            let name = next(&mut term, &mut int).await;
            info!(signal = name, "stopping: finishing what is under way; a second signal stops at once");
            told.stop();
            let name = next(&mut term, &mut int).await;
            warn!(signal = name, "stopping at once");
            told.abort();
        });
        Ok(shutdown)
    }

    /// The first step: take nothing new, finish what is held.
    pub fn stop(&self) {
        self.advance(Step::Stopping);
    }

    /// The second step: drop what is held.
    pub fn abort(&self) {
        self.advance(Step::Aborted);
    }

    /// Whether the first step was taken.
    pub fn is_stopping(&self) -> bool {
        *self.step.borrow() >= Step::Stopping
    }

    /// Waits for the first step; at once when it was taken. Cancel safe.
    pub async fn stopping(&self) {
        self.reached(Step::Stopping).await;
    }

    /// Waits for the second step; at once when it was taken. Cancel safe.
    pub async fn aborted(&self) {
        self.reached(Step::Aborted).await;
    }

    async fn reached(&self, step: Step) {
        // It fails only without a sender, and `self` is one.
        let _ = self.step.subscribe().wait_for(|now| *now >= step).await;
    }

    fn advance(&self, step: Step) {
        self.step.send_if_modified(|now| {
            let forward = *now < step;
            *now = step.max(*now);
            forward
        });
    }
}

async fn next(term: &mut Signal, int: &mut Signal) -> &'static str {
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}

/// Joins every task. One that fails stops the others; once stopping, they have `grace`, then (or when aborted) the rest is
/// dropped where it stands.
///
/// # Errors
/// The first failure of a task, or its panic.
pub async fn run_until_stopped(
    mut tasks: JoinSet<anyhow::Result<()>>,
    shutdown: &Shutdown,
    grace: Duration,
) -> anyhow::Result<()> {
    let mut patience = pin!(async {
        shutdown.stopping().await;
        tokio::select! {
            () = sleep(grace) => (),
            () = shutdown.aborted() => (),
        }
    });
    let mut outcome = Ok(());
    loop {
        let joined = tokio::select! {
            joined = tasks.join_next() => joined,
            () = &mut patience => break,
        };
        let Some(joined) = joined else { return outcome };
        if let Err(failure) = joined.unwrap_or_else(|panic| Err(panic.into())) {
            shutdown.stop();
            match outcome {
                Ok(()) => outcome = Err(failure),
                Err(_) => error!(error = format!("{failure:#}"), "another task failed while stopping"),
            }
        }
    }
    warn!(tasks = tasks.len(), "not all was finished in time; the rest is taken up again after the next start");
    tasks.abort_all();
    while let Some(joined) = tasks.join_next().await {
        if outcome.is_ok() && joined.as_ref().is_err_and(JoinError::is_panic) {
            outcome = joined.unwrap_or_else(|panic| Err(panic.into()));
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Instant};

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn the_steps_only_go_forward_and_reach_every_clone() {
        let shutdown = Shutdown::new();
        let seen = shutdown.clone();
        assert!(!seen.is_stopping());
        assert!(timeout(Duration::from_millis(10), seen.stopping()).await.is_err());
        shutdown.stop();
        timeout(SOON, seen.stopping()).await.unwrap();
        assert!(timeout(Duration::from_millis(10), seen.aborted()).await.is_err());
        shutdown.abort();
        shutdown.stop();
        timeout(SOON, seen.aborted()).await.unwrap();
        assert!(seen.is_stopping());
    }

    #[tokio::test]
    async fn tasks_finish_what_they_hold_before_the_end() {
        let shutdown = Shutdown::new();
        let (finished, mut tasks) = (watch::Sender::new(false), JoinSet::new());
        let (task, done) = (shutdown.clone(), finished.clone());
        tasks.spawn(async move {
            task.stopping().await;
            tokio::task::yield_now().await;
            done.send_replace(true);
            Ok(())
        });
        shutdown.stop();
        run_until_stopped(tasks, &shutdown, LONG).await.unwrap();
        assert!(*finished.borrow());
    }

    #[tokio::test]
    async fn a_failed_or_panicked_task_stops_the_others_and_is_the_result() {
        let fails = |panics: bool| async move {
            assert!(!panics, "boom");
            Err(anyhow::anyhow!("boom"))
        };
        for panics in [false, true] {
            let (shutdown, mut tasks) = (Shutdown::new(), JoinSet::new());
            let other = shutdown.clone();
            tasks.spawn(async move {
                other.stopping().await;
                Ok(())
            });
            tasks.spawn(fails(panics));
            let failure = timeout(SOON, run_until_stopped(tasks, &shutdown, LONG)).await.unwrap().unwrap_err();
            assert!(format!("{failure:#}").contains(if panics { "panicked" } else { "boom" }), "{failure:#}");
        }
    }

    #[tokio::test]
    async fn a_task_that_hangs_is_dropped_after_the_grace_or_at_the_second_step() {
        for (grace, abort) in [(Duration::from_millis(20), false), (LONG, true)] {
            let (shutdown, mut tasks) = (Shutdown::new(), JoinSet::new());
            tasks.spawn(pending());
            shutdown.stop();
            if abort {
                shutdown.abort();
            }
            let start = Instant::now();
            run_until_stopped(tasks, &shutdown, grace).await.unwrap();
            assert!(start.elapsed() < SOON);
        }
    }
}

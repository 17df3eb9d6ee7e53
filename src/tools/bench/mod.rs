//! `posthaste bench`: what the engine does a second, and how long an event takes, on a private Redis.
//!
//! The engine, Redis and the receiver are processes of their own, so that each one's CPU time is known; the publisher is
//! this one. Beside each figure stands the limit of the same run: the same body signed and posted to the same receiver,
//! with no queue between. All runs on the loopback interface, and all share the machine's cores.

mod case;
mod direct;
mod event;
mod latency;
mod lists;
mod process;
mod receiver;
mod receiver_process;
mod report;
mod source;
mod stage;
mod throughput;

use self::{
    case::Case,
    report::{Figures, Outcome},
    stage::Stage,
};
pub use self::{
    receiver::COMMAND as RECEIVER_COMMAND,
    receiver_process::run as run_receiver,
    report::{Report, Table},
};
use crate::shutdown::Shutdown;

/// Bytes of an event's data.
const EVENT_BYTES: usize = 1024;
/// Requests under way at once, in the engine and in the run without it.
const CONCURRENCY: usize = 256;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Deliveries a second, of events published as fast as they are taken.
    Throughput,
    /// From the moment an event is due to be published to its arrival, at given rates.
    Latency,
    /// Pages of the attempts of one webhook.
    Lists,
    All,
}

/// When Redis has a write on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before it answers.
    Always,
    /// Within a second or two.
    EverySecond,
}

impl Fsync {
    /// As Redis calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "everysec",
        }
    }
}

/// What to measure, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub scenario: Scenario,
    pub fsync: Fsync,
    /// How long a run of `latency` takes.
    pub seconds: u32,
    /// How many events a run of `throughput` or `lists` publishes.
    pub events: u64,
    /// How often each case is run.
    pub runs: u32,
}

/// Measures. `progress` is told what is about to be run.
///
/// # Errors
/// Something cannot be started, or not every event arrives: a sentence.
pub async fn run(options: Options, shutdown: &Shutdown, mut progress: impl FnMut(&str)) -> anyhow::Result<Report> {
    let mut report = Report::new(options);
    for case in Case::all(options.scenario) {
        let mut runs = Vec::new();
        for number in 1..=options.runs {
            progress(&format!("{case}: run {number} of {}", options.runs));
            runs.push(run_once(case, options, shutdown, &mut report).await?);
        }
        report.results.push(Outcome::of(case, &runs));
    }
    Ok(report)
}

async fn run_once(case: Case, options: Options, shutdown: &Shutdown, report: &mut Report) -> anyhow::Result<Figures> {
    let stage = Stage::start(options.fsync, case.endpoints(), shutdown).await?;
    report.redis_version = stage.redis_version.clone();
    let run = tokio::select! {
        run = case.run(&stage, options) => run,
        () = shutdown.stopping() => Err(anyhow::anyhow!("stopped before the end")),
    };
    let stopped = stage.stop().await;
    let figures = run?;
    stopped.map(|()| figures)
}

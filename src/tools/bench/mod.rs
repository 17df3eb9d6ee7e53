//! `posthaste bench`: what the engine does a second, how long an event takes and what it all costs, on a private Redis.
//!
//! The engine, Redis and the receiver are processes of their own, so that each one's CPU time is known; the publisher is
//! this one. Beside each figure stands the limit of the same run: the same body signed and posted to the same receiver,
//! with no queue between. All runs on the loopback interface, and all share the machine's cores.

mod api;
mod backlog;
mod behaviour;
mod case;
mod client;
mod direct;
mod engine;
mod event;
mod idle;
mod latency;
mod lists;
mod load;
mod measure;
mod memory;
mod noisy;
mod process;
mod publish;
mod reading;
mod receiver;
mod receiver_process;
mod report;
mod request;
mod source;
mod stage;
mod throughput;
mod webhooks;

use std::time::Duration;

pub use self::{
    case::Sizes,
    engine::Processes,
    receiver::COMMAND as RECEIVER_COMMAND,
    receiver_process::run as run_receiver,
    report::{Report, Table},
};
use self::{
    case::{Case, Comparison},
    report::{Figures, Outcome},
    stage::{Setup, Stage},
};
use crate::shutdown::Shutdown;

/// Bytes of an event's data.
const EVENT_BYTES: usize = 1024;
/// Requests under way at once, in the engine and in the run without it.
const CONCURRENCY: usize = 256;
/// How often a case is run where nothing is said: a quick one, and one that takes minutes.
const QUICK_RUNS: u32 = 3;
const SLOW_RUNS: u32 = 1;
/// How much longer an idle engine is looked at than a busy one: what it does then, it does seldom.
const IDLE_FACTOR: u32 = 6;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// Deliveries a second, of events published as fast as they are taken.
    Throughput,
    /// The same, where each event goes to many webhooks.
    Fanout,
    /// From the moment an event is due to be published to its arrival, at given rates.
    Latency,
    /// The same for the neighbours of an endpoint that misbehaves.
    Noisy,
    /// Deliveries a second to an endpoint that refuses some.
    Retries,
    /// Events a second over HTTP.
    Publish,
    /// Pages of the attempts of one webhook.
    Lists,
    /// Deliveries a second, one to each of very many webhooks.
    Many,
    /// Deliveries a second of what has waited.
    Backlog,
    /// What the engine uses while there is nothing to do.
    Idle,
    /// What Redis keeps for each thing.
    Memory,
    /// Deliveries a second by several processes, and on several primaries.
    Scaling,
    /// Those that take seconds.
    All,
    /// Those that take minutes.
    SlowOnes,
}

impl Scenario {
    const QUICK: [Self; 7] =
        [Self::Throughput, Self::Fanout, Self::Latency, Self::Noisy, Self::Retries, Self::Publish, Self::Lists];
    const SLOW: [Self; 5] = [Self::Many, Self::Backlog, Self::Idle, Self::Memory, Self::Scaling];
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
#[derive(Debug, Clone)]
pub struct Options {
    pub scenario: Scenario,
    /// Each case is measured with each of them.
    pub fsyncs: Vec<Fsync>,
    pub processes: Processes,
    /// How long a run at a fixed rate takes.
    pub at_rate: Duration,
    /// How many events a run publishes that publishes them as fast as they are taken.
    pub events: u64,
    pub sizes: Sizes,
    /// How often each case is run; `None`: the slow ones once, the others three times.
    pub runs: Option<u32>,
}

impl Options {
    fn runs_of(&self, case: Case) -> u32 {
        self.runs.unwrap_or(if case.is_slow() { SLOW_RUNS } else { QUICK_RUNS })
    }

    fn idle(&self) -> Duration {
        self.at_rate * IDLE_FACTOR
    }
}

/// A case with one setting of the disk, and what its runs measured.
struct Series {
    case: Case,
    fsync: Fsync,
    runs: Vec<Figures>,
}

/// Measures. `progress` is told what is about to be run. The cases of a scenario are run in turn, so that a machine whose speed
/// drifts treats all of them alike.
///
/// # Errors
/// Something cannot be started, or not every event arrives: a sentence.
pub async fn run(options: &Options, shutdown: &Shutdown, mut progress: impl FnMut(&str)) -> anyhow::Result<Report> {
    let mut report = Report::begun_now();
    let cases = Case::all(options.scenario, options.sizes);
    for alike in cases.chunk_by(|a, b| a.scenario() == b.scenario()) {
        let with_each = |case| options.fsyncs.iter().map(move |fsync| Series { case, fsync: *fsync, runs: Vec::new() });
        let mut all: Vec<Series> = alike.iter().copied().flat_map(with_each).collect();
        let count = options.runs_of(alike[0]);
        for number in 1..=count {
            for index in 0..all.len() {
                let Series { case, fsync, .. } = all[index];
                progress(&format!("{case}, appendfsync {}: run {number} of {count}", fsync.name()));
                let mut figures = run_once(case, fsync, options, shutdown, &mut report).await?;
                if let Some(comparison) = case.comparison() {
                    compare(&mut figures, comparison, fsync, &all);
                }
                all[index].runs.push(figures);
            }
        }
        report.results.extend(all.iter().map(|series| Outcome::of(series.case, series.fsync, &series.runs)));
    }
    Ok(report)
}

async fn run_once(
    case: Case,
    fsync: Fsync,
    options: &Options,
    shutdown: &Shutdown,
    report: &mut Report,
) -> anyhow::Result<Figures> {
    let setup = Setup {
        fsync,
        processes: case.processes(options.processes),
        layout: case.layout(),
        primaries: case.primaries(),
    };
    let stage = tokio::select! {
        stage = Stage::start(setup, shutdown) => stage?,
        () = shutdown.stopping() => anyhow::bail!("stopped before the end"),
    };
    report.redis_version = stage.redis_version.clone();
    let run = tokio::select! {
        run = case.run(&stage, options) => run,
        () = shutdown.stopping() => Err(anyhow::anyhow!("stopped before the end")),
    };
    let stopped = stage.stop().await;
    let figures = run?;
    stopped.map(|()| figures)
}

/// Adds how a figure of a run compares with that of the last run of another case, which comes before it.
fn compare(run: &mut Figures, comparison: Comparison, fsync: Fsync, all: &[Series]) {
    let Comparison { with, figure, ratio } = comparison;
    let other = all.iter().find(|other| other.case == with && other.fsync == fsync);
    let base = other.and_then(|other| other.runs.last()?.get(figure).copied());
    if let (Some(value), Some(base)) = (run.get(figure).copied(), base) {
        run.insert(ratio.into(), value / base);
    }
}

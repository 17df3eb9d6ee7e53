//! `bench`: load on a private engine, beside the limit of the same run.

use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{context::Context, errors::say, output::aligned};
use crate::{
    shutdown::Shutdown,
    tools::bench::{self, Fsync, Options, Sizes},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  posthaste bench --scenario throughput --events 50000 --durability everysec --json\n  \
                        posthaste bench --scenario backlog --pending 100000"
)]
pub struct BenchArgs {
    /// What to measure
    #[arg(long, value_name = "SCENARIO", default_value = "all")]
    scenario: Scenario,
    /// Events of a run that publishes them as fast as they are taken: `throughput`, `retries`, `publish`, `lists`, `scaling`
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    events: u64,
    /// Seconds of a run at a fixed rate: `latency`, `noisy`; `idle` takes six times as long
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    seconds: Duration,
    /// Webhooks [default: 100 and 50000 of `fanout`, 100000 of `many` and `idle`, 20000 of `memory`]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    webhooks: Option<u32>,
    /// Deliveries that wait in the large case of `backlog` [default: 1000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pending: Option<u64>,
    /// When the private Redis has a write on disk: before it answers, or within a second or two
    #[arg(long, value_name = "WHEN", default_value = "always")]
    durability: Durability,
    /// As what the engine runs
    #[arg(long, value_name = "HOW", default_value = "one")]
    processes: Processes,
    /// How often each case is run [default: 3; those of `slow` once]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scenario {
    /// Deliveries a second, to 1 endpoint, to 20 and to 1,000
    Throughput,
    /// Deliveries a second, where each event goes to many webhooks
    Fanout,
    /// From publishing to arrival, at 100, 1,000 and 5,000 events a second
    Latency,
    /// The same for 19 endpoints while a 20th hangs, fails or is slow
    Noisy,
    /// Deliveries a second to an endpoint that refuses 30 % of all requests
    Retries,
    /// Events a second over HTTP, one by one and in batches of 100
    Publish,
    /// Pages of the attempts of one webhook, over the API
    Lists,
    /// Deliveries a second, one to each of 100,000 webhooks
    Many,
    /// Deliveries a second of a million that have waited, and of a thousand
    Backlog,
    /// What the engine and Redis use while there is nothing to do
    Idle,
    /// Bytes that Redis keeps for a webhook, a delivery and an attempt
    Memory,
    /// Deliveries a second by 1, 2 and 4 processes that send, and on clusters of 1, 2 and 3 primaries
    Scaling,
    /// From `throughput` to `lists`
    All,
    /// From `many` to `scaling`: those that take minutes
    Slow,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Durability {
    Always,
    Everysec,
    /// Each case with one, then with the other
    Both,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Processes {
    /// `serve`
    One,
    /// `dispatcher`, `sender` and `api`
    Separate,
}

impl From<Scenario> for bench::Scenario {
    fn from(scenario: Scenario) -> Self {
        match scenario {
            Scenario::Throughput => Self::Throughput,
            Scenario::Fanout => Self::Fanout,
            Scenario::Latency => Self::Latency,
            Scenario::Noisy => Self::Noisy,
            Scenario::Retries => Self::Retries,
            Scenario::Publish => Self::Publish,
            Scenario::Lists => Self::Lists,
            Scenario::Many => Self::Many,
            Scenario::Backlog => Self::Backlog,
            Scenario::Idle => Self::Idle,
            Scenario::Memory => Self::Memory,
            Scenario::Scaling => Self::Scaling,
            Scenario::All => Self::All,
            Scenario::Slow => Self::SlowOnes,
        }
    }
}

impl From<BenchArgs> for Options {
    fn from(args: BenchArgs) -> Self {
        Self {
            scenario: args.scenario.into(),
            fsyncs: match args.durability {
                Durability::Always => vec![Fsync::Always],
                Durability::Everysec => vec![Fsync::EverySecond],
                Durability::Both => vec![Fsync::Always, Fsync::EverySecond],
            },
            processes: match args.processes {
                Processes::One => bench::Processes::One,
                Processes::Separate => bench::Processes::Separate { senders: 1 },
            },
            at_rate: args.seconds,
            events: args.events,
            sizes: Sizes { webhooks: args.webhooks.map(|webhooks| webhooks as usize), pending: args.pending },
            runs: args.runs,
        }
    }
}

/// From a tenth of a second to an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    let given = text.parse().ok().filter(|seconds| (0.1..=3_600.0).contains(seconds));
    given.map(Duration::from_secs_f64).ok_or_else(|| "seconds are from 0.1 to 3600".to_owned())
}

pub async fn run(context: &Context, args: BenchArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("signals cannot be listened to")?;
    let report = bench::run(&args.into(), &shutdown, |next| say(next)).await?;
    if context.out.is_json {
        return context.out.json(&report);
    }
    context.out.line(report.conditions())?;
    for table in report.tables() {
        context.out.line(format_args!("\n{}", aligned(&table)))?;
    }
    Ok(())
}

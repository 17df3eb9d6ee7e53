//! `bench`: load on a private engine, beside the limit of the same run.

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::{context::Context, errors::say, output::aligned};
use crate::{
    shutdown::Shutdown,
    tools::bench::{self, Fsync, Options},
};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  posthaste bench --scenario throughput --events 50000 --durability everysec --json")]
pub struct BenchArgs {
    /// What to measure
    #[arg(long, value_name = "SCENARIO", default_value = "all")]
    scenario: Scenario,
    /// Events that a run of `throughput` or `lists` publishes
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    events: u64,
    /// Seconds that a run of `latency` takes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// When the private Redis has a write on disk: before it answers, or within a second or two
    #[arg(long, value_name = "WHEN", default_value = "always")]
    durability: Durability,
    /// How often each case is run
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scenario {
    /// Deliveries a second, to 1 endpoint and to 20
    Throughput,
    /// From publishing to arrival, at 100 and at 1,000 events a second
    Latency,
    /// Pages of the attempts of one webhook, over the API
    Lists,
    /// Everything
    All,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Durability {
    Always,
    Everysec,
}

impl From<BenchArgs> for Options {
    fn from(args: BenchArgs) -> Self {
        Self {
            scenario: match args.scenario {
                Scenario::Throughput => bench::Scenario::Throughput,
                Scenario::Latency => bench::Scenario::Latency,
                Scenario::Lists => bench::Scenario::Lists,
                Scenario::All => bench::Scenario::All,
            },
            fsync: match args.durability {
                Durability::Always => Fsync::Always,
                Durability::Everysec => Fsync::EverySecond,
            },
            seconds: args.seconds,
            events: args.events,
            runs: args.runs,
        }
    }
}

pub async fn run(context: &Context, args: BenchArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("signals cannot be listened to")?;
    let report = bench::run(args.into(), &shutdown, |next| say(next)).await?;
    if context.out.is_json {
        return context.out.json(&report);
    }
    context.out.line(report.conditions())?;
    for table in report.tables() {
        context.out.line(format_args!("\n{}", aligned(&table)))?;
    }
    Ok(())
}

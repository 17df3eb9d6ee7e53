//! `replay`: a range of the event log, put to one webhook once more. A running dispatcher carries it out; we only watch.

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::ProgressBar;
use tokio::time::{MissedTickBehavior, interval};

use super::{
    TenantArg,
    context::Context,
    errors,
    output::progress,
    values::{count, moment},
};
use crate::{
    api::json::{ReplayCountJson, ReplayJson},
    clock::now_ms,
    dispatch,
    manage::{Manager, NewReplay},
    streams::{Job, JobState, Streams},
};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks between two at whether a dispatcher is alive.
const LOOKS_A_CHECK: u32 = 25;
/// How much of its range is done, in parts of a thousand.
const WHOLE: u64 = 1_000;

#[derive(Debug, Args)]
#[command(
    after_help = "Only events that the webhook's own filters want are put to it. For a new webhook it is the backfill.

Example:
  posthaste replay --webhook wh_… --from 2026-11-24T08:00:00Z --until 2026-11-24T09:30:00Z
  posthaste replay --webhook wh_… --from 7d --type 'order.*' --rate 50"
)]
pub struct ReplayArgs {
    /// The webhook that gets them
    #[arg(long, value_name = "WEBHOOK")]
    webhook: String,
    /// The first moment: a time, or an age such as 24h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: u64,
    /// The last moment [default: now]
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
    /// Only events of this type, or prefix.*
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// So many a second, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Only say how many there are
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    tenant: TenantArg,
}

pub async fn run(context: &Context, args: ReplayArgs) -> anyhow::Result<()> {
    let streams = context.streams().await?;
    let manager = context.manager_of(&streams);
    let (tenant, pattern) = (args.tenant.tenant.as_str(), args.event_type.as_deref());
    let until = args.until.unwrap_or_else(now_ms);
    if args.dry_run {
        let number = manager.count_replay(tenant, &args.webhook, args.from, until, pattern, |_| ()).await?;
        if context.out.is_json {
            return context.out.json(&ReplayCountJson::whole(number, true));
        }
        return context.out.line(format_args!("{} would be put to {} once more", count(number, "event"), args.webhook));
    }
    let pattern = args.event_type.clone();
    let asked = NewReplay { from_ms: args.from, until_ms: until, pattern, rate: args.rate, seed: None };
    let job = manager.start_replay(tenant, &args.webhook, &asked).await?;
    watch(context, &streams, &manager, job).await
}

async fn watch(context: &Context, streams: &Streams, manager: &Manager, job: Job) -> anyhow::Result<()> {
    let bar = progress(Some(WHOLE));
    let ended = tokio::select! {
        ended = until_done(streams, manager, &job, &bar) => Some(ended),
        // Without a handler for it, Ctrl-C ends us all the same, only without a word.
        Ok(()) = tokio::signal::ctrl_c() => None,
    };
    bar.finish_and_clear();
    let Some(ended) = ended else {
        errors::say(format_args!("replay {} goes on without being watched", job.id));
        return Ok(());
    };
    let job = ended?;
    if job.state == JobState::Cancelled {
        bail!("the webhook was deleted after {} had been put to it once more", count(job.queued, "event"));
    }
    if context.out.is_json {
        return context.out.json(&ReplayJson::of(&job));
    }
    context.out.line(format_args!("{} put to {} once more", count(job.queued, "event"), job.subscription))
}

async fn until_done(streams: &Streams, manager: &Manager, job: &Job, bar: &ProgressBar) -> anyhow::Result<Job> {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_told = false;
    for look in 0_u32.. {
        ticks.tick().await;
        let now = manager
            .replay_status(job.subscription.shard, &job.id)
            .await
            .with_context(|| format!("replay {} goes on, but cannot be watched", job.id))?;
        // It is forgotten a day after its end.
        let Some(now) = now else { bail!("replay {} is not known any more", job.id) };
        match now.state {
            JobState::Running => {}
            JobState::Done | JobState::Cancelled => return Ok(now),
        }
        bar.set_position(done_of(&now));
        bar.set_message(count(now.queued, "event"));
        if look % LOOKS_A_CHECK == 0 && !was_told && !is_any_dispatcher(streams).await? {
            was_told = true;
            bar.suspend(|| {
                errors::say("no dispatcher is running: the replay begins once one is, as in `posthaste serve`")
            });
        }
    }
    bail!("the replay takes longer than can be watched")
}

async fn is_any_dispatcher(streams: &Streams) -> anyhow::Result<bool> {
    Ok(streams.workers().await?.iter().any(|worker| worker.starts_with(dispatch::ROLE)))
}

/// How much of a replay's range is done, in parts of [`WHOLE`].
fn done_of(job: &Job) -> u64 {
    let range_ms = job.until.ms.saturating_sub(job.from.ms).max(1);
    (u128::from(job.cursor.ms.saturating_sub(job.from.ms)) * u128::from(WHOLE) / u128::from(range_ms)) as u64
}

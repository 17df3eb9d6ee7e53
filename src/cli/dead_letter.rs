//! `deadletter`: what was given up or could not be read.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    PageArgs, TenantArg,
    context::Context,
    output::progress,
    values::{count, id, moment, reason},
};
use crate::{
    api::json::{DeadLetterJson, Page, ReplayCountJson},
    domain::{id::SubscriptionId, outcome::Reason, time::rfc3339},
    manage::{DeadLetterFilter, DeadLetterId, ReasonCount},
};

const NOUN: &str = "dead letter";

#[derive(Debug, Subcommand)]
pub enum DeadLetterCommand {
    /// List dead letters, newest first
    #[command(
        after_help = "Example:\n  posthaste deadletter list --webhook wh_… --since 24h\n  posthaste deadletter list --by-reason"
    )]
    List(ListArgs),
    /// Show a dead letter with its data
    #[command(after_help = "Example:\n  posthaste deadletter show dlv_… --json")]
    Show(ShowArgs),
    /// Send dead letters once more
    #[command(after_help = "Example:
  posthaste deadletter replay --id dlv_…
  posthaste deadletter replay --webhook wh_… --reason exhausted --all --rate 50")]
    Replay(ReplayArgs),
    /// Throw dead letters away
    #[command(after_help = "Example:\n  posthaste deadletter purge --type test.ping --until 7d --all --dry-run")]
    Purge(PurgeArgs),
}

/// Which dead letters are meant: those that fit all that is given.
#[derive(Debug, Args)]
struct FilterArgs {
    /// Only those of this webhook
    #[arg(long, value_name = "WEBHOOK", value_parser = id::<SubscriptionId>)]
    webhook: Option<SubscriptionId>,
    /// Only events of this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only those that died since: a time, or an age such as 24h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Only those that died until
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
    /// Only those that died of this
    #[arg(long, value_name = "REASON", value_parser = reason)]
    reason: Option<Reason>,
    /// Only these; may be repeated
    #[arg(long = "id", value_name = "ID", value_parser = id::<DeadLetterId>)]
    ids: Vec<DeadLetterId>,
    #[command(flatten)]
    tenant: TenantArg,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Count them by their reason instead
    #[arg(long, conflicts_with_all = ["limit", "cursor"])]
    by_reason: bool,
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The dead letter: dlv_… or bad_…
    #[arg(value_name = "ID", value_parser = id::<DeadLetterId>)]
    id: DeadLetterId,
    #[command(flatten)]
    tenant: TenantArg,
}

/// What is done to many at once.
#[derive(Debug, Args)]
struct BulkArgs {
    #[command(flatten)]
    filter: FilterArgs,
    /// Every one that the filter leaves
    #[arg(long, required_unless_present = "ids")]
    all: bool,
    /// Only say how many there are
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    #[command(flatten)]
    bulk: BulkArgs,
    /// So many a second, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

#[derive(Debug, Args)]
pub struct PurgeArgs {
    #[command(flatten)]
    bulk: BulkArgs,
}

impl FilterArgs {
    fn into_parts(self) -> (String, DeadLetterFilter) {
        let Self { webhook, event_type, since, until, reason, ids, tenant } = self;
        (
            tenant.tenant,
            DeadLetterFilter { webhook, event_type, since_ms: since, until_ms: until, reason, ids, with_strays: true },
        )
    }
}

/// The dead letters of one reason.
#[derive(Debug, Serialize)]
struct ReasonJson {
    reason: &'static str,
    count: u64,
    /// How many webhooks they are of.
    webhooks: usize,
    oldest_at: String,
    newest_at: String,
    /// What the newest says of its end.
    last_error: Option<String>,
}

impl ReasonJson {
    fn of(found: ReasonCount) -> Self {
        let ReasonCount { reason, count, webhooks, oldest_ms, newest_ms, last_error } = found;
        let (oldest_at, newest_at) = (rfc3339(oldest_ms), rfc3339(newest_ms));
        Self { reason: reason.name(), count, webhooks, oldest_at, newest_at, last_error }
    }
}

pub async fn run(context: &Context, command: DeadLetterCommand) -> anyhow::Result<()> {
    match command {
        DeadLetterCommand::List(args) => list(context, args).await,
        DeadLetterCommand::Show(args) => show(context, args).await,
        DeadLetterCommand::Replay(args) => replay(context, args).await,
        DeadLetterCommand::Purge(args) => purge(context, args).await,
    }
}

async fn list(context: &Context, ListArgs { filter, by_reason, page }: ListArgs) -> anyhow::Result<()> {
    let (tenant, filter) = filter.into_parts();
    if by_reason {
        return list_reasons(context, &tenant, &filter).await;
    }
    let cursor = page.cursor()?;
    let found = context.manager().await?.dead_letters(&tenant, &filter, cursor, usize::from(page.limit)).await?;
    let columns = [
        ("DIED", "died_at"),
        ("REASON", "reason"),
        ("ATTEMPTS", "attempts"),
        ("STATUS", "last_status"),
        ("TYPE", "type"),
        ("ID", "id"),
        ("ERROR", "last_error"),
    ];
    let data = found.data.iter().map(DeadLetterJson::of).collect();
    context.out.page(&Page::of(data, found.next), &columns)
}

async fn list_reasons(context: &Context, tenant: &str, filter: &DeadLetterFilter) -> anyhow::Result<()> {
    let found = context.manager().await?.dead_letters_by_reason(tenant, filter).await?;
    let columns = [
        ("REASON", "reason"),
        ("COUNT", "count"),
        ("WEBHOOKS", "webhooks"),
        ("OLDEST", "oldest_at"),
        ("NEWEST", "newest_at"),
        ("LAST ERROR", "last_error"),
    ];
    context.out.page(&Page::whole(found.into_iter().map(ReasonJson::of).collect()), &columns)
}

async fn show(context: &Context, ShowArgs { id, tenant }: ShowArgs) -> anyhow::Result<()> {
    let item = context.manager().await?.dead_letter(&tenant.tenant, id, true).await?;
    let fields =
        ["id", "webhook_id", "event_id", "type", "reason", "attempts", "last_status", "last_error", "died_at", "data"];
    context.out.one(&DeadLetterJson::of(&item), &fields)
}

async fn replay(context: &Context, ReplayArgs { bulk, rate }: ReplayArgs) -> anyhow::Result<()> {
    let (tenant, filter) = bulk.filter.into_parts();
    let manager = context.manager().await?;
    let total = manager.count_replayable(&tenant, &filter, |_| ()).await?;
    if bulk.dry_run {
        return say_how_many(context, total, "would be sent once more", true);
    }
    let bar = progress(Some(total));
    let sent = manager.replay_dead_letters(&tenant, &filter, rate, |sent| {
        bar.set_position(sent);
        bar.set_message(format!("{sent} of {total}"));
    });
    let sent = sent.await;
    bar.finish_and_clear();
    refuse_none(sent.as_ref().ok().copied(), &filter)?;
    say_how_many(context, sent?, "sent once more", false)
}

async fn purge(context: &Context, PurgeArgs { bulk }: PurgeArgs) -> anyhow::Result<()> {
    let (tenant, filter) = bulk.filter.into_parts();
    let manager = context.manager().await?;
    let total = manager.count_dead_letters(&tenant, &filter).await?;
    if bulk.dry_run {
        return say_how_many(context, total, "would be thrown away", true);
    }
    let bar = progress(Some(total));
    let gone = manager.purge_dead_letters(&tenant, &filter, |gone| {
        bar.set_position(gone);
        bar.set_message(format!("{gone} of {total}"));
    });
    let gone = gone.await;
    bar.finish_and_clear();
    refuse_none(gone.as_ref().ok().copied(), &filter)?;
    say_how_many(context, gone?, "thrown away", false)
}

/// Whoever names dead letters that are not there has made a mistake.
fn refuse_none(done: Option<u64>, filter: &DeadLetterFilter) -> anyhow::Result<()> {
    if done == Some(0) && !filter.ids.is_empty() {
        bail!("there is no such {NOUN}");
    }
    Ok(())
}

fn say_how_many(context: &Context, number: u64, what: &str, is_dry_run: bool) -> anyhow::Result<()> {
    if context.out.is_json {
        return context.out.json(&ReplayCountJson::whole(number, is_dry_run));
    }
    context.out.line(format_args!("{} {what}", count(number, NOUN)))
}

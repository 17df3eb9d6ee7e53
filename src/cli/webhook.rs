//! `webhook`: who gets which events, and where.

use clap::{Args, Subcommand};

use super::{
    PageArgs, TenantArg,
    context::Context,
    errors, logs, stats,
    webhook_fields::{ChangeArgs, NewArgs},
    webhook_test,
};
use crate::{
    api::json::{self, Page},
    domain::id::SubscriptionId,
    manage::{OVERLAP_SECONDS, Rotation},
    streams::Versioned,
};

/// What is shown of a webhook, in this order; it has secrets only when it was just created.
const FIELDS: [&str; 24] = [
    "id",
    "tenant",
    "name",
    "url",
    "events",
    "status",
    "disabled_reason",
    "retry_count",
    "retry",
    "timeout_seconds",
    "max_concurrency",
    "rate_limit_per_minute",
    "ordering",
    "headers",
    "payload_format",
    "last_triggered_at",
    "total_deliveries",
    "successful_deliveries",
    "failed_deliveries",
    "created_at",
    "updated_at",
    "secret",
    "standard_secret",
    "ingest_secret",
];

#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Create a webhook; its secrets are shown now only
    #[command(after_help = "Example:
  posthaste webhook create --url https://example.com/hook --events 'message.*,contact.created'
  posthaste webhook create --url https://example.com/hook --events '*' --retry standard --header 'X-Env: prod'")]
    Create(CreateArgs),
    /// List webhooks in the order of their creation
    #[command(after_help = "Example:\n  posthaste webhook list --tenant acme")]
    List(ListArgs),
    /// Show a webhook
    #[command(after_help = "Example:\n  posthaste webhook show wh_… --json")]
    Show(OneArgs),
    /// Change a webhook; `none` gives a field its default back
    #[command(
        after_help = "Example:\n  posthaste webhook update wh_… --timeout-seconds 10 --rate-limit-per-minute none"
    )]
    Update(UpdateArgs),
    /// Delete a webhook and what waits for it
    #[command(after_help = "Example:\n  posthaste webhook delete wh_…")]
    Delete(OneArgs),
    /// Pause a webhook: it goes on collecting, and sends when it is resumed
    #[command(after_help = "Example:\n  posthaste webhook pause wh_…")]
    Pause(OneArgs),
    /// Let a paused or disabled webhook go on
    #[command(after_help = "Example:\n  posthaste webhook resume wh_… --skip")]
    Resume(ResumeArgs),
    /// Give a webhook a new secret; both sign until the overlap ends
    #[command(
        name = "rotate-secret",
        after_help = "Example:\n  posthaste webhook rotate-secret wh_… --overlap-seconds 3600"
    )]
    RotateSecret(RotateArgs),
    /// List a webhook's attempts, newest first
    #[command(after_help = "Example:\n  posthaste webhook logs wh_… --status failed --since 1h")]
    Logs(logs::LogsArgs),
    /// Send a sample now, past the webhook's filters and queue; ends with 1 when the endpoint does not take it
    #[command(after_help = "Example:
  posthaste webhook test wh_…
  posthaste webhook test wh_… --type message.created --data '{\"text\":\"hello\"}' --json")]
    Test(webhook_test::TestArgs),
    /// Show how a webhook does: attempts, success rate and response times, hour by hour
    #[command(after_help = "Example:\n  posthaste webhook stats wh_… --window 7d")]
    Stats(stats::StatsArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    #[command(flatten)]
    new: NewArgs,
    #[command(flatten)]
    tenant: TenantArg,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    tenant: TenantArg,
}

#[derive(Debug, Args)]
pub struct OneArgs {
    /// The webhook
    #[arg(value_name = "WEBHOOK")]
    id: String,
    #[command(flatten)]
    tenant: TenantArg,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,
}

#[derive(Debug, Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Make dead letters of what has waited, so that it gets only what comes from now on
    #[arg(long)]
    skip: bool,
}

#[derive(Debug, Args)]
pub struct RotateArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The new secret [default: one made up]
    #[arg(long)]
    secret: Option<String>,
    /// How long the old one signs beside the new one
    #[arg(long, value_name = "SECONDS", default_value_t = OVERLAP_SECONDS)]
    overlap_seconds: u64,
    /// Make the secret of its ingest address anew too
    #[arg(long)]
    with_ingest: bool,
}

pub async fn run(context: &Context, command: WebhookCommand) -> anyhow::Result<()> {
    match command {
        WebhookCommand::Create(args) => create(context, args).await,
        WebhookCommand::List(args) => list(context, args).await,
        WebhookCommand::Show(OneArgs { id, tenant }) => {
            show(context, &context.manager().await?.webhook(&tenant.tenant, &id).await?)
        }
        WebhookCommand::Update(UpdateArgs { one: OneArgs { id, tenant }, change }) => {
            show(context, &context.manager().await?.update_webhook(&tenant.tenant, &id, change.into()).await?)
        }
        WebhookCommand::Delete(args) => delete(context, args).await,
        WebhookCommand::Pause(OneArgs { id, tenant }) => {
            show(context, &context.manager().await?.pause_webhook(&tenant.tenant, &id).await?)
        }
        WebhookCommand::Resume(ResumeArgs { one: OneArgs { id, tenant }, skip }) => {
            show(context, &context.manager().await?.resume_webhook(&tenant.tenant, &id, skip).await?)
        }
        WebhookCommand::RotateSecret(args) => rotate_secret(context, args).await,
        WebhookCommand::Logs(args) => logs::run(context, args).await,
        WebhookCommand::Test(args) => webhook_test::run(context, args).await,
        WebhookCommand::Stats(args) => stats::run(context, args).await,
    }
}

async fn rotate_secret(context: &Context, args: RotateArgs) -> anyhow::Result<()> {
    let RotateArgs { one: OneArgs { id, tenant }, secret, overlap_seconds, with_ingest } = args;
    let rotation = Rotation { secret, overlap_seconds: Some(overlap_seconds), with_ingest };
    let webhook = context.manager().await?.rotate_secret(&tenant.tenant, &id, rotation).await?;
    show_with_secrets(context, &webhook)
}

async fn create(context: &Context, CreateArgs { new, tenant }: CreateArgs) -> anyhow::Result<()> {
    let manager = context.manager().await?;
    let webhook = manager.create_webhook(&tenant.tenant, new.into()).await?;
    show_with_secrets(context, &webhook)
}

fn show_with_secrets(context: &Context, webhook: &Versioned) -> anyhow::Result<()> {
    context.out.one(&json::Webhook::of(webhook, true), &FIELDS)?;
    if !context.out.is_json {
        errors::say("the secrets are not shown again");
    }
    Ok(())
}

fn show(context: &Context, webhook: &Versioned) -> anyhow::Result<()> {
    context.out.one(&json::Webhook::of(webhook, false), &FIELDS)
}

async fn list(context: &Context, ListArgs { page, tenant }: ListArgs) -> anyhow::Result<()> {
    let after: Option<SubscriptionId> = page.cursor()?;
    let found = context.manager().await?.webhooks(&tenant.tenant, after, page.limit.into()).await?;
    let data = found.webhooks.iter().map(|webhook| json::Webhook::of(webhook, false)).collect();
    let columns = [
        ("ID", "id"),
        ("STATUS", "status"),
        ("NAME", "name"),
        ("DELIVERED", "successful_deliveries"),
        ("DEAD", "failed_deliveries"),
        ("EVENTS", "events"),
        ("URL", "url"),
    ];
    context.out.page(&Page::of(data, found.next), &columns)
}

async fn delete(context: &Context, OneArgs { id, tenant }: OneArgs) -> anyhow::Result<()> {
    context.manager().await?.delete_webhook(&tenant.tenant, &id).await?;
    errors::say(format_args!("webhook {id} is deleted"));
    Ok(())
}

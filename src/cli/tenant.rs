//! `tenant`: whose events and webhooks are kept apart.

use anyhow::anyhow;
use clap::{ArgGroup, Args, Subcommand};

use super::{context::Context, errors, values::OrNone};
use crate::{
    api::json::{Page, TenantJson},
    domain::event::check_tenant,
    streams::TenantLimits,
};

#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Create a tenant
    #[command(after_help = "Example:\n  posthaste tenant create acme --name 'Acme Ltd' --max-stored-mb 500")]
    Create(CreateArgs),
    /// Give a tenant other limits
    #[command(after_help = "Example:\n  posthaste tenant limit acme --max-stored-mb 500 --rate-limit-per-minute none")]
    Limit(LimitArgs),
    /// List all tenants
    #[command(after_help = "Example:\n  posthaste tenant list --json")]
    List,
    /// Delete a tenant that has no webhooks any more
    #[command(after_help = "Example:\n  posthaste tenant delete acme")]
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its id: 1 to 64 letters, digits, `_`, `.` or `-`
    #[arg(value_name = "TENANT")]
    id: String,
    /// What people call it [default: its id]
    #[arg(long)]
    name: Option<String>,
    /// Megabytes of undelivered events that it may have; above, it cannot publish [default: no limit]
    #[arg(long, value_name = "N")]
    max_stored_mb: Option<u64>,
    /// Requests a minute of each of its API keys [default: api.rate_limit_per_minute]
    #[arg(long, value_name = "N")]
    rate_limit_per_minute: Option<u32>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("limits").required(true).multiple(true).args(["max_stored_mb", "rate_limit_per_minute"]))]
pub struct LimitArgs {
    /// The tenant
    #[arg(value_name = "TENANT")]
    id: String,
    /// Megabytes of undelivered events that it may have; above, it cannot publish
    #[arg(long, value_name = "N|none")]
    max_stored_mb: Option<OrNone<u64>>,
    /// Requests a minute of each of its API keys
    #[arg(long, value_name = "N|none")]
    rate_limit_per_minute: Option<OrNone<u32>>,
}

#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The tenant
    #[arg(value_name = "TENANT")]
    id: String,
}

pub async fn run(context: &Context, command: TenantCommand) -> anyhow::Result<()> {
    match command {
        TenantCommand::Create(args) => create(context, args).await,
        TenantCommand::Limit(args) => limit(context, args).await,
        TenantCommand::List => list(context).await,
        TenantCommand::Delete(args) => delete(context, args).await,
    }
}

const FIELDS: [&str; 5] = ["id", "name", "max_stored_mb", "rate_limit_per_minute", "created_at"];

async fn create(context: &Context, args: CreateArgs) -> anyhow::Result<()> {
    let CreateArgs { id, name, max_stored_mb, rate_limit_per_minute } = args;
    check_tenant(&id).map_err(|refused| anyhow!("TENANT: {}", refused.problem))?;
    let limits = TenantLimits { max_stored_mb, rate_limit_per_minute };
    let tenant = context.manager().await?.create_tenant(&id, name.as_deref(), limits).await?;
    context.out.one(&TenantJson::of(&tenant), &FIELDS)
}

async fn limit(context: &Context, args: LimitArgs) -> anyhow::Result<()> {
    let manager = context.manager().await?;
    let before = manager.tenant(&args.id).await?;
    let limits = TenantLimits {
        max_stored_mb: args.max_stored_mb.map_or(before.limits.max_stored_mb, OrNone::into_option),
        rate_limit_per_minute: args
            .rate_limit_per_minute
            .map_or(before.limits.rate_limit_per_minute, OrNone::into_option),
    };
    context.out.one(&TenantJson::of(&manager.set_tenant_limits(&args.id, limits).await?), &FIELDS)
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let tenants = context.manager().await?.tenants().await?;
    let page = Page::whole(tenants.iter().map(TenantJson::of).collect());
    let columns = [
        ("ID", "id"),
        ("NAME", "name"),
        ("STORED MB", "max_stored_mb"),
        ("REQUESTS/MIN", "rate_limit_per_minute"),
        ("CREATED", "created_at"),
    ];
    context.out.page(&page, &columns)
}

async fn delete(context: &Context, DeleteArgs { id }: DeleteArgs) -> anyhow::Result<()> {
    check_tenant(&id).map_err(|refused| anyhow!("TENANT: {}", refused.problem))?;
    context.manager().await?.delete_tenant(&id).await?;
    errors::say(format_args!("tenant {id} is deleted"));
    Ok(())
}

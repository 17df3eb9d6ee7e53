//! `tenant`: whose events and webhooks are kept apart.

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::{context::Context, errors};
use crate::{
    api::json::{Page, TenantJson},
    domain::event::check_tenant,
};

#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Create a tenant
    #[command(after_help = "Example:\n  posthaste tenant create acme --name 'Acme Ltd'")]
    Create(CreateArgs),
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
        TenantCommand::List => list(context).await,
        TenantCommand::Delete(args) => delete(context, args).await,
    }
}

async fn create(context: &Context, CreateArgs { id, name }: CreateArgs) -> anyhow::Result<()> {
    check_tenant(&id).map_err(|refused| anyhow!("TENANT: {}", refused.problem))?;
    let tenant = context.manager().await?.create_tenant(&id, name.as_deref()).await?;
    context.out.one(&TenantJson::of(&tenant), &["id", "name", "created_at"])
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let tenants = context.manager().await?.tenants().await?;
    let page = Page { data: tenants.iter().map(TenantJson::of).collect(), next_cursor: None };
    context.out.page(&page, &[("ID", "id"), ("NAME", "name"), ("CREATED", "created_at")])
}

async fn delete(context: &Context, DeleteArgs { id }: DeleteArgs) -> anyhow::Result<()> {
    check_tenant(&id).map_err(|refused| anyhow!("TENANT: {}", refused.problem))?;
    context.manager().await?.delete_tenant(&id).await?;
    errors::say(format_args!("tenant {id} is deleted"));
    Ok(())
}

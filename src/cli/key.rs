//! `key`: who may use the HTTP API.

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::{context::Context, errors};
use crate::{
    api::json::{KeyJson, Page},
    domain::access::KeyRole,
    manage::Seed,
};

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Create an API key; it is shown now only
    #[command(after_help = "Example:
  posthaste key create --role tenant --tenant acme
  posthaste key create --role admin")]
    Create(CreateArgs),
    /// List API keys in the order of their creation
    #[command(after_help = "Example:\n  posthaste key list --tenant acme")]
    List(ListArgs),
    /// Revoke an API key, everywhere and at once
    #[command(after_help = "Example:\n  posthaste key revoke key_…")]
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// What it may do: admin (everything, of all tenants), tenant (everything of one), publish (only events) or read
    #[arg(long, value_parser = role)]
    role: KeyRole,
    /// Whose it is; needed unless the role is admin
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only those of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The key's id
    #[arg(value_name = "KEY")]
    id: String,
}

fn role(name: &str) -> anyhow::Result<KeyRole> {
    KeyRole::of_name(name).ok_or_else(|| anyhow!("admin, tenant, publish or read is allowed"))
}

pub async fn run(context: &Context, command: KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Create(args) => create(context, args).await,
        KeyCommand::List(args) => list(context, args).await,
        KeyCommand::Revoke(RevokeArgs { id }) => {
            context.manager().await?.revoke_key(&id).await?;
            errors::say(format_args!("key {id} opens nothing any more"));
            Ok(())
        }
    }
}

async fn create(context: &Context, CreateArgs { role, tenant }: CreateArgs) -> anyhow::Result<()> {
    let (key, text) = context.manager().await?.create_key(role, tenant.as_deref(), Seed::draw()).await?;
    context.out.one(&KeyJson::of(&key, Some(text)), &["id", "role", "tenant", "created_at", "key"])?;
    if !context.out.is_json {
        errors::say("the key is not shown again");
    }
    Ok(())
}

async fn list(context: &Context, ListArgs { tenant }: ListArgs) -> anyhow::Result<()> {
    let keys = context.manager().await?.keys(tenant.as_deref()).await?;
    let data = keys.iter().map(|key| KeyJson::of(key, None)).collect();
    let columns = [("ID", "id"), ("ROLE", "role"), ("TENANT", "tenant"), ("CREATED", "created_at")];
    context.out.page(&Page::whole(data), &columns)
}

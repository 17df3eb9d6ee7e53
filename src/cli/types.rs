//! `types`: the catalogue of event types, and a tenant's own.

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::{TenantArg, context::Context, errors, input};
use crate::{
    api::json::{EventTypeJson, Page},
    domain::{event::check_type, schema::SCHEMA_BYTES},
    manage::{ManageError, NewEventType},
};

const LIMIT: &str = "the limit of a sample and of a schema";

#[derive(Debug, Subcommand)]
pub enum TypesCommand {
    /// List the types that there are for a tenant, with their samples and schemas in --json
    #[command(after_help = "Example:\n  posthaste types list\n  posthaste types list --json --tenant acme")]
    List(ListArgs),
    /// Add a type of a tenant's own
    #[command(after_help = "With api.strict_types the data of such events have to fit the schema.

Example:
  posthaste types add order.paid --category order --description 'An order was paid.'
  posthaste types add order.paid --category order --description 'An order was paid.' \\
    --sample '{\"id\":17}' --schema @order-paid.schema.json --tenant acme")]
    Add(AddArgs),
    /// Remove a type of a tenant's own
    #[command(after_help = "Example:\n  posthaste types remove order.paid --tenant acme")]
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    tenant: TenantArg,
}

#[derive(Debug, Args)]
pub struct AddArgs {
    /// Its name, such as order.paid
    #[arg(value_name = "TYPE")]
    event_type: String,
    /// What it is listed under
    #[arg(long)]
    category: String,
    /// When such an event is published, in a sentence
    #[arg(long)]
    description: String,
    /// Data of such an event: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON", default_value = "{}", allow_hyphen_values = true)]
    sample: String,
    /// JSON Schema (2020-12) for the data: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    schema: Option<String>,
    #[command(flatten)]
    tenant: TenantArg,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The type
    #[arg(value_name = "TYPE")]
    event_type: String,
    #[command(flatten)]
    tenant: TenantArg,
}

pub async fn run(context: &Context, command: TypesCommand) -> anyhow::Result<()> {
    match command {
        TypesCommand::List(args) => list(context, args).await,
        TypesCommand::Add(args) => add(context, args).await,
        TypesCommand::Remove(args) => remove(context, args).await,
    }
}

async fn list(context: &Context, args: ListArgs) -> anyhow::Result<()> {
    let types = context.manager().await?.event_types(&args.tenant.tenant).await?;
    let page = Page::whole(types.iter().map(EventTypeJson::of).collect());
    context.out.page(&page, &[("TYPE", "type"), ("CATEGORY", "category"), ("DESCRIPTION", "description")])
}

async fn add(context: &Context, args: AddArgs) -> anyhow::Result<()> {
    check_name(&args.event_type)?;
    let new = NewEventType {
        event_type: args.event_type,
        category: args.category,
        description: args.description,
        sample: read("--sample", args.sample)?,
        schema: args.schema.map(|schema| read("--schema", schema)).transpose()?,
    };
    let added =
        context.manager().await?.add_event_type(&args.tenant.tenant, new).await.map_err(|error| match error {
            ManageError::Invalid(refused) if refused.field == "type" => anyhow!("TYPE: {}", refused.problem),
            other => other.into(),
        })?;
    context.out.one(&EventTypeJson::of(&added), &["type", "category", "description", "sample", "schema"])
}

async fn remove(context: &Context, args: RemoveArgs) -> anyhow::Result<()> {
    check_name(&args.event_type)?;
    let RemoveArgs { event_type, tenant } = args;
    context.manager().await?.remove_event_type(&tenant.tenant, &event_type).await?;
    errors::say(format_args!("event type {event_type} is removed"));
    Ok(())
}

fn check_name(event_type: &str) -> anyhow::Result<()> {
    check_type("TYPE", event_type).map_err(|refused| anyhow!("{refused}"))
}

fn read(flag: &str, given: String) -> anyhow::Result<String> {
    let json = input::read(flag, given, SCHEMA_BYTES, LIMIT)?;
    String::from_utf8(json.into()).map_err(|_| anyhow!("{flag}: not UTF-8"))
}

//! `publish`: append one event, or a file of them.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use tokio::task::JoinSet;

use super::{TenantArg, context::Context, input, publish_many, values::moment};
use crate::domain::event::NewEvent;

#[derive(Debug, Args)]
#[command(after_help = "A line of a file of events is a JSON object with `type` and `data`, and may have `timestamp`,
`idempotency_key`, `conversation_id` and `tenant`. A line that is refused is named, and the others
are published all the same.

Example:
  posthaste publish message.created --data '{\"text\":\"hello\"}'
  posthaste publish order.paid --data @order.json --idempotency-key order-17
  posthaste publish --file events.ndjson")]
pub struct PublishArgs {
    /// Type of the event, such as message.created
    #[arg(value_name = "TYPE", required_unless_present = "file")]
    event_type: Option<String>,
    /// Data of the event: JSON, @FILE, or - for standard input [default: {}]
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    data: Option<String>,
    /// Publish at most once in 24 hours what has this key
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// When it happened, if not now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    timestamp: Option<u64>,
    /// The conversation it belongs to
    #[arg(long, value_name = "ID")]
    conversation_id: Option<String>,
    /// Publish a file of events, one JSON object a line, or - for standard input
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["event_type", "data", "idempotency_key", "timestamp", "conversation_id"]
    )]
    file: Option<PathBuf>,
    #[command(flatten)]
    tenant: TenantArg,
}

pub async fn run(context: &Context, args: PublishArgs) -> anyhow::Result<()> {
    match &args.file {
        Some(file) => publish_many::run(context, file, &args.tenant.tenant).await,
        None => publish_one(context, args).await,
    }
}

async fn publish_one(context: &Context, args: PublishArgs) -> anyhow::Result<()> {
    let max_bytes = context.config.delivery.max_payload_bytes;
    let event = NewEvent {
        tenant: args.tenant.tenant,
        event_type: args.event_type.unwrap_or_default(),
        data: match args.data {
            Some(data) => input::read("--data", data, max_bytes, "delivery.max_payload_bytes")?,
            None => Bytes::from_static(b"{}"),
        },
        timestamp_ms: args.timestamp,
        idempotency_key: args.idempotency_key,
        conversation_id: args.conversation_id,
        ..NewEvent::default()
    };
    event.validate(max_bytes)?;
    let streams = context.streams().await?;
    context.manager_of(&streams).ensure_tenant(&event.tenant).await?;
    let mut lanes = JoinSet::new();
    let published = context.publisher(streams, &mut lanes).publish(event).await?;
    if context.out.is_json {
        context.out.json(&json!({ "id": published.id.to_string() }))
    } else {
        context.out.line(published.id)
    }
}

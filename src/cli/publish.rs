//! `publish`: append one event, or a file of them.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use serde_json::json;
use tokio::task::JoinSet;

use super::{TenantArg, context::Context, lines::STDIN, publish_many, values::moment};
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
        data: args.data.map_or_else(|| Ok(Bytes::from_static(b"{}")), |data| read_data(data, max_bytes))?,
        timestamp_ms: args.timestamp,
        idempotency_key: args.idempotency_key,
        conversation_id: args.conversation_id,
        only_for: None,
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

/// The data as given, or those of a file or standard input without the space around them, which shells add.
fn read_data(given: String, max_bytes: usize) -> anyhow::Result<Bytes> {
    let read = match given.strip_prefix('@') {
        Some(path) => File::open(path)
            .and_then(|file| read_at_most(file, max_bytes))
            .with_context(|| format!("--data: {path} cannot be read"))?,
        None if given == STDIN => {
            read_at_most(io::stdin().lock(), max_bytes).context("--data: standard input cannot be read")?
        }
        None => return Ok(given.into()),
    };
    if read.len() > max_bytes {
        bail!("--data: more than {max_bytes} bytes are not allowed (delivery.max_payload_bytes)");
    }
    Ok(Bytes::copy_from_slice(read.trim_ascii()))
}

fn read_at_most(input: impl Read, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    input.take(max_bytes as u64 + 1).read_to_end(&mut read)?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn data_are_taken_as_given_or_from_a_file_up_to_the_limit() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b" {\"a\": 1}\n").unwrap();
        let from_file = format!("@{}", file.path().display());
        let check = |given: &str, max_bytes, expected: Result<&str, &str>| match expected {
            Ok(data) => assert_eq!(read_data(given.to_owned(), max_bytes).unwrap(), data),
            Err(part) => {
                let error = format!("{:#}", read_data(given.to_owned(), max_bytes).unwrap_err());
                assert!(error.starts_with("--data: ") && error.contains(part), "{error}");
            }
        };
        check(" 1 ", 100, Ok(" 1 "));
        check(&from_file, 100, Ok("{\"a\": 1}"));
        check(&from_file, 5, Err("more than 5 bytes"));
        check("@/nowhere/at/all", 5, Err("/nowhere/at/all cannot be read"));
    }
}

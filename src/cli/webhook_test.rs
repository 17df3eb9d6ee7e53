//! `webhook test`: a sample sent now, and what the endpoint made of it.

use anyhow::bail;
use clap::Args;

use super::{TenantArg, context::Context, input};
use crate::{
    api::json::TestResultJson,
    test_send::{PING, TestSender},
};

const FIELDS: [&str; 9] = [
    "is_success",
    "response_status",
    "response_time_ms",
    "timings_ms",
    "response_headers",
    "response_body",
    "error",
    "error_kind",
    "attempt_id",
];

#[derive(Debug, Args)]
pub struct TestArgs {
    /// The webhook
    #[arg(value_name = "WEBHOOK")]
    id: String,
    /// Type of the event that is sent
    #[arg(long = "type", value_name = "TYPE", default_value = PING)]
    event_type: String,
    /// Its data: JSON, @FILE, or - for standard input [default: the sample of its type]
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    data: Option<String>,
    #[command(flatten)]
    tenant: TenantArg,
}

pub async fn run(context: &Context, TestArgs { id, event_type, data, tenant }: TestArgs) -> anyhow::Result<()> {
    let max_bytes = context.config.delivery.max_payload_bytes;
    let data = data.map(|data| input::read("--data", data, max_bytes, "delivery.max_payload_bytes")).transpose()?;
    let post = context.post()?;
    let streams = context.streams().await?;
    let sender = TestSender::new(streams.clone(), context.manager_of(&streams), post);
    let (attempt_id, attempt) = sender.send(&tenant.tenant, &id, &event_type, data).await?;
    context.out.one(&TestResultJson::of(attempt_id, &attempt), &FIELDS)?;
    if !attempt.is_success() {
        bail!("the endpoint did not take it");
    }
    Ok(())
}

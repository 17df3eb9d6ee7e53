//! `webhook stats`: how a webhook does.

use std::time::Duration;

use clap::Args;

use super::{TenantArg, context::Context, values::duration};
use crate::api::json::{Page, WebhookStatsJson};

/// What is shown of the window, in this order; the hours follow.
const FIELDS: [&str; 17] = [
    "webhook_id",
    "window_hours",
    "total_attempts",
    "successful_attempts",
    "failed_attempts",
    "success_rate",
    "average_response_time_ms",
    "p50_ms",
    "p95_ms",
    "p99_ms",
    "status_classes",
    "dead_letters",
    "backlog",
    "total_deliveries",
    "successful_deliveries",
    "failed_deliveries",
    "last_triggered_at",
];

#[derive(Debug, Args)]
pub struct StatsArgs {
    /// The webhook
    #[arg(value_name = "WEBHOOK")]
    id: String,
    /// How far back, in whole hours: 1h to 7d
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    window: Duration,
    #[command(flatten)]
    tenant: TenantArg,
}

pub async fn run(context: &Context, args: StatsArgs) -> anyhow::Result<()> {
    let manager = context.manager().await?;
    let stats = WebhookStatsJson::of(&manager.webhook_stats(&args.tenant.tenant, &args.id, args.window).await?);
    context.out.one(&stats, &FIELDS)?;
    if context.out.is_json {
        return Ok(());
    }
    let columns = [
        ("HOUR", "hour"),
        ("ATTEMPTS", "attempts"),
        ("SUCCESSFUL", "successful"),
        ("FAILED", "failed"),
        ("AVERAGE MS", "average_response_time_ms"),
    ];
    let hours: Vec<_> = stats.hours.into_iter().filter(|hour| hour.attempts > 0).collect();
    if hours.is_empty() {
        return Ok(());
    }
    context.out.line("")?;
    context.out.page(&Page::whole(hours), &columns)
}

//! `webhook logs`: what was posted, and what came back.

use clap::Args;

use super::{
    PageArgs, TenantArg,
    context::Context,
    output::Paint,
    values::{AttemptStatus, id, moment},
};
use crate::{
    api::json::{AttemptJson, Page},
    domain::id::EventId,
    streams::AttemptFilter,
};

#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The webhook
    #[arg(value_name = "WEBHOOK")]
    id: String,
    /// Only attempts that ended so
    #[arg(long)]
    status: Option<AttemptStatus>,
    /// Only events of this type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only what was tried since: a time, or an age such as 1h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Only what was tried until
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
    /// Only attempts to deliver this event
    #[arg(long, value_name = "EVENT", value_parser = id::<EventId>)]
    event: Option<EventId>,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    tenant: TenantArg,
}

/// When an attempt was made, what was answered, and how long that took; below one another in columns.
pub fn outcome(attempt: &AttemptJson, paint: Paint) -> String {
    let status = attempt.response_status.map_or_else(|| "  -".to_owned(), |status| format!("{status:>3}"));
    let status = if attempt.is_success { status } else { paint.red(&status) };
    format!("{}  {status}  {:>7.1} ms", attempt.at, attempt.response_time_ms)
}

pub async fn run(context: &Context, args: LogsArgs) -> anyhow::Result<()> {
    let before = args.page.cursor()?;
    let filter = AttemptFilter {
        is_success: args.status.map(|status| status == AttemptStatus::Success),
        event_type: args.event_type,
        since_ms: args.since,
        until_ms: args.until,
    };
    let (tenant, limit) = (args.tenant.tenant.as_str(), usize::from(args.page.limit));
    let manager = context.manager().await?;
    let found = match args.event {
        None => manager.attempts(tenant, &args.id, &filter, before, limit).await?,
        Some(event) => manager.attempts_for_event(tenant, &args.id, event, &filter, before, limit).await?,
    };
    let columns = [
        ("AT", "at"),
        ("STATUS", "response_status"),
        ("MS", "response_time_ms"),
        ("ATTEMPT", "attempt"),
        ("TYPE", "event_type"),
        ("EVENT", "event_id"),
        ("ERROR", "error"),
    ];
    let data = found.attempts.iter().map(|(id, attempt)| AttemptJson::of(*id, attempt)).collect();
    context.out.page(&Page::of(data, found.before), &columns)
}

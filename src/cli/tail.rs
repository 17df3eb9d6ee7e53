//! `tail`: attempts as they are made, whichever process makes them.

use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::{
    TenantArg,
    context::Context,
    errors::say,
    output::{Paint, plain},
    values::id,
};
use crate::{
    api::json::AttemptJson,
    domain::{attempt::Attempt, filter::Pattern, id::SubscriptionId, time::rfc3339},
    streams::AttemptTail,
};

/// How long Redis is asked to wait for an attempt.
const BLOCK: Duration = Duration::from_secs(5);
/// Before Redis is asked again that was away.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = "It ends with Ctrl-C. With --json it prints an object a line, as `webhook logs` has them.

Example:
  posthaste tail --failed
  posthaste tail --webhook wh_… --type 'order.*'")]
pub struct TailArgs {
    /// Only attempts of this webhook
    #[arg(long, value_name = "WEBHOOK", value_parser = id::<SubscriptionId>)]
    webhook: Option<SubscriptionId>,
    /// Only events of this type; `order.*` for all that begin so
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<Pattern>,
    /// Only attempts that failed
    #[arg(long)]
    failed: bool,
    /// Those of all tenants
    #[arg(long, conflicts_with = "tenant")]
    all_tenants: bool,
    #[command(flatten)]
    tenant: TenantArg,
}

impl TailArgs {
    fn wants(&self, attempt: &Attempt) -> bool {
        (self.all_tenants || attempt.tenant == self.tenant.tenant)
            && self.webhook.is_none_or(|webhook| webhook == attempt.subscription)
            && self.event_type.as_ref().is_none_or(|pattern| pattern.matches(&attempt.event_type))
            && !(self.failed && attempt.is_success())
    }
}

pub async fn run(context: &Context, args: TailArgs) -> anyhow::Result<()> {
    let streams = context.streams().await?;
    if let Some(webhook) = args.webhook.filter(|_| !args.all_tenants) {
        context.manager_of(&streams).webhook(&args.tenant.tenant, &webhook.to_string()).await?;
    }
    let shards = if args.all_tenants {
        streams.shards()
    } else {
        let shard = streams.shard_of(&args.tenant.tenant);
        shard..shard + 1
    };
    let mut tail = streams.attempt_tail(shards, BLOCK).await?;
    say("waiting for attempts");
    loop {
        let attempts = match tail.next().await {
            Ok(attempts) => attempts,
            Err(error) if error.is_passing() => {
                say(&error);
                come_back(&mut tail).await?;
                say("waiting for attempts");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for (id, attempt) in attempts.iter().filter(|(_, attempt)| args.wants(attempt)) {
            if context.out.is_json {
                context.out.json(&AttemptJson::of(*id, attempt))?;
            } else {
                context.out.line(line(attempt, context.out.paint))?;
            }
        }
    }
}

async fn come_back(tail: &mut AttemptTail) -> anyhow::Result<()> {
    loop {
        sleep(PAUSE).await;
        match tail.reconnect().await {
            Err(error) if error.is_passing() => {}
            answer => return Ok(answer?),
        }
    }
}

/// An attempt in a line: when, what was answered, how long that took, and what it was about.
fn line(attempt: &Attempt, paint: Paint) -> String {
    let outcome = attempt.status().map_or_else(|| "-".to_owned(), |status| status.to_string());
    let outcome = format!("{outcome:>3}");
    let outcome = if attempt.is_success() { outcome } else { paint.red(&outcome) };
    let text = format!(
        "{:>7.1} ms  attempt {}  {}  {}  {}  {}",
        attempt.response_time_ms,
        attempt.number,
        attempt.event_type,
        attempt.event,
        attempt.subscription,
        attempt.failure_text()
    );
    format!("{}  {outcome}  {}", rfc3339(attempt.at_ms), plain(text.trim_end()))
}

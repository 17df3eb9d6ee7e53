//! `tail`: attempts as they are made, whichever process makes them.

use std::time::Duration;

use clap::Args;
use tokio::time::sleep;

use super::{
    TenantArg,
    context::Context,
    errors::say,
    logs::outcome,
    output::{Paint, plain},
    values::id,
};
use crate::{
    api::json::AttemptJson,
    domain::{attempt::Attempt, filter::Pattern, id::SubscriptionId},
    streams::Streams,
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
                come_back(&streams).await?;
                say("waiting for attempts");
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for (id, attempt) in attempts.iter().filter(|(_, attempt)| args.wants(attempt)) {
            let attempt = AttemptJson::of(*id, attempt);
            if context.out.is_json {
                context.out.json(&attempt)?;
            } else {
                context.out.line(line(&attempt, context.out.paint))?;
            }
        }
    }
}

async fn come_back(streams: &Streams) -> anyhow::Result<()> {
    loop {
        sleep(PAUSE).await;
        match streams.ping().await {
            Err(error) if error.is_passing() => {}
            answer => return Ok(answer?),
        }
    }
}

/// An attempt in a line: what came of it, and what it was about.
fn line(attempt: &AttemptJson, paint: Paint) -> String {
    let AttemptJson { attempt: number, event_type, event_id, webhook_id, error, .. } = attempt;
    let error = plain(error.as_deref().unwrap_or_default());
    let text = format!("attempt {number}  {event_type}  {event_id}  {webhook_id}  {error}");
    format!("{}  {}", outcome(attempt, paint), text.trim_end())
}

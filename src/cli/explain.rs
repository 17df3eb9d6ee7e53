//! `explain`: the decisions about one event, and what came of them.

use clap::Args;
use serde::Serialize;

use super::{
    TenantArg,
    context::Context,
    output::{Paint, plain},
    values::count,
};
use crate::{
    api::json::{AttemptJson, DeliveryDetailJson, EventJson},
    domain::filter::Pattern,
    manage::{Decision, Explanation, Why},
};

#[derive(Debug, Args)]
#[command(after_help = "Of more than 100 webhooks that got it, or did not, the others are counted.

Example:
  posthaste explain evt_…")]
pub struct ExplainArgs {
    /// The event
    #[arg(value_name = "EVENT")]
    id: String,
    #[command(flatten)]
    tenant: TenantArg,
}

/// What `explain --json` prints.
#[derive(Debug, Serialize)]
struct ExplanationJson {
    event: EventJson,
    is_dispatched: bool,
    wanted: Vec<DecisionJson>,
    wanted_total: u64,
    unwanted: Vec<DecisionJson>,
    unwanted_total: u64,
}

/// What was decided for a webhook.
#[derive(Debug, Serialize)]
struct DecisionJson {
    webhook_id: String,
    /// Null, as the next two, where it was deleted since.
    name: Option<String>,
    url: Option<String>,
    /// Its filters as they are now.
    events: Option<Vec<String>>,
    /// The filter that matches.
    rule: Option<String>,
    why: String,
    deliveries: Vec<DeliveryDetailJson>,
}

impl DecisionJson {
    fn of(decision: &Decision) -> Self {
        let subscription = decision.subscription.as_ref();
        let events = subscription.map(|subscription| subscription.events.iter().map(Pattern::to_string).collect());
        Self {
            webhook_id: decision.webhook.to_string(),
            name: subscription.map(|subscription| subscription.name.clone()),
            url: subscription.map(|subscription| subscription.url.clone()),
            why: why(&decision.why, events.as_deref().unwrap_or_default()),
            events,
            rule: match &decision.why {
                Why::Matches(rule) | Why::ChangedLater(rule) => Some(rule.to_string()),
                _ => None,
            },
            deliveries: decision.deliveries.iter().map(DeliveryDetailJson::of).collect(),
        }
    }
}

/// The rule in words.
fn why(why: &Why, filters: &[String]) -> String {
    match why {
        Why::Matches(rule) => format!("its filter `{rule}` matches"),
        Why::OnlyForIt => "the event was published for it alone".to_owned(),
        Why::MatchedThen => "one of its filters matched then, or it was sent by hand: none matches now".to_owned(),
        Why::Deleted => "it was deleted since".to_owned(),
        Why::OnlyForAnother(other) => format!("the event was published for {other} alone"),
        Why::NoMatch => format!("none of its filters matches: {}", filters.join(", ")),
        Why::CreatedLater => {
            "it was created after the event was published (`posthaste replay` puts what it missed to it)".to_owned()
        }
        Why::ChangedLater(rule) => {
            format!("it was changed after the event was published: `{rule}` matches only since, or nothing is kept")
        }
    }
}

pub async fn run(context: &Context, ExplainArgs { id, tenant }: ExplainArgs) -> anyhow::Result<()> {
    let explanation = context.manager().await?.explain(&tenant.tenant, &id).await?;
    let Explanation { event, is_dispatched, wanted, wanted_total, unwanted, unwanted_total } = &explanation;
    let each = |decisions: &[Decision]| decisions.iter().map(DecisionJson::of).collect();
    let json = ExplanationJson {
        event: EventJson::of(event),
        is_dispatched: *is_dispatched,
        wanted: each(wanted),
        wanted_total: *wanted_total,
        unwanted: each(unwanted),
        unwanted_total: *unwanted_total,
    };
    if context.out.is_json { context.out.json(&json) } else { context.out.line(text(&json, context.out.paint)) }
}

fn text(explanation: &ExplanationJson, paint: Paint) -> String {
    let ExplanationJson { event, is_dispatched, wanted, wanted_total, unwanted, unwanted_total } = explanation;
    let got = if *is_dispatched { "got it" } else { "are to get it, once it is dispatched" };
    let mut lines = vec![
        format!("{}  {}  tenant {}  published {}", event.id, event.event_type, event.tenant, event.published_at),
        format!("{} {got}, {unwanted_total} did not", count(*wanted_total, "webhook")),
    ];
    for decision in wanted {
        lines.push(String::new());
        lines.push(head(decision));
        lines.push(format!("  wanted: {}", decision.why));
        if decision.deliveries.is_empty() && *is_dispatched {
            lines.push("  nothing is kept of its delivery, or it was not tried yet".to_owned());
        }
        lines.extend(decision.deliveries.iter().flat_map(|delivery| delivery_lines(delivery, paint)));
    }
    for decision in unwanted {
        lines.push(String::new());
        lines.push(head(decision));
        lines.push(format!("  not wanted: {}", decision.why));
    }
    let more = wanted_total + unwanted_total - (wanted.len() + unwanted.len()) as u64;
    if more > 0 {
        lines.push(format!("\n{} not shown", count(more, "more webhook")));
    }
    lines.join("\n")
}

fn head(decision: &DecisionJson) -> String {
    let words = [Some(decision.webhook_id.as_str()), decision.name.as_deref(), decision.url.as_deref()];
    let words: Vec<String> = words.into_iter().flatten().filter(|word| !word.is_empty()).map(plain).collect();
    words.join("  ")
}

fn delivery_lines(delivery: &DeliveryDetailJson, paint: Paint) -> Vec<String> {
    let next = delivery.next_attempt_at.as_ref().map_or(String::new(), |at| format!(", tried again at {at}"));
    let head =
        format!("  {}  {} after {}{next}", delivery.id, delivery.status, count(delivery.attempts.into(), "attempt"));
    let attempts = delivery.attempt_log.iter().map(|attempt| format!("    {}", attempt_line(attempt, paint)));
    [head].into_iter().chain(attempts).collect()
}

fn attempt_line(attempt: &AttemptJson, paint: Paint) -> String {
    let outcome = attempt.response_status.map_or_else(|| "  -".to_owned(), |status| format!("{status:>3}"));
    let outcome = if attempt.is_success { outcome } else { paint.red(&outcome) };
    let rest = format!("{:.1} ms  {}", attempt.response_time_ms, attempt.error.as_deref().unwrap_or_default());
    format!("{}  {outcome}  {}", attempt.at, plain(rest.trim_end()))
}

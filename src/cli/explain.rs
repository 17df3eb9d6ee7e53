//! `explain`: the decisions about one event, and what came of them.

use clap::Args;
use serde::Serialize;

use super::{
    TenantArg,
    context::Context,
    logs::outcome,
    output::{Paint, plain},
    values::count,
};
use crate::{
    api::json::{DeliveryDetailJson, EventJson},
    domain::filter::Pattern,
    manage::{Decision, Decisions, Explanation, Why},
};

#[derive(Debug, Args)]
#[command(after_help = "Of more than 100 webhooks of a kind the others are counted.

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
    /// Those who got it, or will.
    wanted: Vec<DecisionJson>,
    wanted_total: u64,
    unwanted: Vec<DecisionJson>,
    unwanted_total: u64,
    /// Those of which nobody knows.
    unknown: Vec<DecisionJson>,
    unknown_total: u64,
}

/// What was decided for a webhook.
#[derive(Debug, Serialize)]
struct DecisionJson {
    webhook_id: String,
    /// Null, as the next ones up to `events`, where it was deleted since.
    name: Option<String>,
    url: Option<String>,
    /// `active`, `paused` or `disabled`: only an active one is sent what it wants.
    status: Option<&'static str>,
    disabled_reason: Option<String>,
    /// Its filters as they are now.
    events: Option<Vec<String>>,
    /// The filter that matches.
    rule: Option<String>,
    why: String,
    deliveries: Vec<DeliveryDetailJson>,
}

impl ExplanationJson {
    fn of(explanation: &Explanation) -> Self {
        let Explanation { event, is_dispatched, wanted, unwanted, unknown } = explanation;
        let each = |decisions: &Decisions| {
            decisions.shown.iter().map(|decision| DecisionJson::of(decision, *is_dispatched)).collect()
        };
        Self {
            event: EventJson::of(event),
            is_dispatched: *is_dispatched,
            wanted: each(wanted),
            wanted_total: wanted.total,
            unwanted: each(unwanted),
            unwanted_total: unwanted.total,
            unknown: each(unknown),
            unknown_total: unknown.total,
        }
    }

    fn shown(&self) -> impl Iterator<Item = (&'static str, &DecisionJson)> {
        let each = |word, decisions| std::iter::repeat(word).zip(decisions);
        each("wanted", &self.wanted).chain(each("not wanted", &self.unwanted)).chain(each("not known", &self.unknown))
    }

    /// How many of each kind there are.
    fn head(&self) -> String {
        let Self { wanted_total, unwanted_total, unknown_total, is_dispatched, .. } = self;
        let (got, did_not) = if *is_dispatched { ("got it", "did not") } else { ("will get it", "will not") };
        let wanted = format!("{} {got}, {unwanted_total} {did_not}", count(*wanted_total, "webhook"));
        if *unknown_total > 0 { format!("{wanted}, of {unknown_total} it is not known") } else { wanted }
    }

    fn text(&self, paint: Paint) -> String {
        let Self { event, is_dispatched, wanted_total, unwanted_total, unknown_total, .. } = self;
        let mut lines = vec![
            format!("{}  {}  tenant {}  published {}", event.id, event.event_type, event.tenant, event.published_at),
            self.head(),
        ];
        for (word, decision) in self.shown() {
            lines.extend([String::new(), decision.head(), format!("  {word}: {}", decision.why)]);
            if word == "wanted" && decision.deliveries.is_empty() && *is_dispatched {
                lines.push("  nothing is kept, or shown, of its delivery".to_owned());
            }
            lines.extend(decision.deliveries.iter().flat_map(|delivery| delivery_lines(delivery, paint)));
        }
        let more = wanted_total + unwanted_total + unknown_total - self.shown().count() as u64;
        if more > 0 {
            lines.push(format!("\n{} not shown", count(more, "more webhook")));
        }
        lines.join("\n")
    }
}

impl DecisionJson {
    fn of(decision: &Decision, is_dispatched: bool) -> Self {
        let state = decision.webhook.as_ref().map(|webhook| &webhook.state);
        let subscription = decision.webhook.as_ref().map(|webhook| &webhook.subscription);
        let events = subscription.map(|subscription| subscription.events.iter().map(Pattern::to_string).collect());
        Self {
            webhook_id: decision.id.to_string(),
            name: subscription.map(|subscription| subscription.name.clone()),
            url: subscription.map(|subscription| subscription.url.clone()),
            status: state.map(|state| state.status.name()),
            disabled_reason: state.and_then(|state| state.disabled_reason).map(|reason| reason.to_string()),
            why: why(&decision.why, events.as_deref().unwrap_or_default(), is_dispatched),
            events,
            rule: match &decision.why {
                Why::Matches(rule) | Why::ChangedLater(rule) => Some(rule.to_string()),
                _ => None,
            },
            deliveries: decision.deliveries.iter().map(DeliveryDetailJson::of).collect(),
        }
    }

    fn head(&self) -> String {
        let words = [Some(self.webhook_id.as_str()), self.name.as_deref(), self.url.as_deref()];
        let mut words: Vec<String> = words.into_iter().flatten().filter(|word| !word.is_empty()).map(plain).collect();
        if let Some(status) = self.status.filter(|status| *status != "active") {
            let reason = self.disabled_reason.as_ref().map_or(String::new(), |reason| format!(": {reason}"));
            words.push(format!("({status}{reason})"));
        }
        words.join("  ")
    }
}

/// The rule in words.
fn why(why: &Why, filters: &[String], is_dispatched: bool) -> String {
    match why {
        Why::Matches(rule) => format!("its filter `{rule}` matches"),
        Why::OnlyForIt => "the event was published for it alone".to_owned(),
        Why::MatchedThen => "one of its filters matched then, or it was sent by hand: none matches now".to_owned(),
        Why::SentLater => "it was created after the event was published, and got it by a replay or by hand".to_owned(),
        Why::Deleted => "it was deleted since".to_owned(),
        Why::OnlyForAnother(other) => format!("the event was published for {other} alone"),
        Why::NoMatch => format!("none of its filters matches: {}", filters.join(", ")),
        Why::CreatedLater => {
            "it was created after the event was published (`posthaste replay` puts what it missed to it)".to_owned()
        }
        Why::ChangedLater(rule) => {
            format!("it was changed after the event was published, and `{rule}` matches only since")
        }
        Why::Unknown if is_dispatched => {
            "it was changed after the event was published, and nothing is kept of the event's deliveries".to_owned()
        }
        Why::Unknown => {
            "it was created or changed after the event was published: whoever dispatches it may know of that, or not"
                .to_owned()
        }
    }
}

pub async fn run(context: &Context, ExplainArgs { id, tenant }: ExplainArgs) -> anyhow::Result<()> {
    let explanation = ExplanationJson::of(&context.manager().await?.explain(&tenant.tenant, &id).await?);
    if context.out.is_json {
        return context.out.json(&explanation);
    }
    context.out.line(explanation.text(context.out.paint))
}

fn delivery_lines(delivery: &DeliveryDetailJson, paint: Paint) -> Vec<String> {
    let next = delivery.next_attempt_at.as_ref().map_or(String::new(), |at| format!(", tried again at {at}"));
    let attempts = count(delivery.attempts.into(), "attempt");
    let head = format!("  {}  {} after {attempts}{next}", delivery.id, delivery.status);
    let attempts = delivery.attempt_log.iter().map(|attempt| {
        let error = plain(attempt.error.as_deref().unwrap_or_default());
        format!("    {}  {error}", outcome(attempt, paint)).trim_end().to_owned()
    });
    [head].into_iter().chain(attempts).collect()
}

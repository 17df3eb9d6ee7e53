//! Why each webhook of a tenant got an event, or did not.

use std::collections::{HashMap, HashSet};

use super::{ManageError, Manager, deliveries::DeliveryView};
use crate::{
    domain::{
        delivery::DeliveryStatus,
        event::Event,
        filter::{Pattern, matching},
        id::{DeliveryId, SubscriptionId},
    },
    streams::{EventStatus, Sought, Versioned},
};

/// Webhooks looked at together.
const PAGE: usize = 250;
/// Webhooks whose delivery streams are looked at for a delivery that is not noted.
const LOOKS_AT_MOST: usize = 1_000;
/// Webhooks that are shown of each kind; the others are counted.
const SHOWN_AT_MOST: usize = 100;

/// The decisions about an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub event: Event,
    pub is_dispatched: bool,
    /// Those who got it, or will.
    pub wanted: Decisions,
    /// The tenant's other webhooks.
    pub unwanted: Decisions,
    /// Those of which nobody knows: they were changed after the event was published, and it is not dispatched yet, nothing
    /// is kept of its deliveries, or more waits for them than is looked through.
    pub unknown: Decisions,
}

/// Decisions of one kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decisions {
    /// The first 100, by webhook; those that were deleted come last.
    pub shown: Vec<Decision>,
    pub total: u64,
}

/// What was decided for a webhook, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub id: SubscriptionId,
    /// `None` where it was deleted since.
    pub webhook: Option<Versioned>,
    pub why: Why,
    /// The delivery and its copies, of all webhooks together the first 100; none where nothing is kept of them any more, or
    /// the event is not dispatched yet.
    pub deliveries: Vec<DeliveryView>,
}

/// The rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The first of its filters that matches.
    Matches(Pattern),
    /// The event was published for it alone.
    OnlyForIt,
    /// It got the event, and none of its filters matches now.
    MatchedThen,
    /// It was created after the event was published, and got it by a replay or by hand.
    SentLater,
    /// It got the event, and was deleted since.
    Deleted,
    /// The event was published for another webhook alone.
    OnlyForAnother(SubscriptionId),
    /// None of its filters matches.
    NoMatch,
    /// It was created after the event was published.
    CreatedLater,
    /// It was changed after the event was published, and matches only since.
    ChangedLater(Pattern),
    /// It was changed, or created, after the event was published.
    Unknown,
}

/// What can be known of an event's deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Knowledge {
    /// All of them.
    Whole,
    /// None: it is not dispatched yet.
    NotYet,
    /// None: they have aged.
    NoMore,
    /// Not whether there is one for this webhook: it was not looked for to the end.
    NotSeen,
}

impl Knowledge {
    fn of(status: &EventStatus) -> Self {
        match status {
            EventStatus { is_dispatched: false, .. } => Self::NotYet,
            EventStatus { total: 0, .. } => Self::NoMore,
            EventStatus { .. } => Self::Whole,
        }
    }
}

impl Why {
    /// `has_delivery` says whether a delivery of the event to the webhook is known.
    fn of(event: &Event, webhook: &Versioned, has_delivery: bool, knowledge: Knowledge) -> Self {
        let subscription = &webhook.subscription;
        let rule = matching(&subscription.events, &event.event_type).cloned();
        // Whoever dispatches an event knows at least the tenant's webhooks as they were when it was published.
        let is_as_it_was = webhook.version <= event.config_version;
        let is_younger = subscription.created_at_ms > event.id.at.ms;
        match (event.only_for, rule) {
            (Some(only), _) if only == subscription.id => Self::OnlyForIt,
            (_, _) if has_delivery && is_younger && !is_as_it_was => Self::SentLater,
            (_, Some(rule)) if has_delivery => Self::Matches(rule),
            (_, None) if has_delivery => Self::MatchedThen,
            (Some(only), _) => Self::OnlyForAnother(only),
            (None, None) if is_as_it_was => Self::NoMatch,
            (None, Some(rule)) if is_as_it_was => Self::Matches(rule),
            (None, _) if knowledge == Knowledge::NotYet => Self::Unknown,
            (None, None) if is_younger => Self::NoMatch,
            (None, Some(_)) if is_younger => Self::CreatedLater,
            (None, _) if matches!(knowledge, Knowledge::NoMore | Knowledge::NotSeen) => Self::Unknown,
            (None, None) => Self::NoMatch,
            (None, Some(rule)) => Self::ChangedLater(rule),
        }
    }
}

impl Explanation {
    fn kind(&mut self, why: &Why) -> &mut Decisions {
        match why {
            Why::Matches(_) | Why::OnlyForIt | Why::MatchedThen | Why::SentLater | Why::Deleted => &mut self.wanted,
            Why::OnlyForAnother(_) | Why::NoMatch | Why::CreatedLater | Why::ChangedLater(_) => &mut self.unwanted,
            Why::Unknown => &mut self.unknown,
        }
    }

    /// Whether the delivery stream of a webhook is looked at for a delivery that is not noted: where that decides, or is
    /// shown.
    fn is_worth_a_look(&self, webhook: &Versioned) -> bool {
        let is_shown = self.wanted.shown.len() < SHOWN_AT_MOST;
        webhook.version > self.event.config_version
            || is_shown && matching(&webhook.subscription.events, &self.event.event_type).is_some()
    }

    fn add(&mut self, id: SubscriptionId, webhook: Option<Versioned>, why: Why) {
        let decisions = self.kind(&why);
        decisions.total += 1;
        if decisions.shown.len() < SHOWN_AT_MOST {
            decisions.shown.push(Decision { id, webhook, why, deliveries: Vec::new() });
        }
    }
}

impl Manager {
    /// Which webhooks of a tenant got an event, by which rule, and what became of each delivery; which did not, and why.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's event and for one that is not kept any more.
    pub async fn explain(&self, tenant: &str, id: &str) -> Result<Explanation, ManageError> {
        let event = self.event(tenant, id).await?;
        let status = self.streams.event_status(event.id.shard, event.id.at).await?;
        let (knowledge, are_some_unnoted) = (Knowledge::of(&status), status.unnoted > 0);
        let mut noted: HashMap<SubscriptionId, Vec<DeliveryStatus>> = HashMap::new();
        for delivery in status.deliveries {
            noted.entry(delivery.id.subscription).or_default().push(delivery);
        }
        let mut explanation = Explanation {
            is_dispatched: status.is_dispatched,
            event,
            wanted: Decisions::default(),
            unwanted: Decisions::default(),
            unknown: Decisions::default(),
        };
        let (mut seen, mut after, mut looks) = (HashSet::new(), None, 0);
        loop {
            let page = self.webhooks(tenant, after, PAGE).await?;
            for webhook in page.webhooks {
                let id = webhook.subscription.id;
                let mut knowledge = knowledge;
                if are_some_unnoted && !noted.contains_key(&id) && explanation.is_worth_a_look(&webhook) {
                    looks += 1;
                    let delivery = DeliveryId { event: explanation.event.id.at, subscription: id, copy: 0 };
                    let sought = match looks <= LOOKS_AT_MOST {
                        true => self.streams.find_delivery(delivery).await?,
                        false => Sought::TooFarBack,
                    };
                    match sought {
                        Sought::Found(found) => drop(noted.insert(id, vec![found])),
                        Sought::Nowhere => {}
                        Sought::TooFarBack => knowledge = Knowledge::NotSeen,
                    }
                }
                let why = Why::of(&explanation.event, &webhook, noted.contains_key(&id), knowledge);
                explanation.add(id, Some(webhook), why);
                seen.insert(id);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut deleted: Vec<SubscriptionId> = noted.keys().copied().filter(|id| !seen.contains(id)).collect();
        deleted.sort_unstable();
        for id in deleted {
            explanation.add(id, None, Why::Deleted);
        }
        self.add_deliveries(&mut explanation, noted).await?;
        Ok(explanation)
    }

    async fn add_deliveries(
        &self,
        explanation: &mut Explanation,
        mut noted: HashMap<SubscriptionId, Vec<DeliveryStatus>>,
    ) -> Result<(), ManageError> {
        let Explanation { event, wanted, .. } = explanation;
        let statuses = wanted.shown.iter().filter_map(|decision| noted.remove(&decision.id)).flatten().collect();
        let mut views: HashMap<SubscriptionId, Vec<DeliveryView>> = HashMap::new();
        for view in self.shown(event.id.shard, Some(event), statuses).await? {
            views.entry(view.status.id.subscription).or_default().push(view);
        }
        for decision in &mut wanted.shown {
            decision.deliveries = views.remove(&decision.id).unwrap_or_default();
        }
        Ok(())
    }
}

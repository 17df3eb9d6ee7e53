//! Why each webhook of a tenant got an event, or did not.

use std::collections::HashMap;

use super::{ManageError, Manager, deliveries::DeliveryView};
use crate::{
    domain::{
        delivery::DeliveryStatus,
        event::Event,
        filter::{Pattern, matching},
        id::SubscriptionId,
        subscription::Subscription,
    },
    streams::Versioned,
};

/// Webhooks looked at together.
const PAGE: usize = 500;
/// Webhooks that are shown of those that got the event, and of those that did not; the others are counted.
const SHOWN_AT_MOST: usize = 100;

/// The decisions about an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    pub event: Event,
    pub is_dispatched: bool,
    /// Those who got it, or are to, by webhook: the first 100.
    pub wanted: Vec<Decision>,
    pub wanted_total: u64,
    /// The tenant's other webhooks: the first 100.
    pub unwanted: Vec<Decision>,
    pub unwanted_total: u64,
}

/// What was decided for a webhook, and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub webhook: SubscriptionId,
    /// `None` where it was deleted since.
    pub subscription: Option<Subscription>,
    pub why: Why,
    /// The delivery and its copies; none where nothing is kept of them any more, or the event is not dispatched yet.
    pub deliveries: Vec<DeliveryView>,
}

/// The rule that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// The first of its filters that matches.
    Matches(Pattern),
    /// The event was published for it alone.
    OnlyForIt,
    /// It got the event, and none of its filters matches now: they were changed since.
    MatchedThen,
    /// It got the event, and was deleted since.
    Deleted,
    /// The event was published for another webhook alone.
    OnlyForAnother(SubscriptionId),
    /// None of its filters matches.
    NoMatch,
    /// It was created after the event was published.
    CreatedLater,
    /// It was changed after the event was published: it matches since.
    ChangedLater(Pattern),
}

impl Why {
    /// Why a webhook got an event, or did not. `has_delivery` says whether a delivery of it is known, and `is_open` whether
    /// there may be others.
    pub fn of(event: &Event, webhook: &Versioned, has_delivery: bool, is_open: bool) -> Self {
        let subscription = &webhook.subscription;
        let rule = matching(&subscription.events, &event.event_type).cloned();
        // Whoever dispatched it knew at least the tenant's webhooks as they were when it was published.
        let is_older = webhook.version <= event.config_version;
        match (event.only_for, rule) {
            (Some(only), _) if only == subscription.id => Self::OnlyForIt,
            (_, Some(rule)) if has_delivery => Self::Matches(rule),
            (_, None) if has_delivery => Self::MatchedThen,
            (Some(only), _) => Self::OnlyForAnother(only),
            (None, None) => Self::NoMatch,
            (None, Some(rule)) if is_older || is_open => Self::Matches(rule),
            (None, Some(_)) if subscription.created_at_ms > event.id.at.ms => Self::CreatedLater,
            (None, Some(rule)) => Self::ChangedLater(rule),
        }
    }

    /// Whether the webhook got the event, or is to.
    pub fn is_wanted(&self) -> bool {
        match self {
            Self::Matches(_) | Self::OnlyForIt | Self::MatchedThen | Self::Deleted => true,
            Self::OnlyForAnother(_) | Self::NoMatch | Self::CreatedLater | Self::ChangedLater(_) => false,
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
        let is_open = !status.is_dispatched || status.unnoted > 0;
        let mut deliveries: HashMap<SubscriptionId, Vec<DeliveryStatus>> = HashMap::new();
        for delivery in status.deliveries {
            deliveries.entry(delivery.id.subscription).or_default().push(delivery);
        }
        let mut explanation = Explanation {
            is_dispatched: status.is_dispatched,
            event,
            wanted: Vec::new(),
            wanted_total: 0,
            unwanted: Vec::new(),
            unwanted_total: 0,
        };
        let mut after = None;
        loop {
            let page = self.webhooks(tenant, after, PAGE).await?;
            for webhook in page.webhooks {
                let known = deliveries.remove(&webhook.subscription.id);
                let why = Why::of(&explanation.event, &webhook, known.is_some(), is_open);
                self.add(&mut explanation, why, Ok(webhook.subscription), known.unwrap_or_default()).await?;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let mut deleted: Vec<_> = deliveries.into_iter().collect();
        deleted.sort_unstable_by_key(|(webhook, _)| *webhook);
        for (webhook, known) in deleted {
            self.add(&mut explanation, Why::Deleted, Err(webhook), known).await?;
        }
        Ok(explanation)
    }

    /// Adds what was decided for a webhook, or for one that is not there any more.
    async fn add(
        &self,
        explanation: &mut Explanation,
        why: Why,
        webhook: Result<Subscription, SubscriptionId>,
        known: Vec<DeliveryStatus>,
    ) -> Result<(), ManageError> {
        let Explanation { event, wanted, wanted_total, unwanted, unwanted_total, .. } = explanation;
        let (shown, total) = if why.is_wanted() { (wanted, wanted_total) } else { (unwanted, unwanted_total) };
        *total += 1;
        if shown.len() < SHOWN_AT_MOST {
            let deliveries = self.views(event.id.shard, Some(event), known).await?;
            let (webhook, subscription) = match webhook {
                Ok(subscription) => (subscription.id, Some(subscription)),
                Err(deleted) => (deleted, None),
            };
            shown.push(Decision { webhook, subscription, why, deliveries });
        }
        Ok(())
    }
}

//! The webhooks of a run: whose they are, what they want, and how their endpoints answer.

use std::net::SocketAddr;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{CONCURRENCY, behaviour::Behaviour, event::EVENT_TYPE};
use crate::{
    domain::{id::SubscriptionId, retry::RetryPolicy},
    manage::{Manager, NewWebhook, RetryInput, WebhookChange},
};

/// Webhooks that are created at once.
const AT_ONCE: usize = 64;
/// Webhooks of a tenant that has a type for each.
const OF_A_TENANT: usize = 100;
/// Requests to one webhook at once, at least: as the engine has it by default.
const LEAST_CONCURRENCY: usize = 10;
/// Attempts after the first that a flaky endpoint may need, and what is waited before each.
const FLAKY_RETRIES: u32 = 20;
const FLAKY_DELAY_MS: u64 = 100;
/// So soon that a run need not wait for it; and so late that no run sees it.
const SOON_MS: u64 = 50;
const LATE_MS: u64 = 24 * 3_600_000;

/// Whose webhooks are, and so which events each gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Each has a tenant of its own.
    Own(usize),
    /// All are one tenant's, and each gets every event.
    Shared(usize),
    /// A hundred are a tenant's, and each wants a type of its own: an event goes to one of them, which its filter finds.
    Grouped(usize),
}

impl Layout {
    pub fn webhooks(self) -> usize {
        match self {
            Self::Own(webhooks) | Self::Shared(webhooks) | Self::Grouped(webhooks) => webhooks,
        }
    }

    /// How many webhooks each event goes to.
    pub fn targets(self) -> usize {
        match self {
            Self::Own(_) | Self::Grouped(_) => 1,
            Self::Shared(webhooks) => webhooks,
        }
    }

    /// Whose a webhook is.
    pub fn tenant(self, webhook: usize) -> String {
        match self {
            Self::Own(_) => tenant(webhook),
            Self::Shared(_) => tenant(0),
            Self::Grouped(_) => tenant(webhook / OF_A_TENANT),
        }
    }

    /// What it wants.
    pub fn event_type(self, webhook: usize) -> String {
        match self {
            Self::Own(_) | Self::Shared(_) => EVENT_TYPE.to_owned(),
            Self::Grouped(_) => format!("{EVENT_TYPE}.{}", webhook % OF_A_TENANT),
        }
    }
}

/// A tenant of the benchmark.
pub fn tenant(number: usize) -> String {
    format!("bench-{number}")
}

/// What a webhook is made of.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub tenant: String,
    pub event_type: String,
    pub behaviour: Behaviour,
    pub is_active: bool,
}

/// Makes webhooks.
pub struct Maker {
    pub manager: Manager,
    /// Where the receiver is.
    pub receiver: SocketAddr,
}

impl Maker {
    /// Where an endpoint is.
    pub fn url(&self, behaviour: Behaviour, endpoint: usize) -> String {
        format!("http://{}/{}/{endpoint}", self.receiver, behaviour.name())
    }

    /// Creates all of a layout, and returns the first.
    ///
    /// # Errors
    /// One is refused.
    pub async fn create_all(&self, layout: Layout) -> anyhow::Result<Option<SubscriptionId>> {
        let wanted = |webhook| Wanted {
            tenant: layout.tenant(webhook),
            event_type: layout.event_type(webhook),
            behaviour: Behaviour::Healthy,
            is_active: true,
        };
        let created = stream::iter(0..layout.webhooks())
            .map(|webhook| self.create(webhook, layout.webhooks(), wanted(webhook)))
            .buffered(AT_ONCE);
        created.try_fold(None, async |first, next| Ok(first.or(Some(next)))).await
    }

    /// Creates one of so many that share the requests which are under way.
    ///
    /// # Errors
    /// It is refused.
    pub async fn create(&self, endpoint: usize, of: usize, wanted: Wanted) -> anyhow::Result<SubscriptionId> {
        let new = NewWebhook {
            url: self.url(wanted.behaviour, endpoint),
            events: vec![wanted.event_type],
            max_concurrency: Some(CONCURRENCY.div_ceil(of).max(LEAST_CONCURRENCY) as u32),
            retry: retry(wanted.behaviour),
            is_active: Some(wanted.is_active),
            ..NewWebhook::default()
        };
        Ok(self.manager.create_webhook(&wanted.tenant, new).await?.subscription.id)
    }

    /// Has the first webhook's endpoint answer in another way.
    ///
    /// # Errors
    /// The change is refused.
    pub async fn turn(&self, first: SubscriptionId, behaviour: Behaviour) -> anyhow::Result<()> {
        let change = WebhookChange {
            url: Some(self.url(behaviour, 0)),
            retry: retry(behaviour).map(Some),
            ..WebhookChange::default()
        };
        self.manager.update_webhook(&tenant(0), &first.to_string(), change).await?;
        Ok(())
    }
}

/// That of a webhook whose endpoint takes things after some attempts; `None` where it is as users have it.
fn retry(behaviour: Behaviour) -> Option<RetryInput> {
    let delays_ms = match behaviour {
        Behaviour::Flaky => vec![FLAKY_DELAY_MS; FLAKY_RETRIES as usize],
        Behaviour::FailingOnce => vec![SOON_MS],
        Behaviour::FailingHalf => vec![LATE_MS],
        Behaviour::Healthy | Behaviour::Hanging | Behaviour::Failing | Behaviour::Slow => return None,
    };
    Some(RetryInput::Policy(RetryPolicy::Schedule { delays_ms, jitter: 0.0 }))
}

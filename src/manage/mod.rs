//! What the API and the command line share: tenants, webhooks, dead letters and replays, checked and changed in one place.
//!
//! Every value that a user gave is checked here, and refused by its public name. Nothing here sends anything.

mod activity;
mod dead_letters;
mod deliveries;
mod event_types;
mod events;
mod explain;
mod fields;
mod filter;
mod keys;
mod merge;
mod replays;
mod resend;
mod secrets;
mod stats;
mod tenants;
mod walk;
mod webhooks;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex},
    time::Instant,
};

pub use activity::{DeliveryCursor, DeliveryPage, DeliverySummary};
pub use dead_letters::{DeadItem, DeadLetterPage, ReasonCount};
pub use deliveries::{DeliveryView, StatusView};
pub use event_types::NewEventType;
pub use events::{EventFilter, EventPage};
pub use explain::{Decision, Decisions, Explanation, Why};
pub use fields::check_rate;
pub use filter::{DeadLetterCursor, DeadLetterFilter, DeadLetterId};
pub use replays::NewReplay;
pub use resend::{Resent, ResentAs};
pub use secrets::{OVERLAP_SECONDS, Rotation};
pub use stats::WebhookStats;
pub use webhooks::{NewWebhook, RetryInput, WebhookChange, WebhookPage};

use crate::{
    clock::now_ms,
    config::Config,
    domain::{Invalid, address::AddressRules, retry::Retry},
    streams::{self, Streams},
};

/// How often a change is tried again after somebody else's came first.
const LOST_RACES_AT_MOST: usize = 20;

/// Looks after what tenants own; cheap to clone.
#[derive(Clone)]
pub struct Manager {
    streams: Streams,
    settings: Arc<Settings>,
}

struct Settings {
    rules: AddressRules,
    presets: BTreeMap<String, Retry>,
    retry: Retry,
    timeout_seconds: u32,
    max_concurrency: u32,
    rate_limit_per_minute: Option<u32>,
    auto_create_tenants: bool,
    /// Tenants seen a moment ago, so that publishing does not ask for each event.
    known_tenants: Mutex<HashMap<String, Instant>>,
}

/// Why something was not done.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ManageError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is no such thing, or it is another tenant's.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    #[error("there is such a {0} already")]
    AlreadyExists(&'static str),
    /// The same request came before, and what it asks for is there.
    #[error("this {what} was created before, as {id}")]
    AlreadyCreated { what: &'static str, id: String },
    /// As things stand it cannot be done; the text says why, and what to do.
    #[error("{0}")]
    Conflict(String),
    #[error(transparent)]
    Redis(#[from] streams::Error),
}

impl ManageError {
    /// Somebody else's change of `what` came first too often.
    fn changed_by_others(what: impl fmt::Display) -> Self {
        Self::Conflict(format!("{what} is being changed by others all the time: try again"))
    }
}

impl Manager {
    /// `rules` say where webhooks may point; what a webhook leaves open is taken from `config`.
    pub fn new(streams: Streams, config: &Config, rules: AddressRules) -> Self {
        let settings = Settings {
            rules,
            presets: config.retry_presets.clone(),
            retry: config.default_retry().clone(),
            timeout_seconds: config.delivery.timeout_seconds,
            max_concurrency: config.delivery.max_concurrency,
            rate_limit_per_minute: config.delivery.rate_limit_per_minute,
            auto_create_tenants: config.api.auto_create_tenants,
            known_tenants: Mutex::default(),
        };
        Self { streams, settings: Arc::new(settings) }
    }
}

/// What the id of a new thing is made of. The same seed makes the same id, so that the repeat of a request whose answer was
/// lost finds what the first has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed {
    /// Unix milliseconds.
    pub ms: u64,
    pub random: u64,
}

impl Seed {
    /// A new one, which no other thing has.
    pub fn draw() -> Self {
        Self { ms: now_ms(), random: rand::random() }
    }
}

/// The first `limit` of what was found, and the key of the last of them where there are more.
pub(crate) fn first_of<T, K>(mut found: Vec<T>, limit: usize, key: impl Fn(&T) -> K) -> (Vec<T>, Option<K>) {
    let is_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| is_more).map(key);
    (found, last)
}

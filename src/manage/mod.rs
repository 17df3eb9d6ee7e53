//! What the API and the command line share: tenants, webhooks, dead letters and replays, checked and changed in one place.
//!
//! Every value that a user gave is checked here, and refused by its public name. Nothing here sends anything.

mod activity;
mod dead_letters;
mod deliveries;
mod event_types;
mod events;
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
    sync::{Arc, Mutex},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

pub use activity::{DeliveryCursor, DeliveryPage, DeliverySummary};
pub use dead_letters::{DeadItem, DeadLetterPage};
pub use deliveries::{DeliveryView, StatusView};
pub use event_types::NewEventType;
pub use events::{EventFilter, EventPage};
pub use fields::check_rate;
pub use filter::{DeadLetterCursor, DeadLetterFilter, DeadLetterId};
pub use replays::NewReplay;
pub use resend::{Resent, ResentAs};
pub use secrets::{OVERLAP_SECONDS, Rotation};
pub use stats::WebhookStats;
pub use webhooks::{NewWebhook, RetryInput, WebhookChange};

use crate::{
    config::Config,
    domain::{Invalid, address::AddressRules, retry::Retry},
    streams::{self, Streams},
};

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

/// Unix milliseconds by this machine's clock.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

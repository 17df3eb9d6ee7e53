//! The engine under test: its roles in this process, on a Redis of the test's own.

use std::{collections::BTreeMap, time::Duration};

use metrics_exporter_prometheus::PrometheusBuilder;
use posthaste::{
    config::Config,
    connect,
    domain::{
        filter::Pattern,
        id::{StreamId, SubscriptionId},
        retry::{Retry, RetryPolicy},
        subscription::{Ordering, PayloadFormat, Secrets, Subscription},
    },
    publish::{Published, Publisher, TypeChecker},
    roles::{self, Options, Role},
    shutdown::Shutdown,
    streams::{Streams, Versioned},
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep},
};

use super::redis::TestRedis;

/// The longest that anything in a test is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Roles that run, each as a task of the test; all stop with the value.
pub struct Engine {
    pub streams: Streams,
    pub publisher: Publisher,
    config: Config,
    running: Vec<(Role, Shutdown, JoinHandle<anyhow::Result<()>>)>,
    _lanes: JoinSet<()>,
}

impl Engine {
    /// A dispatcher, a sender and the sources.
    pub async fn start(redis: &TestRedis) -> Self {
        Self::with_settings(redis, &[]).await
    }

    /// The same, with settings as the environment gives them: `("POSTHASTE_DELIVERY__MAX_BACKLOG", "10")`.
    pub async fn with_settings(redis: &TestRedis, settings: &[(&str, &str)]) -> Self {
        Self::at(&redis.url(), settings).await
    }

    /// A dispatcher, a sender and the sources, on the Redis there.
    pub async fn at(url: &str, settings: &[(&str, &str)]) -> Self {
        let mut engine = Self::idle_at(url, settings).await;
        for role in [Role::Dispatcher, Role::Sender, Role::Sources] {
            engine.run(role);
        }
        engine
    }

    /// No role yet.
    pub async fn idle(redis: &TestRedis, settings: &[(&str, &str)]) -> Self {
        Self::idle_at(&redis.url(), settings).await
    }

    /// No role yet, on the Redis there.
    pub async fn idle_at(url: &str, settings: &[(&str, &str)]) -> Self {
        let base = [
            ("POSTHASTE_TARGETS__ALLOW_CIDRS", "127.0.0.0/8"),
            ("POSTHASTE_REDIS__SHARDS", "4"),
            ("POSTHASTE_REDIS__DURABILITY", "relaxed"),
            ("POSTHASTE_SHUTDOWN_GRACE_SECONDS", "5"),
        ];
        let env = base.iter().chain(settings).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = Config::load(None, env.collect::<BTreeMap<_, _>>(), Some(url)).expect("settings");
        let streams = connect::open(&config).await.expect("an open Redis");
        let mut lanes = JoinSet::new();
        let types = TypeChecker::new(&streams, config.api.strict_types);
        let publisher = Publisher::start(streams.clone(), types, config.delivery.max_payload_bytes, &mut lanes);
        Self { streams, publisher, config, running: Vec::new(), _lanes: lanes }
    }

    /// Starts one more process' worth of a role.
    pub fn run(&mut self, role: Role) -> usize {
        let shutdown = Shutdown::new();
        // A port of the system's choice: several processes' worth run at once.
        let options = Options { metrics_listen: Some(([127, 0, 0, 1], 0).into()), wait: false };
        let figures = PrometheusBuilder::new().build_recorder().handle();
        let task = tokio::spawn(roles::run_until(self.config.clone(), role, options, figures, shutdown.clone()));
        self.running.push((role, shutdown, task));
        self.running.len() - 1
    }

    /// Ends a role as a kill would: in mid-work, without a word to anybody.
    pub async fn kill(&mut self, role: Role) {
        let index = self.running.iter().position(|(running, ..)| *running == role).expect("a running role");
        let (_, _, task) = self.running.remove(index);
        task.abort();
        let _ = task.await;
    }

    /// Stops a role in good order.
    pub async fn stop(&mut self, role: Role) {
        let index = self.running.iter().position(|(running, ..)| *running == role).expect("a running role");
        let (_, shutdown, task) = self.running.remove(index);
        shutdown.stop();
        task.await.expect("no panic").expect("an end without a failure");
    }

    /// Stops everything in good order.
    pub async fn stop_all(mut self) {
        while let Some((role, ..)) = self.running.first() {
            let role = *role;
            self.stop(role).await;
        }
    }

    /// Subscribes a URL to events; `change` sets what is not the default: no retries' jitter, quick delays.
    pub async fn subscribe(
        &self,
        tenant: &str,
        url: &str,
        events: &[&str],
        change: impl FnOnce(&mut Subscription),
    ) -> SubscriptionId {
        let now_ms = self.streams.now_ms().await.expect("Redis' time");
        let id = SubscriptionId { ms: now_ms, shard: self.streams.shard_of(tenant), random: rand::random() };
        let mut subscription = Subscription {
            id,
            tenant: tenant.to_owned(),
            name: String::new(),
            url: url.to_owned(),
            events: events.iter().map(|pattern| pattern.parse::<Pattern>().expect("a pattern")).collect(),
            retry: quick_retry(3),
            timeout_seconds: 5,
            max_concurrency: 10,
            rate_limit_per_minute: None,
            ordering: Ordering::None,
            headers: BTreeMap::new(),
            payload_format: PayloadFormat::Envelope,
            secrets: Secrets::only(SECRET.to_owned()),
            ingest: Secrets::only(SECRET.to_owned()),
            created_at_ms: now_ms,
            updated_at_ms: now_ms,
        };
        change(&mut subscription);
        self.streams.create_subscription(&subscription).await.expect("an answer").expect("a new subscription");
        id
    }

    /// The subscriptions of the tenant that tests use.
    pub async fn webhooks(&self) -> Vec<SubscriptionId> {
        self.streams.subscription_ids("acme", None, 1000).await.expect("subscriptions")
    }

    /// Publishes an event and says its id.
    pub async fn publish(&self, tenant: &str, event_type: &str, data: impl Into<bytes::Bytes>) -> Published {
        self.publisher.publish(new_event(tenant, event_type, data)).await.expect("a published event")
    }

    /// A subscription as it stands.
    pub async fn state(&self, id: SubscriptionId) -> Versioned {
        self.streams.subscription(id).await.expect("an answer").expect("a subscription")
    }

    /// Waits until nothing waits or is under way for a subscription.
    pub async fn wait_until_drained(&self, id: SubscriptionId) {
        wait_until("the deliveries are done", async || {
            let state = self.state(id).await.state;
            state.fresh + state.waiting + state.leased == 0
        })
        .await;
    }

    /// Waits until all that was published is dispatched.
    pub async fn wait_until_dispatched(&self) {
        wait_until("all events are dispatched", async || {
            let now_ms = self.streams.now_ms().await.expect("Redis' time");
            for shard in self.streams.shards() {
                let figures = self.streams.figures(shard, now_ms).await.expect("figures");
                if figures.undispatched > 0 {
                    return false;
                }
            }
            true
        })
        .await;
    }

    /// All dead letters of a subscription, newest first.
    pub async fn dead_letters(&self, id: SubscriptionId) -> Vec<posthaste::streams::DeadLetter> {
        self.streams.dead_letters(id, StreamId::MAX, StreamId::ZERO, 10_000).await.expect("dead letters")
    }
}

/// An event to publish.
pub fn new_event(tenant: &str, event_type: &str, data: impl Into<bytes::Bytes>) -> posthaste::domain::event::NewEvent {
    posthaste::domain::event::NewEvent {
        tenant: tenant.to_owned(),
        event_type: event_type.to_owned(),
        data: data.into(),
        ..Default::default()
    }
}

/// So many retries, 100 ms apart.
pub fn quick_retry(count: u32) -> Retry {
    Retry { count, policy: RetryPolicy::Schedule { delays_ms: vec![100], jitter: 0.0 } }
}

/// Waits for a condition, or fails by name when it does not come true in time.
pub async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

//! Webhooks, tenants and dead letters are looked after.

use std::{sync::Arc, time::Duration};

use posthaste::{
    config::Config,
    dispatch,
    domain::{
        address::AddressRules,
        event::NewEvent,
        id::SubscriptionId,
        outcome::Reason,
        retry::{Retry, RetryPolicy},
        subscription::Status,
    },
    manage::{
        DeadItem, DeadLetterFilter, DeadLetterId, ManageError, Manager, NewReplay, NewWebhook, RetryInput,
        WebhookChange,
    },
    publish::{Publisher, TypeChecker},
    secrets::Sealer,
    shutdown::Shutdown,
    streams::{Ending, Error, Limits, Settled, ShardId, Streams, TenantLimits, Versioned},
    traces::Traces,
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::support::{redis::TestRedis, samples::DISABLE_AFTER};

const DEADLINE: Duration = Duration::from_secs(30);
const SHARDS: u16 = 2;

/// An engine that expands events but sends nothing by itself.
struct Engine {
    manager: Manager,
    streams: Streams,
    publisher: Publisher,
    shutdown: Shutdown,
    _tasks: JoinSet<()>,
    redis: TestRedis,
}

impl Engine {
    async fn start(env: &[(&str, &str)]) -> Self {
        let redis = TestRedis::start().await;
        let limits = Limits { max_backlog: 1_000, max_dead: 1_000, disable_after: DISABLE_AFTER };
        let streams = Streams::open(&redis.url(), "test", SHARDS, limits, Sealer::new(&[])).await.unwrap();
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = Config::load(None, env, None).unwrap();
        let manager = Manager::new(streams.clone(), &config, AddressRules::default());
        let (mut tasks, shutdown) = (JoinSet::new(), Shutdown::new());
        let publisher = Publisher::start(streams.clone(), TypeChecker::off(), 1_000, &mut tasks);
        let (led, leads) = watch::channel(Arc::<[ShardId]>::from(streams.shards().collect::<Vec<_>>()));
        let (dispatched, stop) = (streams.clone(), shutdown.clone());
        tasks.spawn(async move {
            dispatch::run(dispatched, leads, None, Traces::default(), stop).await;
            drop(led);
        });
        Self { manager, streams, publisher, shutdown, _tasks: tasks, redis }
    }

    async fn webhook(&self, tenant: &str) -> SubscriptionId {
        self.manager.create_webhook(tenant, new_webhook()).await.unwrap().subscription.id
    }

    async fn publish(&self, tenant: &str, event_type: &str, data: &str) {
        let data = data.to_owned().into();
        let event = NewEvent { tenant: tenant.into(), event_type: event_type.into(), data, ..Default::default() };
        self.publisher.publish(event).await.unwrap();
    }

    /// Waits until so many deliveries wait for a webhook.
    async fn backlog(&self, tenant: &str, webhook: SubscriptionId, count: u64) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let state = self.manager.webhook(tenant, &webhook.to_string()).await.unwrap().state;
            if state.fresh + state.waiting == count {
                return;
            }
            assert!(Instant::now() < deadline, "{state:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Gives up all that waits for a tenant's webhooks.
    async fn give_up(&self, tenant: &str) {
        let shard = self.streams.shard_of(tenant);
        loop {
            let leases = self.streams.lease(shard, 100).await.unwrap().leases;
            if leases.is_empty() {
                return;
            }
            let ending = || Ending::Failed { reason: Reason::Exhausted, error: "refused".into() };
            let batch: Vec<Settled> = leases.into_iter().map(|lease| Settled { lease, ending: ending() }).collect();
            self.streams.settle(shard, &batch).await.unwrap();
        }
    }

    async fn dead(&self, tenant: &str, filter: &DeadLetterFilter) -> Vec<String> {
        let page = self.manager.dead_letters(tenant, filter, None, 100).await.unwrap();
        assert_eq!(page.next, None);
        page.data.iter().map(data_of).collect()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shutdown.abort();
    }
}

fn data_of(item: &DeadItem) -> String {
    match item {
        DeadItem::Delivery { event, .. } => String::from_utf8_lossy(&event.as_ref().unwrap().data).into_owned(),
        DeadItem::Unreadable(entry) => entry.error.clone(),
    }
}

fn new_webhook() -> NewWebhook {
    NewWebhook { url: "https://example.com/hook".into(), events: vec!["*".into()], ..Default::default() }
}

fn field_of<T: std::fmt::Debug>(result: Result<T, ManageError>) -> &'static str {
    match result {
        Err(ManageError::Invalid(invalid)) => invalid.field,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_webhook_says_what_it_was_not_told_and_belongs_to_its_tenant() {
    let engine = Engine::start(&[]).await;
    let created = engine.manager.create_webhook("acme", new_webhook()).await.unwrap();
    let Versioned { subscription, state, .. } = &created;
    assert_eq!(subscription.retry, Retry::preset("fast").unwrap());
    assert_eq!((subscription.timeout_seconds, subscription.max_concurrency), (30, 10));
    assert_eq!(state.status, Status::Active);
    assert!(subscription.secrets.current.starts_with("whsec_"));
    assert_ne!(subscription.secrets.current, subscription.ingest.current);

    let id = subscription.id.to_string();
    assert_eq!(engine.manager.webhook("acme", &id).await.unwrap(), created);
    for (tenant, id) in [("other", id.as_str()), ("acme", "wh_nothing"), ("acme", "")] {
        let answer = engine.manager.webhook(tenant, id).await;
        assert!(matches!(answer, Err(ManageError::NotFound(_))), "{tenant} {id}: {answer:?}");
    }
    engine.manager.delete_webhook("acme", &id).await.unwrap();
    assert!(matches!(engine.manager.webhook("acme", &id).await, Err(ManageError::NotFound(_))));
    assert!(matches!(engine.manager.delete_webhook("acme", &id).await, Err(ManageError::NotFound(_))));
}

#[tokio::test]
async fn a_webhook_that_was_created_outlives_a_crash_of_redis() {
    let mut engine = Engine::start(&[]).await;
    let created = engine.manager.create_webhook("acme", new_webhook()).await.unwrap();
    let id = created.subscription.id.to_string();
    engine.redis.kill();
    let answer = engine.manager.webhook("acme", &id).await;
    assert!(matches!(answer, Err(ManageError::Redis(Error::Unavailable(_)))), "{answer:?}");
    engine.redis.restart().await;
    assert_eq!(engine.manager.webhook("acme", &id).await.unwrap(), created);
}

#[tokio::test]
async fn a_field_that_cannot_be_taken_is_named_and_nothing_is_made() {
    let engine = Engine::start(&[]).await;
    let check = async |new: NewWebhook, field: &str| {
        assert_eq!(field_of(engine.manager.create_webhook("acme", new).await), field);
    };
    check(NewWebhook { url: "ftp://example.com".into(), ..new_webhook() }, "url").await;
    check(NewWebhook { url: "https://127.0.0.1/".into(), ..new_webhook() }, "url").await;
    check(NewWebhook { events: vec![], ..new_webhook() }, "events").await;
    check(NewWebhook { name: Some("x".repeat(201)), ..new_webhook() }, "name").await;
    check(NewWebhook { secret: Some("short".into()), ..new_webhook() }, "secret").await;
    check(NewWebhook { timeout_seconds: Some(301), ..new_webhook() }, "timeout_seconds").await;
    check(NewWebhook { max_concurrency: Some(0), ..new_webhook() }, "max_concurrency").await;
    check(NewWebhook { rate_limit_per_minute: Some(60_001), ..new_webhook() }, "rate_limit_per_minute").await;
    check(NewWebhook { ordering: Some("lifo".into()), ..new_webhook() }, "ordering").await;
    check(NewWebhook { payload_format: Some("xml".into()), ..new_webhook() }, "payload_format").await;
    check(NewWebhook { retry: Some(RetryInput::Preset("often".into())), ..new_webhook() }, "retry").await;
    check(NewWebhook { retry_count: Some(101), ..new_webhook() }, "retry_count").await;
    check(NewWebhook { headers: [("Host".into(), "x".into())].into(), ..new_webhook() }, "headers").await;
    assert_eq!(field_of(engine.manager.create_webhook("a/b", new_webhook()).await), "tenant");
    assert!(engine.manager.webhooks("acme", None, 10).await.unwrap().webhooks.is_empty());
    assert!(engine.manager.tenants().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_change_keeps_what_is_absent_and_resets_what_is_unset() {
    let engine = Engine::start(&[]).await;
    let schedule = RetryInput::Policy(RetryPolicy::Schedule { delays_ms: vec![1, 2], jitter: 0.0 });
    let new = NewWebhook {
        name: Some("crm".into()),
        retry: Some(schedule),
        rate_limit_per_minute: Some(60),
        headers: [("X-Env".to_owned(), "prod".to_owned())].into(),
        ..new_webhook()
    };
    let id = engine.manager.create_webhook("acme", new).await.unwrap().subscription.id.to_string();
    let change = async |change: WebhookChange| engine.manager.update_webhook("acme", &id, change).await;
    let count = async |asked: WebhookChange| change(asked).await.unwrap().subscription.retry.count;

    assert_eq!(count(WebhookChange { retry_count: Some(Some(5)), ..Default::default() }).await, 5);
    assert_eq!(count(WebhookChange { retry_count: Some(None), ..Default::default() }).await, 2);
    let steady = || Some(Some(RetryInput::Preset("steady".into())));
    assert_eq!(count(WebhookChange { retry: steady(), ..Default::default() }).await, 3);
    let ten = WebhookChange { retry: steady(), retry_count: Some(Some(10)), ..Default::default() };
    assert_eq!(count(ten).await, 10);

    let kept = change(WebhookChange { events: Some(vec!["a.*".into()]), ..Default::default() }).await.unwrap();
    assert_eq!(kept.subscription.name, "crm");
    assert_eq!(kept.subscription.rate_limit_per_minute, Some(60));
    let unset = WebhookChange {
        name: Some(None),
        retry: Some(None),
        rate_limit_per_minute: Some(None),
        headers: Some(None),
        is_active: Some(false),
        ..Default::default()
    };
    let unset = change(unset).await.unwrap();
    assert_eq!(unset.subscription.name, "");
    assert_eq!(unset.subscription.retry, Retry::preset("fast").unwrap());
    assert_eq!(unset.subscription.rate_limit_per_minute, None);
    assert!(unset.subscription.headers.is_empty());
    assert_eq!(unset.state.status, Status::Paused);
    assert_eq!(field_of(change(WebhookChange { url: Some("x".into()), ..Default::default() }).await), "url");
}

#[tokio::test]
async fn changes_made_at_once_are_all_kept() {
    let engine = Engine::start(&[]).await;
    let id = engine.webhook("acme").await.to_string();
    let change = |change| engine.manager.update_webhook("acme", &id, change);
    let (one, two, three) = tokio::join!(
        change(WebhookChange { name: Some(Some("n".into())), ..Default::default() }),
        change(WebhookChange { max_concurrency: Some(Some(7)), ..Default::default() }),
        change(WebhookChange { timeout_seconds: Some(Some(9)), ..Default::default() }),
    );
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    let subscription = engine.manager.webhook("acme", &id).await.unwrap().subscription;
    assert_eq!((subscription.name.as_str(), subscription.max_concurrency, subscription.timeout_seconds), ("n", 7, 9));
}

#[tokio::test]
async fn webhooks_are_listed_in_pages() {
    let engine = Engine::start(&[]).await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(engine.webhook("acme").await);
    }
    made.sort_unstable();
    engine.webhook("other").await;
    let mut seen = Vec::new();
    loop {
        let page = engine.manager.webhooks("acme", seen.last().copied(), 2).await.unwrap();
        seen.extend(page.webhooks.iter().map(|webhook| webhook.subscription.id));
        assert!(page.webhooks.len() == 2 || page.next.is_none());
        if page.next.is_none() {
            break;
        }
        assert_eq!(page.next, seen.last().copied());
    }
    assert_eq!(seen, made);
}

#[tokio::test]
async fn a_skipped_backlog_becomes_dead_letters_and_what_comes_later_is_kept() {
    let engine = Engine::start(&[]).await;
    let webhook = engine.webhook("acme").await;
    let id = webhook.to_string();
    engine.manager.pause_webhook("acme", &id).await.unwrap();
    for n in ["1", "2", "3"] {
        engine.publish("acme", "order.paid", n).await;
    }
    engine.backlog("acme", webhook, 3).await;
    let resumed = engine.manager.resume_webhook("acme", &id, true).await.unwrap();
    assert_eq!((resumed.state.status, resumed.state.dead), (Status::Active, 3));
    engine.publish("acme", "order.paid", "4").await;
    engine.backlog("acme", webhook, 1).await;
    let overflow = DeadLetterFilter { reason: Some(Reason::Overflow), ..Default::default() };
    assert_eq!(engine.dead("acme", &overflow).await, ["3", "2", "1"]);
    // They were never read, so only their events know their type.
    let typed = DeadLetterFilter { event_type: Some("order.paid".into()), ..overflow };
    assert_eq!(engine.manager.count_dead_letters("acme", &typed).await.unwrap(), 3);
}

#[tokio::test]
async fn dead_letters_of_all_webhooks_are_shown_newest_first_in_pages() {
    let engine = Engine::start(&[]).await;
    let (one, two) = (engine.webhook("acme").await, engine.webhook("acme").await);
    let foreign = engine.webhook("other").await;
    for n in ["1", "2", "3"] {
        engine.publish("acme", "order.paid", n).await;
        engine.backlog("acme", one, 1).await;
        engine.backlog("acme", two, 1).await;
        engine.give_up("acme").await;
    }
    engine.publish("other", "order.paid", "0").await;
    engine.backlog("other", foreign, 1).await;
    engine.give_up("other").await;

    let (mut cursor, mut seen) = (None, Vec::new());
    loop {
        let page = engine.manager.dead_letters("acme", &Default::default(), cursor, 4).await.unwrap();
        seen.extend(page.data.iter().map(data_of));
        assert!(page.data.len() <= 4);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, ["3", "3", "2", "2", "1", "1"]);
    let of_one = DeadLetterFilter { webhook: Some(one), ..Default::default() };
    assert_eq!(engine.dead("acme", &of_one).await, ["3", "2", "1"]);
    let stolen = DeadLetterFilter { webhook: Some(foreign), ..Default::default() };
    assert!(engine.dead("acme", &stolen).await.is_empty());
}

#[tokio::test]
async fn dead_letters_are_sent_once_more_or_thrown_away_by_filter_and_by_id() {
    let engine = Engine::start(&[]).await;
    let (one, two) = (engine.webhook("acme").await, engine.webhook("acme").await);
    for n in ["1", "2", "3"] {
        engine.publish("acme", "order.paid", n).await;
    }
    engine.backlog("acme", one, 3).await;
    engine.backlog("acme", two, 3).await;
    engine.give_up("acme").await;
    let count = async |filter: &DeadLetterFilter| engine.manager.count_dead_letters("acme", filter).await.unwrap();
    let all = DeadLetterFilter::default();
    assert_eq!(count(&all).await, 6);

    let page = engine.manager.dead_letters("acme", &all, None, 1).await.unwrap();
    let [DeadItem::Delivery { letter, .. }] = page.data.as_slice() else { panic!("{page:?}") };
    let id = DeadLetterId::Delivery(letter.delivery);
    assert_eq!(engine.manager.dead_letter("acme", id, false).await.unwrap(), page.data[0]);
    assert!(matches!(engine.manager.dead_letter("other", id, true).await, Err(ManageError::NotFound(_))));
    let by_id = DeadLetterFilter { ids: vec![id, id], ..Default::default() };
    assert_eq!(engine.manager.replay_dead_letters("acme", &by_id, None, |_| ()).await.unwrap(), 1);
    assert_eq!(engine.manager.replay_dead_letters("acme", &by_id, None, |_| ()).await.unwrap(), 0);
    assert_eq!(count(&all).await, 5);

    let of_one = DeadLetterFilter { webhook: Some(one), ..Default::default() };
    let mut told = Vec::new();
    let left = count(&of_one).await;
    let gone = engine.manager.purge_dead_letters("acme", &of_one, |so_far| told.push(so_far)).await.unwrap();
    assert_eq!((gone, told), (left, vec![left]));
    assert_eq!(engine.manager.replay_dead_letters("acme", &all, Some(1_000), |_| ()).await.unwrap(), 5 - left);
    assert_eq!(count(&all).await, 0);
}

#[tokio::test]
async fn a_replay_counts_what_its_webhook_wants_of_the_range() {
    let engine = Engine::start(&[]).await;
    for event_type in ["order.paid", "order.sent", "mail.sent"] {
        engine.publish("acme", event_type, "1").await;
    }
    let new = NewWebhook { events: vec!["order.*".into()], ..new_webhook() };
    let id = engine.manager.create_webhook("acme", new).await.unwrap().subscription.id.to_string();
    let count = async |pattern: Option<&str>| {
        engine.manager.count_replay("acme", &id, 0, 4_000_000_000_000, pattern, |_| ()).await.unwrap()
    };
    assert_eq!(count(None).await, 2);
    assert_eq!(count(Some("*")).await, 2);
    assert_eq!(count(Some("order.paid")).await, 1);
    let job = engine
        .manager
        .start_replay("acme", &id, &NewReplay { until_ms: 1, rate: Some(5), ..Default::default() })
        .await
        .unwrap();
    assert_eq!(engine.manager.replay_status(job.subscription.shard, &job.id).await.unwrap(), Some(job));
}

#[tokio::test]
async fn an_unknown_tenant_is_refused_where_none_comes_into_being_by_itself() {
    let engine = Engine::start(&[("POSTHASTE_API__AUTO_CREATE_TENANTS", "false")]).await;
    assert_eq!(field_of(engine.manager.create_webhook("acme", new_webhook()).await), "tenant");
    engine.manager.create_tenant("acme", Some("Acme"), TenantLimits::default()).await.unwrap();
    let again = engine.manager.create_tenant("acme", None, TenantLimits::default()).await;
    assert!(matches!(again, Err(ManageError::AlreadyExists(_))));
    let webhook = engine.webhook("acme").await;
    assert!(matches!(engine.manager.delete_tenant("acme").await, Err(ManageError::Conflict(_))));
    engine.manager.delete_webhook("acme", &webhook.to_string()).await.unwrap();
    engine.manager.delete_tenant("acme").await.unwrap();
    assert_eq!(field_of(engine.manager.create_webhook("acme", new_webhook()).await), "tenant");
}

//! Events and deliveries are looked at one by one and in lists, and sent once more.

use posthaste::{
    config::Config,
    domain::{
        address::AddressRules,
        delivery::{DeliveryState, Standing},
        event::NewEvent,
        id::{DeliveryId, EventId, StreamId, SubscriptionId},
    },
    manage::{EventFilter, ManageError, Manager, NewWebhook, ResentAs},
    streams::{Append, Appended, Expansion, Limits, Tenant, TenantLimits},
};

use crate::support::{
    queue::{KEYS, Queue, SHARD, whole},
    samples::{DISABLE_AFTER, TENANT, Verdict, event, subscription},
    state::command,
};

const LATER: Verdict = Verdict::Retry { delay_ms: 600_000, retry_after_ms: None };

fn manager(queue: &Queue) -> Manager {
    Manager::new(queue.streams.clone(), &Config::load(None, [], None).unwrap(), AddressRules::default())
}

fn is_not_found<T>(result: Result<T, ManageError>) -> bool {
    matches!(result, Err(ManageError::NotFound(_)))
}

fn conflict<T: std::fmt::Debug>(result: Result<T, ManageError>) -> String {
    match result {
        Err(ManageError::Conflict(text)) => text,
        other => panic!("{other:?}"),
    }
}

async fn publish(queue: &Queue, tenant: &str, event_type: &str, data: Vec<u8>) -> EventId {
    let event = NewEvent { tenant: tenant.to_owned(), data: data.into(), ..event(event_type) };
    let call = format!("{:032x}", rand::random::<u128>());
    let batch = [Append::Event { event, source_id: None }];
    match queue.streams.append(SHARD, &call, &batch, None).await.unwrap().remove(0) {
        Appended::Event(id) => id,
        other => panic!("{other:?}"),
    }
}

/// All pages of a tenant's events, newest first, and how many there were.
async fn events(manager: &Manager, filter: &EventFilter, limit: usize) -> (Vec<EventId>, usize) {
    let (mut cursor, mut found, mut pages) = (None, Vec::new(), 0);
    loop {
        let page = manager.events(TENANT, filter, cursor, limit).await.unwrap();
        assert!(page.events.len() <= limit);
        found.extend(page.events.iter().map(|event| event.id));
        (cursor, pages) = (page.next, pages + 1);
        if cursor.is_none() {
            return (found, pages);
        }
    }
}

#[tokio::test]
async fn events_are_listed_newest_first_whoever_else_shares_the_log() {
    let queue = Queue::start().await;
    let manager = manager(&queue);
    let mut ours = Vec::new();
    for number in 0..20 {
        publish(&queue, "other", "a.b", b"1".to_vec()).await;
        ours.push(publish(&queue, TENANT, if number % 5 == 0 { "rare" } else { "a.b" }, b"1".to_vec()).await);
    }
    ours.reverse();
    // Behind a full page somebody else's may be all that is left.
    for (limit, pages) in [(1, 21), (3, 7), (20, 2), (50, 1)] {
        assert_eq!(events(&manager, &EventFilter::default(), limit).await, (ours.clone(), pages), "by {limit}");
    }
    let rare = EventFilter { event_type: Some("rare".to_owned()), ..Default::default() };
    assert_eq!(events(&manager, &rare, 3).await.0, [ours[4], ours[9], ours[14], ours[19]]);
    let (since, until) = (ours[10].at.ms, ours[5].at.ms);
    let between = EventFilter { since_ms: Some(since), until_ms: Some(until), ..Default::default() };
    let expected: Vec<EventId> = ours.iter().copied().filter(|id| (since..=until).contains(&id.at.ms)).collect();
    assert_eq!(events(&manager, &between, 4).await.0, expected);
    assert_eq!(events(&manager, &EventFilter { until_ms: Some(1), ..Default::default() }, 4).await, (vec![], 1));

    // What comes and goes meanwhile moves no page.
    let first = manager.events(TENANT, &EventFilter::default(), None, 5).await.unwrap();
    publish(&queue, TENANT, "a.b", b"1".to_vec()).await;
    let second = manager.events(TENANT, &EventFilter::default(), first.next, 5).await.unwrap();
    assert_eq!(second.events.iter().map(|event| event.id).collect::<Vec<_>>(), ours[5..10]);
}

#[tokio::test]
async fn a_page_of_events_is_bounded_in_bytes_and_in_what_it_looks_at() {
    let mut queue = Queue::start().await;
    let manager = manager(&queue);
    let ours = publish(&queue, TENANT, "a.b", b"1".to_vec()).await;
    let foreign = "for _ = 1, 4500 do redis.call('XADD', KEYS[1] .. ':events', '*', 'i', 1, 'v', '0-0', 't', 'a', 'tn', \
                   'other', 'ts', 1, 'b', '1') end";
    let _: Option<u8> = command(&mut queue.connection, &["EVAL", foreign, "1", KEYS]).await;
    assert_eq!(events(&manager, &EventFilter::default(), 10).await, (vec![ours], 3), "two short pages come before it");
    for _ in 0..3 {
        publish(&queue, TENANT, "large", vec![b'1'; 5_000_000]).await;
    }
    let large = EventFilter { event_type: Some("large".to_owned()), ..Default::default() };
    let page = manager.events(TENANT, &large, None, 10).await.unwrap();
    assert_eq!(page.events.len(), 1, "8 MB and no more");
    assert!(page.next.is_some());
}

#[tokio::test]
async fn a_delivery_says_where_it_stands_what_was_tried_and_when_it_goes_on() {
    let mut queue = Queue::start().await;
    let manager = manager(&queue);
    let id = queue.create(subscription(1)).await;
    let event = queue.deliver(1, &[id]).await[0];
    let delivery = DeliveryId { event: event.at, subscription: id, copy: 0 };
    let view = async || manager.delivery(TENANT, &delivery.to_string()).await.unwrap();
    let fresh = view().await;
    assert_eq!((fresh.status.standing(), fresh.progress), (Standing::Pending, Default::default()));
    assert_eq!(fresh.event.map(|event| event.id), Some(event));

    let lease = queue.lease_one().await;
    assert!(view().await.progress.is_under_way);
    let held = Verdict::Retry { delay_ms: 1_000, retry_after_ms: Some(60_000) };
    let now = queue.state().await.now;
    queue.settle(&[(&lease, held)]).await;
    let waiting = view().await;
    assert_eq!((waiting.status.standing(), waiting.status.last_status), (Standing::Failed, Some(500)));
    assert_eq!(waiting.attempts.len(), 1);
    let next = waiting.progress.next_attempt_at_ms.unwrap();
    assert!((now + 60_000..now + 90_000).contains(&next), "no sooner than Retry-After says: {next}, now {now}");
    assert!(!waiting.progress.is_under_way);
    queue.streams.set_active(id, false).await.unwrap();
    assert_eq!(view().await.progress.next_attempt_at_ms, None, "it is paused");

    for foreign in ["other", "default"] {
        assert!(is_not_found(manager.delivery(foreign, &delivery.to_string()).await), "{foreign}");
        assert!(is_not_found(manager.resend(foreign, &delivery.to_string()).await), "{foreign}");
        assert!(is_not_found(manager.status(foreign, &delivery.to_string()).await), "{foreign}");
        assert!(is_not_found(manager.status(foreign, &event.to_string()).await), "{foreign}");
    }
    for unknown in ["", "dlv_1", &DeliveryId { copy: 1, ..delivery }.to_string()] {
        assert!(is_not_found(manager.delivery(TENANT, unknown).await), "{unknown}");
    }
    // A deleted webhook's deliveries are still to be seen.
    queue.streams.delete_subscription(id).await.unwrap();
    assert!(queue.streams.purge(id).await.unwrap());
    assert_eq!(view().await.status.state, DeliveryState::Cancelled);
    assert!(conflict(manager.resend(TENANT, &delivery.to_string()).await).contains("is deleted"));
}

#[tokio::test]
async fn an_event_stands_as_what_matters_most_of_its_deliveries() {
    let mut queue = Queue::start().await;
    let manager = manager(&queue);
    let subs = [queue.create(subscription(1)).await, queue.create(subscription(2)).await];
    let status = async |id: EventId| {
        let found = manager.status(TENANT, &id.to_string()).await.unwrap();
        (found.standing, found.total, found.deliveries.len())
    };
    let unread = queue.publish(1).await[0];
    assert_eq!(status(unread).await, (Standing::Pending, 0, 0), "nobody has looked at it yet");
    queue.streams.expand(SHARD, &[whole(StreamId::ZERO, unread.at, &[])]).await.unwrap();
    assert_eq!(status(unread).await, (Standing::Delivered, 0, 0), "nobody wants it");

    let event = queue.deliver(1, &subs).await[0];
    assert_eq!(status(event).await, (Standing::Pending, 2, 2));
    let leases = queue.lease(2).await;
    queue.settle(&[(&leases[0], LATER)]).await;
    assert_eq!(status(event).await, (Standing::Failed, 2, 2));
    queue.elapse(600_000).await;
    let again = queue.lease(2).await;
    let again = again.iter().find(|lease| lease.entry == leases[0].entry && lease.attempt == 2).unwrap();
    queue.settle(&[(again, Verdict::Exhausted)]).await;
    queue.settle(&[(&leases[1], Verdict::Delivered)]).await;
    assert_eq!(status(event).await, (Standing::Dead, 2, 2));
    let resent = manager.resend(TENANT, &again.delivery().to_string()).await.unwrap();
    assert_eq!((resent.delivery, resent.what), (again.delivery(), ResentAs::Redriven));
    let lease = queue.lease_one().await;
    queue.settle(&[(&lease, Verdict::Delivered)]).await;
    assert_eq!(status(event).await, (Standing::Delivered, 2, 2));
    let one = manager.status(TENANT, &lease.delivery().to_string()).await.unwrap();
    assert_eq!((one.standing, one.total, one.deliveries[0].attempts.len()), (Standing::Delivered, 1, 3));
    assert_eq!(queue.violations().await, [""; 0]);

    // Once it has left the log its attempts tell whose it was: those of the tests are of this nonce.
    queue.streams.trim_events(SHARD, StreamId::MAX).await.unwrap();
    assert!(is_not_found(manager.status(TENANT, &event.to_string()).await));
    assert_eq!(status(EventId { nonce: 1, ..event }).await, (Standing::Delivered, 2, 2));
}

#[tokio::test]
async fn what_is_not_noted_of_an_event_for_very_many_is_found_on_its_delivery_stream() {
    let mut queue = Queue::start().await;
    let manager = manager(&queue);
    let id = queue.create(subscription(1)).await;
    let before = queue.deliver(2, &[id]).await[1];
    let event = queue.publish(1).await[0];
    queue.streams.expand(SHARD, &[Expansion { is_tracked: false, ..whole(before.at, event.at, &[id]) }]).await.unwrap();
    queue.deliver(2, &[id]).await;
    // As if there were a thousand others.
    let status = format!("evs:{}", event.at);
    let _: u64 = queue.tamper(&["HINCRBY", &status, "n", "1000"]).await;
    let delivery = DeliveryId { event: event.at, subscription: id, copy: 0 }.to_string();
    let view = manager.delivery(TENANT, &delivery).await.unwrap();
    assert_eq!(view.status.standing(), Standing::Pending);
    assert_eq!(manager.resend(TENANT, &delivery).await.unwrap().what, ResentAs::Already);
    let overall = manager.status(TENANT, &event.to_string()).await.unwrap();
    assert_eq!((overall.standing, overall.total, overall.deliveries.len()), (Standing::Pending, 1001, 0));
    let other = DeliveryId { event: event.at, subscription: SubscriptionId { random: 9, ..id }, copy: 0 };
    assert!(is_not_found(manager.delivery(TENANT, &other.to_string()).await));
    let list = listed(&manager, id, 2).await;
    assert_eq!(list.len(), 5);
    let leases = queue.lease(10).await;
    let results: Vec<_> = leases.iter().map(|lease| (lease, Verdict::Delivered)).collect();
    queue.settle(&results).await;
    assert_eq!(manager.delivery(TENANT, &delivery).await.unwrap().status.state, DeliveryState::Delivered);
    assert_eq!(manager.status(TENANT, &event.to_string()).await.unwrap().standing, Standing::Delivered);
}

/// Waits until nothing more happens in this millisecond of Redis' clock.
async fn next_moment(queue: &Queue) {
    let now = queue.streams.now_ms().await.unwrap();
    while queue.streams.now_ms().await.unwrap() == now {}
}

/// All pages of a webhook's deliveries.
async fn listed(manager: &Manager, id: SubscriptionId, limit: usize) -> Vec<(DeliveryId, Standing)> {
    let (mut cursor, mut found) = (None, Vec::new());
    loop {
        let page = manager.deliveries_of_webhook(TENANT, &id.to_string(), cursor, limit).await.unwrap();
        assert!(page.deliveries.len() <= limit);
        assert!(page.deliveries.iter().all(|delivery| delivery.event.is_some()));
        found.extend(page.deliveries.iter().map(|delivery| (delivery.status.id, delivery.status.standing())));
        cursor = page.next.map(|next| next.to_string().parse().unwrap());
        if cursor.is_none() {
            return found;
        }
    }
}

#[tokio::test]
async fn deliveries_of_a_webhook_are_listed_once_each_newest_activity_first() {
    let mut queue = Queue::with(Limits { max_backlog: 6, max_dead: 10, disable_after: DISABLE_AFTER }).await;
    let manager = manager(&queue);
    let id = queue.create(subscription(1)).await;
    queue.deliver(4, &[id]).await;
    let leases = queue.lease(4).await;
    let ids: Vec<DeliveryId> = leases.iter().map(|lease| lease.delivery()).collect();
    let verdicts = [Verdict::Exhausted, LATER, Verdict::Delivered, Verdict::BodyMissing];
    for index in [2, 1, 0, 3] {
        next_moment(&queue).await;
        queue.settle(&[(&leases[index], verdicts[index])]).await;
    }
    next_moment(&queue).await;
    // Five on top of what waits fill the backlog: the sixth overflows.
    let mut fresh = queue.deliver(5, &[id]).await;
    next_moment(&queue).await;
    fresh.extend(queue.deliver(1, &[id]).await);
    let of = |index: usize| DeliveryId { event: fresh[index].at, subscription: id, copy: 0 };
    let expected = [
        (of(5), Standing::Dead),
        (of(4), Standing::Pending),
        (of(3), Standing::Pending),
        (of(2), Standing::Pending),
        (of(1), Standing::Pending),
        (of(0), Standing::Pending),
        (ids[3], Standing::Dead),
        (ids[0], Standing::Dead),
        (ids[1], Standing::Failed),
        (ids[2], Standing::Delivered),
    ];
    for limit in [1, 3, 10, 50] {
        assert_eq!(listed(&manager, id, limit).await, expected, "by {limit}");
    }
    // One that is tried again moves to the front, and is there once.
    assert_eq!(manager.resend(TENANT, &ids[1].to_string()).await.unwrap().what, ResentAs::Hastened);
    let again = queue.lease(10).await.into_iter().find(|lease| lease.delivery() == ids[1]).unwrap();
    queue.settle(&[(&again, LATER)]).await;
    let now = listed(&manager, id, 3).await;
    assert_eq!((now[0], now.len()), ((ids[1], Standing::Failed), 10));
    // When the attempts have aged, what is still kept stands where it was queued, or given up.
    let _: u64 = queue.tamper(&["DEL", &format!("att:{id}")]).await;
    let _: u64 = queue.tamper(&["DEL", "attempts"]).await;
    let now: Vec<DeliveryId> = listed(&manager, id, 3).await.into_iter().map(|(delivery, _)| delivery).collect();
    assert_eq!(now, [of(5), of(4), of(3), of(2), of(1), of(0), ids[3], ids[0], ids[1]]);
    assert!(is_not_found(manager.deliveries_of_webhook("other", &id.to_string(), None, 1).await));
}

#[tokio::test]
async fn a_delivered_one_is_sent_again_as_a_new_delivery_of_its_event() {
    let mut queue = Queue::with(Limits { max_backlog: 1, max_dead: 10, disable_after: DISABLE_AFTER }).await;
    let manager = manager(&queue);
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let lease = queue.lease_one().await;
    queue.settle(&[(&lease, Verdict::Delivered)]).await;
    let first = lease.delivery();
    let resent = manager.resend(TENANT, &first.to_string()).await.unwrap();
    assert_eq!((resent.delivery, resent.what), (DeliveryId { copy: 1, ..first }, ResentAs::Copied));
    assert!(conflict(manager.resend(TENANT, &first.to_string()).await).contains("is full"));
    let already = manager.resend(TENANT, &resent.delivery.to_string()).await.unwrap();
    assert_eq!((already.delivery, already.what), (resent.delivery, ResentAs::Already));
    let lease = queue.lease_one().await;
    queue.settle(&[(&lease, Verdict::Delivered)]).await;
    queue.streams.trim_events(SHARD, StreamId::MAX).await.unwrap();
    assert!(conflict(manager.resend(TENANT, &first.to_string()).await).contains("not kept"));
}

#[tokio::test]
async fn a_tenant_is_named_once_and_its_limits_are_kept_to() {
    let queue = Queue::start().await;
    let manager = manager(&queue);
    manager.ensure_tenant(TENANT).await.unwrap();
    let came_by_itself = manager.tenant(TENANT).await.unwrap();
    assert_eq!(came_by_itself, Tenant::unnamed(TENANT, came_by_itself.created_at_ms));
    let limits = TenantLimits { max_stored_mb: Some(5), rate_limit_per_minute: Some(60) };
    let named = manager.create_tenant(TENANT, Some("Acme"), limits).await.unwrap();
    assert_eq!((named.name.as_str(), named.created_at_ms), ("Acme", came_by_itself.created_at_ms));
    assert_eq!(named.limits, limits);
    let again = manager.create_tenant(TENANT, None, TenantLimits::default()).await;
    assert!(matches!(again, Err(ManageError::AlreadyExists(_))), "{again:?}");
    manager.ensure_tenant(TENANT).await.unwrap();
    assert_eq!(manager.tenants().await.unwrap(), [named]);

    let mut connection = queue.redis.connect().await;
    let mut kept =
        async || -> Option<String> { command(&mut connection, &["HGET", &format!("{KEYS}:lim"), TENANT]).await };
    assert_eq!(kept().await.as_deref(), Some("5000000"));
    let changed = manager.set_tenant_limits(TENANT, TenantLimits::default()).await.unwrap();
    assert_eq!((changed.name.as_str(), changed.limits), ("Acme", TenantLimits::default()));
    assert_eq!(kept().await, None);
    manager.set_tenant_limits(TENANT, limits).await.unwrap();
    manager.delete_tenant(TENANT).await.unwrap();
    assert_eq!(kept().await, None);
    assert!(is_not_found(manager.set_tenant_limits(TENANT, limits).await));
    for (limits, field) in [
        (TenantLimits { max_stored_mb: Some(0), ..Default::default() }, "max_stored_mb"),
        (TenantLimits { rate_limit_per_minute: Some(0), ..Default::default() }, "rate_limit_per_minute"),
    ] {
        let refused = manager.create_tenant("new", None, limits).await;
        assert!(matches!(&refused, Err(ManageError::Invalid(invalid)) if invalid.field == field), "{refused:?}");
    }
}

#[tokio::test]
async fn a_webhook_that_is_created_paused_sends_nothing_before_it_goes_on() {
    let mut queue = Queue::start().await;
    let manager = manager(&queue);
    let new = NewWebhook {
        url: "https://example.com/hook".into(),
        events: vec!["*".into()],
        is_active: Some(false),
        ..Default::default()
    };
    let created = manager.create_webhook(TENANT, new).await.unwrap();
    let id = created.subscription.id;
    assert_eq!(manager.webhook(TENANT, &id.to_string()).await.unwrap(), created);
    queue.deliver(1, &[id]).await;
    assert!(queue.lease(10).await.is_empty());
    manager.resume_webhook(TENANT, &id.to_string(), false).await.unwrap();
    assert_eq!(queue.lease(10).await.len(), 1);
    assert_eq!(queue.violations().await, [""; 0]);
}

//! What a tenant stores: counted as long as somebody is owed it, and refused above the tenant's limit.

use posthaste::{
    domain::{event::NewEvent, id::StreamId},
    streams::{Append, Appended, Moving, Tenant, TenantLimits},
};

use crate::support::{
    queue::{Queue, SHARD},
    samples::{BODY_BYTES, Facts, TENANT, Verdict, event, settled, subscription},
};

const MB: usize = 1_000_000;

async fn limit(queue: &Queue, max_stored_mb: Option<u64>) {
    let limits = TenantLimits { max_stored_mb, ..TenantLimits::default() };
    let before = queue.streams.tenant(TENANT).await.unwrap();
    let tenant = Tenant { limits, ..Tenant::unnamed(TENANT, 0) };
    assert!(queue.streams.set_tenant(before.as_ref(), &tenant).await.unwrap());
}

async fn append(queue: &Queue, call: &str, batch: &[Append]) -> Vec<Appended> {
    queue.streams.append(SHARD, call, batch, None).await.unwrap()
}

/// The same of an entry of the front door.
async fn append_moved(queue: &Queue, event: NewEvent) -> Vec<Appended> {
    queue.streams.begin_moving("mover").await.unwrap();
    let entry = [Append::Event { event, source_id: Some("5-1".parse().unwrap()) }];
    let moving = Moving { mover: "mover", gone: &[] };
    queue.streams.append(SHARD, "moved", &entry, Some(moving)).await.unwrap()
}

fn of(tenant: &str, key: Option<&str>) -> Append {
    let event = NewEvent { tenant: tenant.to_owned(), idempotency_key: key.map(str::to_owned), ..event("a") };
    Append::Event { event, source_id: None }
}

#[tokio::test]
async fn a_body_counts_once_from_its_first_target_to_its_last_whatever_happens_between() {
    let mut queue = Queue::start().await;
    let subs = [queue.create(subscription(1)).await, queue.create(subscription(2)).await];
    let check = async |queue: &mut Queue, events: usize| {
        let owed = queue.state().await.hash("owed").get(TENANT).map_or(0, |bytes| bytes.parse().unwrap());
        assert_eq!(owed, events * BODY_BYTES);
        assert_eq!(queue.violations().await, [""; 0]);
    };
    queue.deliver(1, &[]).await;
    check(&mut queue, 0).await;
    queue.deliver(2, &subs).await;
    check(&mut queue, 2).await;
    let leases = queue.lease(10).await;
    queue.settle(&[(&leases[0], Verdict::Delivered)]).await;
    check(&mut queue, 2).await;
    queue.streams.trim_events(SHARD, StreamId::MAX).await.unwrap();
    check(&mut queue, 2).await;
    let rest: Vec<_> = leases[1..].iter().map(|lease| (lease, Verdict::Exhausted)).collect();
    queue.settle(&rest).await;
    check(&mut queue, 2).await;
    for id in subs {
        let letters = queue.streams.dead_letters(id, StreamId::MAX, StreamId::ZERO, 10).await.unwrap();
        let entries: Vec<StreamId> = letters.iter().map(|letter| letter.entry).collect();
        queue.streams.redrive(id, &entries[..1]).await.unwrap();
        check(&mut queue, 2).await;
        queue.streams.delete_subscription(id).await.unwrap();
        assert!(queue.streams.purge(id).await.unwrap());
    }
    check(&mut queue, 0).await;
}

#[tokio::test]
async fn a_tenant_at_its_limit_is_refused_event_by_event_until_there_is_room() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    append(&queue, "before", &[of(TENANT, Some("key"))]).await;
    let large = NewEvent { data: vec![b'1'; MB].into(), ..event("a") };
    append(&queue, "large", &[Append::Event { event: large, source_id: None }]).await;
    for ((previous, event), size) in queue.undone().await.into_iter().zip([BODY_BYTES, MB]) {
        let chunk = posthaste::streams::Expansion { size, ..crate::support::queue::whole(previous, event, &[id]) };
        queue.streams.expand(SHARD, &[chunk]).await.unwrap();
    }
    limit(&queue, Some(1)).await;
    let batch = [of(TENANT, None), of("other", None), of(TENANT, Some("key"))];
    let answers = append(&queue, "full", &batch).await;
    assert!(
        matches!(answers[..], [Appended::TenantFull, Appended::Event(_), Appended::Repeated(_)]),
        "others go on, and a repeat is answered: {answers:?}"
    );
    // Nobody can be told at the front door.
    let answers = append_moved(&queue, event("a")).await;
    assert!(matches!(answers[..], [Appended::Bad(_)]), "{answers:?}");
    let bad = queue.streams.bad_entries(Some(SHARD), StreamId::MAX, StreamId::ZERO, 10).await.unwrap();
    assert!(bad[0].error.starts_with("tenant_full: "), "{}", bad[0].error);
    assert_eq!((&bad[0].raw["data"][..], &bad[0].raw["type"][..]), (&br#"{"n":1}"#[..], &b"a"[..]));

    let leases = queue.lease(10).await;
    for (lease, bytes) in leases.iter().zip([BODY_BYTES, MB]) {
        let delivered = settled(lease, Verdict::Delivered, &Facts { bytes, ..Facts::default() });
        queue.streams.settle(SHARD, &[delivered]).await.unwrap();
    }
    assert!(matches!(append(&queue, "room", &[of(TENANT, None)]).await[..], [Appended::Event(_)]));
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn without_a_limit_nothing_is_refused() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    limit(&queue, Some(1)).await;
    limit(&queue, None).await;
    queue.deliver(3, &[id]).await;
    assert!(matches!(append(&queue, "more", &[of(TENANT, None)]).await[..], [Appended::Event(_)]));
}

#[tokio::test]
async fn an_event_of_the_front_door_whose_key_came_before_is_a_dead_letter_that_can_be_read() {
    let queue = Queue::start().await;
    append(&queue, "first", &[of(TENANT, Some("key"))]).await;
    let event = NewEvent { idempotency_key: Some("key".to_owned()), ..event("other") };
    append_moved(&queue, event).await;
    let bad = queue.streams.bad_entries(Some(SHARD), StreamId::MAX, StreamId::ZERO, 10).await.unwrap();
    assert!(bad[0].error.starts_with("idempotency_conflict: "), "{}", bad[0].error);
    assert_eq!(&bad[0].raw["type"][..], b"other");
}

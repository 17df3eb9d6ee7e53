//! When memory is short, what adds is refused before any write, and all that frees goes on.

use std::time::Duration;

use posthaste::{
    domain::{
        id::{StreamId, SubscriptionId},
        outcome::Reason,
    },
    streams::{Append, Error, Job, JobState, Seat, Tenant, TenantLimits},
};

use crate::support::{
    queue::{Queue, SHARD, whole},
    samples::{Verdict, event, subscription},
    state::command,
};

async fn fill(queue: &mut Queue) {
    let _: String = command(&mut queue.connection, &["CONFIG", "SET", "maxmemory", "1"]).await;
}

fn job(subscription: SubscriptionId) -> Job {
    Job {
        id: "job".to_owned(),
        subscription,
        from: StreamId::ZERO,
        until: StreamId::MAX,
        pattern: None,
        rate: None,
        cursor: StreamId::ZERO,
        queued: 0,
        state: JobState::Running,
    }
}

fn is_full<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Full))
}

#[tokio::test]
async fn what_adds_is_refused_and_changes_nothing() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let lease = queue.lease_one().await;
    queue.settle(&[(&lease, Verdict::Exhausted)]).await;
    let letter = queue.streams.dead_letters(id, StreamId::MAX, StreamId::ZERO, 1).await.unwrap()[0].entry;
    queue.streams.create_job(&job(id)).await.unwrap();
    let event_id = queue.publish(1).await[0];
    fill(&mut queue).await;
    let before = queue.books().await;
    let append = [Append::Event { event: event("a"), source_id: None }];
    assert!(is_full(queue.streams.append(SHARD, "call", &append, None).await));
    assert!(is_full(queue.streams.expand(SHARD, &[whole(lease.event, event_id.at, &[id])]).await));
    assert!(is_full(queue.streams.redrive(id, &[letter]).await));
    assert!(is_full(queue.streams.replay(&job(id), event_id.at.next(), true, &[lease.event]).await));
    assert!(is_full(queue.streams.resend(lease.delivery(), "resend").await));
    assert!(is_full(queue.streams.create_subscription(&subscription(2)).await));
    assert_eq!(queue.books().await, before);
}

#[tokio::test]
async fn what_moves_on_and_frees_goes_on() {
    what_moves_on_and_frees_goes_on_in(Queue::start().await, async |_| {}).await;
}

#[tokio::test]
async fn what_moves_on_and_frees_goes_on_where_there_is_no_room_for_the_library() {
    let forget = async |queue: &mut Queue| command(&mut queue.connection, &["FUNCTION", "FLUSH"]).await;
    what_moves_on_and_frees_goes_on_in(Queue::start().await, forget).await;
}

/// `forget` comes before memory is full.
async fn what_moves_on_and_frees_goes_on_in(mut queue: Queue, forget: impl AsyncFnOnce(&mut Queue)) {
    let (id, other) = (queue.create(subscription(1)).await, queue.create(subscription(2)).await);
    queue.deliver(4, &[id]).await;
    queue.deliver(1, &[other]).await;
    forget(&mut queue).await;
    fill(&mut queue).await;
    let streams = queue.streams.clone();

    let leases = queue.lease(256).await;
    assert_eq!(leases.len(), 5);
    assert!(streams.renew(SHARD, &leases).await.unwrap().is_empty());
    let later = Verdict::Retry { delay_ms: 60_000, retry_after_ms: None };
    let verdicts = [Verdict::Delivered, Verdict::Exhausted, Verdict::Released, later];
    let of_first = leases.iter().filter(|lease| lease.subscription == id);
    let results: Vec<_> = of_first.zip(verdicts).collect();
    assert_eq!(queue.settle(&results).await, [0; 0]);
    let dropped = streams.drop_backlog(id, StreamId::MAX, Reason::MaxAge, "too old", StreamId::ZERO).await.unwrap();
    assert_eq!(dropped.0, 2);
    let letter = streams.dead_letters(id, StreamId::MAX, StreamId::ZERO, 1).await.unwrap()[0].entry;
    assert_eq!(streams.discard(id, &[letter]).await.unwrap(), 1);
    assert_eq!(streams.trim_events(SHARD, StreamId::MAX).await.unwrap(), (5, 3));
    assert_eq!(streams.audit(id).await.unwrap(), 0);
    assert!(streams.set_active(id, false).await.unwrap());
    assert!(streams.delete_subscription(other).await.unwrap());
    assert!(streams.purge(other).await.unwrap());
    assert_eq!(queue.violations().await, [""; 0]);

    // Somebody has to lead, or nobody trims.
    assert_eq!(streams.lead(&[Seat::Shard(SHARD), Seat::FrontDoor], "me").await.unwrap(), [true, true]);
    assert_eq!(streams.lead(&[Seat::Shard(SHARD)], "you").await.unwrap(), [false]);
    assert_eq!(streams.check_in(&["dispatcher:me".to_owned()]).await.unwrap(), ["dispatcher:me"]);
    // A limit is what keeps it from getting worse.
    let limits = TenantLimits { max_stored_mb: Some(1), ..TenantLimits::default() };
    let tenant = Tenant { limits, ..Tenant::unnamed("acme", 0) };
    assert!(streams.set_tenant(None, &tenant).await.unwrap());
    streams.set_gate(SHARD, true).await.unwrap();
    streams.keep_status_for(SHARD, Duration::from_secs(60)).await.unwrap();
}

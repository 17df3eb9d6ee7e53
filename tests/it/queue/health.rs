//! How an endpoint does: its statistics, counted once an attempt, and when it is disabled.

use std::time::Duration;

use posthaste::{
    domain::{
        id::{StreamId, SubscriptionId},
        outcome::Reason,
        statistics::{HOUR_MS, Statistics},
        subscription::{DisabledReason, Status, Subscription},
    },
    streams::{Limits, SettleAnswer},
};

use crate::support::{
    queue::{Queue, SHARD},
    samples::{Facts, Verdict, settled, subscription},
};

const SOON: Verdict = Verdict::Retry { delay_ms: 1_000, retry_after_ms: None };
const HOURS: u64 = 5;

/// What is counted of a subscription, whichever hour it is.
async fn counted(queue: &Queue, id: SubscriptionId) -> Statistics {
    let hour = queue.streams.now_ms().await.unwrap() / HOUR_MS;
    let mut all = Statistics::default();
    queue.streams.statistics(id, hour - 1..=hour).await.unwrap().iter().for_each(|hour| all.merge(hour));
    all
}

/// Attempts by [`settled`]: so many answered with 2xx, 4xx and 5xx, each after a millisecond.
fn attempts(successful: u64, refused: u64, failed: u64, dead: u64) -> Statistics {
    let all = successful + refused + failed;
    let mut buckets = [0; 16];
    buckets[0] = all;
    Statistics { classes: [0, 0, successful, 0, refused, failed], buckets, total_us: all * 1_000, dead }
}

#[tokio::test]
async fn each_attempt_is_counted_once_and_what_was_not_sent_is_not() {
    let cases = [
        (Verdict::Delivered, attempts(1, 0, 0, 0)),
        (SOON, attempts(0, 0, 1, 0)),
        (Verdict::Exhausted, attempts(0, 0, 1, 1)),
        (Verdict::Gone, attempts(0, 1, 0, 1)),
        (Verdict::Released, attempts(0, 0, 0, 0)),
        (Verdict::BodyMissing, attempts(0, 0, 0, 1)),
    ];
    let mut queue = Queue::start().await;
    for (number, (verdict, expected)) in (1..).zip(cases) {
        let id = queue.create(subscription(number)).await;
        queue.deliver(1, &[id]).await;
        let lease = queue.lease_one().await;
        for is_held in [true, false] {
            assert_eq!(queue.settle(&[(&lease, verdict)]).await.is_empty(), is_held, "{verdict:?}");
            assert_eq!(counted(&queue, id).await, expected, "{verdict:?}");
        }
        queue.streams.set_active(id, false).await.unwrap();
    }
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn a_late_success_is_counted_once_and_a_late_failure_not_at_all() {
    for (verdict, expected) in [(Verdict::Delivered, attempts(1, 0, 0, 0)), (SOON, attempts(0, 0, 0, 0))] {
        let mut queue = Queue::start().await;
        let id = queue.create(subscription(1)).await;
        queue.deliver(1, &[id]).await;
        let late = queue.lease_one().await;
        queue.lose_leases().await;
        queue.lease_one().await;
        for _ in 0..2 {
            queue.settle(&[(&late, verdict)]).await;
            assert_eq!(counted(&queue, id).await, expected, "{verdict:?}");
        }
        assert_eq!(queue.violations().await, [""; 0]);
    }
}

#[tokio::test]
async fn dead_letters_that_no_attempt_made_are_counted_too() {
    let limits = Limits { max_backlog: 2, max_dead: 10, disable_after: Duration::from_secs(3_600) };
    let mut queue = Queue::with(limits).await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(3, &[id]).await;
    assert_eq!(counted(&queue, id).await.dead, 1, "beyond the backlog");
    for _ in 0..6 {
        queue.lease(1).await;
        queue.lose_leases().await;
    }
    queue.lease(1).await;
    queue.lose_leases().await;
    let dead = queue.streams.oldest_dead_letters(id, StreamId::ZERO, StreamId::MAX, 10).await.unwrap();
    assert_eq!(dead.last().map(|letter| letter.reason), Some(Reason::LeaseLost));
    assert_eq!(counted(&queue, id).await.dead, 2, "given up by lease");
    queue.streams.drop_backlog(id, StreamId::MAX, Reason::MaxAge, "too old", StreamId::ZERO).await.unwrap();
    assert_eq!(counted(&queue, id).await, Statistics { dead: 3, ..Statistics::default() });
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn statistics_of_other_hours_are_read_apart_and_end_after_eight_days() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let lease = queue.lease_one().await;
    queue.settle(&[(&lease, Verdict::Delivered)]).await;
    let () = queue.tamper(&["HSET", &format!("st:{id}:100"), "s0", "3", "b15", "3", "us", "9"]).await;
    let read = queue.streams.statistics(id, 99..=101).await.unwrap();
    let counts: Vec<u64> = read.iter().map(Statistics::attempts).collect();
    assert_eq!(counts, [0, 3, 0]);
    assert_eq!((read[1].classes[0], read[1].buckets[15], read[1].total_us), (3, 3, 9));
    let state = queue.state().await;
    let (name, ttl) = state.ttls.iter().find(|(name, ttl)| name.starts_with("st:") && **ttl >= 0).unwrap();
    let hour: u64 = name.rsplit(':').next().unwrap().parse().unwrap();
    let end = state.now + *ttl as u64;
    // The clock of the state is read a moment before the time to live.
    assert!(((hour + 193) * HOUR_MS).abs_diff(end) < 10_000, "{name} ends at {end}");
}

/// A queue with a subscription that has failed four times, first so many hours ago.
async fn failing(hours: u64) -> (Queue, SubscriptionId) {
    let limits = Limits { max_backlog: 100, max_dead: 100, disable_after: Duration::from_secs(HOURS * 3_600) };
    let mut queue = Queue::with(limits).await;
    let id = queue.create(Subscription { max_concurrency: 1, ..subscription(1) }).await;
    queue.deliver(6, &[id]).await;
    for _ in 0..4 {
        assert!(fail(&mut queue, SOON).await.disabled.is_empty());
    }
    let since = queue.streams.now_ms().await.unwrap() - hours * HOUR_MS;
    let () = queue.tamper(&["HSET", &format!("rt:{id}"), "cfat", &since.to_string()]).await;
    (queue, id)
}

async fn fail(queue: &mut Queue, verdict: Verdict) -> SettleAnswer {
    queue.elapse(1_500).await;
    let lease = queue.lease_one().await;
    queue.streams.settle(SHARD, &[settled(&lease, verdict, &Facts::default())]).await.unwrap()
}

#[tokio::test]
async fn a_subscription_that_has_failed_for_hours_is_disabled_and_loses_nothing() {
    for (verdict, dead) in [(SOON, 0), (Verdict::Exhausted, 1)] {
        let (mut queue, id) = failing(HOURS).await;
        assert_eq!(fail(&mut queue, verdict).await.disabled, [(id, DisabledReason::Failing { hours: HOURS })]);
        let state = queue.streams.subscription(id).await.unwrap().unwrap().state;
        assert_eq!(state.status, Status::Disabled);
        assert_eq!(state.disabled_reason, Some(DisabledReason::Failing { hours: HOURS }));
        assert_eq!((state.fresh + state.waiting, state.leased, state.dead), (6 - dead, 0, dead));
        queue.elapse(600_000).await;
        assert!(queue.lease(10).await.is_empty());
        assert_eq!(queue.violations().await, [""; 0]);

        assert!(queue.streams.set_active(id, true).await.unwrap());
        for _ in 0..6 - dead {
            let lease = queue.lease_one().await;
            queue.settle(&[(&lease, Verdict::Delivered)]).await;
        }
        let state = queue.streams.subscription(id).await.unwrap().unwrap().state;
        assert_eq!((state.status, state.disabled_reason), (Status::Active, None));
        assert_eq!((state.delivered, state.fresh + state.waiting), (6 - dead, 0));
        assert_eq!(queue.violations().await, [""; 0]);
    }
}

#[tokio::test]
async fn a_subscription_that_has_not_failed_long_enough_or_is_paused_is_not_disabled() {
    let (mut queue, id) = failing(HOURS - 1).await;
    assert!(fail(&mut queue, SOON).await.disabled.is_empty());
    assert_eq!(queue.streams.status_of(id).await.unwrap(), Some(Status::Active));

    let (mut queue, id) = failing(HOURS).await;
    queue.elapse(1_500).await;
    let lease = queue.lease_one().await;
    queue.streams.set_active(id, false).await.unwrap();
    queue.settle(&[(&lease, SOON)]).await;
    assert_eq!(queue.streams.status_of(id).await.unwrap(), Some(Status::Paused));
}

#[tokio::test]
async fn one_success_starts_the_time_anew() {
    let (mut queue, id) = failing(HOURS).await;
    fail(&mut queue, Verdict::Delivered).await;
    for _ in 0..5 {
        assert!(fail(&mut queue, SOON).await.disabled.is_empty());
    }
    assert_eq!(queue.streams.status_of(id).await.unwrap(), Some(Status::Active));
}

//! Settling: once, late, twice, and for a subscription that is gone.

use posthaste::domain::subscription::{Status, Subscription};

use crate::support::{
    queue::Queue,
    samples::{Verdict, subscription},
};

const SOON: Verdict = Verdict::Retry { delay_ms: 1_000, retry_after_ms: None };

#[tokio::test]
async fn a_repeated_settle_changes_nothing() {
    let all = [
        Verdict::Delivered,
        Verdict::Retry { delay_ms: 5_000, retry_after_ms: Some(2_000) },
        Verdict::Exhausted,
        Verdict::BodyMissing,
        Verdict::Released,
        Verdict::Gone,
    ];
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    for verdict in all {
        queue.deliver(2, &[id]).await;
        let leases = queue.lease(2).await;
        assert_eq!(queue.settle(&[(&leases[0], verdict)]).await, [0; 0], "{verdict:?}");
        // What is released is due a millisecond later: past, so that the books do not change by themselves.
        queue.elapse(10).await;
        let before = queue.books().await;
        assert_eq!(queue.settle(&[(&leases[0], verdict)]).await, [0], "{verdict:?}");
        assert_eq!(queue.books().await, before, "{verdict:?}");
        assert_eq!(queue.violations().await, [""; 0]);
        queue.settle(&[(&leases[1], Verdict::Delivered)]).await;
        queue.streams.set_active(id, true).await.unwrap();
    }
}

#[tokio::test]
async fn a_late_success_counts_and_a_late_failure_does_not() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    for verdict in [SOON, Verdict::Exhausted, Verdict::Gone, Verdict::Released, Verdict::Delivered] {
        queue.deliver(1, &[id]).await;
        let late = queue.lease_one().await;
        queue.lose_leases().await;
        let current = queue.lease_one().await;
        let before = queue.books().await;
        assert_eq!(queue.settle(&[(&late, verdict)]).await, [0], "{verdict:?}");
        let is_taken = queue.books().await != before;
        assert_eq!(is_taken, verdict == Verdict::Delivered, "{verdict:?}");
        // Whoever has it now is told so.
        assert_eq!(queue.settle(&[(&current, Verdict::Delivered)]).await.is_empty(), !is_taken, "{verdict:?}");
        let state = queue.streams.subscription(id).await.unwrap().unwrap().state;
        assert_eq!((state.fresh, state.waiting, state.leased, state.dead), (0, 0, 0, 0), "{verdict:?}");
        assert_eq!(queue.violations().await, [""; 0]);
    }
}

#[tokio::test]
async fn results_of_two_senders_for_one_delivery_in_one_call_count_once() {
    for second in [Verdict::Delivered, SOON, Verdict::Exhausted] {
        for is_late_first in [true, false] {
            let mut queue = Queue::start().await;
            let id = queue.create(subscription(1)).await;
            let event = queue.deliver(1, &[id]).await[0];
            let late = queue.lease_one().await;
            queue.lose_leases().await;
            let current = queue.lease_one().await;
            let (late, current) = ((&late, Verdict::Delivered), (&current, second));
            let results = if is_late_first { [late, current] } else { [current, late] };
            queue.settle(&results).await;
            assert_eq!(queue.violations().await, [""; 0], "{second:?}, late first: {is_late_first}");
            let state = queue.streams.subscription(id).await.unwrap().unwrap().state;
            let is_dead = second == Verdict::Exhausted && !is_late_first;
            assert_eq!((state.delivered, state.failed), (u64::from(!is_dead), u64::from(is_dead)), "{second:?}");
            let books = queue.state().await;
            assert_eq!(books.hash("refs").contains_key(&event.at.to_string()), is_dead);
            let status = &books.statuses[&event.at][&format!("{id}#0")];
            let attempts = status.split(' ').skip(4).count();
            assert_eq!(attempts, if second == SOON && !is_late_first { 2 } else { 1 }, "{second:?}: {status}");
        }
    }
}

#[tokio::test]
async fn nothing_that_a_purge_has_cleared_is_settled() {
    let mut queue = Queue::start().await;
    let (gone, kept) = (queue.create(subscription(1)).await, queue.create(subscription(2)).await);
    let event = queue.deliver(1, &[gone, kept]).await[0];
    // More than a page of the purge, so that what it leaves for the next one is there between them.
    queue.deliver(100, &[gone]).await;
    queue.deliver(100, &[gone]).await;
    let leases = queue.lease(256).await;
    let lease = leases.iter().find(|lease| lease.subscription == gone && lease.event == event.at).unwrap();
    assert!(queue.streams.delete_subscription(gone).await.unwrap());
    assert!(!queue.streams.purge(gone).await.unwrap());
    let before = queue.books().await;
    assert_eq!(queue.settle(&[(lease, Verdict::Delivered)]).await, [0]);
    assert_eq!(queue.books().await, before, "the other still needs the event");
    assert!(queue.streams.purge(gone).await.unwrap());
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn gone_does_not_bring_a_deleted_subscription_back() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let lease = queue.lease_one().await;
    assert!(queue.streams.delete_subscription(id).await.unwrap());
    queue.settle(&[(&lease, Verdict::Gone)]).await;
    assert_eq!(queue.streams.subscription(id).await.unwrap(), None);
    assert!(queue.streams.purge(id).await.unwrap());
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn gone_disables_and_what_is_published_is_collected() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let lease = queue.lease_one().await;
    queue.settle(&[(&lease, Verdict::Gone)]).await;
    queue.deliver(1, &[id]).await;
    let state = queue.streams.subscription(id).await.unwrap().unwrap().state;
    assert_eq!((state.status, state.fresh, state.dead), (Status::Disabled, 1, 1));
    assert!(queue.lease(10).await.is_empty());
    assert!(queue.streams.set_active(id, true).await.unwrap());
    assert_eq!(queue.lease(10).await.len(), 1);
}

#[tokio::test]
async fn five_failures_over_ten_seconds_hold_a_subscription_until_one_succeeds() {
    let mut queue = Queue::start().await;
    let id = queue.create(Subscription { max_concurrency: 4, ..subscription(1) }).await;
    queue.deliver(12, &[id]).await;
    // Ten requests that fail together are one failure.
    let together = queue.lease(4).await;
    let results: Vec<_> = together.iter().map(|lease| (lease, SOON)).collect();
    queue.settle(&results).await;
    assert_eq!(queue.state().await.subscriptions[&id.to_string()].number("cf"), 1);
    for failures in [2, 3, 4, 5, 5, 5] {
        queue.elapse(1_800).await;
        let lease = queue.lease(1).await.remove(0);
        queue.settle(&[(&lease, SOON)]).await;
        assert_eq!(queue.state().await.subscriptions[&id.to_string()].number("cf"), failures);
    }
    // Each try that fails doubles the time that it is held.
    for hold_ms in [500, 1_000, 2_000] {
        queue.elapse(hold_ms - 300).await;
        assert!(queue.lease(4).await.is_empty(), "held for {hold_ms} ms");
        queue.elapse(300).await;
        let probe = queue.lease(4).await;
        assert_eq!(probe.len(), 1, "one at a time may try");
        let verdict = if hold_ms < 2_000 { SOON } else { Verdict::Delivered };
        queue.settle(&[(&probe[0], verdict)]).await;
    }
    assert_eq!(queue.lease(4).await.len(), 4);
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn every_result_is_recorded_and_a_late_one_is_marked() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let late = queue.lease_one().await;
    queue.lose_leases().await;
    let current = queue.lease_one().await;
    queue.settle(&[(&current, SOON), (&late, SOON)]).await;
    let page = queue.streams.attempts_of(id, &Default::default(), None, 10).await.unwrap();
    let marks: Vec<bool> = page.attempts.iter().map(|(_, attempt)| attempt.is_late).collect();
    assert_eq!(marks, [true, false], "newest first");
}

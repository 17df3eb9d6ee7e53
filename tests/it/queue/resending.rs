//! One delivery sent once more: what becomes of it depends on where it stands, and a repeat of the call does nothing.

use posthaste::{
    domain::id::DeliveryId,
    streams::{Limits, Resend},
};

use crate::support::{
    queue::Queue,
    samples::{DISABLE_AFTER, Verdict, subscription},
};

const LATER: Verdict = Verdict::Retry { delay_ms: 600_000, retry_after_ms: Some(600_000) };

async fn resend(queue: &Queue, id: DeliveryId, call: &str) -> Resend {
    queue.streams.resend(id, call).await.unwrap()
}

#[tokio::test]
async fn what_waits_for_its_retry_is_due_at_once_whatever_holds_its_webhook_back() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let delivery = {
        let lease = queue.lease_one().await;
        assert_eq!(resend(&queue, lease.delivery(), "leased").await, Resend::Open);
        queue.settle(&[(&lease, LATER)]).await;
        lease.delivery()
    };
    assert!(queue.lease(10).await.is_empty());
    assert_eq!(resend(&queue, delivery, "one").await, Resend::Due);
    assert_eq!(queue.violations().await, [""; 0]);
    let lease = queue.lease_one().await;
    assert_eq!((lease.delivery(), lease.attempt), (delivery, 2));
    queue.settle(&[(&lease, LATER)]).await;
    let before = queue.books().await;
    assert_eq!(resend(&queue, delivery, "one").await, Resend::Due, "the answer of the first call");
    assert_eq!(queue.books().await, before);
}

#[tokio::test]
async fn what_has_ended_is_put_to_its_webhook_again_once_as_the_next_copy() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let lease = queue.lease_one().await;
    let first = lease.delivery();
    queue.settle(&[(&lease, Verdict::Delivered)]).await;
    for copy in 1..3 {
        let call = format!("copy{copy}");
        let expected = DeliveryId { copy, ..first };
        for _ in 0..2 {
            assert_eq!(resend(&queue, first, &call).await, Resend::Copied(expected));
        }
        assert_eq!(queue.violations().await, [""; 0]);
        let lease = queue.lease_one().await;
        assert_eq!((lease.delivery(), lease.attempt_number()), (expected, 1));
        queue.settle(&[(&lease, Verdict::Delivered)]).await;
    }
    // A purged dead letter has ended too.
    queue.deliver(1, &[id]).await;
    let lease = queue.lease_one().await;
    queue.settle(&[(&lease, Verdict::Exhausted)]).await;
    let Resend::Dead(letter) = resend(&queue, lease.delivery(), "dead").await else { panic!("it is a dead letter") };
    assert_eq!(queue.streams.discard(id, &[letter]).await.unwrap(), 1);
    assert!(matches!(resend(&queue, lease.delivery(), "purged").await, Resend::Copied(_)));
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn a_paused_webhook_takes_it_and_sends_when_it_goes_on() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(2, &[id]).await;
    let leases = queue.lease(2).await;
    queue.settle(&[(&leases[0], Verdict::Delivered), (&leases[1], LATER)]).await;
    queue.streams.set_active(id, false).await.unwrap();
    assert!(matches!(resend(&queue, leases[0].delivery(), "one").await, Resend::Copied(_)));
    assert_eq!(resend(&queue, leases[1].delivery(), "two").await, Resend::Due);
    assert!(queue.lease(10).await.is_empty());
    assert_eq!(queue.violations().await, [""; 0]);
    queue.streams.set_active(id, true).await.unwrap();
    assert_eq!(queue.lease(10).await.len(), 2);
}

#[tokio::test]
async fn what_cannot_be_sent_says_why_and_changes_nothing() {
    let mut queue = Queue::with(Limits { max_backlog: 1, max_dead: 10, disable_after: DISABLE_AFTER }).await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let lease = queue.lease_one().await;
    let delivery = lease.delivery();
    queue.settle(&[(&lease, Verdict::Delivered)]).await;
    queue.deliver(1, &[id]).await;
    let before = queue.books().await;
    assert_eq!(resend(&queue, delivery, "full").await, Resend::Full);
    assert_eq!(resend(&queue, DeliveryId { copy: 7, ..delivery }, "unknown").await, Resend::Unknown);
    assert_eq!(queue.books().await, before);
    let other = queue.lease_one().await;
    queue.settle(&[(&other, Verdict::Delivered)]).await;
    queue.streams.trim_events(0, posthaste::domain::id::StreamId::MAX).await.unwrap();
    assert_eq!(resend(&queue, delivery, "lost").await, Resend::Lost);
    queue.streams.delete_subscription(id).await.unwrap();
    assert_eq!(resend(&queue, delivery, "gone").await, Resend::Gone);
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn an_event_is_put_to_a_webhook_a_thousand_times_more_at_most() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let lease = queue.lease_one().await;
    queue.settle(&[(&lease, Verdict::Delivered)]).await;
    // As after so many resends, all delivered.
    let key = format!("evs:{}", lease.event);
    for copy in 1..=1_000 {
        let field = format!("{id}#{copy}");
        let _: i64 = queue.tamper(&["HSET", &key, &field, "k 1-1 1 200"]).await;
    }
    assert_eq!(resend(&queue, lease.delivery(), "one more").await, Resend::Many);
}

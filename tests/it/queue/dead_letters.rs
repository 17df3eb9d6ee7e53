//! Dead letters: sent once more, thrown away, and dropped backlogs.

use posthaste::{
    domain::{
        id::{StreamId, SubscriptionId},
        outcome::Reason,
    },
    streams::{DeadLetter, Limits, Redriven},
};

use crate::support::{
    queue::Queue,
    samples::{DISABLE_AFTER, Verdict, subscription},
};

async fn letters(queue: &Queue, id: SubscriptionId) -> Vec<DeadLetter> {
    queue.streams.oldest_dead_letters(id, StreamId::ZERO, StreamId::MAX, 100).await.unwrap()
}

/// Makes so many dead letters.
async fn bury(queue: &mut Queue, id: SubscriptionId, count: usize) -> Vec<DeadLetter> {
    queue.deliver(count, &[id]).await;
    let leases = queue.lease(count).await;
    let results: Vec<_> = leases.iter().map(|lease| (lease, Verdict::Exhausted)).collect();
    queue.settle(&results).await;
    letters(queue, id).await
}

#[tokio::test]
async fn a_redrive_keeps_the_delivery_and_counts_its_attempts_on() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    let mut letter = bury(&mut queue, id, 1).await.remove(0);
    for round in 1..4 {
        assert_eq!(letter.attempts, round);
        let redriven = queue.streams.redrive(id, &[letter.entry]).await.unwrap();
        assert_eq!(redriven, Redriven { count: 1, is_full: false, is_gone: false });
        assert_eq!(queue.violations().await, [""; 0]);
        let lease = queue.lease_one().await;
        assert_eq!((lease.delivery(), lease.attempt, lease.attempt_number()), (letter.delivery, 1, round + 1));
        queue.settle(&[(&lease, Verdict::Exhausted)]).await;
        letter = letters(&queue, id).await.remove(0);
    }
    let state = queue.streams.subscription(id).await.unwrap().unwrap().state;
    assert_eq!(state.failed, 1, "it is one delivery");
}

#[tokio::test]
async fn a_letter_named_twice_or_unknown_is_taken_once_or_not_at_all() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    let entries: Vec<StreamId> = bury(&mut queue, id, 2).await.iter().map(|letter| letter.entry).collect();
    let twice = [entries[0], StreamId { ms: 1, seq: 1 }, entries[0]];
    assert_eq!(queue.streams.redrive(id, &twice).await.unwrap().count, 1);
    assert_eq!(queue.violations().await, [""; 0]);
    assert_eq!(queue.streams.discard(id, &[entries[1], entries[1], entries[0]]).await.unwrap(), 1);
    assert_eq!(queue.violations().await, [""; 0]);
    assert_eq!(queue.streams.redrive(id, &entries).await.unwrap().count, 0);
}

#[tokio::test]
async fn a_redrive_stops_at_a_full_backlog() {
    let mut queue = Queue::with(Limits { max_backlog: 2, max_dead: 10, disable_after: DISABLE_AFTER }).await;
    let id = queue.create(subscription(1)).await;
    bury(&mut queue, id, 2).await;
    let entries: Vec<StreamId> = bury(&mut queue, id, 1).await.iter().map(|letter| letter.entry).collect();
    let redriven = queue.streams.redrive(id, &entries).await.unwrap();
    assert_eq!(redriven, Redriven { count: 2, is_full: true, is_gone: false });
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn a_dropped_backlog_spares_what_is_held_and_takes_what_was_abandoned() {
    for (is_lost, spared) in [(false, 1), (true, 0)] {
        let mut queue = Queue::start().await;
        let id = queue.create(subscription(1)).await;
        queue.deliver(3, &[id]).await;
        let waiting = queue.lease(1).await.remove(0);
        queue.settle(&[(&waiting, Verdict::Retry { delay_ms: 90_000, retry_after_ms: None })]).await;
        let held = queue.lease(1).await.remove(0);
        if is_lost {
            queue.lose_leases().await;
        }
        let dropped =
            queue.streams.drop_backlog(id, StreamId::MAX, Reason::MaxAge, "too old", StreamId::ZERO).await.unwrap();
        assert_eq!(dropped, (3 - spared, None), "lost: {is_lost}");
        assert_eq!(queue.violations().await, [""; 0]);
        let attempts: Vec<u32> = letters(&queue, id).await.iter().map(|letter| letter.attempts).collect();
        assert_eq!(attempts, if is_lost { vec![1, 1, 0] } else { vec![1, 0] });
        assert_eq!(queue.settle(&[(&held, Verdict::Delivered)]).await.is_empty(), !is_lost);
        assert_eq!(queue.violations().await, [""; 0]);
    }
}

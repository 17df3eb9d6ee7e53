//! Leasing: whose turn it is, which attempt it is, and what a lost lease means.

use posthaste::{
    domain::id::StreamId,
    domain::{
        id::SubscriptionId,
        outcome::Reason,
        subscription::{Ordering, Subscription},
    },
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::support::{
    queue::{KEYS, Queue, SHARD},
    samples::{Verdict, subscription},
    state::command,
};

const NOW: Verdict = Verdict::Retry { delay_ms: 0, retry_after_ms: None };

#[tokio::test]
async fn a_failure_raises_the_attempt_number_and_an_expired_lease_does_not() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let mut lost_before = 0;
    for (attempt, is_lost) in [(1, true), (1, true), (1, false), (2, true), (2, false), (3, false)] {
        let lease = queue.lease_one().await;
        assert_eq!((lease.attempt, lease.leases_lost), (attempt, lost_before));
        if is_lost {
            queue.lose_leases().await;
            lost_before += 1;
        } else {
            queue.settle(&[(&lease, NOW)]).await;
            queue.elapse(1).await;
            lost_before = 0;
        }
        assert_eq!(queue.violations().await, [""; 0]);
    }
}

#[tokio::test]
async fn what_is_handed_back_unsent_is_no_attempt_and_keeps_its_lost_leases() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    for lost in [0, 1, 2] {
        let lease = queue.lease_one().await;
        assert_eq!((lease.attempt, lease.leases_lost), (1, lost));
        queue.settle(&[(&lease, Verdict::Released)]).await;
        queue.elapse(10).await;
        let lease = queue.lease_one().await;
        assert_eq!((lease.attempt, lease.leases_lost), (1, lost));
        queue.lose_leases().await;
    }
}

#[tokio::test]
async fn the_sixth_lost_lease_makes_a_dead_letter() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    for lost in 0..6 {
        assert_eq!(queue.lease_one().await.leases_lost, lost);
        queue.lose_leases().await;
    }
    assert!(queue.lease(10).await.is_empty());
    let letters = queue.streams.dead_letters(id, StreamId::MAX, StreamId::ZERO, 10).await.unwrap();
    assert_eq!((letters.len(), letters[0].reason, letters[0].attempts), (1, Reason::LeaseLost, 1));
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn renewing_keeps_a_lease_that_is_still_held_and_no_other() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let first = queue.lease_one().await;
    queue.elapse(10_000).await;
    assert!(queue.streams.renew(SHARD, std::slice::from_ref(&first)).await.unwrap().is_empty());
    queue.elapse(10_000).await;
    assert!(queue.lease(10).await.is_empty(), "it was renewed");
    queue.elapse(5_001).await;
    let second = queue.lease_one().await;
    assert_eq!(queue.streams.renew(SHARD, &[first, second]).await.unwrap(), [0]);
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn a_lease_that_takes_nothing_leaves_due_later_than_now() {
    let rate_limited = Subscription { rate_limit_per_minute: Some(60), ..subscription(1) };
    let fifo = Subscription { ordering: Ordering::Fifo, ..subscription(2) };
    let slow = Verdict::Retry { delay_ms: 60_000, retry_after_ms: None };
    let keep_away = Verdict::Retry { delay_ms: 0, retry_after_ms: Some(60_000) };
    for (subscription, verdict) in [(rate_limited, Verdict::Delivered), (fifo, slow), (subscription(3), keep_away)] {
        let mut queue = Queue::start().await;
        let name = subscription.name.clone();
        let id = queue.create(subscription).await;
        queue.deliver(3, &[id]).await;
        let leases = queue.lease(1).await;
        queue.settle(&[(&leases[0], verdict)]).await;
        // What a stale due time looks like.
        let _: u64 = queue.tamper(&["ZADD", "due", "1", &id.to_string()]).await;
        let answer = queue.streams.lease(SHARD, 10).await.unwrap();
        assert!(answer.leases.is_empty(), "{name}");
        assert!(answer.next_due_ms.unwrap() > answer.now_ms, "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn the_rate_limit_holds_in_every_window() {
    const PER_MINUTE: u32 = 600;
    const INTERVAL_MS: u64 = 101;
    let mut queue = Queue::start().await;
    let limited = Subscription { rate_limit_per_minute: Some(PER_MINUTE), max_concurrency: 50, ..subscription(1) };
    let id = queue.create(limited).await;
    queue.deliver(100, &[id]).await;
    let mut random = SmallRng::seed_from_u64(7);
    let (mut sent_at, mut passed) = (Vec::new(), 0);
    while sent_at.len() < 60 {
        let answer = queue.streams.lease(SHARD, 10).await.unwrap();
        sent_at.extend(answer.leases.iter().map(|_| answer.now_ms + passed));
        let results: Vec<_> = answer.leases.iter().map(|lease| (lease, Verdict::Delivered)).collect();
        queue.settle(&results).await;
        let ms = random.random_range(0..300);
        queue.elapse(ms).await;
        passed += ms;
    }
    for (index, first) in sent_at.iter().enumerate() {
        for (others, last) in sent_at[index..].iter().enumerate() {
            let window_ms = last - first + 1;
            assert!(others as u64 <= window_ms.div_ceil(INTERVAL_MS), "{} sends in {window_ms} ms", others + 1);
        }
    }
}

#[tokio::test]
async fn a_lost_group_is_made_anew_and_everything_left_is_delivered_once_more() {
    for ordering in [Ordering::None, Ordering::Fifo] {
        let mut queue = Queue::start().await;
        let id = queue.create(Subscription { ordering, ..subscription(1) }).await;
        queue.deliver(3, &[id]).await;
        let before = queue.lease(1).await.remove(0);
        queue.settle(&[(&before, Verdict::Retry { delay_ms: 1_000, retry_after_ms: None })]).await;
        let _: u64 =
            command(&mut queue.connection, &["XGROUP", "DESTROY", &format!("{KEYS}:dlv:{id}"), "senders"]).await;
        // Nothing else stumbles over it meanwhile.
        queue.deliver(1, &[id]).await;
        assert_eq!(queue.settle(&[(&before, Verdict::Delivered)]).await, [0]);
        queue.elapse(1_000).await;
        queue.lease(10).await;
        let delivered = drain(&mut queue, id).await;
        assert_eq!(delivered, 4, "{ordering:?}");
        assert_eq!(queue.violations().await, [""; 0]);
    }
}

/// Delivers all there is; returns how many deliveries there were.
async fn drain(queue: &mut Queue, id: SubscriptionId) -> u64 {
    loop {
        let leases = queue.lease(10).await;
        if leases.is_empty() {
            let state = queue.streams.subscription(id).await.unwrap().unwrap().state;
            assert_eq!((state.fresh, state.waiting, state.leased), (0, 0, 0));
            return state.delivered;
        }
        let results: Vec<_> = leases.iter().map(|lease| (lease, Verdict::Delivered)).collect();
        queue.settle(&results).await;
    }
}

#[tokio::test]
async fn a_webhook_that_is_due_keeps_its_turn_whatever_else_comes_for_it() {
    let mut queue = Queue::start().await;
    let (busy, quiet) = (queue.create(subscription(1)).await, queue.create(subscription(2)).await);
    let first = queue.deliver(1, &[busy]).await[0];
    queue.elapse(5).await;
    let second = queue.deliver(1, &[quiet]).await[0];
    queue.elapse(5).await;
    let third = queue.deliver(1, &[busy]).await[0];
    let now_ms = queue.streams.now_ms().await.unwrap();
    let due_since_ms = queue.streams.figures(SHARD, now_ms).await.unwrap().due_since_ms.expect("something is due");
    assert!(now_ms - due_since_ms >= 10, "{now_ms} {due_since_ms}");
    let mut turns = Vec::new();
    for _ in 0..3 {
        turns.extend(queue.lease(1).await.into_iter().map(|lease| (lease.subscription, lease.event)));
    }
    // It has had its turn after the first, and the other comes next.
    assert_eq!(turns, [(busy, first.at), (quiet, second.at), (busy, third.at)]);
    assert_eq!(queue.streams.figures(SHARD, now_ms).await.unwrap().due_since_ms, None);
}

#[tokio::test]
async fn a_webhook_with_a_damaged_key_holds_up_no_other() {
    for name in ["inf", "tok", "rt"] {
        let mut queue = Queue::start().await;
        let ids = [queue.create(subscription(1)).await, queue.create(subscription(2)).await];
        queue.deliver(1, &ids).await;
        let due: Vec<String> = queue.tamper(&["ZRANGE", "due", "0", "-1"]).await;
        let damaged = format!("{name}:{}", due[0]);
        if name == "rt" {
            let _: u64 = queue.tamper(&["COPY", &damaged, &format!("{KEYS}:whole")]).await;
        }
        let () = queue.tamper(&["SET", &damaged, "damaged"]).await;
        let told = queue.streams.lease(SHARD, 10).await.expect_err("an error once");
        assert!(told.to_string().contains("WRONGTYPE"), "{name}: {told}");
        assert_eq!(queue.lease_one().await.subscription.to_string(), due[1], "{name}");
        assert!(queue.lease(10).await.is_empty(), "the damaged one is not looked at all the time");
        let _: u64 = queue.tamper(&["DEL", &damaged]).await;
        if name == "rt" {
            let () = queue.tamper(&["RENAME", "whole", &format!("{KEYS}:{damaged}")]).await;
        }
        queue.streams.audit(due[0].parse().unwrap()).await.unwrap();
        queue.elapse(30_000).await;
        assert!(queue.lease(10).await.iter().any(|lease| lease.subscription.to_string() == due[0]), "{name}");
    }
}

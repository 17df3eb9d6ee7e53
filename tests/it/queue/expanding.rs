//! Expanding events, trimming the log, and replaying parts of it.

use posthaste::{
    domain::id::{StreamId, SubscriptionId},
    streams::{Expanded, Expansion, Job, JobState, Lease, Limits, Queued, Refusal},
};

use crate::support::{
    queue::{Queue, SHARD, whole},
    samples::{DISABLE_AFTER, Verdict, subscription},
};

fn done(done: usize) -> Expanded {
    Expanded { done, refusal: None, overflowed: 0 }
}

fn refused(refusal: Refusal) -> Expanded {
    Expanded { done: 0, refusal: Some(refusal), overflowed: 0 }
}

async fn create_three(queue: &Queue) -> [SubscriptionId; 3] {
    [queue.create(subscription(1)).await, queue.create(subscription(2)).await, queue.create(subscription(3)).await]
}

#[tokio::test]
async fn an_expansion_is_made_once_in_the_order_of_the_log_and_from_where_it_stands() {
    let mut queue = Queue::start().await;
    let subs = create_three(&queue).await;
    let events = queue.publish(2).await;
    let [first, second] = [whole(StreamId::ZERO, events[0].at, &subs), whole(events[0].at, events[1].at, &subs)];
    let start = Expansion { up_to: Some(subs[0]), targets: vec![subs[0]], ..first.clone() };
    let rest = Expansion { after: Some(subs[0]), targets: subs[1..].to_vec(), ..first.clone() };
    for (chunk, expected) in [
        (&second, refused(Refusal::Order(StreamId::ZERO))),
        (&rest, refused(Refusal::Cursor(None))),
        (&start, done(1)),
        (&start, refused(Refusal::Cursor(Some(subs[0])))),
        (&second, refused(Refusal::Order(StreamId::ZERO))),
        (&rest, done(1)),
        (&rest, done(1)),
        (&first, done(1)),
        (&second, done(1)),
        (&second, done(1)),
    ] {
        assert_eq!(queue.streams.expand(SHARD, std::slice::from_ref(chunk)).await.unwrap(), expected, "{chunk:?}");
        assert_eq!(queue.violations().await, [""; 0]);
    }
    let state = queue.state().await;
    for id in subs {
        let owed: Vec<StreamId> = state.subscriptions[&id.to_string()].owed.iter().map(|owed| owed.event).collect();
        assert_eq!(owed, [first.event, second.event]);
    }
}

/// Publishes an event and expands it; returns what was handed out then, if something could be.
async fn publish_and_hand_out(queue: &mut Queue, targets: &[SubscriptionId], room: usize) -> Option<Vec<Lease>> {
    queue.publish(1).await;
    let (previous, at) = queue.undone().await[0];
    let chunk = whole(previous, at, targets);
    let (expanded, leased) = queue.streams.expand_and_lease(SHARD, &[chunk], room).await.unwrap();
    assert_eq!(expanded, done(1));
    leased.map(|leased| leased.leases)
}

/// As a read may bring it that began before others went on.
#[tokio::test]
async fn what_is_expanded_is_not_expanded_again_whatever_it_is_said_to_follow() {
    let mut queue = Queue::start().await;
    let subs = create_three(&queue).await;
    let events = queue.deliver(2, &subs).await;
    let books = queue.books().await;
    let old = whole(events[1].at, events[0].at, &subs);
    assert_eq!(queue.streams.expand(SHARD, &[old]).await.unwrap(), done(1));
    assert!(!queue.streams.bury_event(SHARD, events[1].at, events[0].at, "old").await.unwrap());
    assert_eq!(queue.books().await, books);
}

#[tokio::test]
async fn a_batch_stops_at_its_first_refusal_and_those_deleted_meanwhile_are_passed_over() {
    let mut queue = Queue::start().await;
    let subs = create_three(&queue).await;
    let events = queue.publish(3).await;
    assert!(queue.streams.delete_subscription(subs[1]).await.unwrap());
    let [first, second, third] = [events[0].at, events[1].at, events[2].at];
    let chunks = [(StreamId::ZERO, first), (second, third), (first, second)];
    let chunks = chunks.map(|(previous, event)| whole(previous, event, &subs));
    let expanded = queue.streams.expand(SHARD, &chunks).await.unwrap();
    assert_eq!(expanded, Expanded { done: 1, refusal: Some(Refusal::Order(first)), overflowed: 0 });
    assert_eq!(queue.violations().await, [""; 0]);
    assert_eq!(queue.state().await.hash("refs").get(&first.to_string()), Some(&"2".to_owned()));
}

#[tokio::test]
async fn what_is_expanded_is_handed_out_in_the_same_call_and_senders_are_woken_for_what_is_left() {
    let mut queue = Queue::start().await;
    let subs = create_three(&queue).await;
    assert!(queue.lease(10).await.is_empty(), "nothing is due: senders sleep");
    for (room, count) in [(5, 3), (3, 3), (2, 2), (0, 0)] {
        let mut leases = publish_and_hand_out(&mut queue, &subs, room).await.unwrap_or_default();
        let event = queue.state().await.expanded;
        assert_eq!(leases.len(), count);
        let sleep: bool = queue.tamper(&["EXISTS", "asleep"]).await;
        assert_eq!(sleep, count == subs.len());
        leases.append(&mut queue.lease(10).await);
        assert_eq!(leases.len(), subs.len());
        assert!(leases.iter().all(|lease| (lease.event, lease.attempt) == (event, 1)), "{leases:?}");
        assert_eq!(queue.violations().await, [""; 0]);
        let results: Vec<_> = leases.iter().map(|lease| (lease, Verdict::Delivered)).collect();
        assert_eq!(queue.settle(&results).await, [0; 0]);
        assert_eq!(queue.violations().await, [""; 0]);
    }
}

#[tokio::test]
async fn whoever_waits_for_its_turn_comes_before_what_is_just_expanded() {
    let mut queue = Queue::start().await;
    let [waits, new, _] = create_three(&queue).await;
    queue.deliver(1, &[waits]).await;
    queue.elapse(1).await;
    let leases = publish_and_hand_out(&mut queue, &[new], 1).await.unwrap();
    assert_eq!(leases.iter().map(|lease| lease.subscription).collect::<Vec<_>>(), [waits]);
    assert_eq!(queue.lease_one().await.subscription, new);
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn what_cannot_be_handed_out_holds_up_nothing_that_is_expanded() {
    let mut queue = Queue::start().await;
    let [first, broken, id] = create_three(&queue).await;
    queue.deliver(1, &[first]).await;
    queue.elapse(1).await;
    queue.deliver(1, &[broken]).await;
    let leases = format!("inf:{broken}");
    let () = queue.tamper(&["SET", &leases, "no set"]).await;
    let told = publish_and_hand_out(&mut queue, &[id], 10).await.unwrap();
    assert_eq!(told.iter().map(|lease| lease.subscription).collect::<Vec<_>>(), [first], "what came before it is told");
    assert!(publish_and_hand_out(&mut queue, &[id], 10).await.is_none());
    assert!(queue.streams.lease(SHARD, 10).await.is_err(), "a sender is told why");
    let () = queue.tamper(&["DEL", &leases]).await;
    queue.elapse(30_000).await;
    let leased: Vec<_> = queue.lease(10).await.iter().map(|lease| lease.subscription).collect();
    assert!(leased.contains(&broken) && leased.contains(&id), "{leased:?}");
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn a_full_backlog_makes_dead_letters_and_a_full_list_of_those_drops_the_oldest() {
    let mut queue = Queue::with(Limits { max_backlog: 2, max_dead: 2, disable_after: DISABLE_AFTER }).await;
    let id = queue.create(subscription(1)).await;
    let events = queue.deliver(5, &[id]).await;
    let letters = queue.streams.dead_letters(id, StreamId::MAX, StreamId::ZERO, 10).await.unwrap();
    let dead: Vec<StreamId> = letters.iter().map(|letter| letter.delivery.event).collect();
    assert_eq!(dead, [events[4].at, events[3].at], "newest first");
    let figures = queue.streams.figures(SHARD, 0).await.unwrap();
    assert_eq!((figures.counts.fresh, figures.counts.dead, figures.counts.dropped), (2, 2, 1));
    assert!(!queue.state().await.hash("refs").contains_key(&events[2].at.to_string()));
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn a_status_ages_once_its_event_is_expanded_to_the_end_and_owed_to_nobody() {
    let mut queue = Queue::start().await;
    let [wanting, gone, _] = create_three(&queue).await;
    let event = queue.publish(1).await[0].at;
    let whole = whole(StreamId::ZERO, event, &[wanting]);
    let status = format!("evs:{event}");
    let start = Expansion { up_to: Some(wanting), ..whole.clone() };
    assert_eq!(queue.streams.expand(SHARD, &[start]).await.unwrap(), done(1));
    let lease = queue.lease_one().await;
    queue.settle(&[(&lease, Verdict::Delivered)]).await;
    assert_eq!(queue.tamper::<i64>(&["PTTL", &status]).await, -1, "others may want it");
    assert!(queue.streams.delete_subscription(gone).await.unwrap());
    let rest = Expansion { after: Some(wanting), targets: Vec::new(), ..whole };
    assert_eq!(queue.streams.expand(SHARD, &[rest]).await.unwrap(), done(1));
    assert!(queue.tamper::<i64>(&["PTTL", &status]).await > 0);
    assert_eq!(queue.violations().await, [""; 0]);
}

#[tokio::test]
async fn a_trim_keeps_the_bodies_that_are_still_owed_and_stops_at_what_is_not_expanded() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    let owed = queue.deliver(1, &[id]).await[0];
    let unwanted = queue.deliver(1, &[]).await[0];
    let unread = queue.publish(1).await[0];
    assert_eq!(queue.streams.trim_events(SHARD, StreamId::MAX).await.unwrap(), (2, 1));
    assert_eq!(queue.violations().await, [""; 0]);
    assert_eq!(queue.streams.event(owed).await.unwrap().unwrap().data, &br#"{"n":1}"#[..]);
    assert_eq!(queue.streams.event(unwanted).await.unwrap(), None);
    assert!(queue.streams.event(unread).await.unwrap().is_some());
    let lease = queue.lease_one().await;
    queue.settle(&[(&lease, Verdict::Delivered)]).await;
    assert_eq!(queue.streams.event(owed).await.unwrap(), None);
    assert_eq!(queue.violations().await, [""; 0]);
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

#[tokio::test]
async fn a_replay_takes_the_next_copy_and_a_repeated_call_of_it_none() {
    let mut queue = Queue::start().await;
    let (id, other) = (queue.create(subscription(1)).await, queue.create(subscription(2)).await);
    let event = queue.deliver(1, &[id]).await[0];
    for (target, copies) in [(id, vec![0, 1]), (id, vec![0, 1, 2]), (other, vec![0])] {
        let job = job(target);
        queue.streams.create_job(&job).await.unwrap();
        let next = event.at.next();
        assert_eq!(queue.streams.replay(&job, next, true, &[event.at]).await.unwrap(), Queued::Done(1));
        assert_eq!(queue.streams.replay(&job, next, true, &[event.at]).await.unwrap(), Queued::MovedOn(next));
        let state = queue.state().await;
        let owed = state.subscriptions[&target.to_string()].owed.iter().map(|owed| owed.copy);
        assert_eq!(owed.collect::<Vec<_>>(), copies);
        assert_eq!(queue.violations().await, [""; 0]);
    }
}

#[tokio::test]
async fn a_replay_waits_for_room_and_for_what_is_not_expanded_and_ends_with_its_subscription() {
    let mut queue = Queue::with(Limits { max_backlog: 2, max_dead: 2, disable_after: DISABLE_AFTER }).await;
    let id = queue.create(subscription(1)).await;
    let owed = queue.deliver(1, &[id]).await[0];
    let unread = queue.publish(1).await[0];
    let job = job(id);
    queue.streams.create_job(&job).await.unwrap();
    let replay = async |events: &[StreamId]| queue.streams.replay(&job, unread.at.next(), true, events).await.unwrap();
    assert_eq!(replay(&[unread.at]).await, Queued::Later);
    assert_eq!(replay(&[owed.at, owed.at]).await, Queued::Later);
    assert!(queue.streams.delete_subscription(id).await.unwrap());
    assert_eq!(replay(&[owed.at]).await, Queued::Gone);
    assert_eq!(queue.streams.job(SHARD, "job").await.unwrap().unwrap().state, JobState::Cancelled);
    assert!(queue.streams.running_jobs(&[SHARD]).await.unwrap().is_empty());
}

//! The audit and the recount: what is damaged is mended, what is whole is left alone.

use posthaste::domain::{id::SubscriptionId, subscription::Subscription};

use crate::support::{
    queue::{KEYS, Queue, SHARD, whole},
    samples::{Verdict, subscription},
    state::command,
};

const LATER: Verdict = Verdict::Retry { delay_ms: 60_000, retry_after_ms: None };

/// So many deliveries that wait for their next attempt.
async fn wait_for_retry(queue: &mut Queue, id: SubscriptionId, count: usize) {
    for chunk in 0..count.div_ceil(100) {
        queue.deliver(100.min(count - chunk * 100), &[id]).await;
    }
    loop {
        let leases = queue.lease(256).await;
        if leases.is_empty() {
            return;
        }
        for leases in leases.chunks(64) {
            queue.settle(&leases.iter().map(|lease| (lease, LATER)).collect::<Vec<_>>()).await;
        }
    }
}

#[tokio::test]
async fn an_audit_of_ten_thousand_waiting_mends_and_a_second_one_changes_nothing() {
    const WAITING: u64 = 10_000;
    let mut queue = Queue::start().await;
    let id = queue.create(Subscription { max_concurrency: 256, ..subscription(1) }).await;
    wait_for_retry(&mut queue, id, WAITING as usize).await;
    assert_eq!(queue.streams.audit(id).await.unwrap(), 0, "nothing is amiss");
    // Half of what says when they are due is lost.
    let first: Vec<String> = queue.tamper(&["ZRANGE", &format!("rty:{id}"), "0", "4999"]).await;
    let lost: Vec<&str> = first.iter().map(String::as_str).collect();
    let _: u64 = queue.tamper(&[&["ZREM", &format!("rty:{id}")], &lost[..]].concat()).await;
    assert!(!queue.violations().await.is_empty());
    assert_eq!(queue.streams.audit(id).await.unwrap(), WAITING / 2);
    assert_eq!(queue.violations().await, [""; 0]);
    let mended = queue.books().await;
    assert_eq!(queue.streams.audit(id).await.unwrap(), 0);
    assert_eq!(queue.books().await, mended);
}

#[tokio::test]
async fn an_audit_mends_each_kind_of_damage() {
    let id = subscription(1).id;
    let (dlv, inf, rty) = (format!("dlv:{id}"), format!("inf:{id}"), format!("rty:{id}"));
    let far = "99999999999999";
    // The damage, and how much of it is found. E1 is leased, E2 waits, E3 is new.
    let damages: [(&str, Vec<Vec<&str>>, u64); 8] = [
        ("a lease lost", vec![vec!["DEL", &inf]], 1),
        ("a retry lost", vec![vec!["DEL", &rty]], 1),
        ("an alien lease and retry", vec![vec!["ZADD", &inf, "5", "1-1"], vec!["ZADD", &rty, "5", "1-2"]], 2),
        ("both leased and waiting", vec![vec!["ZADD", &rty, far, "E1"]], 1),
        ("a lease far ahead", vec![vec!["ZADD", &inf, far, "E1"]], 1),
        ("a retry far ahead", vec![vec!["ZADD", &rty, far, "E2"]], 1),
        ("no longer pending", vec![vec!["XACK", &dlv, "senders", "E1", "E2"]], 2),
        ("no group", vec![vec!["XGROUP", "DESTROY", &dlv, "senders"]], 3),
    ];
    for (name, commands, expected) in damages {
        let mut queue = Queue::start().await;
        queue.create(subscription(1)).await;
        wait_for_retry(&mut queue, id, 1).await;
        queue.deliver(1, &[id]).await;
        queue.lease_one().await;
        queue.deliver(1, &[id]).await;
        let entries: Vec<String> =
            queue.state().await.subscriptions[&id.to_string()].owed.iter().map(|owed| owed.entry.to_string()).collect();
        for words in commands {
            let at = |word: &str| match word {
                "E1" => entries[1].clone(),
                "E2" => entries[0].clone(),
                word if [&dlv, &inf, &rty].contains(&&word.to_owned()) => format!("{KEYS}:{word}"),
                word => word.to_owned(),
            };
            let words: Vec<String> = words.into_iter().map(at).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let _: redis::Value = command(&mut queue.connection, &words).await;
        }
        assert_eq!(queue.streams.audit(id).await.unwrap(), expected, "{name}");
        assert_eq!(queue.violations().await, [""; 0], "{name}");
        let mended = queue.books().await;
        assert_eq!(queue.streams.audit(id).await.unwrap(), 0, "{name}");
        assert_eq!(queue.books().await, mended, "{name}");
    }
}

#[tokio::test]
async fn a_recount_mends_the_references_of_old_events() {
    let mut queue = Queue::start().await;
    let ids = [queue.create(subscription(1)).await, queue.create(subscription(2)).await];
    let old = ["1000-0", "1000-1", "1000-2", "1000-3"];
    let template: Vec<String> = {
        let event = queue.publish(1).await[0];
        queue.state().await.events[&event.at].iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect()
    };
    let _: u64 = queue.tamper(&["DEL", "events"]).await;
    for event in old {
        let fields: Vec<&str> = template.iter().map(String::as_str).collect();
        let _: String = queue.tamper(&[&["XADD", "events", event], &fields[..]].concat()).await;
    }
    let chunk = |(previous, event)| whole(previous, event, &ids);
    let mut chunks: Vec<_> = queue.undone().await.into_iter().map(chunk).collect();
    chunks[3].is_tracked = false;
    queue.streams.expand(SHARD, &chunks).await.unwrap();
    let refs = ["7", "1", "2", "9"];
    for (event, count) in old.iter().zip(refs) {
        let _: u64 = queue.tamper(&["HSET", "refs", event, count]).await;
    }
    // Of the last not every delivery is noted, so that nobody can tell.
    assert_eq!(queue.streams.recount(SHARD, "0").await.unwrap(), ("0".to_owned(), 2));
    let counted = queue.state().await.hash("refs");
    assert_eq!(old.map(|event| counted[event].as_str()), ["2", "2", "2", "9"]);
    assert_eq!(queue.streams.recount(SHARD, "0").await.unwrap(), ("0".to_owned(), 0));
}

#[tokio::test]
async fn a_recount_of_events_with_many_deliveries_each_stops_and_goes_on_where_it_was() {
    let mut queue = Queue::start().await;
    let deliveries: Vec<String> = (0..1500).flat_map(|sub| [format!("wh_{sub}#0"), "k 1-1".to_owned()]).collect();
    for event in ["1000-0", "1000-1", "1000-2", "1000-3", "1000-4"] {
        let key = format!("evs:{event}");
        let fields = deliveries.iter().map(String::as_str);
        let _: u64 = queue.tamper(&["HSET", &key, "n", "1500"].into_iter().chain(fields).collect::<Vec<_>>()).await;
        let _: u64 = queue.tamper(&["HSET", "refs", event, "1"]).await;
    }
    let (mut cursor, mut calls) = ("0".to_owned(), Vec::new());
    loop {
        let mended;
        (cursor, mended) = queue.streams.recount(SHARD, &cursor).await.unwrap();
        calls.push(mended);
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(calls, [2, 2, 1]);
}

//! The log of attempts: a page is right, and looks at so many only, however many there are.

use posthaste::{domain::id::SubscriptionId, streams::AttemptFilter};

use crate::support::{
    queue::{KEYS, Queue},
    samples::{Verdict, subscription},
    state::command,
};

/// Pages read of one list.
const PAGES_AT_MOST: usize = 50;
const SOON: Verdict = Verdict::Retry { delay_ms: 1_000, retry_after_ms: None };
/// Adds so many attempts to the log, each as the one that is there, but of another success where that is asked.
const MULTIPLY: &str = r"
    local att, log = KEYS[1] .. ':att:' .. ARGV[1], KEYS[1] .. ':attempts'
    local record = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1][2][2]
    local member = redis.call('LINDEX', att, 0)
    for _ = 1, ARGV[2] do
      local ms, seq = redis.call('XADD', log, '*', 'r', record, 'l', 0):match('(%d+)-(%d+)')
      redis.call('RPUSH', att, struct.pack('>I6I4', tonumber(ms), tonumber(seq)) .. ARGV[3] .. member:sub(12))
    end";

/// A log whose oldest attempt failed, and `count` that say in the list that they succeeded (or, with 0, failed).
async fn log_of(count: usize, success: u8) -> (Queue, SubscriptionId) {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    queue.deliver(1, &[id]).await;
    let lease = queue.lease_one().await;
    queue.settle(&[(&lease, SOON)]).await;
    for page in (0..count).step_by(10_000) {
        let part = (count - page).min(10_000).to_string();
        let success = if success == 1 { "\u{1}" } else { "\0" };
        let _: Option<u8> =
            command(&mut queue.connection, &["EVAL", MULTIPLY, "1", KEYS, &id.to_string(), &part, success]).await;
    }
    (queue, id)
}

/// How many are found in all pages of a list, and how many pages those are.
async fn pages(queue: &Queue, id: SubscriptionId, filter: &AttemptFilter, limit: usize) -> (usize, usize) {
    let (mut before, mut found, mut pages) = (None, 0, 0);
    loop {
        let page = queue.streams.attempts_of(id, filter, before, limit).await.unwrap();
        pages += 1;
        found += page.attempts.len();
        assert!(page.attempts.is_sorted_by(|a, b| a.0.at > b.0.at), "newest first");
        let next = page.before.filter(|_| pages < PAGES_AT_MOST);
        let Some(next) = next else { return (found, pages) };
        assert!(before.is_none_or(|before| next < before), "a page goes on");
        before = Some(next);
    }
}

#[tokio::test]
async fn the_only_match_is_found_though_it_is_the_oldest_of_many() {
    let (queue, id) = log_of(22_000, 1).await;
    let failed = AttemptFilter { is_success: Some(false), ..Default::default() };
    let found = pages(&queue, id, &failed, 50).await;
    assert_eq!(found, (1, 3), "two pages found nothing and went on");
    let found = pages(&queue, id, &AttemptFilter::default(), 1_000).await;
    assert_eq!(found, (22_001, 23), "each once");
}

#[tokio::test]
async fn filters_combine_and_a_colliding_hash_is_no_match() {
    let (mut queue, id) = log_of(0, 0).await;
    queue.deliver(3, &[id]).await;
    let leases = queue.lease(3).await;
    let results: Vec<_> = leases.iter().zip([Verdict::Delivered, SOON, Verdict::Delivered]).collect();
    queue.settle(&results).await;
    let all = queue.streams.attempts_of(id, &AttemptFilter::default(), None, 10).await.unwrap().attempts;
    assert_eq!(all.len(), 4);
    let (newest, oldest) = (all[0].0.at, all[3].0.at);
    let check = async |filter: AttemptFilter, expected: usize| {
        assert_eq!(pages(&queue, id, &filter, 1).await.0, expected, "{filter:?}");
    };
    let some = AttemptFilter::default;
    let a_b = || Some("a.b".to_owned());
    check(AttemptFilter { is_success: Some(true), event_type: a_b(), ..some() }, 2).await;
    check(AttemptFilter { is_success: Some(false), event_type: a_b(), since_ms: Some(oldest.ms), ..some() }, 2).await;
    check(AttemptFilter { event_type: Some("a.c".to_owned()), ..some() }, 0).await;
    check(AttemptFilter { until_ms: Some(newest.ms), ..some() }, 4).await;
    check(AttemptFilter { until_ms: Some(oldest.ms - 1), ..some() }, 0).await;
    check(AttemptFilter { since_ms: Some(newest.ms + 1), ..some() }, 0).await;
    // The list says that all are of another type: their records know better.
    let (mut connection, list) = (queue.redis.connect().await, format!("{KEYS}:att:{id}"));
    for index in 0..4 {
        let member: Vec<u8> = command(&mut connection, &["LINDEX", &list, &index.to_string()]).await;
        let collides = [&member[..12], b"\x86\xf7\xe4\x37"].concat();
        let () = redis::cmd("LSET").arg(&list).arg(index).arg(collides).query_async(&mut connection).await.unwrap();
    }
    // The first four bytes of the SHA-1 of "a".
    check(AttemptFilter { event_type: Some("a".to_owned()), ..some() }, 0).await;
}

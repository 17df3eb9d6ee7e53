//! Publishing: each event once, whatever becomes of the answer.

use posthaste::{
    domain::event::NewEvent,
    secrets::Sealer,
    streams::{Append, Appended, Limits, Moving, OpenError, Streams},
};

use crate::support::{
    queue::{Queue, SHARD},
    samples::{DISABLE_AFTER, event},
};

fn append(event_type: &str, key: Option<&str>) -> Append {
    let event = NewEvent { idempotency_key: key.map(str::to_owned), ..event(event_type) };
    Append::Event { event, source_id: None }
}

fn moved(event_type: &str, source_id: &str) -> Append {
    Append::Event { event: event(event_type), source_id: Some(source_id.parse().unwrap()) }
}

#[tokio::test]
async fn a_repeat_of_a_call_appends_nothing_and_is_answered_as_the_first() {
    let mut queue = Queue::start().await;
    let batch = [append("a", None), append("b", Some("key"))];
    let first = queue.streams.append(SHARD, "call", &batch, None).await.unwrap();
    assert_eq!(queue.streams.append(SHARD, "call", &batch, None).await.unwrap(), first);
    queue.redis.kill();
    queue.redis.restart().await;
    assert_eq!(queue.streams.append(SHARD, "call", &batch, None).await.unwrap(), first, "after a crash too");
    queue.connection = queue.redis.connect().await;
    assert_eq!(queue.state().await.events.len(), 2);
}

#[tokio::test]
async fn an_idempotency_key_names_one_event() {
    let mut queue = Queue::start().await;
    let append = async |event_type: &str, key: &str| {
        let call = format!("{:08x}", rand::random::<u32>());
        let batch = [append(event_type, Some(key))];
        queue.streams.append(SHARD, &call, &batch, None).await.unwrap().remove(0)
    };
    let Appended::Event(id) = append("a", "key").await else { panic!("it is new") };
    assert_eq!(append("a", "key").await, Appended::Repeated(id));
    assert_eq!(append("b", "key").await, Appended::Conflict);
    assert!(matches!(append("b", "other").await, Appended::Event(_)));
    assert_eq!(queue.state().await.events.len(), 2);
}

#[tokio::test]
async fn what_came_through_the_front_door_is_appended_once_until_its_acknowledgement_is_known() {
    let queue = Queue::start().await;
    let source_id = "5-1".parse().unwrap();
    let entries = [
        Append::Event { event: event("a"), source_id: Some(source_id) },
        Append::Bad {
            tenant: "acme".to_owned(),
            reason: "no type".to_owned(),
            raw: vec![0x81, 0xa1, 0x78, 0xc4, 0x01, 0xff].into(),
            source_id: "5-2".parse().unwrap(),
        },
    ];
    queue.streams.begin_moving("mover").await.unwrap();
    let moving = Some(Moving { mover: "mover", gone: &[] });
    let first = queue.streams.append(SHARD, "one", &entries, moving).await.unwrap();
    assert!(matches!(first[..], [Appended::Event(_), Appended::Bad(_)]), "{first:?}");
    assert_eq!(queue.streams.append(SHARD, "two", &entries, moving).await.unwrap(), [Appended::Moved, Appended::Moved]);
    let confirmed = Some(Moving { mover: "mover", gone: &[source_id] });
    queue.streams.append(SHARD, "three", &[], confirmed).await.unwrap();
    let after = queue.streams.append(SHARD, "four", &entries, moving).await.unwrap();
    assert!(matches!(after[..], [Appended::Event(_), Appended::Moved]), "{after:?}");
}

#[tokio::test]
async fn what_comes_again_and_again_from_the_front_door_is_appended_once_however_long_that_goes_on() {
    let mut queue = Queue::start().await;
    let entry = [moved("a", "5-1")];
    queue.streams.begin_moving("mover").await.unwrap();
    let moving = Some(Moving { mover: "mover", gone: &[] });
    queue.streams.append(SHARD, "first", &entry, moving).await.unwrap();
    for call in ["second", "third", "fourth"] {
        // 50 minutes ago.
        let () = queue.tamper(&["ZADD", "mv:in", "XX", "INCR", "-3000000", "5-1"]).await;
        assert_eq!(queue.streams.append(SHARD, call, &entry, moving).await.unwrap(), [Appended::Moved], "{call}");
    }
}

#[tokio::test]
async fn what_a_killed_mover_left_is_known_hours_later_whatever_part_of_it_comes_first() {
    let mut queue = Queue::start().await;
    let parts = [[moved("a", "5-1")], [moved("a", "5-2")]];
    queue.streams.begin_moving("killed").await.unwrap();
    for (call, part) in ["one", "two"].into_iter().zip(&parts) {
        queue.streams.append(SHARD, call, part, Some(Moving { mover: "killed", gone: &[] })).await.unwrap();
    }
    for id in ["5-1", "5-2"] {
        let () = queue.tamper(&["ZADD", "mv:in", "XX", "INCR", "-7200000", id]).await;
    }
    queue.streams.begin_moving("next").await.unwrap();
    for (call, part) in ["three", "four"].into_iter().zip(&parts) {
        let moving = Moving { mover: "next", gone: &[] };
        assert_eq!(queue.streams.append(SHARD, call, part, Some(moving)).await.unwrap(), [Appended::Moved], "{call}");
    }
    assert_eq!(queue.state().await.events.len(), 2);
}

#[tokio::test]
async fn what_a_mover_sent_before_another_began_and_arrives_later_is_refused() {
    let mut queue = Queue::start().await;
    let (entry, id) = ([moved("a", "5-1")], "5-1".parse().unwrap());
    queue.streams.begin_moving("one").await.unwrap();
    queue.streams.begin_moving("two").await.unwrap();
    queue.streams.append(SHARD, "first", &entry, Some(Moving { mover: "two", gone: &[] })).await.unwrap();
    queue.streams.append(SHARD, "second", &[], Some(Moving { mover: "two", gone: &[id] })).await.unwrap();
    let late = queue.streams.append(SHARD, "late", &entry, Some(Moving { mover: "one", gone: &[] })).await;
    assert!(late.unwrap_err().to_string().contains("STALE"));
    assert_eq!(queue.state().await.events.len(), 1);
}

#[tokio::test]
async fn another_number_of_shards_than_at_the_first_start_is_refused() {
    let queue = Queue::start().await;
    let limits = Limits { max_backlog: 1, max_dead: 1, disable_after: DISABLE_AFTER };
    let refused = Streams::open(&queue.redis.url(), "q", 2, limits, Sealer::new(&[])).await.err().unwrap();
    assert!(matches!(refused, OpenError::OtherShards { asked: 2, stored: 1 }), "{refused}");
}

//! The functions that a server is given, which it may lose, and keeps beside those of other versions.

use std::collections::{BTreeSet, HashMap};

use posthaste::streams::Seat;
use redis::Value;

use crate::support::{
    queue::{Queue, SHARD},
    samples::subscription,
    state::command,
};

async fn libraries(queue: &mut Queue) -> BTreeSet<String> {
    let list: Vec<HashMap<String, Value>> = command(&mut queue.connection, &["FUNCTION", "LIST"]).await;
    let name = |mut library: HashMap<String, Value>| redis::from_redis_value(library.remove("library_name").unwrap());
    list.into_iter().map(|library| name(library).unwrap()).collect()
}

async fn load(queue: &mut Queue, library: &str) {
    let text = format!("#!lua name={library}\nredis.register_function('{library}_publish', function() return 1 end)");
    let _: String = command(&mut queue.connection, &["FUNCTION", "LOAD", &text]).await;
}

#[tokio::test]
async fn a_server_that_has_lost_it_is_given_it_again() {
    let mut queue = Queue::start().await;
    let id = queue.create(subscription(1)).await;
    let before = libraries(&mut queue).await;
    assert_eq!(before.len(), 1, "{before:?}");
    // By a call alone, and by several in one pipeline.
    let () = command(&mut queue.connection, &["FUNCTION", "FLUSH"]).await;
    queue.deliver(1, &[id]).await;
    assert_eq!(queue.lease(256).await.len(), 1);
    let () = command(&mut queue.connection, &["FUNCTION", "FLUSH"]).await;
    let seats = [Seat::Shard(SHARD), Seat::FrontDoor];
    assert_eq!(queue.streams.lead(&seats, "me").await.unwrap(), [true, true]);
    assert_eq!(libraries(&mut queue).await, before);
}

#[tokio::test]
async fn those_of_a_few_versions_stay_beside_each_other_and_many_do_not() {
    let mut queue = Queue::start().await;
    queue.create(subscription(1)).await;
    let ours = libraries(&mut queue).await;
    load(&mut queue, "of_another_program").await;
    for (others, kept) in [(7, 7), (8, 0)] {
        let () = command(&mut queue.connection, &["FUNCTION", "DELETE", ours.first().unwrap()]).await;
        let there = libraries(&mut queue).await.len();
        for number in there - 1..others {
            load(&mut queue, &format!("posthaste_{number}")).await;
        }
        queue.create(subscription(others as u64)).await;
        let after = libraries(&mut queue).await;
        assert!(after.is_superset(&ours) && after.contains("of_another_program"), "{after:?}");
        assert_eq!(after.len(), 2 + kept, "{after:?}");
    }
}

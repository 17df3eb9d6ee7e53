//! Dead letters counted by their reason.

use serde_json::{Value, json};

use crate::support::{
    engine::{Engine, quick_retry, wait_until},
    program::Program,
    receiver::{Receiver, Reply},
    redis::TestRedis,
};

#[tokio::test]
async fn dead_letters_are_counted_by_reason_the_most_frequent_first() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(|request| Reply::status(if request.path == "/gone" { 410 } else { 500 }));
    let engine = Engine::start(&redis).await;
    for path in ["/one", "/two"] {
        engine.subscribe("acme", &receiver.url(path), &["order.*"], |webhook| webhook.retry = quick_retry(0)).await;
    }
    engine.subscribe("acme", &receiver.url("/gone"), &["mail.*"], |_| ()).await;
    let program = Program::on(&redis);
    let by_reason = async |more: &[&str]| {
        let arguments = [&["deadletter", "list", "--by-reason", "--tenant", "acme"], more].concat();
        program.run(&arguments).await
    };
    assert_eq!(by_reason(&["--json"]).await.json(), json!({ "data": [], "next_cursor": null }));
    for (event_type, count) in [("order.paid", 2), ("mail.sent", 1)] {
        for _ in 0..count {
            engine.publish("acme", event_type, "1").await;
        }
    }
    wait_until("all are given up", async || {
        let found = by_reason(&["--json"]).await.json();
        let of = |reason: &Value| (reason["reason"].clone(), reason["count"].clone(), reason["webhooks"].clone());
        let found: Vec<_> = found["data"].as_array().unwrap().iter().map(of).collect();
        found == [(json!("exhausted"), json!(4), json!(2)), (json!("gone"), json!(1), json!(1))]
    })
    .await;
    let gone = by_reason(&["--json", "--type", "mail.sent"]).await.json();
    assert_eq!((gone["data"].as_array().unwrap().len(), &gone["data"][0]["reason"]), (1, &json!("gone")));
    let table = by_reason(&[]).await.done();
    assert!(table.starts_with("REASON     COUNT  WEBHOOKS  OLDEST"), "{table}");
    assert_eq!(by_reason(&["--limit", "1"]).await.code, Some(2));
    engine.stop_all().await;
}

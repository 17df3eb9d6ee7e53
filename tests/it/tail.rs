//! `tail`: attempts as they are made, in whichever process.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout},
    time::timeout,
};

use crate::support::{
    engine::{Engine, PATIENCE},
    program::Program,
    receiver::{Receiver, Reply},
    redis::TestRedis,
};

/// A running `tail`, which ends with this value.
struct Tail {
    _child: Child,
    said: Lines<BufReader<ChildStderr>>,
    shown: Lines<BufReader<ChildStdout>>,
}

impl Tail {
    /// One that sees all attempts from now on.
    async fn start(program: &Program, arguments: &[&str]) -> Self {
        let mut child = program.command(&[&["tail"], arguments].concat()).spawn().unwrap();
        let said = BufReader::new(child.stderr.take().unwrap()).lines();
        let shown = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut tail = Self { _child: child, said, shown };
        tail.wait_until_it_waits().await;
        tail
    }

    async fn wait_until_it_waits(&mut self) {
        let waiting =
            async { while self.said.next_line().await.unwrap().expect("a word") != "waiting for attempts" {} };
        timeout(PATIENCE, waiting).await.expect("it waits for attempts in time");
    }

    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.shown.next_line()).await.expect("a line in time").unwrap().expect("a line")
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }
}

#[tokio::test]
async fn tail_shows_the_attempts_that_are_wanted_as_they_are_made() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(|request| Reply::status(if request.path == "/bad" { 500 } else { 200 }));
    let engine = Engine::start(&redis).await;
    let good = engine.subscribe("acme", &receiver.url("/good"), &["order.*"], |_| ()).await.to_string();
    let program = Program::on(&redis);
    engine.publish("acme", "order.early", "1").await;
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    engine.wait_until_drained(good.parse().unwrap()).await;

    let mut all = Tail::start(&program, &["--tenant", "acme"]).await;
    let mut one =
        Tail::start(&program, &["--tenant", "acme", "--webhook", &good, "--type", "order.shipped", "--json"]).await;
    let mut failed = Tail::start(&program, &["--all-tenants", "--failed", "--json"]).await;
    let paid = engine.publish("acme", "order.paid", "1").await.id;
    let line = all.line().await;
    assert!(line.contains("  200  ") && line.ends_with(&format!("attempt 1  order.paid  {paid}  {good}")), "{line}");
    engine.publish("acme", "order.shipped", "1").await;
    let shown = one.json().await;
    assert_eq!((&shown["event_type"], &shown["webhook_id"]), (&json!("order.shipped"), &json!(good)));
    engine.subscribe("globex", &receiver.url("/bad"), &["*"], |_| ()).await;
    engine.publish("globex", "mail.sent", "1").await;
    let shown = failed.json().await;
    assert_eq!((&shown["tenant"], &shown["response_status"]), (&json!("globex"), &json!(500)));
    engine.stop_all().await;
}

#[tokio::test]
async fn tail_goes_on_once_redis_is_back() {
    let mut redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    engine.subscribe("acme", &receiver.url("/"), &["*"], |_| ()).await;
    let program = Program::on(&redis);
    let mut tail = Tail::start(&program, &["--tenant", "acme", "--json"]).await;
    redis.kill();
    redis.restart().await;
    tail.wait_until_it_waits().await;
    let id = engine.publish("acme", "order.paid", "1").await.id;
    assert_eq!(tail.json().await["event_id"], json!(id.to_string()));
    engine.stop_all().await;
}

#[tokio::test]
async fn tail_refuses_a_webhook_that_is_not_the_tenants() {
    let redis = TestRedis::start().await;
    let engine = Engine::idle(&redis, &[]).await;
    let webhook = engine.subscribe("acme", "https://example.com/", &["*"], |_| ()).await.to_string();
    let program = Program::on(&redis);
    program.run(&["tail", "--webhook", &webhook]).await.refused(1, "webhook");
    assert_eq!(program.run(&["tail", "--tenant", "acme", "--all-tenants"]).await.code, Some(2));
}

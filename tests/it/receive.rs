//! `listen` and `verify`: what a receiver sees, on its own machine and of a request that it kept.

use std::fs;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use crate::support::{
    engine::{Engine, PATIENCE, SECRET},
    program::{Ended, Program, ended, interrupt},
    receiver::{Received, Receiver},
    redis::TestRedis,
};

const OTHER_SECRET: &str = "It's a Secret to Everybody";

/// A running `listen`.
struct Listening {
    child: Child,
    url: String,
    said: Lines<BufReader<ChildStdout>>,
}

impl Listening {
    async fn start(program: &Program, arguments: &[&str]) -> Self {
        let mut child = program.command(&[&["listen", "--port", "0"], arguments].concat()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = timeout(PATIENCE, stderr.next_line()).await.expect("a word in time").unwrap().unwrap();
        let url = said.strip_prefix("listening on ").unwrap_or_else(|| panic!("{said}")).to_owned();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, url, said }
    }

    async fn line(&mut self) -> String {
        timeout(PATIENCE, self.said.next_line()).await.expect("a line in time").unwrap().expect("a line")
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    async fn stop(self) {
        interrupt(&self.child);
        assert_eq!(ended(self.child).await.code, Some(0));
    }
}

#[tokio::test]
async fn listen_shows_each_delivery_whether_its_signatures_hold_and_fails_as_told() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let mut listening = Listening::start(&program, &["--secret", SECRET, "--fail", "503:1", "--json"]).await;
    let engine = Engine::start(&redis).await;
    engine.subscribe("acme", &format!("{}/hook?a=1", listening.url), &["order.*"], |_| ()).await;
    let id = engine.publish("acme", "order.paid", r#"{"n":1}"#).await.id.to_string();
    let first = listening.json().await;
    let shown = ["path", "event_id", "event_type", "status", "attempt", "is_valid"].map(|name| first[name].clone());
    assert_eq!(json!(shown), json!(["/hook?a=1", id, "order.paid", 503, 1, true]));
    let body: Value = serde_json::from_str(first["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["data"], json!({ "n": 1 }));
    let second = listening.json().await;
    assert_eq!((&second["status"], &second["attempt"]), (&json!(204), &json!(2)));
    assert_eq!(second["delivery_id"], first["delivery_id"]);

    engine
        .subscribe("acme", &listening.url, &["other"], |webhook| webhook.secrets.current = OTHER_SECRET.to_owned())
        .await;
    engine.publish("acme", "other", "1").await;
    let other = listening.json().await;
    assert_eq!(other["is_valid"], json!(false));
    assert_eq!(other["signatures"][0]["reason"], json!("it was made with another secret, or over other bytes"));
    listening.stop().await;
    engine.stop_all().await;
}

#[tokio::test]
async fn listen_tells_people_what_came_without_letting_it_move_the_cursor() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let mut listening = Listening::start(&program, &[]).await;
    let engine = Engine::start(&redis).await;
    let raw = posthaste::domain::subscription::PayloadFormat::Raw;
    engine.subscribe("acme", &listening.url, &["*"], |webhook| webhook.payload_format = raw).await;
    let id = engine.publish("acme", "order.paid", "\"\u{7f}\"").await.id;
    let head = listening.line().await;
    assert!(head.ends_with(&format!("  /  order.paid  {id}  attempt 1  answered 204")), "{head}");
    assert_eq!(listening.line().await, "  signatures not checked: no --secret");
    assert_eq!(listening.line().await, "  \"\\u{7f}\"");
    listening.stop().await;
    engine.stop_all().await;
}

#[tokio::test]
async fn a_port_that_is_taken_and_a_secret_that_is_none_are_refused() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let program = Program::new();
    program
        .run(&["listen", "--port", &port])
        .await
        .refused(1, &format!("port {port} of 127.0.0.1 cannot be listened on"));
    program.run(&["listen", "--port", "0", "--secret", "short"]).await.refused(1, "--secret");
    assert_eq!(program.run(&["listen", "--fail", "99"]).await.code, Some(2));
}

/// A delivery as its receiver has it.
async fn delivery() -> Received {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    let engine = Engine::start(&redis).await;
    engine.subscribe("acme", &receiver.url("/"), &["*"], |_| ()).await;
    engine.publish("acme", "order.paid", r#"{"n":1}"#).await;
    let received = receiver.wait_for(|received| received.len() == 1, PATIENCE).await.remove(0);
    engine.stop_all().await;
    received
}

/// These headers of a request, as arguments.
fn headers(received: &Received, names: &[&str]) -> Vec<String> {
    let header = |name: &&str| ["--header".to_owned(), format!("{name}: {}", received.header(name).unwrap())];
    names.iter().flat_map(header).collect()
}

async fn verify(program: &Program, secret: &str, body: &str, arguments: &[String]) -> Ended {
    let rest = arguments.iter().map(String::as_str);
    program.run(&["verify", "--secret", secret, "--body", body].into_iter().chain(rest).collect::<Vec<_>>()).await
}

#[tokio::test]
async fn verify_says_which_signature_does_not_hold_and_why() {
    let received = delivery().await;
    let program = Program::new();
    fs::write(program.path().join("body"), &received.body).unwrap();
    fs::write(program.path().join("tampered"), [&received.body[..], b" "].concat()).unwrap();
    let standard = headers(&received, &["webhook-id", "webhook-timestamp", "webhook-signature"]);
    let all = [&standard[..], &headers(&received, &["x-hub-signature-256"])].concat();
    let both = "Standard Webhooks    holds\nX-Hub-Signature-256  holds";
    assert_eq!(verify(&program, SECRET, "body", &all).await.done(), both);
    let json = verify(&program, SECRET, "body", &[&all[..], &["--json".to_owned()]].concat()).await.json();
    assert_eq!((&json["is_valid"], &json["signatures"][1]["is_valid"]), (&json!(true), &json!(true)));

    for (secret, body) in [(OTHER_SECRET, "body"), (SECRET, "tampered")] {
        let refused = verify(&program, secret, body, &all).await;
        let why = "does not hold: it was made with another secret, or over other bytes";
        assert_eq!((refused.code, refused.stdout.matches(why).count()), (Some(1), 2), "{refused:?}");
    }
    let later = ["--at".to_owned(), "2040-01-01".to_owned()];
    let late = verify(&program, SECRET, "body", &[&all[..], &later].concat()).await;
    assert!(late.stdout.contains("the signature is right, but its timestamp is"), "{late:?}");
    let partial = verify(&program, SECRET, "body", &standard[2..]).await;
    assert!(partial.stdout.contains("the header `webhook-id` is missing"), "{partial:?}");
    let unsigned = ["--header".to_owned(), "X-Env: prod".to_owned()];
    verify(&program, SECRET, "body", &unsigned).await.refused(1, "none carries a signature");
    verify(&program, SECRET, "nowhere", &all).await.refused(1, "--body: nowhere cannot be read");
}

#[tokio::test]
async fn verify_reads_the_body_from_standard_input_byte_for_byte() {
    let received = delivery().await;
    let signature = format!("X-Hub-Signature-256: {}", received.header("x-hub-signature-256").unwrap());
    let arguments = ["verify", "--secret", SECRET, "--body", "-", "--header", &signature];
    let program = Program::new();
    let body = String::from_utf8(received.body.to_vec()).unwrap();
    assert_eq!(program.run_with_input(&arguments, &body).await.done(), "X-Hub-Signature-256  holds");
    let ended = program.run_with_input(&arguments, &format!("{body}\n")).await;
    assert_eq!(ended.code, Some(1), "a line end was added: {ended:?}");
}

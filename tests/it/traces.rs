//! One trace leads from the publisher by Posthaste to the receiver, and one line of the log tells of each attempt.

use std::{collections::HashMap, process::Stdio};

use axum::body::Body;
use http::Request;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use posthaste::domain::trace::TraceContext;
use prost::Message;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use crate::support::{
    engine::{Engine, PATIENCE},
    program::{Program, ended, interrupt},
    receiver::{Received, Receiver, Reply},
    redis::TestRedis,
};

const KEY: &str = "key-of-this-test";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// A running `serve`, which is killed with the value.
struct Serve {
    /// Its data go with it.
    _program: Program,
    child: Child,
    _said: Lines<BufReader<ChildStdout>>,
    address: String,
    client: Client<HttpConnector, Body>,
}

/// A program that traces to `collector`, in batches that do not let a test wait.
fn traced(collector: &str) -> Program {
    Program::new()
        .with("POSTHASTE_TRACES__OTLP_ENDPOINT", collector)
        .with("POSTHASTE_API__LISTEN", "127.0.0.1:0")
        .with("POSTHASTE_API__ADMIN_KEY", KEY)
        .with("OTEL_BSP_SCHEDULE_DELAY", "50")
}

impl Serve {
    async fn start(program: Program) -> Self {
        let mut child = program.command(&["serve"]).stdin(Stdio::null()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = async {
            loop {
                let line = said.next_line().await.unwrap().expect("where the API is");
                if let Some(address) = line.trim().strip_prefix("API        http://") {
                    return address.to_owned();
                }
            }
        };
        let address = timeout(PATIENCE, address).await.expect("a start in time");
        Self {
            _program: program,
            child,
            _said: said,
            address,
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    async fn post(&self, path: &str, traceparent: Option<&str>, body: &Value) -> Value {
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("authorization", format!("Bearer {KEY}"))
            .header("x-tenant", "acme")
            .header("content-type", "application/json");
        let request = traceparent.into_iter().fold(request, |request, value| request.header("traceparent", value));
        let response = self.client.request(request.body(body.to_string().into()).unwrap()).await.unwrap();
        assert!(response.status().is_success(), "{}", response.status());
        let body = axum::body::to_bytes(Body::new(response.into_body()), usize::MAX).await.unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    /// Stops it, and gives what it logged.
    async fn stop(self) -> String {
        interrupt(&self.child);
        let ended = ended(self.child).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stderr
    }
}

async fn add_at_the_front_door(redis: &TestRedis, traceparent: &str) {
    let mut add = redis::cmd("XADD");
    add.arg("posthaste:in").arg("*").arg("tenant").arg("acme").arg("type").arg("a").arg("data").arg("1");
    let mut connection = redis.connect().await;
    add.arg("traceparent").arg(traceparent).query_async::<String>(&mut connection).await.unwrap();
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// What a collector was sent.
fn exported(requests: &[Received]) -> Vec<ExportTraceServiceRequest> {
    let requests = requests.iter().filter(|request| request.path == "/v1/traces");
    requests.map(|request| ExportTraceServiceRequest::decode(request.body.clone()).expect("spans")).collect()
}

fn spans(requests: &[Received]) -> Vec<Span> {
    let of_resource = exported(requests).into_iter().flat_map(|export| export.resource_spans);
    of_resource.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
}

fn attributes(list: &[KeyValue]) -> HashMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        Some(Any::BoolValue(is_so)) => is_so.to_string(),
        other => panic!("{other:?}"),
    };
    list.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

fn named<'s>(spans: &'s [Span], name: &str) -> Vec<&'s Span> {
    let mut found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    found.sort_by_key(|span| span.start_time_unix_nano);
    found
}

fn trace_of(request: &Received) -> TraceContext {
    request.header("traceparent").expect("a traceparent").parse().expect("a trace")
}

#[tokio::test]
async fn one_trace_leads_from_the_publisher_to_each_answer() {
    let collector = Receiver::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::status(503), Reply::status(200)]);
    let serve = Serve::start(traced(&collector.url(""))).await;
    let webhook = json!({
        "url": receiver.url("/hook"), "events": ["*"], "retry": { "kind": "schedule", "delays_ms": [20] }
    });
    let webhook = text(&serve.post("/api/v1/webhooks", None, &webhook).await["id"]);
    let event = json!({ "type": "message.created", "data": { "text": "hi" } });
    let event = text(&serve.post("/api/v1/events", Some(PARENT), &event).await["id"]);

    let received = receiver.wait_for(|received| received.len() == 2, PATIENCE).await;
    let requests = collector.wait_for(|requests| spans(requests).len() >= 4, PATIENCE).await;
    let spans = spans(&requests);
    assert_eq!(spans.len(), 4, "{spans:#?}");
    let parent: TraceContext = PARENT.parse().unwrap();
    for span in &spans {
        assert_eq!(span.trace_id, parent.trace_id, "{span:?}");
        assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "{span:?}");
        let attributes = attributes(&span.attributes);
        assert_eq!(
            (attributes["tenant"].as_str(), attributes["event_type"].as_str(), &attributes["event_id"]),
            ("acme", "message.created", &event)
        );
    }
    let (publish, dispatch, attempts) = (named(&spans, "publish"), named(&spans, "dispatch"), named(&spans, "attempt"));
    assert_eq!((publish.len(), dispatch.len(), attempts.len()), (1, 1, 2));
    assert_eq!((publish[0].kind(), attempts[0].kind()), (SpanKind::Producer, SpanKind::Client));
    assert_eq!(publish[0].parent_span_id, parent.span_id);
    assert_eq!(dispatch[0].parent_span_id, publish[0].span_id);
    assert_eq!(attributes(&dispatch[0].attributes)["deliveries"], "1");

    let told = [("1", "503", StatusCode::Error), ("2", "200", StatusCode::Unset)];
    for ((span, request), (number, status, code)) in attempts.iter().zip(&received).zip(told) {
        assert_eq!(span.parent_span_id, publish[0].span_id);
        let context = trace_of(request);
        assert_eq!((context.trace_id, context.is_sampled), (parent.trace_id, true));
        assert_eq!(span.span_id, context.span_id);
        let attributes = attributes(&span.attributes);
        assert_eq!(attributes["webhook_id"], webhook);
        assert_eq!(Some(attributes["delivery_id"].as_str()), request.header("x-webhook-delivery"));
        assert_eq!(
            (attributes["attempt"].as_str(), attributes["http.response.status_code"].as_str()),
            (number, status)
        );
        assert_eq!(attributes["server.address"], "127.0.0.1");
        assert_eq!(attributes.get("error.type").map(String::as_str), (code == StatusCode::Error).then_some(status));
        assert_eq!(span.status.clone().unwrap_or_default().code(), code);
    }
    let resources = exported(&requests).into_iter().flat_map(|export| export.resource_spans);
    let resource = resources.filter_map(|spans| spans.resource).next().expect("a resource");
    let resource = attributes(&resource.attributes);
    assert_eq!((resource["service.name"].as_str(), resource["role"].as_str()), ("posthaste", "serve"));
    serve.stop().await;
}

#[tokio::test]
async fn an_event_without_a_trace_begins_one_and_a_batch_shares_its_publishers() {
    let collector = Receiver::start().await;
    let receiver = Receiver::start().await;
    let serve = Serve::start(traced(&collector.url("/"))).await;
    serve.post("/api/v1/webhooks", None, &json!({ "url": receiver.url("/hook"), "events": ["*"] })).await;
    serve.post("/api/v1/events", None, &json!({ "type": "a", "data": 1 })).await;
    let alone = trace_of(&receiver.wait_for(|received| received.len() == 1, PATIENCE).await[0]);
    assert!(alone.is_sampled);
    let batch = json!([{ "type": "a", "data": 1 }, { "type": "b", "data": 2 }]);
    serve.post("/api/v1/events/batch", Some(PARENT), &batch).await;
    let received = receiver.wait_for(|received| received.len() == 3, PATIENCE).await;
    let parent: TraceContext = PARENT.parse().unwrap();
    assert!(received[1..].iter().all(|request| trace_of(request).trace_id == parent.trace_id));
    // What is left is sent before it ends.
    serve.stop().await;
    let spans = spans(&collector.wait_for(|_| true, PATIENCE).await);
    assert_eq!(spans.len(), 9, "{spans:#?}");
    let roots: Vec<_> = spans.iter().filter(|span| span.parent_span_id.is_empty()).collect();
    assert_eq!((roots.len(), roots[0].name.as_str()), (1, "publish"));
    assert_eq!(roots[0].trace_id, alone.trace_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_its_publisher_does_not_sample_is_passed_on_and_not_recorded() {
    let (redis, collector, receiver) = (TestRedis::start().await, Receiver::start().await, Receiver::start().await);
    let engine = Engine::with_settings(&redis, &[("POSTHASTE_TRACES__OTLP_ENDPOINT", &collector.url(""))]).await;
    engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    add_at_the_front_door(&redis, UNSAMPLED).await;
    add_at_the_front_door(&redis, PARENT).await;
    let received = receiver.wait_for(|received| received.len() == 2, PATIENCE).await;
    let (sampled, unsampled): (Vec<_>, Vec<_>) = received.iter().map(trace_of).partition(|trace| trace.is_sampled);
    let parent: TraceContext = PARENT.parse().unwrap();
    assert_eq!((sampled[0].trace_id, unsampled[0].trace_id), (parent.trace_id, parent.trace_id));
    engine.stop_all().await;
    let spans = spans(&collector.wait_for(|_| true, PATIENCE).await);
    assert_eq!(spans.len(), 3, "{spans:#?}");
    assert_eq!(named(&spans, "publish")[0].parent_span_id, parent.span_id);
    assert_eq!(named(&spans, "attempt")[0].span_id, sampled[0].span_id);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_traced_the_receiver_goes_on_from_its_publisher() {
    let (redis, receiver) = (TestRedis::start().await, Receiver::start().await);
    receiver.script("/hook", [Reply::status(500)]);
    let engine = Engine::start(&redis).await;
    engine.subscribe("acme", &receiver.url("/hook"), &["*"], |_| {}).await;
    add_at_the_front_door(&redis, UNSAMPLED).await;
    let received = receiver.wait_for(|received| received.len() == 2, PATIENCE).await;
    assert!(received.iter().all(|request| request.header("traceparent") == Some(UNSAMPLED)), "{received:?}");
    engine.publish("acme", "b", "1").await;
    let received = receiver.wait_for(|received| received.len() == 3, PATIENCE).await;
    assert_eq!(received[2].header("traceparent"), None);
    engine.stop_all().await;
}

#[tokio::test]
async fn a_collector_that_takes_nothing_costs_no_delivery_and_is_named_once() {
    let (collector, receiver) = (Receiver::start().await, Receiver::start().await);
    collector.otherwise(|_| Reply::status(400));
    let serve = Serve::start(traced(&collector.url(""))).await;
    serve.post("/api/v1/webhooks", None, &json!({ "url": receiver.url("/hook"), "events": ["*"] })).await;
    for count in 1..=3 {
        serve.post("/api/v1/events", None, &json!({ "type": "a", "data": 1 })).await;
        receiver.wait_for(|received| received.len() == count, PATIENCE).await;
        collector.wait_for(|requests| requests.len() >= count, PATIENCE).await;
    }
    let log = serve.stop().await;
    let complaints = log.lines().filter(|line| line.contains("the collector of traces takes no spans"));
    assert_eq!(complaints.count(), 1, "{log}");
}

#[tokio::test]
async fn each_attempt_is_one_line_of_json_without_bodies_or_secrets() {
    let receiver = Receiver::start().await;
    receiver.script(
        "/path-of-a-url",
        [Reply::raw("HTTP/1.1 500 No\r\ncontent-length: 22\r\n\r\nanswer-of-the-endpoint"), Reply::status(200)],
    );
    let program = traced("").with("POSTHASTE_LOG__LEVEL", "info,posthaste=trace");
    let serve = Serve::start(program).await;
    let webhook = json!({
        "url": receiver.url("/path-of-a-url"), "events": ["*"], "headers": { "authorization": "Bearer of-a-header" },
        "retry": { "kind": "schedule", "delays_ms": [20] }, "secret": "secret-of-the-webhook"
    });
    let webhook = text(&serve.post("/api/v1/webhooks", None, &webhook).await["id"]);
    let event = json!({ "type": "message.created", "data": "data-of-the-event" });
    let event = text(&serve.post("/api/v1/events", Some(PARENT), &event).await["id"]);
    let received = receiver.wait_for(|received| received.len() == 2, PATIENCE).await;
    let log = serve.stop().await;

    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}")));
    let attempts: Vec<Value> = lines.filter(|line| line["message"] == "attempt").collect();
    assert_eq!(attempts.len(), 2, "{log}");
    let delivery = received[0].header("x-webhook-delivery");
    for (line, number) in attempts.iter().zip(1..) {
        assert_eq!((line["level"].as_str(), line["attempt"].as_u64()), (Some("INFO"), Some(number)));
        assert_eq!((&line["webhook_id"], &line["event_id"]), (&json!(webhook), &json!(event)));
        assert_eq!(line["delivery_id"].as_str(), delivery);
        assert_eq!((&line["tenant"], &line["event_type"]), (&json!("acme"), &json!("message.created")));
        assert_eq!(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(line["response_time_ms"].is_number() && line["timestamp"].is_string(), "{line}");
    }
    assert_eq!((&attempts[0]["response_status"], &attempts[0]["outcome"]), (&json!(500), &json!("retry")));
    assert!(attempts[0]["retry_in_ms"].is_number(), "{}", attempts[0]);
    assert_eq!((&attempts[1]["response_status"], &attempts[1]["outcome"]), (&json!(200), &json!("delivered")));
    for secret in
        ["data-of-the-event", "answer-of-the-endpoint", "of-a-header", "secret-of-the-webhook", "path-of-a-url", KEY]
    {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

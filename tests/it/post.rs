//! A POST keeps to its limits, and what went wrong is told apart in plain words.

mod proxy;

use std::{
    collections::{HashSet, VecDeque},
    io,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::join_all;
use http::{HeaderMap, HeaderName, HeaderValue};
use posthaste::{
    domain::{
        address::AddressRules,
        attempt::{Answer, Failure, FailureKind, Response},
    },
    send::post::{Names, Post, PostConfig, Posted, Request, Resolving},
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::support::receiver::{Certificate, Receiver, Reply};

/// For what must not time out.
const LONG: Duration = Duration::from_secs(20);
const KEEP_BYTES: usize = 4096;

/// Rules under which everything on this machine may be called.
fn loopback_rules() -> AddressRules {
    AddressRules { allow_cidrs: vec!["127.0.0.0/8".parse().unwrap()], ..public_rules() }
}

/// Rules under which only public addresses may be called.
fn public_rules() -> AddressRules {
    AddressRules { require_https: false, allow_cidrs: Vec::new(), allow_hosts: Vec::new(), ports: Vec::new() }
}

fn config(rules: AddressRules) -> PostConfig {
    PostConfig { rules, response_keep_bytes: KEEP_BYTES, ca_file: None, max_idle_per_host: 16, proxy: None }
}

fn post() -> Post {
    Post::new(config(loopback_rules())).unwrap()
}

fn request(url: &str) -> Request {
    Request::new(url.parse().unwrap(), HeaderMap::new(), "{}".into())
}

async fn send(url: &str) -> Posted {
    post().send(request(url), LONG).await
}

fn response(posted: Posted) -> Response {
    match posted.answer {
        Answer::Response(response) => response,
        Answer::Failure(failure) => panic!("{failure:?}"),
    }
}

fn failure(posted: Posted) -> Failure {
    match posted.answer {
        Answer::Failure(failure) => failure,
        Answer::Response(response) => panic!("{response:?}"),
    }
}

/// Names that resolve by a script: one line of addresses for each time, the last for ever.
struct ScriptedNames(Mutex<VecDeque<io::Result<Vec<IpAddr>>>>);

impl ScriptedNames {
    fn of(addresses: &[&[&str]]) -> Arc<Self> {
        let answers = addresses.iter().map(|line| Ok(line.iter().map(|address| address.parse().unwrap()).collect()));
        Arc::new(Self(Mutex::new(answers.collect())))
    }
}

impl Names for ScriptedNames {
    fn resolve(&self, _: String) -> Resolving {
        let answer = self.0.lock().unwrap().pop_front().expect("as many answers as connections");
        Box::pin(std::future::ready(answer))
    }
}

/// Names that are all this machine's, and are noted.
#[derive(Default)]
struct AskedNames(Mutex<Vec<String>>);

impl Names for AskedNames {
    fn resolve(&self, name: String) -> Resolving {
        self.0.lock().unwrap().push(name);
        Box::pin(std::future::ready(Ok(vec![IpAddr::from([127, 0, 0, 1])])))
    }
}

/// Names that are asked for in vain.
struct SilentNames;

impl Names for SilentNames {
    fn resolve(&self, _: String) -> Resolving {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_request_arrives_as_it_was_given() {
    let receiver = Receiver::start().await;
    let before = (Instant::now(), SystemTime::now());
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static("x-env"), HeaderValue::from_static("test"));
    let given = Request::new(receiver.url("/hook?a=b").parse().unwrap(), headers, r#"{"n":1}"#.into());
    assert_eq!(response(post().send(given, LONG).await).status, 200);

    let received = receiver.received("/hook?a=b").remove(0);
    assert_eq!((received.method.as_str(), &received.body[..]), ("POST", &br#"{"n":1}"#[..]));
    assert_eq!(received.header("x-env"), Some("test"));
    assert_eq!(received.header("content-type"), Some("application/json"));
    assert_eq!(received.header("user-agent"), Some(concat!("posthaste/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(received.header("accept-encoding"), None);
    assert!(received.at >= before.0 && received.at_system >= before.1);
}

#[tokio::test]
async fn a_given_content_type_is_kept() {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/cloudevents+json"));
    let request = Request::new("http://a.example".parse().unwrap(), headers, "".into());
    assert_eq!(request.headers["content-type"], "application/cloudevents+json");
    assert_eq!(request.headers.len(), 2);
}

#[tokio::test]
async fn an_answer_is_kept_with_its_status_headers_body_and_retry_after() {
    let receiver = Receiver::start().await;
    let long = "v".repeat(5000);
    let mut reply = Reply::status(503).with_header("Retry-After", "7").with_header("X-Long", &long);
    for n in 0..80 {
        reply = reply.with_header(&format!("X-{n}"), "v");
    }
    receiver.script("/", [reply, Reply::body("taken")]);

    let answer = response(send(&receiver.url("/")).await);
    assert_eq!((answer.status, answer.retry_after_ms), (503, Some(7000)));
    assert_eq!(answer.headers.len(), 64);
    assert_eq!(answer.headers[0], ("retry-after".to_owned(), "7".to_owned()));
    assert_eq!(answer.headers[1], ("x-long".to_owned(), "v".repeat(1024)));
    let answer = response(send(&receiver.url("/")).await);
    assert_eq!((answer.status, &answer.body[..], answer.retry_after_ms), (200, &b"taken"[..], None));
}

#[tokio::test]
async fn a_connection_is_used_again_and_its_second_request_has_no_time_to_connect() {
    let receiver = Receiver::start().await;
    receiver.otherwise(|_| Reply::body("x".repeat(KEEP_BYTES + 10_000)));
    let post = post();
    let first = post.send(request(&receiver.url("/")), LONG).await;
    let second = post.clone().send(request(&receiver.url("/")), LONG).await;

    assert_eq!((receiver.count(), receiver.connections()), (2, 1));
    assert!(first.timings.connect.is_some() && first.timings.first_byte.is_some(), "{first:?}");
    assert_eq!((first.timings.dns, first.timings.tls), (None, None));
    assert_eq!((second.timings.dns, second.timings.connect, second.timings.tls), (None, None, None));
    assert!(second.timings.first_byte.is_some(), "{second:?}");
    assert_eq!(response(second).body.len(), KEEP_BYTES);
}

#[tokio::test]
async fn the_phases_of_a_tls_request_are_told_apart() {
    let receiver = Receiver::start_tls(Certificate::Good).await;
    receiver.script("/", [Reply::status(200).after(Duration::from_millis(50))]);
    let post = tls_post(&receiver, Some(receiver.authority()));
    let posted = post.send(request(&receiver.url("/")), LONG).await;

    let timings = posted.timings;
    let phases = [timings.dns, timings.connect, timings.tls, timings.first_byte].map(|phase| phase.expect("a time"));
    let total_ms = posted.response_time.as_secs_f64() * 1000.0;
    assert!(phases.iter().sum::<f64>() <= total_ms, "{phases:?} of {total_ms}");
    assert!(phases[3] >= 50.0, "{phases:?}");
    assert_eq!(response(posted).status, 200);
}

/// More tasks than connections that are kept: each request takes a new connection or one that another hands back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_only_the_first_request_of_a_connection_has_a_time_to_connect() {
    const TASKS: usize = 32;
    const EACH: usize = 40;
    let receiver = Receiver::start().await;
    let post = Post::new(PostConfig { max_idle_per_host: 2, ..config(loopback_rules()) }).unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let (post, urls) = (post.clone(), (0..EACH).map(|n| receiver.url(&format!("/{task}/{n}"))).collect::<Vec<_>>());
        tasks.spawn(async move {
            let mut connected = Vec::new();
            for url in urls {
                let request = request(&url);
                let path = request.url.path().to_owned();
                let posted = post.send(request, LONG).await;
                connected.extend(posted.timings.connect.map(|_| path));
                assert_eq!(response(posted).status, 200);
            }
            connected
        });
    }
    let connected = tasks.join_all().await.concat();
    let received = receiver.wait_for(|received| received.len() == TASKS * EACH, LONG).await;
    let mut seen = HashSet::new();
    let first: HashSet<_> =
        received.into_iter().filter(|request| seen.insert(request.connection)).map(|request| request.path).collect();
    assert!(connected.iter().all(|path| first.contains(path)), "{connected:?} but {first:?}");
    assert!(!connected.is_empty());
    assert!((1..=TASKS).contains(&receiver.max_concurrent()));
}

#[tokio::test]
async fn an_endless_body_is_read_no_further_than_its_limit() {
    let receiver = Receiver::start().await;
    receiver.otherwise(|_| Reply::endless());
    let posted = send(&receiver.url("/")).await;
    assert!(posted.response_time < LONG / 2, "{:?}", posted.response_time);
    assert_eq!(&response(posted).body[..], "x".repeat(KEEP_BYTES).as_bytes());
}

#[tokio::test]
async fn what_goes_wrong_after_the_part_that_is_kept_is_no_failure() {
    let receiver = Receiver::start().await;
    let begin = "x".repeat(KEEP_BYTES + 1);
    receiver.script("/", [Reply::cut(begin.clone()), Reply::stalled(begin)]);
    for _ in 0..2 {
        let posted = send(&receiver.url("/")).await;
        assert!(posted.response_time < LONG / 2, "{:?}", posted.response_time);
        assert_eq!(response(posted).body.len(), KEEP_BYTES);
    }
}

#[tokio::test]
async fn a_timeout_says_during_what() {
    let receiver = Receiver::start().await;
    receiver.script("/hang", [Reply::hang()]);
    receiver.script("/stall", [Reply::stalled("begin")]);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_tls = format!("https://{}/", silent.local_addr().unwrap());
    let address = silent.local_addr().unwrap();
    let limit = Duration::from_millis(200);
    let check = async |url: &str, text: &str| {
        let posted = post().send(request(url), limit).await;
        assert!(posted.response_time >= limit, "{posted:?}");
        assert_eq!(failure(posted), Failure { kind: FailureKind::Timeout, text: text.to_owned() });
    };
    check(&receiver.url("/hang"), "timed out after 200ms while waiting for an answer").await;
    check(&receiver.url("/stall"), "timed out after 200ms while reading the body of the answer").await;
    check(&silent_tls, &format!("timed out after 200ms while agreeing on TLS with {address}")).await;

    let post = Post::with_names(config(public_rules()), Arc::new(SilentNames)).unwrap();
    let failure = failure(post.send(request("http://app.example/"), limit).await);
    assert_eq!(failure.text, "timed out after 200ms while resolving app.example");
}

#[tokio::test]
async fn what_an_endpoint_does_in_place_of_an_answer_is_told_apart() {
    let receiver = Receiver::start().await;
    let target = receiver.address();
    let large = format!("HTTP/1.1 200 OK\r\nX-Large: {}\r\n\r\n", "x".repeat(1_000_000));
    let check = async |reply: Reply, kind: FailureKind, text: String| {
        receiver.script("/", [reply]);
        assert_eq!(failure(send(&receiver.url("/")).await), Failure { kind, text });
    };
    check(Reply::close(), FailureKind::Connect, format!("no answer from {target}: the connection was closed")).await;
    check(Reply::reset(), FailureKind::Connect, format!("no answer from {target}: the connection was reset")).await;
    check(
        Reply::raw("HTTP/1.1 200 OK\r\nX-Cut"),
        FailureKind::Connect,
        format!("no answer from {target}: the connection was closed"),
    )
    .await;
    for garbage in ["SSH-2.0-OpenSSH_9.6\r\n\r\n", "HTTP/1.1 999999 What\r\n\r\n", "\0\0\0\0\r\n\r\n"] {
        check(Reply::raw(garbage), FailureKind::Http, format!("what {target} answered is not HTTP/1.1")).await;
    }
    check(
        Reply::raw(large),
        FailureKind::Http,
        format!("the headers of the answer from {target} are larger than is read"),
    )
    .await;
    check(
        Reply::cut("half"),
        FailureKind::Body,
        "the body of the answer broke off: the connection was closed".to_owned(),
    )
    .await;
    check(
        Reply::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n"),
        FailureKind::Body,
        "the body of the answer broke off: what was received is malformed".to_owned(),
    )
    .await;
}

#[tokio::test]
async fn a_refused_connection_names_host_and_port() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let failure = failure(send(&format!("http://{free}/")).await);
    assert_eq!(failure.kind, FailureKind::Connect);
    assert_eq!(failure.text, format!("could not connect to {free}: the connection was refused"));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let receiver = Receiver::start().await;
    receiver
        .script("/", [301, 302, 303, 307, 308].map(|status| Reply::status(status).with_header("Location", "/next")));
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(response(send(&receiver.url("/")).await).status, status);
    }
    assert_eq!((receiver.received("/next").len(), receiver.count()), (0, 5));
}

#[tokio::test]
async fn an_address_that_must_not_be_called_is_not_called_however_it_is_written() {
    let receiver = Receiver::start().await;
    let port = receiver.address().port();
    let post = Post::new(config(public_rules())).unwrap();
    for host in [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "0177.0.0.1",
        "017700000001",
        "127.1",
        "127.0.0.1.",
        "\u{2460}\u{2461}\u{2466}.0.0.1",
        "\u{ff11}27\u{3002}0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::127.0.0.1]",
        "localhost",
        "LOCALHOST",
    ] {
        let failure = failure(post.send(request(&format!("http://{host}:{port}/")), LONG).await);
        assert_eq!(failure.kind, FailureKind::BlockedAddress, "{host}: {failure:?}");
        assert!(failure.text.contains("loopback"), "{host}: {failure:?}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_user_name_does_not_hide_the_host() {
    let post = Post::new(config(loopback_rules())).unwrap();
    for url in ["http://good.example@127.0.0.1/", "http://127.0.0.1:80@good.example/"] {
        let failure = failure(post.send(request(url), LONG).await);
        assert_eq!(failure.kind, FailureKind::BlockedAddress);
        assert!(failure.text.contains("user name"), "{failure:?}");
    }
}

#[tokio::test]
async fn an_international_name_is_looked_up_and_called_as_the_dns_has_it() {
    let receiver = Receiver::start().await;
    let names = Arc::new(AskedNames::default());
    let post = Post::with_names(config(loopback_rules()), names.clone()).unwrap();
    let url = format!("http://b\u{fc}cher.example:{}/", receiver.address().port());
    assert_eq!(response(post.send(request(&url), LONG).await).status, 200);
    assert_eq!(*names.0.lock().unwrap(), ["xn--bcher-kva.example"]);
    let host = format!("xn--bcher-kva.example:{}", receiver.address().port());
    assert_eq!(receiver.received("/").remove(0).header("host"), Some(host.as_str()));
}

#[tokio::test]
async fn a_blocked_address_is_named_with_the_name_that_led_to_it() {
    let names = ScriptedNames::of(&[&["10.0.0.1"]]);
    let post = Post::with_names(config(public_rules()), names).unwrap();
    let failure = failure(post.send(request("http://app.example/"), LONG).await);
    assert_eq!(failure.kind, FailureKind::BlockedAddress);
    assert_eq!(failure.text, "app.example resolves to a private address, which is not allowed (targets.allow_cidrs)");
}

#[tokio::test]
async fn only_the_allowed_addresses_of_a_name_are_called() {
    let receiver = Receiver::start().await;
    let names = ScriptedNames::of(&[&["10.0.0.1", "127.0.0.1", "::1"]]);
    let post = Post::with_names(config(loopback_rules()), names).unwrap();
    let url = format!("http://app.example:{}/", receiver.address().port());
    assert_eq!(response(post.send(request(&url), LONG).await).status, 200);
}

#[tokio::test]
async fn a_name_that_resolves_elsewhere_the_second_time_is_checked_again() {
    let receiver = Receiver::start().await;
    receiver.script("/", [Reply::status(200).with_header("Connection", "close")]);
    let names = ScriptedNames::of(&[&["127.0.0.1"], &["192.168.0.1"]]);
    let post = Post::with_names(config(loopback_rules()), names).unwrap();
    let url = format!("http://app.example:{}/", receiver.address().port());
    assert_eq!(response(post.send(request(&url), LONG).await).status, 200);
    let failure = failure(post.send(request(&url), LONG).await);
    assert_eq!(failure.text, "app.example resolves to a private address, which is not allowed (targets.allow_cidrs)");
}

#[tokio::test]
async fn a_name_that_was_good_when_its_url_was_checked_is_checked_when_it_is_called() {
    let receiver = Receiver::start().await;
    let url = format!("http://app.example:{}/", receiver.address().port());
    assert!(public_rules().check_url(&url).is_ok());
    let names = ScriptedNames::of(&[&["127.0.0.1"], &["::ffff:127.0.0.1"], &["169.254.169.254"], &["64:ff9b::7f00:1"]]);
    let post = Post::with_names(config(public_rules()), names).unwrap();
    for what in ["a loopback", "a loopback", "a cloud metadata", "a loopback"] {
        let failure = failure(post.send(request(&url), LONG).await);
        assert_eq!(failure.kind, FailureKind::BlockedAddress);
        assert!(failure.text.contains(&format!("resolves to {what} address")), "{failure:?}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_redirect_into_our_network_leads_nowhere() {
    let inside = Receiver::start().await;
    let outside = Receiver::start().await;
    outside.script("/", [Reply::status(307).with_header("Location", &inside.url("/secret"))]);
    let rules = AddressRules { allow_hosts: vec!["outside.example".to_owned()], ..public_rules() };
    let post = Post::with_names(config(rules), ScriptedNames::of(&[&["127.0.0.1"]])).unwrap();
    let url = format!("http://outside.example:{}/", outside.address().port());
    assert_eq!(response(post.send(request(&url), LONG).await).status, 307);
    assert_eq!((outside.count(), inside.connections()), (1, 0));
}

#[tokio::test]
async fn the_addresses_of_an_allowed_host_are_not_checked() {
    let receiver = Receiver::start().await;
    let rules = AddressRules { allow_hosts: vec!["app.example".to_owned()], ..public_rules() };
    let post = Post::with_names(config(rules), ScriptedNames::of(&[&["127.0.0.1"], &["127.0.0.1"]])).unwrap();
    let url = |host: &str| format!("http://{host}:{}/", receiver.address().port());
    assert_eq!(response(post.send(request(&url("app.example")), LONG).await).status, 200);
    let failure = failure(post.send(request(&url("other.example")), LONG).await);
    assert_eq!(failure.kind, FailureKind::BlockedAddress);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    let unknown = io::Error::other("no such name");
    let names = Arc::new(ScriptedNames(Mutex::new([Err(unknown), Ok(Vec::new())].into())));
    let post = Post::with_names(config(public_rules()), names).unwrap();
    for text in ["nowhere.example does not resolve: no such name", "nowhere.example does not resolve to any address"] {
        let failure = failure(post.send(request("http://nowhere.example/"), LONG).await);
        assert_eq!(failure, Failure { kind: FailureKind::Dns, text: text.to_owned() });
    }
}

#[tokio::test]
async fn a_host_that_no_request_can_name_is_told() {
    let failure = failure(send("http://a{b}.example/").await);
    assert_eq!(failure, Failure { kind: FailureKind::Dns, text: "a{b}.example is not the name of a host".to_owned() });
}

#[tokio::test]
async fn a_url_the_rules_no_longer_allow_is_refused() {
    let rules = AddressRules { require_https: true, ..loopback_rules() };
    let failure = failure(Post::new(config(rules)).unwrap().send(request("http://app.example/"), LONG).await);
    assert_eq!(failure.kind, FailureKind::BlockedAddress);
    assert_eq!(failure.text, "only https is allowed (targets.require_https)");
}

/// Trusts `authority` beside the system's, and finds `localhost` on IPv4 only, where the receiver is.
fn tls_post(receiver: &Receiver, authority: Option<&str>) -> Post {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = authority.map(|pem| -> PathBuf {
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        path
    });
    let address = receiver.address().ip().to_string();
    let names = ScriptedNames::of(&[&[&address], &[&address]]);
    Post::with_names(PostConfig { ca_file, ..config(loopback_rules()) }, names).unwrap()
}

#[tokio::test]
async fn a_certificate_that_does_not_hold_is_refused_with_its_reason() {
    for (certificate, reason) in [
        (Certificate::Expired, "expired at 2001-02-03T00:00:00Z"),
        (Certificate::NotYetValid, "is not valid before 3001-02-03T00:00:00Z"),
        (Certificate::WrongHost, "is not for localhost but for elsewhere.example"),
        (Certificate::Untrusted, "is self-signed or from an authority that is not trusted here"),
    ] {
        let receiver = Receiver::start_tls(certificate).await;
        let post = tls_post(&receiver, Some(receiver.authority()));
        let failure = failure(post.send(request(&receiver.url("/")), LONG).await);
        assert_eq!(failure.kind, FailureKind::Tls);
        assert_eq!(failure.text, format!("the certificate of localhost:{} {reason}", receiver.address().port()));
        assert_eq!(receiver.count(), 0);
    }
}

#[tokio::test]
async fn a_good_certificate_is_taken_only_with_its_authority() {
    let receiver = Receiver::start_tls(Certificate::Good).await;
    let trusting = tls_post(&receiver, Some(receiver.authority()));
    assert_eq!(response(trusting.send(request(&receiver.url("/")), LONG).await).status, 200);
    let other = tls_post(&receiver, None);
    assert_eq!(failure(other.send(request(&receiver.url("/")), LONG).await).kind, FailureKind::Tls);
}

#[tokio::test]
async fn https_to_an_endpoint_without_tls_says_so() {
    let garbage = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = garbage.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        loop {
            let (mut stream, _) = garbage.accept().await.unwrap();
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let failure = failure(send(&format!("https://{target}/")).await);
    answering.abort();
    let text = format!("the TLS handshake with {target} failed: what it answered is not TLS");
    assert_eq!(failure, Failure { kind: FailureKind::Tls, text });
}

#[tokio::test]
async fn an_unusable_ca_file_is_refused_and_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let empty = file.path().display().to_string();
    for (path, problem) in [(empty.as_str(), "has no certificate in it"), ("/nowhere/ca.pem", "cannot be read")] {
        let refused = Post::new(PostConfig { ca_file: Some(path.into()), ..config(public_rules()) });
        assert_eq!(refused.err().expect("a refusal").to_string(), format!("{path} {problem}"));
    }
}

#[tokio::test]
async fn a_receiver_is_waited_for() {
    let receiver = Receiver::start().await;
    let post = post();
    let sending = join_all((0..3).map(|_| post.send(request(&receiver.url("/")), LONG)));
    let (_, received) = tokio::join!(sending, receiver.wait_for(|requests| requests.len() == 3, LONG));
    assert!(received.iter().all(|request| (1..=3).contains(&request.connection)));
}

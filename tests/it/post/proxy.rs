//! Through a proxy a POST goes to the address that was checked, and what the proxy does in its place is told.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use posthaste::{
    config::{Config, Proxy},
    domain::attempt::{Failure, FailureKind},
    send::post::{Post, PostConfig},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{
    Certificate, LONG, Receiver, ScriptedNames, config, failure, loopback_rules, public_rules, request, response,
};

/// What a proxy does when it is asked for a tunnel.
#[derive(Clone, Copy)]
enum Does {
    /// Opens it.
    Opens,
    /// Says this, and closes.
    Says(&'static str),
    Hangs,
}

/// A proxy that notes what it is asked.
struct ScriptedProxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    serving: JoinHandle<()>,
}

impl ScriptedProxy {
    async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, does, Arc::clone(&noted)));
            }
        });
        Self { address, asked, serving }
    }

    /// The settings of a POST that goes through it.
    fn config(&self) -> PostConfig {
        let url = format!("http://me:p%40ssword@{}", self.address);
        let settings = Config::load(None, [("POSTHASTE_TARGETS__PROXY".to_owned(), url)], None).unwrap();
        PostConfig { proxy: settings.targets.proxy, ..config(loopback_rules()) }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for ScriptedProxy {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(mut client: TcpStream, does: Does, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    asked.lock().unwrap().push(head);
    match does {
        Does::Opens => {
            let mut server = TcpStream::connect(target).await.unwrap();
            client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
            let _ = copy_bidirectional(&mut client, &mut server).await;
        }
        Does::Says(text) => drop(client.write_all(text.as_bytes()).await),
        Does::Hangs => std::future::pending().await,
    }
}

#[tokio::test]
async fn a_target_is_called_by_the_address_that_was_checked_and_tls_is_for_its_name() {
    let receiver = Receiver::start_tls(Certificate::Good).await;
    let proxy = ScriptedProxy::start(Does::Opens).await;
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, receiver.authority()).unwrap();
    let names = ScriptedNames::of(&[&["10.0.0.1", "127.0.0.1"]]);
    let post = Post::with_names(PostConfig { ca_file: Some(ca_file), ..proxy.config() }, names).unwrap();
    let posted = post.send(request(&receiver.url("/hook")), LONG).await;

    let timings = posted.timings;
    assert!(timings.dns.is_some() && timings.connect.is_some() && timings.tls.is_some(), "{timings:?}");
    assert_eq!(response(posted).status, 200);
    let target = receiver.address();
    // base64 of `me:p@ssword`.
    let asked =
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic bWU6cEBzc3dvcmQ=\r\n\r\n");
    assert_eq!(proxy.asked(), [asked]);
    let received = receiver.received("/hook").remove(0);
    assert_eq!(received.header("host"), Some(format!("localhost:{}", target.port()).as_str()));
    assert_eq!(received.header("proxy-authorization"), None);
}

#[tokio::test]
async fn a_target_without_tls_is_tunnelled_to_alike() {
    let receiver = Receiver::start().await;
    let proxy = ScriptedProxy::start(Does::Opens).await;
    let post = Post::new(proxy.config()).unwrap();
    for _ in 0..2 {
        assert_eq!(response(post.send(request(&receiver.url("/hook")), LONG).await).status, 200);
    }
    // The second went over the tunnel of the first.
    assert_eq!((proxy.asked().len(), receiver.received("/hook").len()), (1, 2));
}

#[tokio::test]
async fn an_address_that_must_not_be_called_is_not_asked_of_the_proxy() {
    let proxy = ScriptedProxy::start(Does::Opens).await;
    let names = ScriptedNames::of(&[&["10.0.0.1"], &["127.0.0.1"]]);
    let post = Post::with_names(PostConfig { rules: public_rules(), ..proxy.config() }, names).unwrap();
    for url in ["http://app.example/", "http://app.example/", "http://127.0.0.1/", "http://[::ffff:10.0.0.1]/"] {
        let failure = failure(post.send(request(url), LONG).await);
        assert_eq!(failure.kind, FailureKind::BlockedAddress, "{url}: {failure:?}");
    }
    assert_eq!(proxy.asked(), [""; 0]);
}

#[tokio::test]
async fn what_a_proxy_does_in_place_of_a_tunnel_is_told_apart() {
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(10_000)).leak();
    for (does, text) in [
        (
            Does::Says("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"),
            "the proxy (targets.proxy) wants other credentials: it answered 407",
        ),
        (
            Does::Says("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno\n"),
            "the proxy (targets.proxy) refused to connect to 127.0.0.1:9: it answered 502",
        ),
        (Does::Says("SSH-2.0-OpenSSH\r\n\r\n"), "what the proxy (targets.proxy) answered is not HTTP/1.1"),
        (Does::Says(endless), "what the proxy (targets.proxy) answered is not HTTP/1.1"),
        (Does::Says("HTTP/1.1 200"), "the proxy (targets.proxy) broke off: the connection was closed"),
    ] {
        let proxy = ScriptedProxy::start(does).await;
        let post = Post::new(proxy.config()).unwrap();
        let failure = failure(post.send(request("http://127.0.0.1:9/"), LONG).await);
        assert_eq!(failure, Failure { kind: FailureKind::Connect, text: text.to_owned() });
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_or_hangs_is_told() {
    let proxy = ScriptedProxy::start(Does::Hangs).await;
    let post = Post::new(proxy.config()).unwrap();
    let hung = failure(post.send(request("http://127.0.0.1:9/"), Duration::from_millis(200)).await);
    let text = "timed out after 200ms while connecting to 127.0.0.1:9 through the proxy (targets.proxy)";
    assert_eq!(hung, Failure { kind: FailureKind::Timeout, text: text.to_owned() });

    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = Proxy { port: free.port(), ..proxy.config().proxy.unwrap() };
    let post = Post::new(PostConfig { proxy: Some(gone), ..config(loopback_rules()) }).unwrap();
    let refused = failure(post.send(request("http://127.0.0.1:9/"), LONG).await);
    let text = "the proxy (targets.proxy) could not be reached: the connection was refused";
    assert_eq!(refused, Failure { kind: FailureKind::Connect, text: text.to_owned() });
}

//! One POST: the only HTTP request that leaves the engine.
//!
//! It follows no redirect, takes no proxy from the environment, connects to no address that the rules forbid, reads no
//! more of an answer than it may and takes no longer than it is given. It never fails by itself: what went wrong is
//! part of the answer.

mod connector;
mod failure;
mod names;
mod proxy;
mod tls;
mod watch;

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method,
    header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use url::Url;

use self::{
    connector::{BoxError, Connector, Parts},
    failure::Target,
    names::SystemNames,
    proxy::Tunnels,
    watch::Watch,
};
use crate::{
    clock::now_ms,
    config::{Config, ConfigError, Proxy},
    domain::{
        address::AddressRules,
        attempt::{Answer, Failure, FailureKind, Response, Timings},
        outcome,
    },
};

pub use names::{Names, Resolving};

/// Below the 5 s after which common servers close a kept connection: a request that meets the close would fail.
const MAX_IDLE: Duration = Duration::from_secs(4);
/// Of the head of an answer; a larger one is none that we read.
const HEAD_MAX_BYTES: usize = 128 * 1024;
/// What is read past the part of a body that is kept, so that the connection can be kept too.
const DRAIN_MAX_BYTES: usize = 64 * 1024;
const DRAIN_MAX: Duration = Duration::from_millis(250);
/// What is kept of an answer's headers.
const HEADERS_KEPT: usize = 64;
const HEADER_VALUE_KEPT_BYTES: usize = 1024;
const HEADERS_KEPT_BYTES: usize = 8 * 1024;

const OUR_USER_AGENT: &str = concat!("posthaste/", env!("CARGO_PKG_VERSION"));

/// What every request is bound by.
pub struct PostConfig {
    pub rules: AddressRules,
    /// The first bytes of a body that are kept.
    pub response_keep_bytes: usize,
    /// PEM, certificate authorities to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// Connections kept open to one host while nothing is sent, at most.
    pub max_idle_per_host: usize,
    /// What every connection is tunnelled through.
    pub proxy: Option<Proxy>,
}

/// Sends requests, over connections it keeps. A clone shares them.
#[derive(Clone)]
pub struct Post {
    client: Client<Connector, Full<Bytes>>,
    rules: Arc<AddressRules>,
    response_keep_bytes: usize,
    is_proxied: bool,
}

/// A request to send.
pub struct Request {
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Request {
    /// A request with `Content-Type` and `User-Agent` added where `headers` has none.
    pub fn new(url: Url, mut headers: HeaderMap, body: Bytes) -> Self {
        headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(OUR_USER_AGENT));
        Self { url, headers, body }
    }
}

fn into_http(url: &Url, headers: HeaderMap, body: Bytes) -> http::Result<http::Request<Full<Bytes>>> {
    let mut request = http::Request::builder().method(Method::POST).uri(url.as_str()).body(body.into())?;
    *request.headers_mut() = headers;
    // Some firewalls turn away what does not say it.
    request.headers_mut().entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    Ok(request)
}

/// What became of a request.
#[derive(Debug)]
pub struct Posted {
    pub answer: Answer,
    /// Until the answer was read, or the failure known.
    pub response_time: Duration,
    pub timings: Timings,
}

impl Post {
    /// As `config` has it; `is_serve` says what may be posted to where it leaves that open.
    ///
    /// # Errors
    /// When `targets.ca_file` cannot be used.
    pub fn of(config: &Config, is_serve: bool) -> Result<Self, ConfigError> {
        let post = Self::new(PostConfig {
            rules: config.address_rules(is_serve),
            response_keep_bytes: config.delivery.response_keep_bytes,
            ca_file: config.targets.ca_file.clone(),
            // As many as there can be at once: with fewer, a busy host's would be closed and made anew all the time.
            max_idle_per_host: config.delivery.max_in_flight,
            proxy: config.targets.proxy.clone(),
        });
        post.map_err(|error| config.refuse("targets.ca_file", format_args!("{error:#}")))
    }

    /// # Errors
    /// When `ca_file` cannot be used.
    pub fn new(config: PostConfig) -> anyhow::Result<Self> {
        Self::with_names(config, Arc::new(SystemNames))
    }

    /// With names resolved by `names` instead of the system; its answers are checked all the same.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_names(config: PostConfig, names: Arc<dyn Names>) -> anyhow::Result<Self> {
        let rules = Arc::new(config.rules);
        let tls = Arc::new(tls::client_config(config.ca_file.as_deref())?).into();
        let is_proxied = config.proxy.is_some();
        let parts = Parts { names, rules: Arc::clone(&rules), tls, tunnels: config.proxy.map(Tunnels) };
        // What it may send a second time is a request of which a kept connection, closed meanwhile, has taken nothing.
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(MAX_IDLE)
            .pool_max_idle_per_host(config.max_idle_per_host)
            .http1_max_buf_size(HEAD_MAX_BYTES)
            .build(Connector(Arc::new(parts)));
        Ok(Self { client, rules, response_keep_bytes: config.response_keep_bytes, is_proxied })
    }

    /// Sends `request`. `timeout` is for all of it: from the name to the last byte of the body that is kept.
    pub async fn send(&self, request: Request, timeout: Duration) -> Posted {
        let watch = Watch::start();
        // Once more: the rules may be others than when the URL was taken, and ports and schemes are not the connector's.
        let answer = match self.rules.check(&request.url) {
            Ok(()) => self.exchange(request, timeout, &watch).await,
            Err(refused) => Err(Failure { kind: FailureKind::BlockedAddress, text: refused.problem }),
        };
        let (answer, rest) = match answer {
            Ok((response, rest)) => (Answer::Response(response), rest),
            Err(failure) => (Answer::Failure(failure), None),
        };
        let posted = Posted { answer, response_time: watch.elapsed(), timings: watch.timings() };
        if let Some(rest) = rest {
            drain(rest, DRAIN_MAX.min(timeout.saturating_sub(posted.response_time))).await;
        }
        posted
    }

    async fn exchange(
        &self,
        request: Request,
        timeout: Duration,
        watch: &Arc<Watch>,
    ) -> Result<(Response, Option<Rest>), Failure> {
        let Request { url, headers, body } = request;
        let target = Target::of(&url, self.is_proxied);
        let request = into_http(&url, headers, body);
        match tokio::time::timeout(timeout, watch.over(self.answer(request, watch))).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failure::of_error(&*error, watch.phase(), &target)),
            Err(_) => Err(failure::of_timeout(watch.phase(), &target, timeout)),
        }
    }

    async fn answer(
        &self,
        request: http::Result<http::Request<Full<Bytes>>>,
        watch: &Watch,
    ) -> Result<(Response, Option<Rest>), BoxError> {
        let (head, body) = self.client.request(request?).await?.into_parts();
        watch.answered(&head.extensions);
        let status = head.status.as_u16();
        let headers = kept_headers(&head.headers);
        let retry_after_ms = retry_after_ms(&head.headers);
        let (body, rest) = read_body(body, self.response_keep_bytes).await?;
        Ok((Response { status, headers, body, retry_after_ms }, rest))
    }
}

/// An answer of which all that is kept was read. What goes wrong with it now is no failure.
struct Rest(Incoming);

fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let shown = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        String::from_utf8_lossy(&bytes[..bytes.len().min(HEADER_VALUE_KEPT_BYTES)]).into_owned()
    };
    let kept = headers.iter().take(HEADERS_KEPT).map(|(name, value)| (name.as_str().to_owned(), shown(value)));
    within(HEADERS_KEPT_BYTES, kept)
}

/// The first headers that together are not larger.
pub fn within(bytes: usize, headers: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut used = 0;
    headers
        .take_while(|(name, value)| {
            used += name.len() + value.len();
            used <= bytes
        })
        .collect()
}

fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    outcome::parse_retry_after(headers.get(RETRY_AFTER)?.to_str().ok()?, now_ms())
}

/// The first `keep_bytes` of a body, and the rest if there may be one.
async fn read_body(mut body: Incoming, keep_bytes: usize) -> hyper::Result<(Bytes, Option<Rest>)> {
    let mut kept = BytesMut::new();
    while kept.len() < keep_bytes {
        let Some(frame) = body.frame().await else { return Ok((kept.freeze(), None)) };
        // Trailers are not kept.
        if let Ok(chunk) = frame?.into_data() {
            kept.extend_from_slice(&chunk[..chunk.len().min(keep_bytes - kept.len())]);
        }
    }
    Ok((kept.freeze(), Some(Rest(body))))
}

/// Reads on to the end of a body if that is near, to keep the connection: the client closes one whose body was not
/// read to its end.
async fn drain(Rest(mut body): Rest, limit: Duration) {
    let mut drained = 0;
    let reading = async {
        while drained < DRAIN_MAX_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            drained += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    // Time that is up is as good as bytes that are: the connection is given up.
    let _ = tokio::time::timeout(limit, reading).await;
}

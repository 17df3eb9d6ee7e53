//! An endpoint on this machine: what arrived, and whether its signatures hold. `demo` posts to one, and `listen` is one.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    routing::post,
};
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};

use crate::domain::signature::{self, SchemeResult, header};

/// How old a signature may be: the tolerance that Standard Webhooks recommends.
pub const TOLERANCE_S: u64 = 300;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// With the query.
    pub path: String,
    pub at: SystemTime,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Arrival {
    /// The value of a header, named in lower case; empty where it is missing or is no text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// What a receiver that has this secret makes of its signatures, scheme by scheme; nothing where it has none.
    pub fn verify(&self, secret: &str) -> Vec<SchemeResult> {
        let now_s = self.at.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        signature::verify(secret, header, &self.body, now_s, TOLERANCE_S)
    }

    /// The public id of the event.
    pub fn event_id(&self) -> &str {
        self.header(header::WEBHOOK_ID)
    }
}

/// What is answered, and how long after the request.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    pub status: StatusCode,
    pub after: Duration,
}

/// What is behind the address.
pub trait Endpoint: Clone + Send + Sync + 'static {
    /// Takes a request.
    fn take(&self, arrival: Arrival) -> impl Future<Output = Answer> + Send;
}

/// A running receiver; it ends with its value.
pub struct Receiver {
    pub address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Receiver {
    /// Listens on a port of the loopback address, 0 for a free one; `endpoint` takes each POST of up to 2 MB.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start(port: u16, endpoint: impl Endpoint) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = listener.await.with_context(|| format!("port {port} of 127.0.0.1 cannot be listened on"))?;
        let address = listener.local_addr()?;
        let router = serving(endpoint);
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the receiver ended");
            }
        });
        Ok(Self { address, serving })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn serving<E: Endpoint>(endpoint: E) -> Router {
    Router::new().fallback_service(post(answer::<E>).with_state(endpoint))
}

async fn answer<E: Endpoint>(State(endpoint): State<E>, uri: Uri, headers: HeaderMap, body: Bytes) -> StatusCode {
    let path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let Answer { status, after } = endpoint.take(Arrival { path, at: SystemTime::now(), headers, body }).await;
    sleep(after).await;
    status
}

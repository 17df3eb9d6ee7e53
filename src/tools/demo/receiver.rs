//! The demo's receiver: an endpoint for each webhook, which checks the signatures of all that comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::post,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::domain::signature::{self, SchemeResult, header};

/// How old a signature may be: the tolerance that Standard Webhooks recommends.
const TOLERANCE_S: u64 = 300;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub endpoint: String,
    pub event_id: String,
    pub event_type: String,
    /// `X-Webhook-Attempt`
    pub attempt: String,
    pub at: SystemTime,
    /// What the receiver makes of its signatures, scheme by scheme.
    pub signatures: Vec<SchemeResult>,
}

/// A running receiver; it ends with its value.
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    endpoints: Mutex<Endpoints>,
    arrivals: watch::Sender<Vec<Arrival>>,
}

#[derive(Default)]
struct Endpoints {
    secrets: BTreeMap<String, String>,
    failing: BTreeSet<String>,
}

impl Receiver {
    /// Listens on a free port of the loopback address.
    ///
    /// # Errors
    /// It cannot listen.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the receiver cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let router = Router::new().route("/{endpoint}", post(take)).with_state(shared.clone());
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the receiver ended");
            }
        });
        Ok(Self { address, shared, serving })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, endpoint: &str) -> String {
        format!("http://{}/{endpoint}", self.address)
    }

    /// Tells an endpoint what its requests are signed with.
    pub fn trust(&self, endpoint: &str, secret: &str) {
        self.shared.with(|endpoints| endpoints.secrets.insert(endpoint.to_owned(), secret.to_owned()));
    }

    /// Answers 503 from now on.
    pub fn fail(&self, endpoint: &str) {
        self.shared.with(|endpoints| endpoints.failing.insert(endpoint.to_owned()));
    }

    /// Answers 200 again.
    pub fn recover(&self, endpoint: &str) {
        self.shared.with(|endpoints| endpoints.failing.remove(endpoint));
    }

    /// Waits for a request that fits.
    pub async fn arrival(&self, fits: impl Fn(&Arrival) -> bool) -> Option<Arrival> {
        let mut arrivals = self.shared.arrivals.subscribe();
        let arrived = arrivals.wait_for(|arrivals| arrivals.iter().any(&fits)).await.ok()?;
        arrived.iter().find(|arrival| fits(arrival)).cloned()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn with<T>(&self, action: impl FnOnce(&mut Endpoints) -> T) -> T {
        // No code that can panic runs while it is locked.
        action(&mut self.endpoints.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn take(
    State(shared): State<Arc<Shared>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let at = SystemTime::now();
    let now_s = at.duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let (secret, is_failing) =
        shared.with(|endpoints| (endpoints.secrets.get(&endpoint).cloned(), endpoints.failing.contains(&endpoint)));
    let Some(secret) = secret else { return StatusCode::NOT_FOUND };
    let text = |name: &str| header(name).unwrap_or_default().to_owned();
    let arrival = Arrival {
        event_id: text(header::WEBHOOK_ID),
        event_type: text("x-webhook-event"),
        attempt: text("x-webhook-attempt"),
        at,
        signatures: signature::verify(&secret, header, &body, now_s, TOLERANCE_S),
        endpoint,
    };
    shared.arrivals.send_modify(|arrivals| arrivals.push(arrival));
    if is_failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}

//! The demo's endpoints: one for each webhook, which fails while it is told to, and notes what came.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::http::StatusCode;
use tokio::sync::watch;

use crate::{
    domain::signature::SchemeResult,
    tools::receiver::{self, Answer, Endpoint},
};

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

/// Running endpoints; they end with this value.
pub struct Receiver {
    receiver: receiver::Receiver,
    shared: Arc<Shared>,
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
        let shared = Arc::new(Shared::default());
        let receiver = receiver::Receiver::start(0, shared.clone()).await?;
        Ok(Self { receiver, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.receiver.address
    }

    pub fn url(&self, endpoint: &str) -> String {
        format!("http://{}/{endpoint}", self.receiver.address)
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

impl Shared {
    fn with<T>(&self, action: impl FnOnce(&mut Endpoints) -> T) -> T {
        // No code that can panic runs while it is locked.
        action(&mut self.endpoints.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Endpoint for Arc<Shared> {
    async fn take(&self, arrival: receiver::Arrival) -> Answer {
        let answer = |status| Answer { status, after: Duration::ZERO };
        let endpoint = arrival.path.trim_start_matches('/');
        let (secret, is_failing) =
            self.with(|endpoints| (endpoints.secrets.get(endpoint).cloned(), endpoints.failing.contains(endpoint)));
        let Some(secret) = secret else { return answer(StatusCode::NOT_FOUND) };
        let arrival = Arrival {
            endpoint: endpoint.to_owned(),
            event_id: arrival.event_id().to_owned(),
            event_type: arrival.header("x-webhook-event").to_owned(),
            attempt: arrival.header("x-webhook-attempt").to_owned(),
            at: arrival.at,
            signatures: arrival.verify(&secret),
        };
        self.arrivals.send_modify(|arrivals| arrivals.push(arrival));
        answer(if is_failing { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK })
    }
}

//! The HTTP API: requests become calls of `manage` and `publish`, and their answers JSON. Nothing is decided here.

mod attempts;
mod auth;
mod dead_letters;
mod deliveries;
mod docs_page;
mod error;
mod event_types;
mod events;
mod extract;
mod guard;
mod health;
mod idempotency;
mod ingest;
mod input;
pub mod json;
pub mod openapi;
mod params;
mod rate;
mod replays;
mod routes;
mod serve;
mod tenants;
mod trace;
mod webhooks;

use std::{ops::Deref, sync::Arc, time::Duration};

use axum::{Router, middleware};
use ipnet::IpNet;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

pub use error::Problem;

use crate::{
    domain::access::Access, manage::Manager, publish::Publisher, send::post::Post, shutdown::Shutdown,
    streams::Streams, test_send::TestSender,
};

/// Bytes of the largest body, that of a batch of events.
const BATCH_BYTES: usize = 16 * 1024 * 1024;
/// How long a request may take, from its head to the head of its answer.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);

/// What requests are answered with. Several layers of each request clone it.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

/// What all clones share.
pub struct Parts {
    manager: Manager,
    publisher: Publisher,
    streams: Streams,
    metrics: PrometheusHandle,
    admin_key: auth::AdminKey,
    settings: Settings,
    room: extract::Room,
    counters: rate::Counters,
    tester: TestSender,
    test_slots: guard::Slots,
    ingest_slots: guard::Slots,
}

/// What bounds requests.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of an event's data.
    pub max_payload_bytes: usize,
    /// Requests of each key.
    pub rate_limit_per_minute: u32,
    /// Posts to the ingest of one webhook, and from one address.
    pub ingest_webhook_limit: u32,
    pub ingest_address_limit: u32,
    /// Proxies whose word about where a request comes from is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The host of the public URL, where there is one: a proxy in front of a loopback listener calls by it.
    pub public_host: Option<String>,
    /// Webhooks may point to this machine only because nobody else seems to be able to ask (SECURITY.md).
    pub trusts_locality: bool,
}

impl Api {
    /// `admin_key` opens everything; tests are sent by `post`.
    pub fn new(
        streams: Streams,
        manager: Manager,
        publisher: Publisher,
        post: Post,
        metrics: PrometheusHandle,
        admin_key: &str,
        settings: Settings,
    ) -> Self {
        let admin_key = auth::AdminKey::new(admin_key);
        let tester = TestSender::new(streams.clone(), manager.clone(), post);
        let room = extract::Room::new();
        let (test_slots, ingest_slots) = (guard::Slots::for_tests(), guard::Slots::for_ingest());
        Self(Arc::new(Parts {
            manager,
            publisher,
            streams,
            metrics,
            admin_key,
            settings,
            room,
            counters: rate::Counters::default(),
            tester,
            test_slots,
            ingest_slots,
        }))
    }
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Serves the API until it is told to stop: then requests under way are answered, and it ends.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(listener: TcpListener, api: Api, shutdown: Shutdown) -> anyhow::Result<()> {
    let is_local = listener.local_addr()?.ip().is_loopback();
    serve::serve(listener, router(api, is_local), shutdown).await;
    Ok(())
}

/// Serves `/healthz`, `/readyz` and `/metrics` of a process that has no API, until it is told to stop.
pub async fn serve_health(listener: TcpListener, streams: Streams, metrics: PrometheusHandle, shutdown: Shutdown) {
    let router = health::routes(streams.clone()).merge(health::metrics(metrics));
    serve::serve(listener, finish(router), shutdown).await;
}

fn router(api: Api, is_local: bool) -> Router {
    let key = || middleware::from_fn_with_state(api.clone(), auth::require_key);
    let metrics = health::metrics(api.metrics.clone());
    let admin = middleware::from_fn_with_state(Access::Admin, auth::require);
    let keyed = Router::from(routes::keyed())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .layer(middleware::from_fn_with_state(api.clone(), idempotency::keep_answers))
        .layer(key())
        .with_state(api.clone());
    let open = Router::from(routes::open()).with_state(api.clone());
    let mut router = keyed
        .merge(open)
        .merge(openapi::router())
        .layer(middleware::from_fn_with_state(guard::Slots::for_requests(), guard::bounded))
        // Health is asked most urgently when all else is too much.
        .merge(health::routes(api.streams.clone()))
        .merge(if is_local && api.settings.public_host.is_none() {
            metrics
        } else {
            metrics.layer(admin).layer(key())
        });
    if api.settings.trusts_locality {
        router = router.layer(middleware::from_fn_with_state(guard::ProxyWarning::default(), guard::warn_of_proxy));
    }
    let known_host = middleware::from_fn_with_state(api, auth::require_known_host);
    finish(if is_local { router.layer(known_host) } else { router })
}

/// What every router has: refusals as problems, and a name for each request.
fn finish(router: Router) -> Router {
    router
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .fallback(async || Problem::not_found("path"))
        .layer(middleware::from_fn(trace::trace))
}

//! The HTTP API: requests become calls of `manage` and `publish`, and their answers JSON. Nothing is decided here.

mod attempts;
mod auth;
mod dead_letters;
mod error;
mod events;
mod extract;
mod health;
mod input;
pub mod json;
mod serve;
mod trace;
mod webhooks;

use axum::{
    Router, middleware,
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

pub use error::Problem;

use crate::{manage::Manager, publish::Publisher, shutdown::Shutdown, streams::Streams};

/// What requests are answered with; cheap to clone.
#[derive(Clone)]
pub struct Api {
    manager: Manager,
    publisher: Publisher,
    streams: Streams,
    metrics: PrometheusHandle,
    admin_key: auth::AdminKey,
    max_payload_bytes: usize,
}

impl Api {
    /// `admin_key` opens everything; an event's data has up to `max_payload_bytes`.
    pub fn new(
        streams: Streams,
        manager: Manager,
        publisher: Publisher,
        metrics: PrometheusHandle,
        admin_key: &str,
        max_payload_bytes: usize,
    ) -> Self {
        Self { manager, publisher, streams, metrics, admin_key: auth::AdminKey::new(admin_key), max_payload_bytes }
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
    let router = Router::new()
        .nest("/api/v1", keyed().layer(key()).with_state(api.clone()))
        .merge(health::routes(api.streams.clone()))
        .merge(if is_local { metrics } else { metrics.layer(key()) });
    let router = if is_local { router.layer(middleware::from_fn(auth::require_local_host)) } else { router };
    finish(router)
}

/// What needs a key.
fn keyed() -> Router<Api> {
    Router::new()
        .route("/events", post(events::publish))
        .route("/events/batch", post(events::publish_batch))
        .route("/events/{id}", get(events::show))
        .route("/events/{id}/deliveries", get(events::deliveries))
        .route("/webhooks", post(webhooks::create).get(webhooks::list))
        .route("/webhooks/{id}", get(webhooks::show).patch(webhooks::update).delete(webhooks::delete))
        .route("/webhooks/{id}/pause", post(webhooks::pause))
        .route("/webhooks/{id}/resume", post(webhooks::resume))
        .route("/webhooks/{id}/logs", get(attempts::list))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/replay", post(dead_letters::replay))
        .route("/dead-letters/{id}", get(dead_letters::show).delete(dead_letters::delete))
        .route("/dead-letters/{id}/replay", post(dead_letters::replay_one))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
}

/// What every router has: refusals as problems, and a name for each request.
fn finish(router: Router) -> Router {
    router
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        .fallback(async || Problem::not_found("path"))
        .layer(middleware::from_fn(trace::trace))
}

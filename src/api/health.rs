//! Whether the process is alive, whether it can work, and its figures.

use std::time::Duration;

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::header;
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

use super::error::Problem;
use crate::streams::{Error, Streams};

/// How long Redis may take to answer before it counts as away.
const READY_WITHIN: Duration = Duration::from_secs(2);
/// The text format of Prometheus.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `/healthz`: the process is alive. `/readyz`: Redis answers.
pub(super) fn routes(streams: Streams) -> Router {
    Router::new().route("/healthz", get(healthy)).route("/readyz", get(ready)).with_state(streams)
}

/// `/metrics`.
pub(super) fn metrics(handle: PrometheusHandle) -> Router {
    Router::new().route("/metrics", get(figures)).with_state(handle)
}

async fn healthy() -> Response {
    axum::Json(json!({ "status": "ok" })).into_response()
}

async fn ready(State(streams): State<Streams>) -> Result<Response, Problem> {
    let answer = tokio::time::timeout(READY_WITHIN, streams.ping()).await;
    answer.unwrap_or_else(|_| Err(Error::Unavailable("no answer in time".to_owned())))?;
    Ok(healthy().await)
}

async fn figures(State(handle): State<PrometheusHandle>) -> Response {
    ([(header::CONTENT_TYPE, PROMETHEUS_TEXT)], handle.render()).into_response()
}

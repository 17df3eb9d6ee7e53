//! A plain HTTP client, with as many connections as it has requests under way.

use axum::body::Body;
use hyper_util::{
    client::legacy::{Client as Hyper, connect::HttpConnector},
    rt::TokioExecutor,
};

use super::CONCURRENCY;

pub type Client = Hyper<HttpConnector, Body>;

/// One that keeps its connections.
pub fn client() -> Client {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Hyper::builder(TokioExecutor::new()).pool_max_idle_per_host(CONCURRENCY).build(connector)
}

//! A client of the engine's API, with as many connections as it has requests under way.

use anyhow::{Context, ensure};
use axum::body::Body;
use bytes::Bytes;
use http::{
    Method, Request,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use http_body_util::BodyExt;
use serde_json::Value;

use super::{
    client::{Client, client},
    stage::ADMIN_KEY,
};

/// Asks for one tenant; cheap to clone.
#[derive(Clone)]
pub struct Api {
    client: Client,
    url: String,
    tenant: String,
}

impl Api {
    /// One of the API at `url`.
    pub fn new(url: &str, tenant: String) -> Self {
        Self { client: client(), url: url.to_owned(), tenant }
    }

    /// What is at a path.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.ask(Method::GET, path, Body::empty()).await?)?)
    }

    /// Posts JSON, and returns the answer as it came.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn post(&self, path: &str, body: Bytes) -> anyhow::Result<Bytes> {
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Body) -> anyhow::Result<Bytes> {
        let request = Request::builder().method(method).uri(format!("{}/api/v1{path}", self.url));
        let request = request.header(AUTHORIZATION, format!("Bearer {ADMIN_KEY}")).header("x-tenant", &self.tenant);
        let request = request.header(CONTENT_TYPE, "application/json").body(body)?;
        let answer = self.client.request(request).await.context("the API cannot be asked")?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(status.is_success(), "the API answered {status} to {path}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }
}

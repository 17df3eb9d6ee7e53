//! The limit: what the engine posts, signed and posted by a bare HTTP client, with no queue and nothing kept.

use std::sync::Arc;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Request, Uri, header::CONTENT_TYPE};

use super::{
    CONCURRENCY,
    client::{Client, client},
    event::{EVENT_TYPE, Mark},
    load,
};
use crate::domain::signature::{SigningKeys, generate, header};

/// As long as an event's id.
const ID: &str = "evt_00000000000000000000000000";

/// A client that signs and posts.
pub struct Direct {
    client: Client,
    keys: SigningKeys,
    uri: Uri,
}

impl Direct {
    /// One that posts to `url`.
    ///
    /// # Errors
    /// It is no URL.
    pub fn new(url: &str) -> anyhow::Result<Self> {
        Ok(Self { client: client(), keys: SigningKeys::new(&generate(rand::random()), None)?, uri: url.parse()? })
    }

    /// Signs and posts one event.
    ///
    /// # Errors
    /// The receiver does not take it.
    pub async fn post(&self, mark: Mark) -> anyhow::Result<()> {
        let body = body(mark);
        let now_s = mark.due_us / 1_000_000;
        let signed = self.keys.headers(ID, now_s, &body);
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(header::WEBHOOK_ID, ID)
            .header(header::WEBHOOK_TIMESTAMP, now_s)
            .header(header::WEBHOOK_SIGNATURE, signed.webhook_signature)
            .header(header::HUB_SIGNATURE_256, &signed.hub_signature_256)
            .header(header::HUB_SIGNATURE, &signed.hub_signature_256)
            .header("x-webhook-event", EVENT_TYPE)
            .header("x-event-type", EVENT_TYPE)
            .header("x-webhook-attempt", 1)
            .body(body.into())?;
        let answer = self.client.request(request).await.context("the receiver cannot be posted to")?;
        ensure!(answer.status().is_success(), "the receiver answered {}", answer.status());
        Ok(())
    }

    /// Posts so many events, as many at once as the engine does.
    ///
    /// # Errors
    /// One is not taken.
    pub async fn post_all(self: &Arc<Self>, count: u64) -> anyhow::Result<()> {
        let direct = self.clone();
        load::closed(count, CONCURRENCY, move |number| {
            let direct = direct.clone();
            async move { direct.post(Mark::now(number)).await }
        })
        .await
    }
}

/// What the engine would post: the data in an envelope.
fn body(mark: Mark) -> Bytes {
    let head = format!(
        "{{\"id\":\"{ID}\",\"type\":\"{EVENT_TYPE}\",\"timestamp\":\"2000-01-01T00:00:00.000Z\",\"tenant\":\"bench-0\",\"data\":"
    );
    [head.as_bytes(), &mark.data(), b"}"].concat().into()
}

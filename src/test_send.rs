//! A test send: a sample posted to a webhook now, past its filters and its queue, and signed as a real one.
//!
//! It is kept in the log of attempts, marked as a test, and counts nowhere else. One that succeeds lets the webhook's
//! deliveries go on which earlier failures hold back.

use bytes::Bytes;

use crate::{
    clock::now_ms,
    domain::{
        Invalid,
        attempt::Attempt,
        event::{Event, check_json, check_type},
        id::{AttemptId, DeliveryId, EventId, StreamId},
    },
    manage::{ManageError, Manager},
    send::{post::Post, request::Target},
    streams::Streams,
};

/// The type of what is sent where nothing else is asked for.
pub const PING: &str = "ping";

/// The sequence numbers of test events begin here: no event of a log comes near, so that their ids name no other.
const FIRST_SEQUENCE: u64 = 1 << 31;

/// Somebody waits for the answer: a webhook's longer timeout does not hold for a test.
const LONGEST_SECONDS: u32 = 50;

/// Makes test sends; cheap to clone.
#[derive(Clone)]
pub struct TestSender {
    streams: Streams,
    manager: Manager,
    post: Post,
}

impl TestSender {
    /// One that finds webhooks by `manager` and sends by `post`.
    pub fn new(streams: Streams, manager: Manager, post: Post) -> Self {
        Self { streams, manager, post }
    }

    /// Sends an event of `event_type` to a webhook of `tenant`, with `data` or the sample of its type, and waits for what
    /// comes of it. The attempt has no id where it could not be kept.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also for another tenant's webhook, and [`ManageError::Invalid`] for a type or data that
    /// no event may have. What goes wrong with the request is part of the attempt.
    pub async fn send(
        &self,
        tenant: &str,
        webhook: &str,
        event_type: &str,
        data: Option<Bytes>,
    ) -> Result<(Option<AttemptId>, Attempt), ManageError> {
        check_type("type", event_type)?;
        let data = match data {
            Some(data) => data,
            None => self.sample(tenant, event_type).await?,
        };
        check_json(&data)?;
        let mut subscription = self.manager.webhook(tenant, webhook).await?.subscription;
        subscription.timeout_seconds = subscription.timeout_seconds.min(LONGEST_SECONDS);
        let target = Target::new(subscription)?;
        let event = event(&target, event_type, data);
        let delivery = DeliveryId { event: event.id.at, subscription: target.subscription.id, copy: 0 };
        let attempt = Attempt { is_test: true, ..target.attempt(&self.post, &event, delivery, 1, None).await };
        Ok((self.keep(&attempt).await, attempt))
    }

    async fn sample(&self, tenant: &str, event_type: &str) -> Result<Bytes, ManageError> {
        let known = self.manager.event_type(tenant, event_type).await?;
        let sample = known.map(|info| info.sample.into());
        sample.ok_or_else(|| Invalid::new("data", "is required: there is no sample of this type").into())
    }

    async fn keep(&self, attempt: &Attempt) -> Option<AttemptId> {
        let kept = self.streams.log_test(attempt).await;
        tracing::info!(
            tenant = attempt.tenant,
            webhook_id = %attempt.subscription,
            event_type = attempt.event_type,
            response_status = attempt.status(),
            error_kind = attempt.failure().map(|failure| failure.kind.name()),
            error = attempt.failure().map(|failure| failure.text.as_str()),
            response_time_ms = attempt.response_time_ms,
            "test send"
        );
        kept.unwrap_or_else(|error| {
            tracing::warn!(webhook_id = %attempt.subscription, %error, "a test send is missing from the log of attempts");
            None
        })
    }
}

/// An event that is in no log.
fn event(target: &Target, event_type: &str, data: Bytes) -> Event {
    let now_ms = now_ms();
    let seq = rand::random_range(FIRST_SEQUENCE..1 << 32);
    let subscription = &target.subscription;
    Event {
        id: EventId { at: StreamId { ms: now_ms, seq }, shard: subscription.id.shard, nonce: rand::random() },
        tenant: subscription.tenant.clone(),
        event_type: event_type.to_owned(),
        timestamp_ms: now_ms,
        data,
        conversation_id: None,
        only_for: Some(subscription.id),
        config_version: StreamId::ZERO,
        trace: None,
    }
}

//! Where the events of a run come from.

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{event::Mark, webhooks::Layout};
use crate::{
    domain::event::NewEvent,
    publish::{Published, Publisher},
};

/// Events that are published at once, so that calls are as full as they can be.
const AT_ONCE: usize = 1_000;

/// Publishes events to each of the webhooks in turn, or to all; cheap to clone.
#[derive(Clone)]
pub struct Source {
    pub publisher: Publisher,
    pub layout: Layout,
}

impl Source {
    /// Publishes one event.
    ///
    /// # Errors
    /// It is refused.
    pub async fn publish(&self, mark: Mark) -> anyhow::Result<Published> {
        self.publish_to(mark.number as usize % self.layout.webhooks().max(1), mark).await
    }

    /// Publishes one event to a webhook, and to whoever gets the same as it.
    ///
    /// # Errors
    /// It is refused.
    pub async fn publish_to(&self, webhook: usize, mark: Mark) -> anyhow::Result<Published> {
        let event = NewEvent {
            tenant: self.layout.tenant(webhook),
            event_type: self.layout.event_type(webhook),
            data: mark.data(),
            ..NewEvent::default()
        };
        self.publisher.publish(event).await.context("an event of the run is refused")
    }

    /// Publishes so many events as fast as they are taken.
    ///
    /// # Errors
    /// One is refused.
    pub async fn publish_all(&self, count: u64) -> anyhow::Result<()> {
        let events = stream::iter(0..count).map(|number| self.publish(Mark::now(number)));
        events.buffer_unordered(AT_ONCE).try_for_each(async |_| Ok(())).await
    }
}

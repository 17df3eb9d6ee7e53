//! Where the events of a run come from.

use anyhow::Context;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::event::{EVENT_TYPE, Mark};
use crate::{
    domain::event::NewEvent,
    publish::{Published, Publisher},
};

/// Events that are published at once, so that calls are as full as they can be.
const AT_ONCE: usize = 1_000;

/// Publishes events to each of the endpoints in turn; cheap to clone.
#[derive(Clone)]
pub struct Source {
    pub publisher: Publisher,
    pub endpoints: usize,
}

impl Source {
    /// Publishes one event.
    ///
    /// # Errors
    /// It is refused.
    pub async fn publish(&self, mark: Mark) -> anyhow::Result<Published> {
        let event = NewEvent {
            tenant: tenant(mark.number as usize % self.endpoints),
            event_type: EVENT_TYPE.to_owned(),
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

/// Whose an endpoint is.
pub fn tenant(endpoint: usize) -> String {
    format!("bench-{endpoint}")
}

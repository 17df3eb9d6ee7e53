//! One delivery, sent once more because somebody asks for it.

use super::{
    Streams,
    entry::{self, unreadable},
    error::Result,
    scripts,
};
use crate::domain::id::{DeliveryId, StreamId};

/// What a resend call did, or found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resend {
    /// It waited for its retry, and is due now.
    Due,
    /// It is still to be tried, or under way: nothing was to be done.
    Open,
    /// It is a dead letter: to be redriven.
    Dead(StreamId),
    /// It had ended: this delivery of the same event was queued.
    Copied(DeliveryId),
    /// The backlog is full.
    Full,
    /// The subscription is gone.
    Gone,
    /// It had ended, and its event is not kept any more.
    Lost,
    /// It had ended, and the event was put to the subscription as often as it may be.
    Many,
    /// Nothing is noted of the delivery.
    Unknown,
}

impl Streams {
    /// Sends a delivery once more, once whatever happens to the answer: a repeat with the same `call` (any unique text)
    /// gets the first one's answer for a minute.
    ///
    /// # Errors
    /// [`super::Error::Full`] when memory is short.
    pub async fn resend(&self, id: DeliveryId, call: &str) -> Result<Resend> {
        let mut command = self.script(&scripts::RESEND, id.subscription.shard);
        command.arg(call).arg(id.subscription.to_string()).arg(id.event.to_string()).arg(id.copy);
        command.arg(self.0.limits.max_backlog);
        let (what, argument): (String, String) = self.0.connections.call(&scripts::RESEND, &command).await?;
        Ok(match what.as_str() {
            "due" => Resend::Due,
            "open" => Resend::Open,
            "dead" => Resend::Dead(entry::stream_id(&argument)?),
            "copy" => {
                let copy = argument.parse().map_err(|_| unreadable("a copy's number"))?;
                Resend::Copied(DeliveryId { copy, ..id })
            }
            "full" => Resend::Full,
            "gone" => Resend::Gone,
            "lost" => Resend::Lost,
            "many" => Resend::Many,
            "unknown" => Resend::Unknown,
            _ => return Err(unreadable("an answer of resend")),
        })
    }
}

//! Sending one delivery once more, whatever became of it.

use super::{LOST_RACES_AT_MOST, ManageError, Manager};
use crate::{
    domain::{
        delivery::DeliveryState,
        id::{DeliveryId, SubscriptionId},
    },
    streams::{Redriven, Resend},
};

/// What a resend did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resent {
    /// The delivery that is sent: the one asked for, or a new one.
    pub delivery: DeliveryId,
    pub what: ResentAs,
}

/// How a delivery is sent once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResentAs {
    /// It was to be sent anyway.
    Already,
    /// It does not wait for its retry any longer.
    Hastened,
    /// It was a dead letter, and has a new set of retries.
    Redriven,
    /// It had ended: another delivery of the same event.
    Copied,
}

impl Manager {
    /// Sends a delivery once more: at once if it waits for a retry, with new retries if it is a dead letter, as a new
    /// delivery if it had ended. A paused webhook takes it, and sends it when it goes on.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], as [`Self::delivery`]; [`ManageError::Conflict`] where its webhook is deleted or has too
    /// many deliveries waiting, or the event is not kept any more.
    pub async fn resend(&self, tenant: &str, id: &str) -> Result<Resent, ManageError> {
        let view = self.delivery(tenant, id).await?;
        let (delivery, webhook) = (view.status.id, view.status.id.subscription);
        let call = format!("{:032x}", rand::random::<u128>());
        let resent = |delivery, what| Ok(Resent { delivery, what });
        for _ in 0..LOST_RACES_AT_MOST {
            match self.streams.resend(delivery, &call).await? {
                Resend::Due => return resent(delivery, ResentAs::Hastened),
                Resend::Open => return resent(delivery, ResentAs::Already),
                Resend::Copied(copy) => return resent(copy, ResentAs::Copied),
                Resend::Dead(entry) => match self.streams.redrive(webhook, &[entry]).await? {
                    Redriven { is_gone: true, .. } => return Err(is_deleted(webhook)),
                    Redriven { is_full: true, .. } => return Err(is_full(webhook)),
                    Redriven { count: 0, .. } => {}
                    Redriven { .. } => return resent(delivery, ResentAs::Redriven),
                },
                // Nothing is noted of an untried delivery of an event for very many webhooks.
                Resend::Unknown if view.status.state == DeliveryState::Pending => {
                    return resent(delivery, ResentAs::Already);
                }
                Resend::Unknown => return Err(ManageError::NotFound("delivery")),
                Resend::Full => return Err(is_full(webhook)),
                Resend::Gone => return Err(is_deleted(webhook)),
                Resend::Many => {
                    let problem = "this event was sent to this webhook a thousand times more: publish it again";
                    return Err(ManageError::Conflict(problem.to_owned()));
                }
                Resend::Lost => {
                    let problem = "the event is not kept any more (retention.events_days): publish it again";
                    return Err(ManageError::Conflict(problem.to_owned()));
                }
            }
        }
        Err(ManageError::changed_by_others(format_args!("delivery {delivery}")))
    }
}

fn is_deleted(webhook: SubscriptionId) -> ManageError {
    ManageError::Conflict(format!("webhook {webhook} is deleted: create another, and replay the event's time to it"))
}

fn is_full(webhook: SubscriptionId) -> ManageError {
    ManageError::Conflict(format!("the backlog of webhook {webhook} is full: let it drain, then try again"))
}

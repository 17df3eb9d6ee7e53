//! From the dispatcher of a process to its sender: what is expanded is leased in the same call, as far as there are slots for
//! it, and the sender need neither ask for it nor read the event once more.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::streams::{Leased, RecentEvents, ShardId};

/// What the dispatcher holds; a clone is the same. The sender waits for the last of them to end.
#[derive(Clone)]
pub struct Handover {
    /// What it dispatches.
    pub events: RecentEvents,
    slots: Arc<Semaphore>,
    handed: mpsc::UnboundedSender<Handed>,
}

/// What the sender holds.
pub struct Intake {
    /// What the dispatcher, or the sender itself, has had in its hands.
    pub events: RecentEvents,
    /// One for each request under way, or about to be.
    pub slots: Arc<Semaphore>,
    /// How many slots there are, those that are taken included.
    pub slot_count: usize,
    pub handed: mpsc::UnboundedReceiver<Handed>,
}

/// Leased, with the slots that were taken for it.
pub struct Handed {
    pub shard: ShardId,
    pub leased: Leased,
    pub slots: OwnedSemaphorePermit,
}

impl Handover {
    /// Both ends, for a sender of so many slots.
    pub fn new(slot_count: usize) -> (Self, Intake) {
        let (events, slots) = (RecentEvents::new(), Arc::new(Semaphore::new(slot_count)));
        let (sender, handed) = mpsc::unbounded_channel();
        let handover = Self { events: events.clone(), slots: slots.clone(), handed: sender };
        (handover, Intake { events, slots, slot_count, handed })
    }

    /// Takes slots that are free now, `at_most` so many; `None` where there is none.
    pub fn take_slots(&self, at_most: usize) -> Option<OwnedSemaphorePermit> {
        let count = self.slots.available_permits().min(at_most) as u32;
        if count == 0 { None } else { self.slots.clone().try_acquire_many_owned(count).ok() }
    }

    /// Hands over what was leased for these slots.
    pub fn hand(&self, shard: ShardId, leased: Leased, slots: OwnedSemaphorePermit) {
        if self.handed.send(Handed { shard, leased, slots }).is_err() {
            tracing::debug!(shard, "the sender has ended: these leases run out");
        }
    }
}

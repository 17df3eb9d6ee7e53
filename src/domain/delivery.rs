//! A delivery: one event owed to one subscription, and where it stands.

use super::id::{DeliveryId, StreamId};

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// Not done yet: never tried, waiting for its next attempt, or under way.
    Pending,
    Delivered,
    /// It is a dead letter.
    Dead,
    /// Its subscription was deleted, or its dead letter purged.
    Cancelled,
}

impl DeliveryState {
    /// The letter it is kept as.
    pub fn letter(self) -> char {
        match self {
            Self::Pending => 'p',
            Self::Delivered => 'k',
            Self::Dead => 'd',
            Self::Cancelled => 'c',
        }
    }

    /// The reverse of [`Self::letter`].
    pub fn of_letter(letter: &str) -> Option<Self> {
        [Self::Pending, Self::Delivered, Self::Dead, Self::Cancelled]
            .into_iter()
            .find(|state| letter.len() == 1 && letter.starts_with(state.letter()))
    }
}

/// What is known of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryStatus {
    pub id: DeliveryId,
    pub state: DeliveryState,
    /// Its entry in the delivery stream, or among the dead letters.
    pub entry: StreamId,
    /// Attempts made.
    pub attempts: u32,
    /// The HTTP status of the last answer.
    pub last_status: Option<u16>,
    /// The last attempts' places in the attempt log, oldest first: 20 at most.
    pub attempt_log: Vec<StreamId>,
}

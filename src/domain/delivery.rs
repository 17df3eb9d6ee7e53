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

/// Where a delivery stands in public words, or all those of an event together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not tried yet.
    Pending,
    /// Tried, and to be tried again.
    Failed,
    Delivered,
    Dead,
    Cancelled,
}

impl Standing {
    /// The public word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Failed => "failed",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
        }
    }

    /// Of an event: what matters most of how its deliveries stand. `is_open` says that there are, or may be, others not
    /// tried yet. An event that nobody wants is delivered.
    pub fn of_all(standings: impl IntoIterator<Item = Self>, is_open: bool) -> Self {
        let mut overall = if is_open { Self::Pending } else { Self::Delivered };
        for standing in standings {
            overall = match (overall, standing) {
                (Self::Failed, _) | (_, Self::Failed) => Self::Failed,
                (Self::Pending, _) | (_, Self::Pending) => Self::Pending,
                (Self::Dead, _) | (_, Self::Dead) => Self::Dead,
                (Self::Delivered | Self::Cancelled, Self::Delivered | Self::Cancelled) => Self::Delivered,
            };
        }
        overall
    }
}

impl DeliveryStatus {
    /// Where it stands in public words.
    pub fn standing(&self) -> Standing {
        match self.state {
            DeliveryState::Pending if self.attempts == 0 => Standing::Pending,
            DeliveryState::Pending => Standing::Failed,
            DeliveryState::Delivered => Standing::Delivered,
            DeliveryState::Dead => Standing::Dead,
            DeliveryState::Cancelled => Standing::Cancelled,
        }
    }

    /// One that nothing has happened to yet.
    pub fn untried(id: DeliveryId, entry: StreamId) -> Self {
        Self { id, state: DeliveryState::Pending, entry, attempts: 0, last_status: None, attempt_log: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::Standing::{self, Cancelled, Dead, Delivered, Failed, Pending};

    #[test]
    fn an_event_stands_as_what_matters_most_of_its_deliveries() {
        let check = |standings: &[Standing], is_open: bool, expected: Standing| {
            assert_eq!(Standing::of_all(standings.iter().copied(), is_open), expected, "{standings:?} {is_open}");
        };
        check(&[], false, Delivered);
        check(&[], true, Pending);
        check(&[Delivered, Cancelled], false, Delivered);
        check(&[Delivered, Dead, Cancelled], false, Dead);
        check(&[Dead, Pending], false, Pending);
        check(&[Dead], true, Pending);
        check(&[Pending, Failed, Dead], true, Failed);
    }
}

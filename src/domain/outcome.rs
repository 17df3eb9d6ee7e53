//! What becomes of a delivery after an attempt.

/// Why a delivery, or an entry that could not be read, is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Every retry failed.
    Exhausted,
    /// The receiver answered `410 Gone`.
    Gone,
    /// It waited longer than `delivery.max_age_hours`.
    MaxAge,
    /// The subscription had `delivery.max_backlog` deliveries waiting, or its backlog was skipped.
    Overflow,
    /// The event was not to be found: a defect.
    BodyMissing,
    /// Sender after sender died with it.
    LeaseLost,
    /// The entry could not be read as an event.
    Malformed,
}

impl Reason {
    pub const ALL: [Self; 7] = [
        Self::Exhausted,
        Self::Gone,
        Self::MaxAge,
        Self::Overflow,
        Self::BodyMissing,
        Self::LeaseLost,
        Self::Malformed,
    ];

    /// The public word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Gone => "gone",
            Self::MaxAge => "max_age",
            Self::Overflow => "overflow",
            Self::BodyMissing => "body_missing",
            Self::LeaseLost => "lease_lost",
            Self::Malformed => "malformed",
        }
    }

    /// The reverse of [`Self::name`].
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What becomes of a delivery. A result, never an error: an error means that we failed, not they.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Delivered,
    /// Tried again after `delay_ms`.
    Retry {
        delay_ms: u64,
        /// The receiver asked that the whole subscription keep away for so long.
        retry_after_ms: Option<u64>,
        /// The receiver is overloaded (429, 502 or 504 without `Retry-After`): this failure counts double.
        is_overload: bool,
    },
    DeadLetter {
        reason: Reason,
        retry_after_ms: Option<u64>,
    },
    /// `410`: a dead letter, and the subscription is disabled.
    Gone,
}

//! How an endpoint of the receiver answers: the first part of its path says so.

use super::event::Mark;

/// Of ten first requests, those that a flaky endpoint refuses.
const REFUSED_OF_TEN: u64 = 3;
/// The attempt that no flaky endpoint refuses any more, so that every run ends.
const ALWAYS_TAKEN_FROM: u32 = 15;

/// What an endpoint does with requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Takes each at once.
    Healthy,
    /// Takes each, and never answers.
    Hanging,
    /// Refuses each at once.
    Failing,
    /// Takes each, and answers a second later.
    Slow,
    /// Refuses 30 % of them, which ones is a matter of the event and the attempt.
    Flaky,
    /// Refuses the first attempt of each event.
    FailingOnce,
    /// Refuses the first attempt of every second event.
    FailingHalf,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Take,
    TakeLater,
    Refuse,
    Hold,
}

impl Behaviour {
    const ALL: [Self; 7] =
        [Self::Healthy, Self::Hanging, Self::Failing, Self::Slow, Self::Flaky, Self::FailingOnce, Self::FailingHalf];

    /// As a path says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Healthy => "ok",
            Self::Hanging => "hang",
            Self::Failing => "fail",
            Self::Slow => "slow",
            Self::Flaky => "flaky",
            Self::FailingOnce => "once",
            Self::FailingHalf => "half",
        }
    }

    /// That of a name; what names none is healthy.
    pub fn of_name(name: &[u8]) -> Self {
        Self::ALL.into_iter().find(|known| known.name().as_bytes() == name).unwrap_or(Self::Healthy)
    }

    /// What becomes of an attempt (1 for the first) of an event.
    pub fn verdict(self, mark: Mark, attempt: u32) -> Verdict {
        let is_refused = match self {
            Self::Healthy => false,
            Self::Hanging => return Verdict::Hold,
            Self::Slow => return Verdict::TakeLater,
            Self::Failing => true,
            Self::Flaky => attempt < ALWAYS_TAKEN_FROM && scattered(mark.number, attempt) % 10 < REFUSED_OF_TEN,
            Self::FailingOnce => attempt == 1,
            Self::FailingHalf => attempt == 1 && mark.number.is_multiple_of(2),
        };
        if is_refused { Verdict::Refuse } else { Verdict::Take }
    }
}

/// A number that has nothing to do with its neighbours' (the end of SplitMix64).
fn scattered(number: u64, attempt: u32) -> u64 {
    let mut mixed = (number << 8 | u64::from(attempt)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_name_of_its_own_and_answers_as_it_says() {
        let check = |name: &str, attempt, expected: [Verdict; 2]| {
            let behaviour = Behaviour::of_name(name.as_bytes());
            let verdict = |number| behaviour.verdict(Mark { number, due_us: 0 }, attempt);
            assert_eq!([verdict(0), verdict(1)], expected, "{name}, attempt {attempt}");
        };
        for known in Behaviour::ALL {
            assert_eq!(Behaviour::of_name(known.name().as_bytes()), known);
        }
        check("ok", 1, [Verdict::Take; 2]);
        check("anything", 1, [Verdict::Take; 2]);
        check("hang", 1, [Verdict::Hold; 2]);
        check("fail", 9, [Verdict::Refuse; 2]);
        check("slow", 1, [Verdict::TakeLater; 2]);
        check("once", 1, [Verdict::Refuse; 2]);
        check("once", 2, [Verdict::Take; 2]);
        check("half", 1, [Verdict::Refuse, Verdict::Take]);
        check("half", 2, [Verdict::Take; 2]);
        check("flaky", ALWAYS_TAKEN_FROM, [Verdict::Take; 2]);
    }

    #[test]
    fn a_flaky_endpoint_refuses_three_of_ten_at_every_attempt() {
        for attempt in [1, 2, 3] {
            let verdict = |number| Behaviour::Flaky.verdict(Mark { number, due_us: 0 }, attempt);
            let refused = (0..10_000).filter(|number| verdict(*number) == Verdict::Refuse).count();
            assert!((2_800..3_200).contains(&refused), "{refused} at attempt {attempt}");
        }
    }
}

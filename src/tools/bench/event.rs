//! An event that says when it was due: its data end with a mark that the receiver reads without parsing any JSON.

use std::{
    iter::successors,
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use super::EVENT_BYTES;

pub const EVENT_TYPE: &str = "bench.event";

const NUMBER_DIGITS: usize = 10;
const DUE_DIGITS: usize = 16;
const MARK_DIGITS: usize = NUMBER_DIGITS + DUE_DIGITS;
/// What follows the mark in a delivery: the end of the text, of the data and of the envelope.
const AFTER_MARK: &[u8] = b"\"}}";

/// Letters without a pattern, of which each event holds another section. Events that differ by their mark alone would take
/// more of Redis than those of a company: its Lua hashes about 32 bytes of a long string, and finds an equal hash by comparing
/// all that are there.
static LETTERS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let states = successors(Some(1_u32), |state| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)));
    states.map(|state| b'a' + (state >> 24) as u8 % 26).take(16 * EVENT_BYTES).collect()
});

/// The number of events that no run waits for.
pub const UNCOUNTED: u64 = 10_u64.pow(NUMBER_DIGITS as u32) - 1;

/// Which event it is, and when it was due to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// From 0 on in each run, or [`UNCOUNTED`].
    pub number: u64,
    /// Unix microseconds.
    pub due_us: u64,
}

impl Mark {
    /// That of an event that is due now.
    pub fn now(number: u64) -> Self {
        Self { number, due_us: now_us() }
    }

    /// The data of an event: [`EVENT_BYTES`] of JSON.
    pub fn data(self) -> Bytes {
        let Self { number, due_us } = self;
        let mark = format!("\",\"mark\":\"{number:0NUMBER_DIGITS$}{due_us:0DUE_DIGITS$}\"}}");
        let mut data = Vec::with_capacity(EVENT_BYTES);
        data.extend_from_slice(b"{\"filling\":\"");
        let letters = EVENT_BYTES - mark.len() - data.len();
        let first = (number.wrapping_add(due_us) % (LETTERS.len() - letters) as u64) as usize;
        data.extend_from_slice(&LETTERS[first..first + letters]);
        data.extend_from_slice(mark.as_bytes());
        data.into()
    }

    /// Reads it from the body of a delivery; `None` from any other.
    pub fn of_body(body: &[u8]) -> Option<Self> {
        let before = body.strip_suffix(AFTER_MARK)?;
        let digits = before.get(before.len().checked_sub(MARK_DIGITS)?..)?;
        let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok();
        Some(Self { number: number(&digits[..NUMBER_DIGITS])?, due_us: number(&digits[NUMBER_DIGITS..])? })
    }
}

/// Unix microseconds. Publisher and receiver are on one machine, so they share this clock.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::check_json;

    #[test]
    fn a_mark_survives_its_data_in_an_envelope() {
        for mark in [Mark { number: 0, due_us: 0 }, Mark { number: UNCOUNTED, due_us: 1_790_000_000_000_000 }] {
            let data = mark.data();
            assert_eq!(data.len(), EVENT_BYTES);
            assert_eq!(check_json(&data), Ok(()));
            let body = [b"{\"id\":\"evt_1\",\"data\":", &data[..], b"}"].concat();
            assert_eq!(Mark::of_body(&body), Some(mark));
        }
    }

    #[test]
    fn other_bodies_have_no_mark() {
        for body in [&b""[..], b"\"}}", b"123\"}}", b"{\"mark\":\"0123456789abcdefghijklmnop\"}}"] {
            assert_eq!(Mark::of_body(body), None);
        }
    }
}

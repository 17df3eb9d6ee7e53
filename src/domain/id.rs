//! Public ids. Each names what it stands for, so that no index is needed to find it.
//!
//! An id is a prefix and lower-case base32hex without padding (RFC 4648 §7, order-preserving): ids of one kind sort by
//! time as text. Numbers are big-endian.
//!
//! | id | bytes |
//! |---|---|
//! | `evt_` | ms 6, seq 4, shard 2, nonce 4 |
//! | `wh_` | ms 6, shard 2, random 8 |
//! | `dlv_` | event without its nonce 12, subscription 16, copy 2 |
//! | `att_`, `bad_` | ms 6, seq 4, shard 2 |
//! | `key_` | ms 6, random 8 |

use std::{fmt, str::FromStr};

use data_encoding::{Encoding, Specification};

/// A text that is not an id of the kind asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind")]
pub struct NotAnId;

/// The place of an entry in a Redis stream: `<ms>-<seq>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId {
    /// Unix milliseconds on Redis' clock.
    pub ms: u64,
    /// Which entry of that millisecond.
    pub seq: u64,
}

impl StreamId {
    /// Before every entry.
    pub const ZERO: Self = Self { ms: 0, seq: 0 };
    /// After every entry that a public id can name.
    pub const MAX: Self = Self { ms: (1 << 48) - 1, seq: u32::MAX as u64 };

    /// The next possible id, to page on after this one.
    pub fn next(self) -> Self {
        match self.seq.checked_add(1) {
            Some(seq) => Self { ms: self.ms, seq },
            None => Self { ms: self.ms + 1, seq: 0 },
        }
    }

    /// The last possible id before this one, to page back from it.
    pub fn previous(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { ms: self.ms, seq }),
            None => Some(Self { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl FromStr for StreamId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let (ms, seq) = text.split_once('-').ok_or(NotAnId)?;
        Ok(Self { ms: ms.parse().map_err(|_| NotAnId)?, seq: seq.parse().map_err(|_| NotAnId)? })
    }
}

/// An event: its place in the log of its shard. The nonce tells it from another event that a server which lost its last
/// writes puts at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId {
    pub at: StreamId,
    pub shard: u16,
    pub nonce: u32,
}

/// A subscription (a *webhook* in public words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId {
    pub ms: u64,
    pub shard: u16,
    pub random: u64,
}

/// A delivery: one event owed to one subscription. `copy` counts the replays of that event to that subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    pub event: StreamId,
    pub subscription: SubscriptionId,
    pub copy: u16,
}

/// One POST: its place in the attempt log of its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    pub at: StreamId,
    pub shard: u16,
}

/// An entry that could not be read: its place in a stream of such entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BadId {
    pub at: StreamId,
    /// [`BadId::NO_SHARD`] where the entry named no valid tenant.
    pub shard: u16,
}

/// An API key, without what makes it one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId {
    pub ms: u64,
    pub random: u64,
}

impl KeyId {
    pub const PREFIX: &str = "key_";
}

impl BadId {
    /// The shard number of what belongs to no shard.
    pub const NO_SHARD: u16 = u16::MAX;
}

fn alphabet() -> &'static Encoding {
    static ALPHABET: std::sync::OnceLock<Encoding> = std::sync::OnceLock::new();
    ALPHABET.get_or_init(|| {
        let mut specification = Specification::new();
        specification.symbols.push_str("0123456789abcdefghijklmnopqrstuv");
        specification.encoding().expect("a constant alphabet of 32 symbols")
    })
}

struct Writer<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Writer<N> {
    fn new() -> Self {
        Self { bytes: [0; N], used: 0 }
    }

    /// Appends the lowest `width` bytes of `value`.
    fn put(mut self, value: u64, width: usize) -> Self {
        self.bytes[self.used..self.used + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
        self.used += width;
        self
    }

    fn write(self, prefix: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(prefix)?;
        f.write_str(&alphabet().encode(&self.bytes))
    }
}

struct Reader {
    bytes: Vec<u8>,
    used: usize,
}

impl Reader {
    fn new(text: &str, prefix: &str, length: usize) -> Result<Self, NotAnId> {
        let body = text.strip_prefix(prefix).ok_or(NotAnId)?;
        let bytes = alphabet().decode(body.as_bytes()).map_err(|_| NotAnId)?;
        if bytes.len() == length { Ok(Self { bytes, used: 0 }) } else { Err(NotAnId) }
    }

    fn take(&mut self, width: usize) -> u64 {
        let value =
            self.bytes[self.used..self.used + width].iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        self.used += width;
        value
    }

    fn stream_id(&mut self) -> StreamId {
        StreamId { ms: self.take(6), seq: self.take(4) }
    }

    fn subscription_id(&mut self) -> SubscriptionId {
        SubscriptionId { ms: self.take(6), shard: self.take(2) as u16, random: self.take(8) }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Writer::<16>::new()
            .put(self.at.ms, 6)
            .put(self.at.seq, 4)
            .put(self.shard.into(), 2)
            .put(self.nonce.into(), 4)
            .write("evt_", f)
    }
}

impl FromStr for EventId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let mut reader = Reader::new(text, "evt_", 16)?;
        Ok(Self { at: reader.stream_id(), shard: reader.take(2) as u16, nonce: reader.take(4) as u32 })
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Writer::<16>::new().put(self.ms, 6).put(self.shard.into(), 2).put(self.random, 8).write("wh_", f)
    }
}

impl FromStr for SubscriptionId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        Ok(Reader::new(text, "wh_", 16)?.subscription_id())
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Writer::<30>::new()
            .put(self.event.ms, 6)
            .put(self.event.seq, 4)
            .put(self.subscription.shard.into(), 2)
            .put(self.subscription.ms, 6)
            .put(self.subscription.shard.into(), 2)
            .put(self.subscription.random, 8)
            .put(self.copy.into(), 2)
            .write("dlv_", f)
    }
}

impl FromStr for DeliveryId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let mut reader = Reader::new(text, "dlv_", 30)?;
        let event = reader.stream_id();
        let shard = reader.take(2) as u16;
        let subscription = reader.subscription_id();
        let copy = reader.take(2) as u16;
        if shard == subscription.shard { Ok(Self { event, subscription, copy }) } else { Err(NotAnId) }
    }
}

fn write_place(prefix: &str, at: StreamId, shard: u16, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    Writer::<12>::new().put(at.ms, 6).put(at.seq, 4).put(shard.into(), 2).write(prefix, f)
}

fn read_place(prefix: &str, text: &str) -> Result<(StreamId, u16), NotAnId> {
    let mut reader = Reader::new(text, prefix, 12)?;
    Ok((reader.stream_id(), reader.take(2) as u16))
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place("att_", self.at, self.shard, f)
    }
}

impl FromStr for AttemptId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        read_place("att_", text).map(|(at, shard)| Self { at, shard })
    }
}

impl fmt::Display for BadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place("bad_", self.at, self.shard, f)
    }
}

impl FromStr for BadId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        read_place("bad_", text).map(|(at, shard)| Self { at, shard })
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Writer::<14>::new().put(self.ms, 6).put(self.random, 8).write(Self::PREFIX, f)
    }
}

impl FromStr for KeyId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let mut reader = Reader::new(text, Self::PREFIX, 14)?;
        Ok(Self { ms: reader.take(6), random: reader.take(8) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn stream_id()(ms in 0u64..1 << 48, seq in 0u64..1 << 32) -> StreamId { StreamId { ms, seq } }
    }

    prop_compose! {
        fn subscription_id()(ms in 0u64..1 << 48, shard: u16, random: u64) -> SubscriptionId {
            SubscriptionId { ms, shard, random }
        }
    }

    fn check<T: fmt::Display + FromStr<Err = NotAnId> + PartialEq + fmt::Debug>(id: T) {
        let text = id.to_string();
        assert!(text.len() <= 64, "{text}");
        assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)), "{text}");
        assert_eq!(text.parse::<T>(), Ok(id));
    }

    proptest! {
        #[test]
        fn every_id_survives_its_text(at in stream_id(), shard: u16, nonce: u32, subscription in subscription_id(), copy: u16) {
            check(at);
            check(EventId { at, shard, nonce });
            check(subscription);
            check(DeliveryId { event: at, subscription, copy });
            check(AttemptId { at, shard });
            check(BadId { at, shard });
            check(KeyId { ms: at.ms, random: subscription.random });
        }

        #[test]
        fn event_ids_of_a_shard_sort_as_their_places(a in stream_id(), b in stream_id(), shard: u16, nonces: (u32, u32)) {
            let text = |at, nonce| EventId { at, shard, nonce }.to_string();
            prop_assume!(a != b);
            prop_assert_eq!(a.cmp(&b), text(a, nonces.0).cmp(&text(b, nonces.1)));
        }

        #[test]
        fn any_other_text_is_refused_without_a_panic(text in ".{0,70}") {
            prop_assert!(text.parse::<EventId>().is_err());
            let parsed = ["evt_", &text].concat().parse::<EventId>();
            prop_assert!(text.len() == 26 || parsed.is_err());
        }
    }

    #[test]
    fn the_place_before_another_is_the_nearest_one() {
        let at = |ms, seq| StreamId { ms, seq };
        assert_eq!(at(5, 3).previous(), Some(at(5, 2)));
        assert_eq!(at(5, 0).previous(), Some(at(4, u64::MAX)));
        assert_eq!(StreamId::ZERO.previous(), None);
        assert_eq!(at(4, u64::MAX).next(), at(5, 0));
    }

    #[test]
    fn ids_are_as_long_as_documented() {
        let at = StreamId { ms: 1_790_000_000_000, seq: 7 };
        let subscription = SubscriptionId { ms: at.ms, shard: 3, random: 9 };
        assert_eq!(EventId { at, shard: 3, nonce: 1 }.to_string().len(), 30);
        assert_eq!(subscription.to_string().len(), 29);
        assert_eq!(DeliveryId { event: at, subscription, copy: 0 }.to_string().len(), 52);
        assert_eq!(AttemptId { at, shard: 3 }.to_string().len(), 24);
    }
}

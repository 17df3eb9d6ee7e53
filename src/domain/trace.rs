//! The trace that an event belongs to: what `traceparent` says (W3C Trace Context, §3.2).

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;

/// The header that carries it, the field of the front door, and the one of the event log that keeps it.
pub const TRACEPARENT: &str = "traceparent";

/// A place in a trace: whoever goes on from here is its child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Not 0; big-endian, as it is written.
    pub trace_id: [u8; 16],
    /// Not 0; likewise.
    pub span_id: [u8; 8],
    pub is_sampled: bool,
}

/// What is no `traceparent`. Whoever reads one goes on without, as the specification has it (§4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoTrace;

impl FromStr for TraceContext {
    type Err = NoTrace;

    /// Reads version 00, and of a later one what it has in common with it.
    fn from_str(text: &str) -> Result<Self, NoTrace> {
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let is_hex = |part: &&str| part.len() == digits && part.bytes().all(|c| b"0123456789abcdef".contains(&c));
            parts.next().filter(is_hex).and_then(|part| u128::from_str_radix(part, 16).ok()).ok_or(NoTrace)
        };
        let (version, trace_id, span_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        let is_long = parts.next().is_some();
        if version == 0xff || version == 0 && is_long || trace_id == 0 || span_id == 0 {
            return Err(NoTrace);
        }
        let (trace_id, span_id) = (trace_id.to_be_bytes(), (span_id as u64).to_be_bytes());
        Ok(Self { trace_id, span_id, is_sampled: flags & 1 == 1 })
    }
}

/// As version 00 is written.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id_hex(), HEXLOWER.encode(&self.span_id), u8::from(self.is_sampled))
    }
}

impl TraceContext {
    /// The trace's id as it is written, 32 hexadecimal digits.
    pub fn trace_id_hex(&self) -> String {
        HEXLOWER.encode(&self.trace_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification (§3.2.3).
    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written_alike() {
        let context: TraceContext = EXAMPLE.parse().expect("a trace");
        assert_eq!(context.trace_id_hex(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id, [0x00, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]);
        assert!(context.is_sampled);
        assert_eq!(context.to_string(), EXAMPLE);
    }

    #[test]
    fn of_flags_only_the_first_is_known_and_later_versions_may_have_more() {
        let check = |text: &str, is_sampled: bool| {
            assert_eq!(text.parse::<TraceContext>().map(|context| context.is_sampled), Ok(is_sampled), "{text}");
        };
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", false);
        check("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", true);
        check("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true);
        check("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true);
    }

    #[test]
    fn anything_else_is_no_trace() {
        for text in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "\u{e4}\u{e4}-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(NoTrace), "{text}");
        }
    }
}

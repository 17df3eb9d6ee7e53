//! Which slot of a cluster a command belongs to, and which node has it.

use redis::{Arg, Cmd, Value};

use super::super::{entry::unreadable, error::Result};

/// How many slots every cluster has.
pub(super) const SLOTS: u16 = 16_384;

/// The key of a command, the first if it has several; `None` where it has none.
pub(super) fn key_of(command: &Cmd) -> Option<&[u8]> {
    let mut arguments = command.args_iter().map(|argument| if let Arg::Simple(bytes) = argument { bytes } else { b"" });
    match arguments.next()? {
        b"INFO" | b"CONFIG" | b"CLUSTER" | b"TIME" | b"PING" | b"FUNCTION" => None,
        b"XREAD" | b"XREADGROUP" => arguments.skip_while(|argument| *argument != b"STREAMS").nth(1),
        // Behind the function and the number of keys.
        b"FCALL" => arguments.nth(2),
        // Behind what is asked of it.
        b"XGROUP" | b"XINFO" | b"MEMORY" => arguments.nth(1),
        _ => arguments.next(),
    }
}

/// The slot of a key: of what its braces hold, if they hold anything.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    let tag = || {
        let open = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key[open..].iter().position(|byte| *byte == b'}')?;
        (length > 0).then(|| &key[open..open + length])
    };
    crc16::State::<crc16::XMODEM>::calculate(tag().unwrap_or(key)) % SLOTS
}

/// Some slots in a row and who has them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub first: u16,
    /// Included.
    pub last: u16,
    pub primary: Place,
    pub replicas: Vec<Place>,
}

/// Where a node is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `None`: at the address of the node that said so.
    pub host: Option<String>,
    pub port: u16,
}

/// The answer to `CLUSTER SLOTS`.
pub(super) fn read_slots(reply: Value) -> Result<Vec<Range>> {
    redis::from_redis_value::<Vec<Vec<Value>>>(reply)?.into_iter().map(read_range).collect()
}

fn read_range(fields: Vec<Value>) -> Result<Range> {
    let mut fields = fields.into_iter();
    let mut number = || fields.next().map(redis::from_redis_value::<u16>).ok_or_else(|| unreadable("a range of slots"));
    let (first, last) = (number()??, number()??);
    let mut nodes = fields.map(read_place);
    let primary = nodes.next().ok_or_else(|| unreadable("a range of slots"))??;
    if last >= SLOTS || first > last {
        return Err(unreadable("a range of slots"));
    }
    Ok(Range { first, last, primary, replicas: nodes.collect::<Result<_>>()? })
}

/// Its id, and by what else it may be reached, may follow.
fn read_place(node: Value) -> Result<Place> {
    let mut fields = redis::from_redis_value::<Vec<Value>>(node)?.into_iter();
    let (Some(host), Some(port)) = (fields.next(), fields.next()) else { return Err(unreadable("a node")) };
    // "?" where it should have a name and has not told it.
    let host: Option<String> = redis::from_redis_value(host)?;
    Ok(Place { host: host.filter(|host| !host.is_empty() && host != "?"), port: redis::from_redis_value(port)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_its_key() {
        let check = |words: &str, expected: Option<&str>| {
            let mut command = redis::Cmd::new();
            command.arg(words.split(' ').collect::<Vec<_>>());
            assert_eq!(key_of(&command), expected.map(str::as_bytes), "{words:?}");
        };
        check("GET a", Some("a"));
        check("HSET a f v", Some("a"));
        check("FCALL abc 1 a b", Some("a"));
        check("XGROUP CREATE a g 0 MKSTREAM", Some("a"));
        check("XINFO GROUPS a", Some("a"));
        check("MEMORY USAGE a SAMPLES 20", Some("a"));
        check("XREADGROUP GROUP g s COUNT 1 BLOCK 5 STREAMS a b > >", Some("a"));
        check("XREAD COUNT 1 STREAMS a 0", Some("a"));
        check("TIME", None);
        check("PING", None);
        check("INFO memory", None);
        check("CONFIG GET appendonly", None);
        check("CLUSTER SLOTS", None);
    }

    #[test]
    fn braces_say_the_slot() {
        let check = |key: &str, slot| assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        check("123456789", 12_739);
        check("foo", 12_182);
        check("a:{foo}:b", 12_182);
        check("{foo}{bar}", 12_182);
        check("{}foo", slot_of(b"{}foo"));
        check("{foo", slot_of(b"{foo"));
        assert_ne!(slot_of(b"{}foo"), slot_of(b"foo"));
    }

    #[test]
    fn ranges_are_read_with_and_without_hosts() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id"), Value::Array(vec![])]);
        let range =
            |first, last, nodes: Vec<Value>| Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat());
        let place = |host: Option<&str>, port| Place { host: host.map(str::to_owned), port };
        let reply = Value::Array(vec![
            range(0, 5_460, vec![node(text("10.0.0.1"), 7_001), node(text(""), 7_002)]),
            range(5_461, 16_383, vec![node(Value::Nil, 7_003), node(text("?"), 7_004)]),
        ]);
        let expected = [
            Range {
                first: 0,
                last: 5_460,
                primary: place(Some("10.0.0.1"), 7_001),
                replicas: vec![place(None, 7_002)],
            },
            Range { first: 5_461, last: 16_383, primary: place(None, 7_003), replicas: vec![place(None, 7_004)] },
        ];
        assert_eq!(read_slots(reply).expect("ranges"), expected);
        assert!(read_slots(Value::Array(vec![range(0, 16_384, vec![node(Value::Nil, 1)])])).is_err());
        assert!(read_slots(Value::Array(vec![range(0, 1, vec![])])).is_err());
    }
}

//! Entries of streams that others may write to: their fields are named by bytes, which need not be text.

use std::collections::HashMap;

use bytes::Bytes;
use redis::Value;

use super::{
    entry::{self, unreadable},
    error::Result,
};
use crate::domain::id::StreamId;

/// An entry as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawEntry {
    pub at: StreamId,
    /// `None` where it was deleted while it was pending.
    pub fields: Option<HashMap<Vec<u8>, Bytes>>,
}

impl RawEntry {
    /// Its fields by name, as entries of our own are read; `None` where it has none, or a name is not UTF-8.
    pub fn into_named(self) -> Option<HashMap<String, Value>> {
        let fields = self.fields?.into_iter();
        fields.map(|(name, value)| Some((String::from_utf8(name).ok()?, Value::BulkString(value.into())))).collect()
    }

    /// Its fields as a dead letter keeps them.
    pub fn shown(&self) -> HashMap<String, Bytes> {
        let fields = self.fields.iter().flatten();
        fields.map(|(name, value)| (shown_name(name), value.clone())).collect()
    }
}

/// A field's name; one that is not UTF-8 with escapes, so that two such names stay two.
pub fn shown_name(name: &[u8]) -> String {
    std::str::from_utf8(name).map_or_else(|_| name.escape_ascii().to_string(), str::to_owned)
}

/// The answer to `XREAD` or `XREADGROUP`: the entries of each stream, by its key.
pub(super) fn read_by_stream(reply: Value) -> Result<Vec<(String, Vec<RawEntry>)>> {
    let streams = match reply {
        Value::Nil => return Ok(Vec::new()),
        Value::Map(streams) => streams,
        Value::Array(streams) => streams.into_iter().map(pair).collect::<Result<_>>()?,
        _ => return Err(unreadable("the answer to a read of streams")),
    };
    streams
        .into_iter()
        .map(|(key, entries)| Ok((redis::from_redis_value::<String>(key)?, read_entries(entries)?)))
        .collect()
}

/// The answer to `XRANGE`.
pub(super) fn read_entries(reply: Value) -> Result<Vec<RawEntry>> {
    let Value::Array(entries) = reply else { return Err(unreadable("the entries of a stream")) };
    entries.into_iter().map(read_entry).collect()
}

fn read_entry(value: Value) -> Result<RawEntry> {
    let (id, fields) = pair(value)?;
    let at = entry::stream_id(&redis::from_redis_value::<String>(id)?)?;
    let fields = match fields {
        Value::Nil => None,
        Value::Map(pairs) => Some(pairs.into_iter().map(read_field).collect::<Result<_>>()?),
        Value::Array(flat) => {
            let mut values = flat.into_iter();
            let pairs = std::iter::from_fn(|| Some((values.next()?, values.next()?)));
            Some(pairs.map(read_field).collect::<Result<_>>()?)
        }
        _ => return Err(unreadable("the fields of an entry")),
    };
    Ok(RawEntry { at, fields })
}

fn read_field((name, value): (Value, Value)) -> Result<(Vec<u8>, Bytes)> {
    Ok((redis::from_redis_value(name)?, redis::from_redis_value::<Vec<u8>>(value)?.into()))
}

fn pair(value: Value) -> Result<(Value, Value)> {
    let Value::Array(items) = value else { return Err(unreadable("an entry of a stream")) };
    let [first, second] = <[Value; 2]>::try_from(items).map_err(|_| unreadable("an entry of a stream"))?;
    Ok((first, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &[u8]) -> Value {
        Value::BulkString(text.to_vec())
    }

    #[test]
    fn both_protocols_and_any_bytes_are_read() {
        let entries = Value::Array(vec![
            Value::Array(vec![text(b"1-0"), Value::Array(vec![text(b"a"), text(b"x"), text(b"\xff"), text(b"\xfe")])]),
            Value::Array(vec![text(b"2-0"), Value::Map(vec![(text(b"a"), text(b"y"))])]),
            Value::Array(vec![text(b"3-0"), Value::Nil]),
        ]);
        let check = |reply: Value| {
            let streams = read_by_stream(reply.clone()).expect("a reply");
            assert_eq!(streams.len(), 1);
            let (key, read) = &streams[0];
            assert_eq!((key.as_str(), read.len()), ("in", 3));
            assert_eq!(read[0].shown()["\\xff"], &b"\xfe"[..]);
            assert_eq!(read[2], RawEntry { at: StreamId { ms: 3, seq: 0 }, fields: None });
            let mut named = read_by_stream(reply).expect("a reply").remove(0).1.into_iter().map(RawEntry::into_named);
            assert_eq!(named.next(), Some(None));
            assert_eq!(named.next().flatten().map(|fields| fields["a"].clone()), Some(text(b"y")));
        };
        check(Value::Map(vec![(text(b"in"), entries.clone())]));
        check(Value::Array(vec![Value::Array(vec![text(b"in"), entries])]));
        assert!(read_by_stream(Value::Nil).expect("a reply").is_empty());
        assert!(read_by_stream(Value::Int(1)).is_err());
    }
}

//! Appending to the log: what publishers and movers do.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use super::{
    ShardId, Streams,
    entry::{self, unreadable},
    error::Result,
    pack, scripts, unpack,
};
use crate::domain::{
    digest::digest,
    event::NewEvent,
    id::{BadId, EventId, StreamId},
};

/// How long an idempotency key is remembered.
const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);
/// Events that one append call takes.
pub const APPEND_AT_MOST: usize = 100;
/// Bytes of data that one append call takes, unless a single event is larger.
pub const APPEND_BYTES: usize = 1024 * 1024;

/// One entry of an append call.
#[derive(Debug, Clone)]
pub enum Append {
    Event {
        event: NewEvent,
        /// Its id in the front door, if it came from there.
        source_id: Option<StreamId>,
    },
    /// An entry of the front door that could not be read: a dead letter with its raw fields.
    Bad { tenant: String, reason: String, raw: Bytes, source_id: StreamId },
}

impl Append {
    /// Bytes of its data.
    pub fn size(&self) -> usize {
        match self {
            Self::Event { event, .. } => event.data.len(),
            Self::Bad { raw, .. } => raw.len(),
        }
    }
}

/// What the one that moves the front door says with what it appends.
#[derive(Debug, Clone, Copy)]
pub struct Moving<'a> {
    /// As [`Streams::begin_moving`] was told.
    pub mover: &'a str,
    /// Ids of the front door that are gone from it, so that they need not be remembered longer.
    pub gone: &'a [StreamId],
}

/// What became of an entry of an append call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is in the log.
    Event(EventId),
    /// The same was published before with the same idempotency key.
    Repeated(EventId),
    /// The idempotency key came before with another event.
    Conflict,
    /// Its tenant has as much stored as it may.
    TenantFull,
    /// This entry of the front door was moved before.
    Moved,
    /// It is among the dead letters.
    Bad(BadId),
}

/// An array as `publish.lua` reads it; empty where there is nothing.
#[derive(Serialize)]
struct AppendItem<'a> {
    nonce: String,
    event_type: &'a str,
    tenant: &'a str,
    timestamp_ms: String,
    /// Travels beside the batch.
    #[serde(skip)]
    body: &'a Bytes,
    conversation_id: &'a str,
    only_for: String,
    /// Parted by spaces.
    key_hashes: String,
    same_hash: String,
    source_id: String,
    fault: &'a str,
    traceparent: String,
}

impl<'a> AppendItem<'a> {
    fn of(append: &'a Append) -> Self {
        match append {
            Append::Event { event, source_id } => Self {
                nonce: rand::random::<u32>().to_string(),
                event_type: &event.event_type,
                tenant: &event.tenant,
                timestamp_ms: event.timestamp_ms.map(|ms| ms.to_string()).unwrap_or_default(),
                body: &event.data,
                conversation_id: event.conversation_id.as_deref().unwrap_or_default(),
                only_for: event.only_for.map(|id| id.to_string()).unwrap_or_default(),
                key_hashes: key_hashes(event),
                same_hash: match event.idempotency_key {
                    Some(_) => digest(&[event.event_type.as_bytes(), &event.data]),
                    None => SIGNED.to_owned(),
                },
                source_id: source_id.map(|id| id.to_string()).unwrap_or_default(),
                fault: "",
                traceparent: event.trace.as_ref().map(|trace| trace.to_string()).unwrap_or_default(),
            },
            Append::Bad { tenant, reason, raw, source_id } => Self {
                nonce: String::new(),
                event_type: "",
                tenant,
                timestamp_ms: String::new(),
                body: raw,
                conversation_id: "",
                only_for: String::new(),
                key_hashes: String::new(),
                same_hash: String::new(),
                source_id: source_id.to_string(),
                fault: reason,
                traceparent: String::new(),
            },
        }
    }
}

/// Stands for type and data where the signature of a request is its key: they need not be compared.
const SIGNED: &str = "signed";

/// Under what an event is known again.
fn key_hashes(event: &NewEvent) -> String {
    let key = event.idempotency_key.as_ref().map(|key| digest(&[key.as_bytes()]));
    let signatures = event.signatures.iter().map(|signature| digest(&[SIGNED.as_bytes(), signature.as_bytes()]));
    key.into_iter().chain(signatures).collect::<Vec<_>>().join(" ")
}

impl Streams {
    /// Appends to the log of one shard, each entry once whatever happens to the answer: a repeat with the same `call`
    /// (any unique text) gets the first one's answer for a minute. `moving` is for what came from the front door.
    ///
    /// # Errors
    /// [`Error::Full`](super::Error::Full) when memory is short: this call has written nothing then. Another has begun to move
    /// the front door.
    pub async fn append(
        &self,
        shard: ShardId,
        call: &str,
        batch: &[Append],
        moving: Option<Moving<'_>>,
    ) -> Result<Vec<Appended>> {
        let items: Vec<AppendItem<'_>> = batch.iter().map(AppendItem::of).collect();
        debug_assert!(moving.is_some() || items.iter().all(|item| item.source_id.is_empty()), "only a mover moves");
        let Moving { mover, gone } = moving.unwrap_or(Moving { mover: "", gone: &[] });
        let gone: Vec<String> = gone.iter().map(StreamId::to_string).collect();
        let mut command = self.script(&scripts::PUBLISH, shard);
        command.arg(call).arg(IDEMPOTENCY_WINDOW.as_millis() as u64).arg(pack(&items)).arg(mover).arg(pack(&gone));
        for item in &items {
            command.arg(&item.body[..]);
        }
        let answer: Vec<u8> = self.0.connections.call(&scripts::PUBLISH, &command).await?;
        let results: Vec<Vec<String>> = unpack(&answer, "publish")?;
        results.iter().map(|result| appended(shard, result)).collect()
    }
}

fn appended(shard: ShardId, result: &[String]) -> Result<Appended> {
    let place = || result.get(1).ok_or_else(|| unreadable("publish")).and_then(|text| entry::stream_id(text));
    let event = || {
        let nonce = result.get(2).and_then(|text| text.parse().ok()).ok_or_else(|| unreadable("a nonce"))?;
        Ok(EventId { at: place()?, shard, nonce })
    };
    match result.first().map(String::as_str) {
        Some("ok") => event().map(Appended::Event),
        Some("same") => event().map(Appended::Repeated),
        Some("conflict") => Ok(Appended::Conflict),
        Some("full") => Ok(Appended::TenantFull),
        Some("moved") => Ok(Appended::Moved),
        Some("bad") => Ok(Appended::Bad(BadId { at: place()?, shard })),
        _ => Err(unreadable("a result of publish")),
    }
}

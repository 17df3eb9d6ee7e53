//! Walks over a tenant's dead letters, which are kept apart for each webhook: merged, newest first, to be shown; a webhook
//! after the other, oldest first, to be acted on.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    str::FromStr,
};

use super::{
    ManageError, Manager,
    dead_letters::owns,
    filter::{Dead, DeadLetterCursor, DeadLetterFilter},
    merge::{Merged, Step},
};
use crate::{
    domain::{
        event::DEFAULT_TENANT,
        id::{BadId, NotAnId, StreamId, SubscriptionId},
    },
    streams::{self, BadEntry, DEAD_AT_MOST, DeadLetter, ShardId, Streams},
};

/// Read at once of one source that is merged with others.
const PAGE: usize = 50;
/// A dead letter's place can be later than the time noted beside it: by the length of a script, and by as much as the
/// server's clock was ever set back.
const LATER_MS: u64 = 60_000;

/// Where dead letters are kept; dead letters of the same moment are shown in the reverse of this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// Entries that could not be read and name no valid tenant.
    Stray,
    /// Entries of the tenants of a shard that could not be read.
    Shard,
    Webhook(SubscriptionId),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stray => f.write_str("stray"),
            Self::Shard => f.write_str("shard"),
            Self::Webhook(id) => id.fmt(f),
        }
    }
}

impl FromStr for Source {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        match text {
            "stray" => Ok(Self::Stray),
            "shard" => Ok(Self::Shard),
            id => id.parse().map(Self::Webhook),
        }
    }
}

/// The sources that can hold what a filter means, each with the time of its newest dead letter: milliseconds.
async fn sources(streams: &Streams, tenant: &str, filter: &DeadLetterFilter) -> streams::Result<Vec<(Source, u64)>> {
    let (deliveries, unreadable) = filter.kinds();
    let mut sources = Vec::new();
    if deliveries {
        let webhooks = streams.dead_subscriptions(tenant).await?.into_iter();
        let wanted = webhooks.filter(|(id, _)| filter.webhook.is_none_or(|wanted| wanted == *id));
        sources.extend(wanted.map(|(id, newest_ms)| (Source::Webhook(id), newest_ms)));
    }
    if unreadable {
        sources.push((Source::Shard, StreamId::MAX.ms));
    }
    if unreadable && filter.with_strays && tenant == DEFAULT_TENANT {
        sources.push((Source::Stray, StreamId::MAX.ms));
    }
    Ok(sources)
}

/// All of a tenant's dead letters, newest first.
pub(super) struct NewestFirst<'a> {
    streams: &'a Streams,
    tenant: &'a str,
    needs_type: bool,
    oldest: StreamId,
    merged: Merged<Source, Option<Dead>>,
}

impl<'a> NewestFirst<'a> {
    pub async fn new(
        streams: &'a Streams,
        tenant: &'a str,
        filter: &DeadLetterFilter,
        cursor: Option<DeadLetterCursor>,
    ) -> streams::Result<Self> {
        let (oldest, newest) = filter.range();
        let first_of = |(source, newest_ms): (Source, u64)| {
            (source, newest.min(StreamId { ms: newest_ms.saturating_add(LATER_MS), seq: u64::MAX }))
        };
        let sources = sources(streams, tenant, filter).await?.into_iter().map(first_of);
        let merged = Merged::new(sources, cursor.map(|cursor| (cursor.at, cursor.source)));
        Ok(Self { streams, tenant, needs_type: filter.event_type.is_some(), oldest, merged })
    }

    /// What is next, and where it stands; `None` for what is another tenant's.
    pub async fn next(&mut self) -> streams::Result<Option<(DeadLetterCursor, Option<Dead>)>> {
        loop {
            match self.merged.step() {
                Step::Read(source, first) => {
                    let page = self.read(source, first).await?;
                    self.merged.fill(source, page);
                }
                Step::Found((at, source), dead) => return Ok(Some((DeadLetterCursor { at, source }, dead))),
                Step::End => return Ok(None),
            }
        }
    }

    async fn read(&self, source: Source, first: StreamId) -> streams::Result<VecDeque<(StreamId, Option<Dead>)>> {
        if let Source::Webhook(id) = source {
            let mut letters = self.streams.dead_letters(id, first, self.oldest, PAGE).await?;
            if self.needs_type {
                add_types(self.streams, id, &mut letters).await?;
            }
            return Ok(letters.into_iter().map(|letter| (letter.entry, Some(Dead::Letter(letter)))).collect());
        }
        let entries =
            self.streams.bad_entries(shard_of(self.streams, self.tenant, source), first, self.oldest, PAGE).await?;
        let ours = |entry: BadEntry| (entry.id.at, owns(self.tenant, &entry).then_some(Dead::Bad(entry)));
        Ok(entries.into_iter().map(ours).collect())
    }
}

/// The shard whose unreadable entries a source holds; `None` for those of no shard.
fn shard_of(streams: &Streams, tenant: &str, source: Source) -> Option<ShardId> {
    (source == Source::Shard).then(|| streams.shard_of(tenant))
}

/// What was given up without being read does not say its type: its event does.
async fn add_types(streams: &Streams, id: SubscriptionId, letters: &mut [DeadLetter]) -> streams::Result<()> {
    let unnamed: Vec<&mut DeadLetter> = letters.iter_mut().filter(|letter| letter.event_type.is_empty()).collect();
    let places: Vec<StreamId> = unnamed.iter().map(|letter| letter.delivery.event).collect();
    for (letter, event) in unnamed.into_iter().zip(streams.events(id.shard, &places).await?) {
        letter.event_type = event.map(|event| event.event_type).unwrap_or_default();
    }
    Ok(())
}

/// Dead letters to be acted on at once: up to [`DEAD_AT_MOST`] of one webhook, oldest first, or unreadable entries.
pub(super) enum Batch {
    Letters(SubscriptionId, Vec<StreamId>),
    Bad(Vec<BadId>),
}

impl Batch {
    pub fn len(&self) -> usize {
        match self {
            Self::Letters(_, entries) => entries.len(),
            Self::Bad(ids) => ids.len(),
        }
    }
}

/// What a filter leaves of a tenant's dead letters, as it was when the walk began.
pub(super) struct Walk<'a> {
    manager: &'a Manager,
    tenant: &'a str,
    filter: &'a DeadLetterFilter,
    ready: VecDeque<Batch>,
    /// What is left of each source: the first and the last place.
    left: VecDeque<(Source, StreamId, StreamId)>,
}

impl<'a> Walk<'a> {
    pub async fn new(manager: &'a Manager, tenant: &'a str, filter: &'a DeadLetterFilter) -> Result<Self, ManageError> {
        let mut walk = Self { manager, tenant, filter, ready: VecDeque::new(), left: VecDeque::new() };
        if filter.ids.is_empty() {
            walk.find_sources().await?;
        } else {
            walk.find_ids().await?;
        }
        Ok(walk)
    }

    async fn find_sources(&mut self) -> Result<(), ManageError> {
        let streams = &self.manager.streams;
        let (oldest, newest) = self.filter.range();
        for (source, _) in sources(streams, self.tenant, self.filter).await? {
            // Up to the newest of now: those that die while the walk goes on, perhaps because of it, are left out.
            let last = match source {
                Source::Webhook(id) => {
                    streams.dead_letters(id, newest, oldest, 1).await?.first().map(|letter| letter.entry)
                }
                Source::Shard | Source::Stray => Some(newest),
            };
            self.left.extend(last.map(|last| (source, oldest, last)));
        }
        Ok(())
    }

    async fn find_ids(&mut self) -> Result<(), ManageError> {
        let mut letters: BTreeMap<SubscriptionId, Vec<StreamId>> = BTreeMap::new();
        let mut bad = Vec::new();
        for id in &self.filter.ids {
            match self.manager.find_dead(self.tenant, *id, self.filter.with_strays).await? {
                Some(dead) if !self.filter.allows(&dead) => {}
                Some(Dead::Letter(letter)) => {
                    letters.entry(letter.delivery.subscription).or_default().push(letter.entry);
                }
                Some(Dead::Bad(entry)) => bad.push(entry.id),
                None => {}
            }
        }
        for (webhook, mut entries) in letters {
            entries.sort_unstable();
            entries.dedup();
            self.ready.extend(entries.chunks(DEAD_AT_MOST).map(|page| Batch::Letters(webhook, page.to_vec())));
        }
        if !bad.is_empty() {
            self.ready.push_back(Batch::Bad(bad));
        }
        Ok(())
    }

    pub async fn next(&mut self) -> Result<Option<Batch>, ManageError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            let Some((source, first, last)) = self.left.pop_front() else { return Ok(None) };
            let batch = match source {
                Source::Webhook(id) => self.letters(id, first, last).await?,
                Source::Shard | Source::Stray => self.bad(source, first, last).await?,
            };
            if batch.len() > 0 {
                self.ready.push_back(batch);
            }
        }
    }

    async fn letters(&mut self, id: SubscriptionId, first: StreamId, last: StreamId) -> streams::Result<Batch> {
        let streams = &self.manager.streams;
        let mut letters = streams.oldest_dead_letters(id, first, last, DEAD_AT_MOST).await?;
        if let Some(letter) = letters.last()
            && letters.len() == DEAD_AT_MOST
        {
            self.left.push_front((Source::Webhook(id), letter.entry.next(), last));
        }
        if self.filter.event_type.is_some() {
            add_types(streams, id, &mut letters).await?;
        }
        letters.retain(|letter| self.filter.allows(&Dead::Letter(letter.clone())));
        Ok(Batch::Letters(id, letters.iter().map(|letter| letter.entry).collect()))
    }

    async fn bad(&mut self, source: Source, first: StreamId, last: StreamId) -> streams::Result<Batch> {
        let shard = shard_of(&self.manager.streams, self.tenant, source);
        let mut entries = self.manager.streams.bad_entries(shard, last, first, PAGE).await?;
        if let Some(next) = entries.last().filter(|_| entries.len() == PAGE).and_then(|entry| entry.id.at.previous()) {
            self.left.push_front((source, first, next));
        }
        entries.retain(|entry| owns(self.tenant, entry));
        Ok(Batch::Bad(entries.into_iter().map(|entry| entry.id).collect()))
    }
}

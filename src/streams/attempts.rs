//! The attempt log: one record a POST, found by subscription, event or delivery without scanning.

use redis::streams::StreamRangeReply;

use super::{ShardId, Streams, entry, error::Result, scripts};
use crate::domain::{
    attempt::Attempt,
    id::{AttemptId, StreamId, SubscriptionId},
};

/// Members of a subscription's list of attempts read at once.
const PAGE: isize = 2_000;
/// Members looked at for one page of an answer; a page that had to look further is short, and goes on from its cursor.
const LOOK_AT_MOST: isize = 10_000;
/// Members asked for at once while a place is searched.
const PROBES: isize = 15;

/// Which attempts of a subscription are asked for.
#[derive(Debug, Clone, Default)]
pub struct AttemptFilter {
    /// `Some(true)`: those that succeeded.
    pub is_success: Option<bool>,
    pub event_type: Option<String>,
    /// Unix milliseconds, both included.
    pub since_ms: Option<u64>,
    pub until_ms: Option<u64>,
}

/// A page of attempts, newest first.
#[derive(Debug)]
pub struct AttemptPage {
    pub attempts: Vec<(AttemptId, Attempt)>,
    /// The attempts before this one come next.
    pub before: Option<StreamId>,
}

/// What the list keeps of an attempt: enough to filter by.
struct Member {
    at: StreamId,
    is_success: bool,
    type_hash: u32,
}

impl Member {
    /// 16 bytes: milliseconds 6, sequence 4, success 1, status class 1, type hash 4 (big-endian).
    fn read(bytes: &[u8]) -> Option<Self> {
        let number = |range: std::ops::Range<usize>| {
            bytes.get(range).map(|part| part.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte)))
        };
        Some(Self {
            at: StreamId { ms: number(0..6)?, seq: number(6..10)? },
            is_success: number(10..11)? == 1,
            type_hash: number(12..16)? as u32,
        })
    }
}

impl AttemptFilter {
    /// Whether an attempt, read in full, is asked for.
    pub fn allows_attempt(&self, id: AttemptId, attempt: &Attempt) -> bool {
        self.is_success.is_none_or(|wanted| wanted == attempt.is_success())
            && self.event_type.as_ref().is_none_or(|wanted| *wanted == attempt.event_type)
            && self.since_ms.is_none_or(|since| id.at.ms >= since)
            && self.until_ms.is_none_or(|until| id.at.ms <= until)
    }

    fn allows(&self, member: &Member, type_hash: Option<u32>) -> bool {
        self.is_success.is_none_or(|wanted| wanted == member.is_success)
            && type_hash.is_none_or(|wanted| wanted == member.type_hash)
    }
}

/// The first four bytes of the SHA-1 of a type, as the settle script keeps them.
fn type_hash(event_type: &str) -> u32 {
    let hex = redis::Script::new(event_type).get_hash()[..8].to_owned();
    u32::from_str_radix(&hex, 16).unwrap_or_default()
}

impl Streams {
    /// Keeps the record of a test send, and clears the subscription's breaker if it was taken; `None` where the
    /// subscription is gone.
    pub async fn log_test(&self, attempt: &Attempt) -> Result<Option<AttemptId>> {
        let shard = attempt.subscription.shard;
        let mut command = self.script(&scripts::LOG_TEST, shard);
        command.arg(attempt.subscription.to_string()).arg(u8::from(attempt.is_success()));
        command.arg(attempt.status().unwrap_or(0)).arg(&attempt.event_type).arg(entry::write_attempt(attempt));
        let id: String = self.0.connections.call(&scripts::LOG_TEST, &command).await?;
        if id.is_empty() { Ok(None) } else { Ok(Some(AttemptId { at: entry::stream_id(&id)?, shard })) }
    }

    /// Attempts of one subscription, newest first, those before `before` if given.
    pub async fn attempts_of(
        &self,
        subscription: SubscriptionId,
        filter: &AttemptFilter,
        before: Option<StreamId>,
        limit: usize,
    ) -> Result<AttemptPage> {
        let key = self.keys().one(subscription.shard, "att", subscription);
        let until = filter.until_ms.map(|until| StreamId { ms: until.saturating_add(1), seq: 0 });
        let before = [before, until].into_iter().flatten().min();
        let (found, mut next) = self.look(&key, filter, before, limit).await?;
        let mut attempts = self.attempts(subscription.shard, &found).await?;
        // The log is trimmed from its beginning: before one that is gone there is nothing any more.
        if attempts.last().map(|(id, _)| id.at) != found.last().copied() {
            next = None;
        }
        // Two types may have the same hash.
        attempts.retain(|(id, attempt)| filter.allows_attempt(*id, attempt));
        Ok(AttemptPage { attempts, before: next })
    }

    /// The places of attempts that are asked for, newest first, and where to go on.
    async fn look(
        &self,
        key: &str,
        filter: &AttemptFilter,
        before: Option<StreamId>,
        limit: usize,
    ) -> Result<(Vec<StreamId>, Option<StreamId>)> {
        let hash = filter.event_type.as_deref().map(type_hash);
        let mut end = self.first_not_before(key, before).await?;
        let lowest = (end - LOOK_AT_MOST).max(0);
        let (mut found, mut last_seen) = (Vec::new(), before);
        while end > lowest {
            let start = (end - PAGE).max(lowest);
            for member in self.members(key, start, end - 1).await?.iter().rev() {
                // What goes from the list's beginning meanwhile moves the rest: some would be seen twice.
                if last_seen.is_some_and(|last| member.at >= last) {
                    continue;
                }
                if filter.since_ms.is_some_and(|since| member.at.ms < since) {
                    return Ok((found, None));
                }
                if found.len() == limit {
                    return Ok((found, last_seen));
                }
                last_seen = Some(member.at);
                if filter.allows(member, hash) {
                    found.push(member.at);
                }
            }
            end = start;
        }
        Ok((found, last_seen.filter(|_| end > 0)))
    }

    /// Places of a subscription's attempts, newest first: up to `limit` from `newest` back.
    pub(crate) async fn attempt_places(
        &self,
        subscription: SubscriptionId,
        newest: StreamId,
        limit: usize,
    ) -> Result<Vec<StreamId>> {
        let key = self.keys().one(subscription.shard, "att", subscription);
        let end = self.first_not_before(&key, Some(newest.next())).await?;
        if end == 0 {
            return Ok(Vec::new());
        }
        let members = self.members(&key, (end - limit as isize).max(0), end - 1).await?;
        Ok(members.iter().rev().map(|member| member.at).filter(|at| *at <= newest).collect())
    }

    /// The place of a subscription's oldest attempt that is kept.
    pub(crate) async fn oldest_attempt(&self, subscription: SubscriptionId) -> Result<Option<StreamId>> {
        let key = self.keys().one(subscription.shard, "att", subscription);
        Ok(self.members(&key, 0, 0).await?.first().map(|member| member.at))
    }

    /// How many members of the list lie before `before`: the list is in the order of time, and is searched by parts.
    async fn first_not_before(&self, key: &str, before: Option<StreamId>) -> Result<isize> {
        let length: isize = self.0.connections.run(redis::cmd("LLEN").arg(key)).await?;
        let Some(before) = before else { return Ok(length) };
        let (mut low, mut high) = (0, length);
        while low < high {
            let step = ((high - low) / (PROBES + 1)).max(1);
            let probes: Vec<isize> = (1..=PROBES).map(|part| low + part * step - 1).filter(|at| *at < high).collect();
            let mut pipeline = redis::pipe();
            for probe in &probes {
                pipeline.cmd("LINDEX").arg(key).arg(*probe);
            }
            let members: Vec<Option<Vec<u8>>> = self.0.connections.run_all(&pipeline).await?;
            for (probe, member) in probes.iter().zip(members) {
                match member.as_deref().and_then(Member::read) {
                    Some(member) if member.at < before => low = probe + 1,
                    // It, or what is not there any more.
                    Some(_) | None => {
                        high = *probe;
                        break;
                    }
                }
            }
        }
        Ok(low)
    }

    async fn members(&self, key: &str, start: isize, stop: isize) -> Result<Vec<Member>> {
        let members: Vec<Vec<u8>> = self.0.connections.run(redis::cmd("LRANGE").arg(key).arg(start).arg(stop)).await?;
        Ok(members.iter().filter_map(|member| Member::read(member)).collect())
    }

    /// Attempts by their places, those that are still kept.
    pub async fn attempts(&self, shard: ShardId, places: &[StreamId]) -> Result<Vec<(AttemptId, Attempt)>> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let key = self.keys().of(shard, "attempts");
        let mut pipeline = redis::pipe();
        for place in places {
            pipeline.cmd("XRANGE").arg(&key).arg(place.to_string()).arg(place.to_string());
        }
        let replies: Vec<StreamRangeReply> = self.0.connections.run_all(&pipeline).await?;
        replies
            .iter()
            .flat_map(|reply| &reply.ids)
            .map(|found| Ok((AttemptId { at: entry::place(found)?, shard }, entry::read_attempt(&found.map)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_of_the_list_is_read_as_the_script_packs_it() {
        let packed = [0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 1, 2, 0xde, 0xad, 0xbe, 0xef];
        let member = Member::read(&packed).expect("16 bytes");
        assert_eq!(member.at, StreamId { ms: 258, seq: 3 });
        assert!(member.is_success);
        assert_eq!(member.type_hash, 0xdead_beef);
        assert!(Member::read(&packed[..15]).is_none());
    }

    #[test]
    fn a_type_is_hashed_as_the_script_does() {
        // The vector of FIPS 180: SHA-1 of "abc".
        assert_eq!(type_hash("abc"), 0xa999_3e36);
    }
}

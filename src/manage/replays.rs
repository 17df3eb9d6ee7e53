//! Replays: a range of the event log, put to one webhook once more. For a new webhook it is the backfill.

use super::{ManageError, Manager, Seed, check_rate};
use crate::{
    domain::{
        Invalid,
        filter::Pattern,
        id::{StreamId, SubscriptionId},
    },
    streams::{Job, JobState, LogEntry, ShardId},
};

/// Events of the log read at once: their bodies come with them.
const PAGE: usize = 50;
/// Replays that run at once, to all webhooks of a shard and to one.
const RUNNING_AT_MOST: usize = 64;
const RUNNING_A_WEBHOOK: usize = 4;

/// A replay that somebody asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewReplay {
    /// What was published from here to there: Unix milliseconds, both included.
    pub from_ms: u64,
    pub until_ms: u64,
    /// An event filter (`message.*`); all that the webhook wants when absent.
    pub pattern: Option<String>,
    /// Deliveries a second, at most.
    pub rate: Option<u32>,
    /// What its id is made of; drawn when absent.
    pub seed: Option<Seed>,
}

impl Manager {
    /// Starts a replay to a webhook. A dispatcher carries it out. The same seed starts it once.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], or what is wrong with a field.
    pub async fn start_replay(&self, tenant: &str, webhook: &str, asked: &NewReplay) -> Result<Job, ManageError> {
        let (from, until) = range(asked.from_ms, asked.until_ms)?;
        let (pattern, rate) = (asked.pattern.as_deref(), check_rate(asked.rate)?);
        let seed = asked.seed.unwrap_or_else(Seed::draw);
        let pattern = pattern.map(filter).transpose()?;
        let webhook = self.webhook(tenant, webhook).await?.subscription;
        let id = format!("{:016x}", seed.random);
        if let Some(begun) = self.streams.job(webhook.id.shard, &id).await? {
            return Ok(begun);
        }
        self.check_room_for_replay(webhook.id).await?;
        let job = Job {
            id,
            subscription: webhook.id,
            from,
            until,
            pattern: pattern.map(|pattern| pattern.to_string()),
            rate,
            cursor: from,
            queued: 0,
            state: JobState::Running,
        };
        self.streams.create_job(&job).await?;
        Ok(job)
    }

    /// Replays read the log of all tenants of a shard, so there are only so many at once.
    async fn check_room_for_replay(&self, webhook: SubscriptionId) -> Result<(), ManageError> {
        let running = self.streams.running_jobs(&[webhook.shard]).await?;
        if running.len() >= RUNNING_AT_MOST {
            let problem =
                format!("{RUNNING_AT_MOST} replays are running beside each other: try again when some have ended");
            return Err(ManageError::Conflict(problem));
        }
        let mut of_webhook = 0;
        for (shard, id) in running {
            of_webhook +=
                usize::from(self.streams.job(shard, &id).await?.is_some_and(|job| job.subscription == webhook));
        }
        if of_webhook >= RUNNING_A_WEBHOOK {
            let problem =
                format!("{RUNNING_A_WEBHOOK} replays to this webhook are running: try again when one has ended");
            return Err(ManageError::Conflict(problem));
        }
        Ok(())
    }

    /// How many events such a replay would put to the webhook, if it began now. `progress` is told the number so far.
    ///
    /// # Errors
    /// As [`Self::start_replay`].
    pub async fn count_replay(
        &self,
        tenant: &str,
        webhook: &str,
        from_ms: u64,
        until_ms: u64,
        pattern: Option<&str>,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, ManageError> {
        let (mut from, until) = range(from_ms, until_ms)?;
        let pattern = pattern.map(filter).transpose()?;
        let webhook = self.webhook(tenant, webhook).await?.subscription;
        let mut count = 0;
        loop {
            let page = self.streams.log_page(webhook.id.shard, from, until, PAGE).await?;
            let meant = |entry: &&LogEntry| match entry {
                LogEntry::Event(event) => webhook.is_replayed(event, pattern.as_ref()),
                LogEntry::Unreadable(_) => false,
            };
            count += page.iter().filter(meant).count() as u64;
            progress(count);
            match page.last() {
                Some(last) if page.len() == PAGE => from = last.at().next(),
                _ => return Ok(count),
            }
        }
    }

    /// A replay to a webhook of a tenant.
    ///
    /// # Errors
    /// [`ManageError::NotFound`], also a day after its end.
    pub async fn replay(&self, tenant: &str, webhook: &str, id: &str) -> Result<Job, ManageError> {
        let webhook = self.webhook(tenant, webhook).await?.subscription.id;
        let found = self.streams.job(webhook.shard, id).await?;
        found.filter(|job| job.subscription == webhook).ok_or(ManageError::NotFound("replay"))
    }

    /// Where a replay stands; `None` a day after its end.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn replay_status(&self, shard: ShardId, id: &str) -> Result<Option<Job>, ManageError> {
        Ok(self.streams.job(shard, id).await?)
    }
}

fn range(from_ms: u64, until_ms: u64) -> Result<(StreamId, StreamId), Invalid> {
    if from_ms > until_ms {
        return Err(Invalid::new("from", "is after `until`"));
    }
    Ok((StreamId { ms: from_ms, seq: 0 }, StreamId { ms: until_ms, seq: StreamId::MAX.seq }))
}

fn filter(text: &str) -> Result<Pattern, Invalid> {
    text.parse().map_err(|refusal: Invalid| Invalid::new("type", refusal.problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_ends_before_it_begins_is_refused() {
        assert_eq!(range(2, 1).unwrap_err().field, "from");
        assert_eq!(range(1, 1).unwrap().0, StreamId { ms: 1, seq: 0 });
    }

    #[test]
    fn a_wrong_filter_is_refused_as_the_type_it_was_given_as() {
        assert_eq!(filter("a..b").unwrap_err().field, "type");
        assert_eq!(filter("a.*"), Ok(Pattern::Prefix("a.".into())));
    }
}

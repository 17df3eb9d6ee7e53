//! Replays of a range of the log to one subscription: jobs with a cursor, so that a kill only interrupts them.

use std::collections::HashMap;

use redis::Value;

use super::{
    ShardId, Streams,
    connections::those_there_are,
    entry::{self, field, unreadable},
    error::Result,
    pack, scripts,
};
use crate::domain::id::{StreamId, SubscriptionId};

/// Events that one replay call queues.
pub const REPLAY_AT_MOST: usize = 200;

/// A replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// A name without meaning.
    pub id: String,
    pub subscription: SubscriptionId,
    pub from: StreamId,
    /// Included.
    pub until: StreamId,
    /// An event filter (`message.*`), if not all are asked for.
    pub pattern: Option<String>,
    /// Deliveries queued a second, at most.
    pub rate: Option<u32>,
    /// The first event not yet looked at.
    pub cursor: StreamId,
    pub queued: u64,
    pub state: JobState,
}

/// Where a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    Running,
    Done,
    /// Its subscription is gone.
    Cancelled,
}

/// What a replay call did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// So many deliveries were queued.
    Done(u64),
    /// Another one moved the job on: it is there.
    MovedOn(StreamId),
    /// The backlog is full, or one of the events is not expanded yet.
    Later,
    /// The subscription is gone, or the job is.
    Gone,
}

impl JobState {
    /// The public word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }
}

impl Streams {
    /// Starts a replay; a dispatcher carries it out.
    pub async fn create_job(&self, job: &Job) -> Result<()> {
        let shard = job.subscription.shard;
        let key = self.keys().one(shard, "rpl", &job.id);
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline.cmd("HSET").arg(key);
        pipeline.arg("sub").arg(job.subscription.to_string());
        pipeline.arg("from").arg(job.from.to_string()).arg("until").arg(job.until.to_string());
        pipeline.arg("type").arg(job.pattern.as_deref().unwrap_or_default()).arg("rate").arg(job.rate.unwrap_or(0));
        pipeline.arg("cursor").arg(job.cursor.to_string()).arg("queued").arg(job.queued);
        pipeline.arg("state").arg(job.state.name()).ignore();
        pipeline.cmd("SADD").arg(self.keys().of(shard, "jobs")).arg(&job.id).ignore();
        self.0.connections.run_all(&pipeline).await
    }

    /// The names of the replays of some shards that are not done.
    pub async fn running_jobs(&self, shards: &[ShardId]) -> Result<Vec<(ShardId, String)>> {
        if shards.is_empty() {
            return Ok(Vec::new());
        }
        let command = |shard: &ShardId| {
            let mut command = redis::cmd("SMEMBERS");
            command.arg(self.keys().of(*shard, "jobs"));
            command
        };
        let answers = self.0.connections.run_each(shards.iter().map(command).collect()).await;
        let names: Vec<Vec<String>> = those_there_are(answers)?;
        let pairs = shards.iter().zip(names).flat_map(|(shard, names)| names.into_iter().map(|name| (*shard, name)));
        Ok(pairs.collect())
    }

    /// Forgets the name of a replay that is not there.
    pub async fn forget_job(&self, shard: ShardId, id: &str) -> Result<()> {
        self.0.connections.run(redis::cmd("SREM").arg(self.keys().of(shard, "jobs")).arg(id)).await
    }

    /// One replay; `None` a day after its end.
    pub async fn job(&self, shard: ShardId, id: &str) -> Result<Option<Job>> {
        let map: HashMap<String, Value> =
            self.0.connections.run(redis::cmd("HGETALL").arg(self.keys().one(shard, "rpl", id))).await?;
        if map.is_empty() { Ok(None) } else { read_job(id, &map).map(Some) }
    }

    /// Queues events for a replay, up to [`REPLAY_AT_MOST`], and moves it from `job.cursor` on to `next`.
    ///
    /// # Errors
    /// [`super::Error::Full`] when memory is short.
    pub async fn replay(&self, job: &Job, next: StreamId, is_last: bool, events: &[StreamId]) -> Result<Queued> {
        let events: Vec<String> = events.iter().map(StreamId::to_string).collect();
        let state = if is_last { JobState::Done } else { JobState::Running };
        let mut command = self.script(&scripts::REPLAY, job.subscription.shard);
        command.arg(job.subscription.to_string()).arg(&job.id).arg(job.cursor.to_string()).arg(next.to_string());
        command.arg(state.name()).arg(self.0.limits.max_backlog).arg(pack(&events));
        let (queued, refusal, argument): (u64, String, String) =
            self.0.connections.call(&scripts::REPLAY, &command).await?;
        match refusal.as_str() {
            "" => Ok(Queued::Done(queued)),
            "CURSOR" => entry::stream_id(&argument).map(Queued::MovedOn),
            "LATER" => Ok(Queued::Later),
            "GONE" => Ok(Queued::Gone),
            _ => Err(unreadable("a refusal of replay")),
        }
    }
}

fn read_job(id: &str, map: &HashMap<String, Value>) -> Result<Job> {
    let place =
        |name| field::<String>(map, name).and_then(|text| text.parse().ok()).ok_or_else(|| unreadable("a replay"));
    let state: String = field(map, "state").unwrap_or_default();
    Ok(Job {
        id: id.to_owned(),
        subscription: field::<String>(map, "sub")
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| unreadable("a replay's webhook"))?,
        from: place("from")?,
        until: place("until")?,
        pattern: field::<String>(map, "type").filter(|pattern| !pattern.is_empty()),
        rate: field(map, "rate").filter(|rate| *rate != 0),
        cursor: place("cursor")?,
        queued: field(map, "queued").unwrap_or(0),
        state: [JobState::Running, JobState::Done, JobState::Cancelled]
            .into_iter()
            .find(|known| known.name() == state)
            .ok_or_else(|| unreadable("a replay's state"))?,
    })
}

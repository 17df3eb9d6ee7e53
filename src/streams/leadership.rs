//! Who does what only one process may do: a key with a time limit, and a list of who is alive.
//!
//! A leader that has stopped for longer than its key lives may still act once: every step it takes is checked by its
//! script, so that this is harmless.

use std::time::Duration;

use redis::Value;

use super::{ShardId, Streams, error::Result};

/// How long a leader stays one without renewing.
const LEADER_FOR: Duration = Duration::from_secs(3);
/// A process that was not seen for so long is not alive.
const ALIVE_FOR: Duration = Duration::from_secs(3);
/// A process that was not seen for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// What is led.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Post {
    /// Dispatching and upkeep of a shard.
    Shard(ShardId),
    /// Moving what arrives at the front door.
    FrontDoor,
}

impl Streams {
    fn lead_key(&self, post: Post) -> String {
        match post {
            Post::Shard(shard) => self.keys().of(shard, "lead"),
            Post::FrontDoor => self.keys().global("lead"),
        }
    }

    /// Becomes, or stays, the leader of each post; says for each whether `process` is it now.
    pub async fn lead(&self, posts: &[Post], process: &str) -> Result<Vec<bool>> {
        if posts.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for post in posts {
            let key = self.lead_key(*post);
            pipeline.cmd("SET").arg(&key).arg(process).arg("NX").arg("PX").arg(LEADER_FOR.as_millis() as u64).ignore();
            pipeline.cmd("GET").arg(&key);
        }
        let leaders: Vec<Option<String>> = self.0.connections.run_all(&pipeline).await?;
        let mine: Vec<bool> = leaders.iter().map(|leader| leader.as_deref() == Some(process)).collect();
        let mut renewal = redis::pipe();
        for (post, _) in posts.iter().zip(&mine).filter(|(_, mine)| **mine) {
            // Not compared again: whoever took over within this round trip is renewed once, which does no harm.
            renewal.cmd("PEXPIRE").arg(self.lead_key(*post)).arg(LEADER_FOR.as_millis() as u64).ignore();
        }
        if mine.contains(&true) {
            self.0.connections.run_all::<()>(&renewal).await?;
        }
        Ok(mine)
    }

    /// Who leads each post, if anybody does.
    pub async fn leaders(&self, posts: &[Post]) -> Result<Vec<Option<String>>> {
        let mut pipeline = redis::pipe();
        for post in posts {
            pipeline.cmd("GET").arg(self.lead_key(*post));
        }
        self.0.connections.run_all(&pipeline).await
    }

    /// Lets go of posts, so that another takes over at once.
    pub async fn resign(&self, posts: &[Post], process: &str) -> Result<()> {
        for post in posts {
            let key = self.lead_key(*post);
            let leader: Option<String> = self.0.connections.run(redis::cmd("GET").arg(&key)).await?;
            if leader.as_deref() == Some(process) {
                self.0.connections.run::<()>(redis::cmd("DEL").arg(&key)).await?;
            }
        }
        Ok(())
    }

    /// Says that a worker (`role:process`) is alive, and lists those that are.
    pub async fn check_in(&self, worker: &str) -> Result<Vec<String>> {
        let now = self.now_ms().await?;
        let key = self.keys().global("workers");
        let mut pipeline = redis::pipe();
        pipeline.cmd("ZADD").arg(&key).arg(now).arg(worker).ignore();
        pipeline.cmd("ZREMRANGEBYSCORE").arg(&key).arg("-inf").arg(now - FORGOTTEN_AFTER.as_millis() as u64).ignore();
        pipeline.cmd("ZRANGEBYSCORE").arg(&key).arg(now - ALIVE_FOR.as_millis() as u64).arg("+inf");
        let (alive,): (Vec<String>,) = self.0.connections.run_all(&pipeline).await?;
        Ok(alive)
    }

    /// The workers that are alive, each `role:process`.
    pub async fn workers(&self) -> Result<Vec<String>> {
        let since = self.now_ms().await? - ALIVE_FOR.as_millis() as u64;
        let mut command = redis::cmd("ZRANGEBYSCORE");
        self.0.connections.run(command.arg(self.keys().global("workers")).arg(since).arg("+inf")).await
    }

    /// Says that a worker has stopped.
    pub async fn check_out(&self, worker: &str) -> Result<()> {
        self.0.connections.run(redis::cmd("ZREM").arg(self.keys().global("workers")).arg(worker)).await
    }

    /// Redis' clock: Unix milliseconds.
    pub async fn now_ms(&self) -> Result<u64> {
        let (seconds, micros): (u64, u64) = self.0.connections.run(&redis::cmd("TIME")).await?;
        Ok(seconds * 1000 + micros / 1000)
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<()> {
        self.0.connections.run::<Value>(&redis::cmd("PING")).await.map(drop)
    }
}

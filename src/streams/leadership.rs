//! Who does what only one process may do: a key with a time limit, and a list of who is alive.
//!
//! A leader that has stopped for longer than its key lives may still act once: every step it takes is checked by its
//! script, so that this is harmless.

use std::time::Duration;

use redis::Value;

use super::{ShardId, Streams, connections::those_there_are, error::Result, scripts};

/// How long a leader stays one without renewing.
const LEADER_FOR: Duration = Duration::from_secs(3);
/// A process that was not seen for so long is not alive.
const ALIVE_FOR: Duration = Duration::from_secs(3);
/// A process that was not seen for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// What is led.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Seat {
    /// Dispatching and upkeep of a shard.
    Shard(ShardId),
    /// Moving what arrives at the front door.
    FrontDoor,
}

impl Streams {
    fn lead_key(&self, seat: Seat) -> String {
        match seat {
            Seat::Shard(shard) => self.keys().of(shard, "lead"),
            Seat::FrontDoor => self.keys().global("lead"),
        }
    }

    /// Becomes, or stays, the leader of each seat; says for each whether `process` is it now. Nobody leads what is on a node
    /// of a cluster that is away.
    pub async fn lead(&self, seats: &[Seat], process: &str) -> Result<Vec<bool>> {
        let command = |seat: &Seat| {
            let mut command = scripts::LEAD.on(&self.lead_key(*seat));
            command.arg("").arg(process).arg(LEADER_FOR.as_millis() as u64);
            command
        };
        those_there_are(self.0.connections.call_each(&scripts::LEAD, seats.iter().map(command).collect()).await)
    }

    /// Who leads each seat, if anybody does.
    pub async fn leaders(&self, seats: &[Seat]) -> Result<Vec<Option<String>>> {
        if seats.is_empty() {
            return Ok(Vec::new());
        }
        let command = |seat: &Seat| {
            let mut command = redis::cmd("GET");
            command.arg(self.lead_key(*seat));
            command
        };
        those_there_are(self.0.connections.run_each(seats.iter().map(command).collect()).await)
    }

    /// Lets go of seats, so that another takes over at once.
    pub async fn resign(&self, seats: &[Seat], process: &str) -> Result<()> {
        for seat in seats {
            let key = self.lead_key(*seat);
            let leader: Option<String> = self.0.connections.run(redis::cmd("GET").arg(&key)).await?;
            if leader.as_deref() == Some(process) {
                self.0.connections.run::<()>(redis::cmd("DEL").arg(&key)).await?;
            }
        }
        Ok(())
    }

    /// Says that workers (each `role:process`) are alive, and lists those that are.
    pub async fn check_in(&self, workers: &[String]) -> Result<Vec<String>> {
        let mut command = scripts::CHECK_IN.on(&self.keys().global("workers"));
        command.arg("").arg(ALIVE_FOR.as_millis() as u64).arg(FORGOTTEN_AFTER.as_millis() as u64).arg(workers);
        self.0.connections.call(&scripts::CHECK_IN, &command).await
    }

    /// The workers that are alive, each `role:process`.
    pub async fn workers(&self) -> Result<Vec<String>> {
        let since = self.now_ms().await? - ALIVE_FOR.as_millis() as u64;
        let mut command = redis::cmd("ZRANGEBYSCORE");
        self.0.connections.run(command.arg(self.keys().global("workers")).arg(since).arg("+inf")).await
    }

    /// Says that workers have stopped.
    pub async fn check_out(&self, workers: &[String]) -> Result<()> {
        self.0.connections.run(redis::cmd("ZREM").arg(self.keys().global("workers")).arg(workers)).await
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

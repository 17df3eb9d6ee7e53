//! What the API keeps for a short while: answers to requests that may be repeated, and how often somebody asks.

use std::time::Duration;

use super::{Streams, error::Result, scripts};

impl Streams {
    /// Keeps `note` under a name of a tenant's that is free; else gives what is kept there.
    pub async fn claim_answer(&self, tenant: &str, name: &str, note: &str, window: Duration) -> Result<Option<String>> {
        let mut command = redis::cmd("SET");
        command.arg(self.answer_key(tenant, name)).arg(note).arg("NX").arg("GET");
        self.0.connections.run(command.arg("PX").arg(window.as_millis() as u64)).await
    }

    /// Keeps `note` (`None`: nothing) in the place of `expected`; `false` where something else is kept there.
    pub async fn swap_answer(
        &self,
        tenant: &str,
        name: &str,
        expected: &str,
        note: Option<&str>,
        window: Duration,
    ) -> Result<bool> {
        let mut command = scripts::SWAP_ANSWER.on(&self.answer_key(tenant, name));
        command.arg("").arg(expected).arg(note.unwrap_or_default()).arg(window.as_millis() as u64);
        self.0.connections.call(&scripts::SWAP_ANSWER, &command).await
    }

    fn answer_key(&self, tenant: &str, name: &str) -> String {
        self.keys().one(self.shard_of(tenant), "ans", format_args!("{tenant}:{name}"))
    }

    /// Counts requests of `who` in a window of time, which is remembered for `keep`; says how many there were with them.
    pub async fn count_requests(&self, who: &str, requests: u64, window: u64, keep: Duration) -> Result<u64> {
        let key = self.keys().one(self.shard_of(who), "rl", format_args!("{who}:{window}"));
        let mut pipeline = redis::pipe();
        pipeline.cmd("INCRBY").arg(&key).arg(requests);
        pipeline.cmd("PEXPIRE").arg(&key).arg(keep.as_millis() as u64).arg("NX").ignore();
        let (count,): (u64,) = self.0.connections.run_all(&pipeline).await?;
        Ok(count)
    }
}

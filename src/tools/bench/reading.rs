//! What the processes of a run have used up to a moment, and what they use between two.

use std::collections::HashMap;

use anyhow::Context;
use redis::aio::MultiplexedConnection;

use super::{
    process::{cpu_seconds, forget_peak, peak_bytes},
    report::Figures,
};

const MEGABYTE: f64 = 1024.0 * 1024.0;

/// Processes that are counted as one.
pub type Pids = Vec<u32>;

/// Who is looked at.
#[derive(Debug, Clone)]
pub struct Watched {
    /// All processes of the engine.
    pub engine: Pids,
    /// All servers of Redis.
    pub redis: Pids,
    pub receiver: u32,
}

/// What was used up to a moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Seconds of CPU, user and system.
    pub engine_cpu: f64,
    pub redis_cpu: f64,
    /// This process'.
    pub publisher_cpu: f64,
    pub receiver_cpu: f64,
    /// The most that any process of the engine has had resident.
    pub engine_peak_bytes: u64,
    pub redis: RedisReading,
}

/// What Redis counts (`INFO`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisReading {
    /// Commands, those within scripts and the scripts themselves alike.
    pub commands: u64,
    /// Reads from sockets, about as many as round trips: what comes in one packet is one, what fills the buffer is several.
    pub socket_reads: u64,
    /// What its data take, without the buffers of clients and of the append-only file.
    pub data_bytes: u64,
}

impl Watched {
    /// Lets the peaks of memory begin anew.
    ///
    /// # Errors
    /// A process is gone.
    pub fn forget_peaks(&self) -> anyhow::Result<()> {
        self.engine.iter().try_for_each(|pid| forget_peak(*pid))
    }

    /// What has been used up to now.
    ///
    /// # Errors
    /// A process is gone.
    pub async fn read(&self, redis: &mut [MultiplexedConnection]) -> anyhow::Result<Reading> {
        let engine_cpu = self.engine.iter().map(|pid| cpu_seconds(*pid)).sum::<anyhow::Result<f64>>()?;
        let peaks: Vec<u64> = self.engine.iter().map(|pid| peak_bytes(*pid)).collect::<Result<_, _>>()?;
        Ok(Reading {
            engine_cpu,
            redis_cpu: self.redis.iter().map(|pid| cpu_seconds(*pid)).sum::<anyhow::Result<f64>>()?,
            publisher_cpu: cpu_seconds(std::process::id())?,
            receiver_cpu: cpu_seconds(self.receiver)?,
            engine_peak_bytes: peaks.into_iter().max().unwrap_or(0),
            redis: RedisReading::take_all(redis).await?,
        })
    }
}

impl RedisReading {
    /// Asks the server.
    ///
    /// # Errors
    /// It does not answer, or has no such figures.
    pub async fn take(redis: &mut MultiplexedConnection) -> anyhow::Result<Self> {
        // By the list of clients, as INFO counts the buffers of each only once a second.
        let mut asked = redis::pipe();
        asked.cmd("CLIENT").arg("LIST").cmd("INFO").arg("stats").arg("memory");
        let (clients, info): (String, String) = asked.query_async(redis).await?;
        Self::of(&clients, &info).context("Redis does not say what it has done")
    }

    /// What all servers count, together.
    async fn take_all(servers: &mut [MultiplexedConnection]) -> anyhow::Result<Self> {
        let mut sum = Self { commands: 0, socket_reads: 0, data_bytes: 0 };
        for server in servers {
            let one = Self::take(server).await?;
            sum.commands += one.commands;
            sum.socket_reads += one.socket_reads;
            sum.data_bytes += one.data_bytes;
        }
        Ok(sum)
    }

    fn of(clients: &str, info: &str) -> Option<Self> {
        let fields: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let number = |name: &str| fields.get(name)?.parse::<u64>().ok();
        let client_buffers = clients.split_whitespace().filter_map(|field| field.strip_prefix("tot-mem="));
        let client_bytes: u64 = client_buffers.filter_map(|bytes| bytes.parse::<u64>().ok()).sum();
        let buffers = client_bytes + number("mem_aof_buffer")?;
        Some(Self {
            commands: number("total_commands_processed")?,
            socket_reads: number("total_reads_processed")?,
            data_bytes: number("used_memory")?.saturating_sub(buffers),
        })
    }
}

/// The figures of `count` deliveries (or of events, where none are delivered) that were made between two readings.
pub fn between(before: &Reading, after: &Reading, count: u64) -> Figures {
    let each = |amount: f64| amount / count as f64;
    let per_1000 = |seconds: f64| each(seconds) * 1000.0;
    let redis = |number: fn(RedisReading) -> u64| number(after.redis) as f64 - number(before.redis) as f64;
    let figures = [
        ("engine_cpu_seconds_per_1000", per_1000(after.engine_cpu - before.engine_cpu)),
        ("redis_cpu_seconds_per_1000", per_1000(after.redis_cpu - before.redis_cpu)),
        ("publisher_cpu_seconds_per_1000", per_1000(after.publisher_cpu - before.publisher_cpu)),
        ("receiver_cpu_seconds_per_1000", per_1000(after.receiver_cpu - before.receiver_cpu)),
        ("engine_peak_mb", after.engine_peak_bytes as f64 / MEGABYTE),
        ("redis_memory_mb", after.redis.data_bytes as f64 / MEGABYTE),
        ("redis_memory_growth_mb", redis(|reading| reading.data_bytes) / MEGABYTE),
        ("redis_commands_per_delivery", each(redis(|reading| reading.commands))),
        ("redis_socket_reads_per_delivery", each(redis(|reading| reading.socket_reads))),
    ];
    figures.into_iter().map(|(name, value)| (name.into(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redis_says_is_read_and_its_buffers_are_no_data() {
        let text = "# Stats\r\ntotal_commands_processed:70\r\ntotal_reads_processed:9\r\n\r\n# Memory\r\nused_memory:1000\r\n\
                    mem_aof_buffer:50\r\n";
        let clients = "id=3 addr=a:1 tot-mem=40 events=r\nid=4 addr=a:2 tot-mem=60 events=r\n";
        assert_eq!(
            RedisReading::of(clients, text),
            Some(RedisReading { commands: 70, socket_reads: 9, data_bytes: 850 })
        );
        assert_eq!(RedisReading::of(clients, "total_commands_processed:70\r\n"), None);
    }

    #[test]
    fn figures_are_differences_for_each_delivery() {
        let redis = |factor: u64| RedisReading {
            commands: 100 * factor,
            socket_reads: 10 * factor,
            data_bytes: 1024 * 1024 * factor,
        };
        let reading = |factor: f64, redis| Reading {
            engine_cpu: factor,
            redis_cpu: 2.0 * factor,
            publisher_cpu: 0.5 * factor,
            receiver_cpu: 0.0,
            engine_peak_bytes: 3 * 1024 * 1024,
            redis,
        };
        let figures = between(&reading(1.0, redis(1)), &reading(3.0, redis(5)), 200);
        let check = |name: &str, expected: f64| assert!((figures[name] - expected).abs() < 1e-9, "{name}: {figures:?}");
        check("engine_cpu_seconds_per_1000", 10.0);
        check("redis_cpu_seconds_per_1000", 20.0);
        check("publisher_cpu_seconds_per_1000", 5.0);
        check("engine_peak_mb", 3.0);
        check("redis_memory_mb", 5.0);
        check("redis_memory_growth_mb", 4.0);
        check("redis_commands_per_delivery", 2.0);
        check("redis_socket_reads_per_delivery", 0.2);
    }
}

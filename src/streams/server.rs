//! What the Redis server is, and what it lacks for the guarantees we give.

use std::collections::HashMap;

use super::{Streams, error::Result};
use crate::config::Durability;

/// The oldest version whose commands suffice.
const OLDEST: (u32, u32) = (7, 0);

/// The append-only file, which is what a restart of Redis reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendOnlyFile {
    pub is_enabled: bool,
    /// Whether its last write succeeded.
    pub is_written: bool,
    /// Whether its last rewrite succeeded.
    pub is_rewritten: bool,
    pub bytes: u64,
}

/// What was found out about the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerReport {
    /// `redis` or `valkey`.
    pub name: String,
    pub version: String,
    pub used_memory_bytes: u64,
    /// 0 where there is no limit.
    pub max_memory_bytes: u64,
    pub aof: AppendOnlyFile,
    /// What makes it unfit, each with its remedy.
    pub faults: Vec<String>,
    /// What can lose accepted events in a crash, each with its remedy.
    pub losses: Vec<String>,
    /// What else had better be changed.
    pub advice: Vec<String>,
}

impl Streams {
    /// Looks at the server's version, memory policy and persistence.
    pub async fn server_report(&self) -> Result<ServerReport> {
        let text: String = self.0.connections.run(&redis::cmd("INFO")).await?;
        let info: HashMap<&str, &str> = text.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let number = |name: &str| info.get(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        let name = info.get("server_name").copied().unwrap_or("redis").to_owned();
        let version = match name.as_str() {
            "valkey" => info.get("valkey_version"),
            _ => info.get("redis_version"),
        };
        let mut report = ServerReport {
            name,
            version: version.copied().unwrap_or("?").to_owned(),
            used_memory_bytes: number("used_memory"),
            max_memory_bytes: number("maxmemory"),
            aof: AppendOnlyFile {
                is_enabled: number("aof_enabled") == 1,
                is_written: info.get("aof_last_write_status").is_none_or(|status| *status == "ok"),
                is_rewritten: info.get("aof_last_bgrewrite_status").is_none_or(|status| *status == "ok"),
                bytes: number("aof_current_size"),
            },
            faults: Vec::new(),
            losses: Vec::new(),
            advice: Vec::new(),
        };
        report.check_version();
        report.check_memory(info.get("maxmemory_policy").copied().unwrap_or_default());
        report.check_aof();
        match self.settings().await {
            Some(settings) => report.check_persistence(&settings),
            None => report.losses.push(
                "CONFIG GET is not allowed, so nobody can tell whether a crash of Redis loses events: appendonly must be yes \
                 and appendfsync always"
                    .to_owned(),
            ),
        }
        Ok(report)
    }

    async fn settings(&self) -> Option<HashMap<String, String>> {
        let mut command = redis::cmd("CONFIG");
        command
            .arg("GET")
            .arg("appendonly")
            .arg("appendfsync")
            .arg("no-appendfsync-on-rewrite")
            .arg("aof-load-truncated");
        let settings: HashMap<String, String> = self.0.connections.run(&command).await.ok()?;
        (!settings.is_empty()).then_some(settings)
    }

    /// Bytes that Redis uses, and may use (0: no limit).
    pub async fn memory(&self) -> Result<(u64, u64)> {
        let text: String = self.0.connections.run(redis::cmd("INFO").arg("memory")).await?;
        let number = |name: &str| {
            let line = text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        Ok((number("used_memory"), number("maxmemory")))
    }
}

impl ServerReport {
    /// Of the [losses](Self::losses) those that matter where `durability` is asked for.
    pub fn losses_for(&self, durability: Durability) -> &[String] {
        if durability == Durability::Relaxed { &[] } else { &self.losses }
    }

    fn check_version(&mut self) {
        let mut parts = self.version.split('.').map_while(|part| part.parse::<u32>().ok());
        let (major, minor) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if (major, minor) < OLDEST {
            let (name, version) = (&self.name, &self.version);
            self.faults.push(format!("{name} {version} is too old: 7.0 or newer is needed"));
        }
    }

    fn check_memory(&mut self, policy: &str) {
        if policy != "noeviction" && self.max_memory_bytes > 0 {
            self.faults.push(format!(
                "maxmemory-policy is {policy}, which throws events away when memory is short: set it to noeviction"
            ));
        } else if policy != "noeviction" {
            self.advice.push(format!("maxmemory-policy is {policy}: set it to noeviction before maxmemory is set"));
        }
        if self.max_memory_bytes == 0 {
            self.advice.push(
                "maxmemory is not set: when memory runs out the system kills Redis instead of publishing being refused"
                    .to_owned(),
            );
        }
    }

    fn check_aof(&mut self) {
        if !self.aof.is_written {
            self.losses.push(
                "the last write to the append-only file failed, and Redis refuses to write until one succeeds: see its log; \
                 is the disk full?"
                    .to_owned(),
            );
        }
        if !self.aof.is_rewritten {
            self.advice.push(
                "the last rewrite of the append-only file failed, so that it only grows: see the log of Redis; is there too \
                 little disk or memory?"
                    .to_owned(),
            );
        }
    }

    fn check_persistence(&mut self, settings: &HashMap<String, String>) {
        let is = |name: &str, wanted: &str| settings.get(name).is_none_or(|value| value == wanted);
        if !is("appendonly", "yes") {
            self.losses.push(
                "appendonly is no: a restart of Redis loses every event since its last snapshot; set it to yes"
                    .to_owned(),
            );
            return;
        }
        if !is("appendfsync", "always") {
            self.losses.push(
                "appendfsync is not always: a crash of the machine can lose up to two seconds of accepted events; set it to always"
                    .to_owned(),
            );
        }
        if !is("no-appendfsync-on-rewrite", "no") {
            self.losses.push(
                "no-appendfsync-on-rewrite is yes: accepted events can be lost during a rewrite; set it to no"
                    .to_owned(),
            );
        }
        if !is("aof-load-truncated", "yes") {
            self.losses
                .push("aof-load-truncated is no: after a crash Redis may refuse to start; set it to yes".to_owned());
        }
    }
}

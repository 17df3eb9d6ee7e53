//! What the Redis server is, and what it lacks for the guarantees we give.

use std::collections::HashMap;

use futures_util::future::try_join_all;

use super::{
    ShardId, Streams,
    connections::Server,
    error::{Error, Result},
};
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
    /// Of a cluster: how many. All else is of the worst of them.
    pub primaries: Option<usize>,
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
    /// Looks at the server's version, memory policy and persistence; in a cluster at those of every primary. What differs is
    /// told of the worst of them, by its address.
    pub async fn server_report(&self) -> Result<ServerReport> {
        let servers = self.0.connections.servers();
        let reports = try_join_all(servers.iter().map(|(server, _)| ServerReport::of(server))).await?;
        let names = servers.into_iter().map(|(_, name)| name);
        ServerReport::of_all(names.zip(reports).collect())
            .ok_or_else(|| Error::Unavailable("no node of the cluster has any slot".to_owned()))
    }

    /// Bytes that the server of each of some shards uses, and may use (0: no limit); those on one server are together.
    pub async fn memory(&self, shards: &[ShardId]) -> Result<Vec<Memory>> {
        let keys = shards.iter().map(|shard| (self.keys().of(*shard, "due"), *shard));
        let parts = self.0.connections.by_server(keys)?;
        try_join_all(parts.into_iter().map(|(server, shards)| memory_of(server, shards))).await
    }
}

/// Of one server: its memory, and which shards it has of those asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    pub shards: Vec<ShardId>,
    pub used_bytes: u64,
    /// 0 where there is no limit.
    pub max_bytes: u64,
}

async fn memory_of(server: Server, shards: Vec<ShardId>) -> Result<Memory> {
    let text: String = server.run(redis::cmd("INFO").arg("memory")).await?;
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    Ok(Memory { shards, used_bytes: number("used_memory"), max_bytes: number("maxmemory") })
}

async fn settings(server: &Server) -> Option<HashMap<String, String>> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("appendonly").arg("appendfsync").arg("no-appendfsync-on-rewrite").arg("aof-load-truncated");
    let settings: HashMap<String, String> = server.run(&command).await.ok()?;
    (!settings.is_empty()).then_some(settings)
}

/// What is said of several servers, each text once: after the addresses of those it is true of, unless that is all.
fn told_of(said: Vec<(&Option<String>, &Vec<String>)>) -> Vec<String> {
    let mut texts: Vec<(&String, Vec<&str>)> = Vec::new();
    for (name, text) in said.iter().flat_map(|(name, list)| list.iter().map(move |text| (*name, text))) {
        match texts.iter_mut().find(|(known, _)| *known == text) {
            Some((_, places)) => places.extend(name.as_deref()),
            None => texts.push((text, name.as_deref().into_iter().collect())),
        }
    }
    let tell = |(text, places): (&String, Vec<&str>)| match places.len() {
        count if count == 0 || count == said.len() => text.clone(),
        _ => format!("{}: {text}", places.join(", ")),
    };
    texts.into_iter().map(tell).collect()
}

impl ServerReport {
    async fn of(server: &Server) -> Result<Self> {
        let text: String = server.run(&redis::cmd("INFO")).await?;
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
            primaries: None,
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
        match settings(server).await {
            Some(settings) => report.check_persistence(&settings),
            None => report.losses.push(
                "CONFIG GET is not allowed, so nobody can tell whether a crash of Redis loses events: appendonly must be yes \
                 and appendfsync always"
                    .to_owned(),
            ),
        }
        Ok(report)
    }

    /// One for all servers, by their addresses where there are several; `None` of none.
    fn of_all(reports: Vec<(Option<String>, Self)>) -> Option<Self> {
        let (names, reports): (Vec<_>, Vec<_>) = reports.into_iter().unzip();
        let texts = |of: fn(&Self) -> &Vec<String>| told_of(names.iter().zip(reports.iter().map(of)).collect());
        let fullest = reports.iter().max_by(|one, other| one.fullness().total_cmp(&other.fullness()))?;
        let oldest = reports.iter().min_by_key(|report| report.version_parts())?;
        Some(Self {
            name: oldest.name.clone(),
            version: oldest.version.clone(),
            primaries: names.iter().all(Option::is_some).then_some(reports.len()),
            used_memory_bytes: fullest.used_memory_bytes,
            max_memory_bytes: fullest.max_memory_bytes,
            aof: AppendOnlyFile {
                is_enabled: reports.iter().all(|report| report.aof.is_enabled),
                is_written: reports.iter().all(|report| report.aof.is_written),
                is_rewritten: reports.iter().all(|report| report.aof.is_rewritten),
                bytes: reports.iter().map(|report| report.aof.bytes).sum(),
            },
            faults: texts(|report| &report.faults),
            losses: texts(|report| &report.losses),
            advice: texts(|report| &report.advice),
        })
    }

    /// How near it is to its limit; of those without one, the one that uses most is below all that have one.
    fn fullness(&self) -> f64 {
        match self.max_memory_bytes {
            0 => -1.0 / (self.used_memory_bytes.max(1) as f64),
            most => self.used_memory_bytes as f64 / most as f64,
        }
    }

    fn version_parts(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map_while(|part| part.parse::<u32>().ok());
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// Of the [losses](Self::losses) those that matter where `durability` is asked for.
    pub fn losses_for(&self, durability: Durability) -> &[String] {
        if durability == Durability::Relaxed { &[] } else { &self.losses }
    }

    fn check_version(&mut self) {
        if self.version_parts() < OLDEST {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(version: &str, used_memory_bytes: u64, max_memory_bytes: u64, losses: &[&str]) -> ServerReport {
        ServerReport {
            name: "redis".into(),
            version: version.into(),
            primaries: None,
            used_memory_bytes,
            max_memory_bytes,
            aof: AppendOnlyFile { is_enabled: losses.is_empty(), is_written: true, is_rewritten: true, bytes: 5 },
            faults: Vec::new(),
            losses: losses.iter().map(|text| (*text).to_owned()).collect(),
            advice: vec!["advice".into()],
        }
    }

    #[test]
    fn of_a_cluster_the_worst_counts_and_is_named() {
        let one = report("7.10.1", 90, 100, &[]);
        assert_eq!(ServerReport::of_all(vec![(None, one.clone())]), Some(one.clone()));
        let all = ServerReport::of_all(vec![
            (Some("a:1".into()), one),
            (Some("b:2".into()), report("7.9.0", 500, 1_000, &["loss", "other"])),
            (Some("c:3".into()), report("8.0.0", 900, 0, &["loss"])),
        ]);
        let all = all.expect("a report");
        assert_eq!((all.version.as_str(), all.primaries), ("7.9.0", Some(3)));
        assert_eq!((all.used_memory_bytes, all.max_memory_bytes), (90, 100));
        assert_eq!((all.aof.is_enabled, all.aof.is_written, all.aof.bytes), (false, true, 15));
        assert_eq!(all.losses, ["b:2, c:3: loss", "b:2: other"]);
        assert_eq!(all.advice, ["advice"]);
        assert_eq!(ServerReport::of_all(Vec::new()), None);
    }

    #[test]
    fn without_limits_the_server_that_uses_most_is_shown() {
        let reports = [10, 30, 20].map(|used| (Some(used.to_string()), report("7.0.0", used, 0, &[])));
        assert_eq!(ServerReport::of_all(reports.into()).map(|all| all.used_memory_bytes), Some(30));
    }
}

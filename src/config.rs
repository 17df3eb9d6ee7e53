//! `config.toml`, a file like it and the environment become one checked [`Config`].
//!
//! Every setting is explained in `config.toml`, which is embedded as the defaults; a range stands at its field here.
//! What cannot work is refused in one sentence that names the setting and where it came from. Nothing here opens a
//! socket, and no secret is ever shown.

mod layers;
mod values;

use std::{
    collections::BTreeMap,
    fmt,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use url::Url;

use crate::domain::{address::AddressRules, retry::Retry, subscription::LONGEST_TIMEOUT_SECONDS};
use layers::{Layers, Origin};
pub use values::{Proxy, RedisUrl, Secret};

/// Read when no file is named and it is in the working directory.
const DEFAULT_FILE: &str = "config.toml";

const LOOPBACK: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
];

/// A configuration that was refused: one sentence that names the setting and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// Every setting, in the order of `config.toml`, where each is explained.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data_dir: PathBuf,
    #[serde(rename = "shutdown_grace_seconds", deserialize_with = "values::seconds::<0, 600, _>")]
    pub shutdown_grace: Duration,
    pub redis: Redis,
    pub api: Api,
    pub delivery: Delivery,
    pub targets: Targets,
    pub retention: Retention,
    pub secrets: Secrets,
    pub ingest: Ingest,
    pub metrics: Metrics,
    pub traces: Traces,
    pub log: Log,
    /// The presets by name.
    #[serde(rename = "retry", deserialize_with = "values::presets")]
    pub retry_presets: BTreeMap<String, Retry>,
    /// Where each setting that is no default came from, for refusals.
    #[serde(skip)]
    origins: BTreeMap<String, Origin>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    pub url: RedisUrl,
    #[serde(deserialize_with = "values::prefix")]
    pub prefix: String,
    #[serde(deserialize_with = "values::between::<1, 1024, _, _>")]
    pub shards: u16,
    pub durability: Durability,
}

/// What is done about a Redis that can lose an acknowledged write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A warning; the embedded Redis is started strict.
    Auto,
    /// It is refused.
    Strict,
    /// Nothing.
    Relaxed,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Api {
    #[serde(deserialize_with = "values::address")]
    pub listen: SocketAddr,
    #[serde(deserialize_with = "values::admin_key")]
    pub admin_key: Option<Secret>,
    #[serde(deserialize_with = "values::public_url")]
    pub public_url: Option<Url>,
    pub auto_create_tenants: bool,
    #[serde(deserialize_with = "values::between::<1, 100_000_000, _, _>")]
    pub rate_limit_per_minute: u32,
    #[serde(deserialize_with = "values::network_list")]
    pub trusted_proxies: Vec<IpNet>,
    pub strict_types: bool,
}

/// What may be posted to the ingest addresses of webhooks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    #[serde(deserialize_with = "values::between::<1, 1_000_000, _, _>")]
    pub rate_limit_per_minute: u32,
    #[serde(deserialize_with = "values::between::<1, 1_000_000, _, _>")]
    pub address_rate_limit_per_minute: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delivery {
    #[serde(deserialize_with = "values::between::<1, { LONGEST_TIMEOUT_SECONDS as i64 }, _, _>")]
    pub timeout_seconds: u32,
    #[serde(deserialize_with = "values::between::<1, 1_000, _, _>")]
    pub max_concurrency: u32,
    #[serde(default, deserialize_with = "values::between_if_set::<1, 60_000, _, _>")]
    pub rate_limit_per_minute: Option<u32>,
    /// The name of a preset; see [`Config::default_retry`].
    pub retry: String,
    #[serde(deserialize_with = "values::between::<1, 1_048_576, _, _>")]
    pub max_payload_bytes: usize,
    #[serde(deserialize_with = "values::between::<0, 65_536, _, _>")]
    pub response_keep_bytes: usize,
    #[serde(deserialize_with = "values::between::<1, 10_000, _, _>")]
    pub max_in_flight: usize,
    #[serde(rename = "max_age_hours", deserialize_with = "values::hours::<1, 8_760, _>")]
    pub max_age: Duration,
    #[serde(deserialize_with = "values::between::<1, 10_000_000, _, _>")]
    pub max_backlog: u64,
    #[serde(deserialize_with = "values::between::<1, 10_000_000, _, _>")]
    pub max_dead: u64,
    #[serde(rename = "disable_after_hours", deserialize_with = "values::hours::<1, 8_760, _>")]
    pub disable_after: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    pub require_https: bool,
    /// Unset is not the same as empty: loopback may be allowed then (SECURITY.md).
    #[serde(default, deserialize_with = "values::networks")]
    pub allow_cidrs: Option<Vec<IpNet>>,
    #[serde(deserialize_with = "values::hosts")]
    pub allow_hosts: Vec<String>,
    #[serde(deserialize_with = "values::ports")]
    pub ports: Vec<u16>,
    /// What requests to targets go through.
    #[serde(deserialize_with = "values::proxy")]
    pub proxy: Option<Proxy>,
    #[serde(deserialize_with = "values::path_if_any")]
    pub ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    #[serde(rename = "events_days", deserialize_with = "values::days::<1, 3_650, _>")]
    pub events: Duration,
    #[serde(rename = "events_max_mb", deserialize_with = "values::megabytes")]
    pub events_max_bytes: Option<u64>,
    #[serde(rename = "attempts_days", deserialize_with = "values::days::<1, 3_650, _>")]
    pub attempts: Duration,
    #[serde(rename = "attempts_max_mb", deserialize_with = "values::megabytes")]
    pub attempts_max_bytes: Option<u64>,
    #[serde(rename = "dead_letters_days", deserialize_with = "values::days::<1, 3_650, _>")]
    pub dead_letters: Duration,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secrets {
    /// The first encrypts, all decrypt; empty when none is set.
    #[serde(rename = "key", deserialize_with = "values::encryption_keys")]
    pub keys: Vec<[u8; 32]>,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} keys)", self.keys.len())
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metrics {
    #[serde(deserialize_with = "values::address")]
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// Nothing is traced without.
    #[serde(deserialize_with = "values::collector")]
    pub otlp_endpoint: Option<Url>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub format: LogFormat,
    /// Directives of `tracing_subscriber`'s `EnvFilter`.
    #[serde(deserialize_with = "values::log_level")]
    pub level: String,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human on a terminal, else JSON.
    Auto,
    Human,
    Json,
}

/// The environment as [`Config::load`] takes it; a variable that is not UTF-8 is none of ours.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

impl Config {
    /// The defaults, over them `file` (`./config.toml`, if there, when none is named), over it `env`, over it `redis_url`
    /// (the command line's `--redis`).
    ///
    /// # Errors
    /// The first setting that is unknown, of the wrong type, out of range or in contradiction to another, and a file
    /// that cannot be read.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        redis_url: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::defaults();
        match file {
            Some(file) => layers.add_file(file)?,
            None if Path::new(DEFAULT_FILE).exists() => layers.add_file(Path::new(DEFAULT_FILE))?,
            None => {}
        }
        layers.add_environment(env)?;
        if let Some(url) = redis_url {
            layers.add_redis_url(url);
        }
        let (settings, origins) = layers.into_parts();
        let mut config: Self = serde_path_to_error::deserialize(settings)
            .map_err(|error| refusal(&origins, &error.path().to_string(), error.inner().message()))?;
        config.origins = origins;
        config.check()?;
        Ok(config)
    }

    /// The retries of a webhook that names none.
    pub fn default_retry(&self) -> &Retry {
        &self.retry_presets[&self.delivery.retry]
    }

    /// A refusal of `setting` (dotted, as `redis.shards`) that only shows later, such as a stored number of shards.
    pub fn refuse(&self, setting: &str, problem: impl fmt::Display) -> ConfigError {
        refusal(&self.origins, setting, problem)
    }

    /// What only processes with the API must have.
    ///
    /// # Errors
    /// Others can reach the listener, and there is no admin key to keep them out.
    pub fn check_api(&self) -> Result<(), ConfigError> {
        if self.api.admin_key.is_none() && !self.api.listen.ip().is_loopback() {
            return Err(self.refuse(
                "api.admin_key",
                format_args!(
                    "is needed because api.listen is {}, which is no loopback address; set POSTHASTE_API__ADMIN_KEY",
                    self.api.listen
                ),
            ));
        }
        Ok(())
    }

    /// What keeps secrets from whoever can read Redis must be set where others can reach the API.
    ///
    /// # Errors
    /// There is no `secrets.key`, and the listener is no loopback address or has a public URL.
    pub fn check_secrets(&self) -> Result<(), ConfigError> {
        let why = if self.api.public_url.is_some() {
            "api.public_url is set"
        } else if !self.api.listen.ip().is_loopback() {
            "api.listen is no loopback address"
        } else {
            return Ok(());
        };
        if self.secrets.keys.is_empty() {
            return Err(self.refuse(
                "secrets.key",
                format_args!(
                    "is needed because {why}: webhooks' secrets are encrypted with it; set \
                     POSTHASTE_SECRETS__KEY to what `openssl rand -base64 32` prints"
                ),
            ));
        }
        Ok(())
    }

    /// Whether anybody said where metrics are served, or it is only the default.
    pub fn metrics_listen_is_set(&self) -> bool {
        self.origins.contains_key("metrics.listen")
    }

    /// Whether, as `serve` runs it, only this machine can reach the engine and its Redis.
    pub fn is_local(&self) -> bool {
        self.redis.url == RedisUrl::Embedded && self.api.listen.ip().is_loopback() && self.api.public_url.is_none()
    }

    /// The networks that may be posted to although they are not public (SECURITY.md): those that are set, even if none
    /// are; unset, loopback for a [local](Self::is_local) `serve`, and nothing else.
    pub fn allowed_networks(&self, is_serve: bool) -> Vec<IpNet> {
        match &self.targets.allow_cidrs {
            Some(networks) => networks.clone(),
            None if is_serve && self.is_local() => LOOPBACK.to_vec(),
            None => Vec::new(),
        }
    }

    /// What may be posted to; `is_serve` as in [`Self::allowed_networks`].
    pub fn address_rules(&self, is_serve: bool) -> AddressRules {
        AddressRules {
            require_https: self.targets.require_https,
            allow_cidrs: self.allowed_networks(is_serve),
            allow_hosts: self.targets.allow_hosts.clone(),
            ports: self.targets.ports.clone(),
        }
    }

    /// What contradicts something else; what is wrong by itself was refused when it was read.
    fn check(&self) -> Result<(), ConfigError> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(self.refuse("data_dir", "is empty; a folder is wanted"));
        }
        if !self.retry_presets.contains_key(&self.delivery.retry) {
            let known = self.retry_presets.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(self.refuse(
                "delivery.retry",
                format_args!("no preset is called `{}`; there are {known}", self.delivery.retry),
            ));
        }
        Ok(())
    }
}

fn refusal(origins: &BTreeMap<String, Origin>, setting: &str, problem: impl fmt::Display) -> ConfigError {
    // A problem of a list's element or a preset's field: the setting around it is what the origins know.
    let origin = origins.iter().find(|(name, _)| {
        *name == setting || setting.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['.', '[']))
    });
    match origin.or_else(|| origins.iter().find(|(name, _)| name.starts_with(&format!("{setting}.")))) {
        Some((_, origin)) => ConfigError(format!("`{setting}` ({origin}): {problem}")),
        None => ConfigError(format!("`{setting}`: {problem}")),
    }
}

#[cfg(test)]
mod tests;

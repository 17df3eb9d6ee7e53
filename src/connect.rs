//! From the configuration to an open Redis: what every command but the pure ones does first.

use std::path::Path;

use crate::{
    config::{Config, ConfigError, Durability, RedisUrl},
    redis_server,
    secrets::Sealer,
    streams::{Error, Limits, OpenError, ServerReport, Streams},
};

/// Why there is no open Redis.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A setting contradicts what is in Redis, or what Redis is.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Redis cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    #[error(transparent)]
    Redis(Error),
}

/// Where Redis is: the URL of the configuration, or the socket of the embedded one.
pub fn url(config: &Config) -> Result<String, ConnectError> {
    match &config.redis.url {
        RedisUrl::Own(url) => Ok(url.expose().to_owned()),
        RedisUrl::Embedded => redis_server::url_of(&config.data_dir)
            .map_err(|problem| ConnectError::Config(config.refuse("data_dir", problem))),
    }
}

/// Opens the Redis at `url`.
///
/// # Errors
/// It cannot be reached, or was set up with other settings.
pub async fn open_at(config: &Config, url: &str) -> Result<Streams, ConnectError> {
    let limits = Limits {
        max_backlog: config.delivery.max_backlog,
        max_dead: config.delivery.max_dead,
        disable_after: config.delivery.disable_after,
    };
    let sealer = Sealer::new(&config.secrets.keys);
    let opened = Streams::open(url, &config.redis.prefix, config.redis.shards, limits, sealer).await;
    opened.map_err(|error| match error {
        OpenError::OtherShards { stored, .. } => ConnectError::Config(config.refuse(
            "redis.shards",
            format_args!("this Redis was set up with {stored} shards, which cannot be changed: set it to {stored}"),
        )),
        OpenError::OtherProtocol { .. } => ConnectError::Config(config.refuse("redis.prefix", error)),
        OpenError::Redis(error @ Error::Unavailable(_)) => ConnectError::Unreachable(unreachable_text(config, &error)),
        OpenError::Redis(error) => ConnectError::Redis(error),
    })
}

/// Opens the Redis of the configuration.
///
/// # Errors
/// As [`open_at`].
pub async fn open(config: &Config) -> Result<Streams, ConnectError> {
    open_at(config, &url(config)?).await
}

fn unreachable_text(config: &Config, error: &Error) -> String {
    match &config.redis.url {
        RedisUrl::Embedded => format!(
            "no embedded Redis runs in {}: start `posthaste serve` first, or name your own with --redis",
            Path::new(&config.data_dir).display()
        ),
        RedisUrl::Own(_) => format!("Redis cannot be reached at redis.url: {error}"),
    }
}

/// Checks that Redis is what the guarantees need, as `redis.durability` asks.
///
/// # Errors
/// The setting that Redis contradicts.
pub async fn check_server(config: &Config, streams: &Streams) -> Result<ServerReport, ConnectError> {
    let report = streams.server_report().await.map_err(ConnectError::Redis)?;
    if let Some(fault) = report.faults.first() {
        return Err(config.refuse("redis.url", fault).into());
    }
    if config.redis.durability == Durability::Strict
        && let Some(problem) = report.losses.first()
    {
        return Err(config.refuse("redis.durability", format_args!("is \"strict\", but {problem}")).into());
    }
    Ok(report)
}

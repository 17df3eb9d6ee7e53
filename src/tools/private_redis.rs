//! A Redis of a tool's own, in a temporary folder, and the configuration that an engine needs to use it.
//!
//! Nothing of the user's own configuration or environment goes in, so that a tool does the same everywhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use tempfile::TempDir;

use crate::{config::Config, redis_server::EmbeddedRedis, shutdown::Shutdown};

const CONFIG_FILE: &str = "config.toml";

/// A running private Redis; its folder goes when it is dropped.
pub struct PrivateRedis {
    redis: EmbeddedRedis,
    folder: TempDir,
}

impl PrivateRedis {
    /// Starts it. `settings` are kept beside it as `config.toml`, over the defaults; they leave `data_dir` to this.
    ///
    /// # Errors
    /// The folder cannot be made, or Redis cannot be started.
    pub async fn start(settings: &str, shutdown: &Shutdown) -> anyhow::Result<Self> {
        // A socket's path must be short, and the system's folder for temporary files is.
        let folder = tempfile::Builder::new().prefix("posthaste-").tempdir().context("no temporary folder")?;
        let data_dir = toml::Value::from(folder.path().to_str().context("the temporary folder's path is not UTF-8")?);
        fs::write(folder.path().join(CONFIG_FILE), format!("data_dir = {data_dir}\n{settings}"))
            .context("the temporary folder cannot be written to")?;
        let redis = EmbeddedRedis::start(folder.path(), shutdown).await?;
        Ok(Self { redis, folder })
    }

    /// Where it is, for a Redis client.
    pub fn url(&self) -> &str {
        self.redis.url()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The settings, for a process of its own; it needs [`url`](Self::url) beside them.
    pub fn config_file(&self) -> PathBuf {
        self.folder.path().join(CONFIG_FILE)
    }

    /// The same, for this process.
    ///
    /// # Errors
    /// A setting is refused.
    pub fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(Some(&self.config_file()), [], Some(self.url()))?)
    }

    /// Stops it and removes its folder.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.redis.stop().await;
        self.folder.close().context("the temporary folder cannot be removed")
    }
}

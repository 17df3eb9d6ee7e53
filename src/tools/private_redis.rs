//! A Redis of a tool's own, in a temporary folder, and the configuration that an engine needs to use it.
//!
//! Nothing of the user's own configuration or environment goes in, so that a tool does the same everywhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use tempfile::TempDir;

use super::private_cluster::PrivateCluster;
use crate::{config::Config, redis_server::EmbeddedRedis, shutdown::Shutdown};

const CONFIG_FILE: &str = "config.toml";

/// A running private Redis; its folder goes when it is dropped.
pub struct PrivateRedis {
    servers: Servers,
    folder: TempDir,
}

enum Servers {
    One(EmbeddedRedis),
    Cluster(PrivateCluster),
}

impl PrivateRedis {
    /// Starts it. `settings` are kept beside it as `config.toml`, over the defaults; they leave `data_dir` to this.
    ///
    /// # Errors
    /// The folder cannot be made, or Redis cannot be started.
    pub async fn start(settings: &str, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let folder = Self::prepare(settings)?;
        let servers = Servers::One(EmbeddedRedis::start(folder.path(), shutdown).await?);
        Ok(Self { servers, folder })
    }

    /// The same as a cluster of so many primaries.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_cluster(settings: &str, primaries: usize) -> anyhow::Result<Self> {
        let folder = Self::prepare(settings)?;
        let servers = Servers::Cluster(PrivateCluster::start(folder.path(), primaries).await?);
        Ok(Self { servers, folder })
    }

    fn prepare(settings: &str) -> anyhow::Result<TempDir> {
        // A socket's path must be short, and the system's folder for temporary files is.
        let folder = tempfile::Builder::new().prefix("posthaste-").tempdir().context("no temporary folder")?;
        let data_dir = toml::Value::from(folder.path().to_str().context("the temporary folder's path is not UTF-8")?);
        fs::write(folder.path().join(CONFIG_FILE), format!("data_dir = {data_dir}\n{settings}"))
            .context("the temporary folder cannot be written to")?;
        Ok(folder)
    }

    /// Where it is, for a Redis client; of a cluster its first node.
    pub fn url(&self) -> String {
        self.urls().remove(0)
    }

    /// Where each of its servers is.
    pub fn urls(&self) -> Vec<String> {
        match &self.servers {
            Servers::One(redis) => vec![redis.url().to_owned()],
            Servers::Cluster(cluster) => cluster.urls(),
        }
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
        Ok(Config::load(Some(&self.config_file()), [], Some(&self.url()))?)
    }

    /// Stops it and removes its folder.
    ///
    /// # Errors
    /// The folder cannot be removed.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.servers {
            Servers::One(redis) => redis.stop().await,
            Servers::Cluster(cluster) => cluster.stop().await?,
        }
        self.folder.close().context("the temporary folder cannot be removed")
    }
}

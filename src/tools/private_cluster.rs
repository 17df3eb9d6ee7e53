//! A Redis Cluster of a tool's own: primaries on the loopback interface, set up as the embedded Redis is.

use std::{fs, net::TcpListener, path::Path, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use redis::{AsyncConnectionConfig, FromRedisValue};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::redis_server;

/// How long nodes may take to answer, and then to find each other: Redis itself waits for two seconds.
const PATIENCE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);
const SLOTS: usize = 16_384;
const LOG: &str = "redis.log";

/// Running primaries; they end with it.
pub struct PrivateCluster {
    nodes: Vec<Node>,
}

struct Node {
    port: u16,
    bus: u16,
    server: Child,
}

impl PrivateCluster {
    /// Starts so many primaries in folders within `folder`, which share the slots alike.
    ///
    /// # Errors
    /// No fitting server is installed, or they do not come up in time.
    pub async fn start(folder: &Path, primaries: usize) -> anyhow::Result<Self> {
        // All are bound at once, so that none is had twice; whoever else takes one meanwhile makes the start fail.
        let free = (0..2 * primaries).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect::<Result<Vec<_>, _>>()?;
        let ports = free.iter().map(|port| Ok(port.local_addr()?.port())).collect::<std::io::Result<Vec<_>>>()?;
        drop(free);
        let mut nodes = Vec::new();
        for ports in ports.chunks(2) {
            let (port, bus) = (ports[0], ports[1]);
            nodes.push(Node { port, bus, server: spawn(&folder.join(port.to_string()), port, bus).await? });
        }
        let mut cluster = Self { nodes };
        cluster.form().await?;
        Ok(cluster)
    }

    /// Where each primary is, for a Redis client.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|Node { port, .. }| format!("redis://127.0.0.1:{port}")).collect()
    }

    /// Ends them.
    ///
    /// # Errors
    /// One cannot be ended.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for node in &mut self.nodes {
            node.server.kill().await.context("a node of the private cluster cannot be ended")?;
        }
        Ok(())
    }

    async fn form(&mut self) -> anyhow::Result<()> {
        let count = self.nodes.len();
        for index in 0..count {
            self.until(index, "PING", |_| true).await?;
            let (first, end) = (SLOTS * index / count, SLOTS * (index + 1) / count);
            self.ask::<()>(index, &format!("CLUSTER ADDSLOTSRANGE {first} {}", end - 1)).await?;
            // Else two may take the same number for their claims, and must find out first.
            self.ask::<()>(index, &format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1)).await?;
        }
        for index in 1..count {
            let Node { port, bus, .. } = self.nodes[index];
            self.ask::<()>(0, &format!("CLUSTER MEET 127.0.0.1 {port} {bus}")).await?;
        }
        let known = format!("cluster_known_nodes:{count}\r\n");
        for index in 0..count {
            self.until(index, "CLUSTER INFO", |info| info.contains("cluster_state:ok") && info.contains(&known))
                .await?;
        }
        Ok(())
    }

    async fn until(&mut self, index: usize, command: &str, is_so: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.nodes[index].server.try_wait()? {
                bail!("a node of the private cluster ended at once, {status}");
            }
            match self.ask::<String>(index, command).await {
                Ok(answer) if is_so(&answer) => return Ok(()),
                _ if Instant::now() >= deadline => bail!("the private cluster did not come up within {PATIENCE:?}"),
                _ => sleep(LOOK).await,
            }
        }
    }

    async fn ask<T: FromRedisValue>(&self, index: usize, command: &str) -> anyhow::Result<T> {
        let client = redis::Client::open(("127.0.0.1", self.nodes[index].port))?;
        let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let mut words = redis::Cmd::new();
        Ok(words.arg(command.split(' ').collect::<Vec<_>>()).query_async(&mut connection).await?)
    }
}

async fn spawn(folder: &Path, port: u16, bus: u16) -> anyhow::Result<Child> {
    fs::create_dir_all(folder).context("the temporary folder cannot be written to")?;
    let log = fs::File::create(folder.join(LOG)).context("the temporary folder cannot be written to")?;
    let mut command = Command::from(redis_server::like_the_embedded().await?);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]);
    command.args(["--cluster-enabled", "yes", "--cluster-port", &bus.to_string()]);
    command.current_dir(folder).stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
    command.process_group(0).kill_on_drop(true);
    command.spawn().context("a node of the private cluster cannot be started")
}

//! A Redis Cluster of a test's own: three primaries on the loopback interface, and a replica where one is wanted.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::redis::program;

/// Forming a cluster takes Redis two seconds at least.
const DEADLINE: Duration = Duration::from_secs(30);
/// Redis gives a manual failover five seconds.
const HANDSHAKE: Duration = Duration::from_secs(6);
const PRIMARIES: usize = 3;
const SLOTS: usize = 16_384;

/// A cluster that ends with the test.
pub struct TestCluster {
    folder: TempDir,
    nodes: Vec<Node>,
}

struct Node {
    port: u16,
    /// For what nodes say to each other.
    bus: u16,
    server: Option<Child>,
}

impl TestCluster {
    /// Three primaries.
    pub async fn start() -> Self {
        Self::of(PRIMARIES).await
    }

    /// The same, and a replica of the first.
    pub async fn with_replica() -> Self {
        let cluster = Self::of(PRIMARIES + 1).await;
        let primary: String = cluster.ask(0, &["CLUSTER", "MYID"]).await;
        cluster
            .until("the replica knows its primary", async || {
                cluster.try_ask::<()>(PRIMARIES, &["CLUSTER", "REPLICATE", &primary]).await.is_ok()
            })
            .await;
        cluster
            .until("the replica has all data", async || {
                let info: String = cluster.ask(PRIMARIES, &["INFO", "replication"]).await;
                info.contains("role:slave") && info.contains("master_link_status:up")
            })
            .await;
        // Until then the primary does not let go when it is asked to, and the others do not vote.
        for index in 0..PRIMARIES {
            cluster
                .until("the primaries know the replica", async || {
                    !cluster.ask::<Vec<String>>(index, &["CLUSTER", "REPLICAS", &primary]).await.is_empty()
                })
                .await;
        }
        cluster
    }

    async fn of(count: usize) -> Self {
        let folder = tempfile::Builder::new().prefix("ph").tempdir().unwrap();
        // All are bound at once, so that none is had twice.
        let free: Vec<TcpListener> = (0..2 * count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = free.iter().map(|port| port.local_addr().unwrap().port()).collect();
        drop(free);
        let nodes = ports.chunks(2).map(|ports| Node { port: ports[0], bus: ports[1], server: None }).collect();
        let mut cluster = Self { folder, nodes };
        for index in 0..count {
            cluster.spawn(index);
        }
        for index in 0..count {
            cluster.until_it_answers(index).await;
        }
        for index in 0..PRIMARIES {
            let (first, end) = (SLOTS * index / PRIMARIES, SLOTS * (index + 1) / PRIMARIES);
            let range = [first.to_string(), (end - 1).to_string()];
            cluster.ask::<()>(index, &["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await;
            // Else two may take the same number for their claims, and must find out first.
            cluster.ask::<()>(index, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await;
        }
        for index in 1..count {
            let Node { port, bus, .. } = &cluster.nodes[index];
            cluster.ask::<()>(0, &["CLUSTER", "MEET", "127.0.0.1", &port.to_string(), &bus.to_string()]).await;
        }
        cluster.until_whole().await;
        cluster
    }

    /// The address of the first node.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address(0))
    }

    pub fn address(&self, index: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[index].port)
    }

    /// Runs a command at a node, which need not have its key.
    pub async fn ask<T: redis::FromRedisValue>(&self, index: usize, words: &[&str]) -> T {
        self.try_ask(index, words).await.unwrap()
    }

    async fn try_ask<T: redis::FromRedisValue>(&self, index: usize, words: &[&str]) -> redis::RedisResult<T> {
        let mut command = redis::Cmd::new();
        command.arg(words).query_async(&mut self.connect(index).await?).await
    }

    async fn connect(&self, index: usize) -> redis::RedisResult<MultiplexedConnection> {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(DEADLINE));
        let client = redis::Client::open(format!("redis://{}", self.address(index)))?;
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// The node that has a key.
    pub async fn owner(&self, key: &str) -> usize {
        let slot: usize = self.ask(0, &["CLUSTER", "KEYSLOT", key]).await;
        (0..PRIMARIES).find(|index| slot < SLOTS * (index + 1) / PRIMARIES).unwrap()
    }

    /// Entries of a stream.
    pub async fn length(&self, key: &str) -> u64 {
        self.ask(self.owner(key).await, &["XLEN", key]).await
    }

    /// Ends a node as a crash does (SIGKILL).
    pub fn kill(&mut self, index: usize) {
        let mut server = self.nodes[index].server.take().expect("the node runs");
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Starts a node that was killed, on its data; it may take a while until it does anything.
    pub async fn restart(&mut self, index: usize) {
        self.spawn(index);
        self.until_it_answers(index).await;
    }

    /// Has the replica take the place of its primary: asked once more where the handshake of the two has run out of time.
    pub async fn fail_over(&self) {
        let mut asked_at = None;
        self.until("the replica is a primary", async || {
            if asked_at.is_none_or(|at: Instant| at.elapsed() > HANDSHAKE) {
                self.ask::<()>(PRIMARIES, &["CLUSTER", "FAILOVER"]).await;
                asked_at = Some(Instant::now());
            }
            self.ask::<String>(PRIMARIES, &["INFO", "replication"]).await.contains("role:master")
        })
        .await;
    }

    fn spawn(&mut self, index: usize) {
        let folder = self.folder_of(index);
        fs::create_dir_all(&folder).unwrap();
        let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let Node { port, bus, server } = &mut self.nodes[index];
        assert!(server.is_none(), "the node runs");
        let mut command = Command::new(program());
        command.current_dir(folder).stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--cluster-port", &bus.to_string()]);
        command.args(["--cluster-enabled", "yes", "--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
        command.args(["--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0"]);
        *server = Some(command.spawn().expect("redis-server or valkey-server is installed"));
    }

    fn folder_of(&self, index: usize) -> PathBuf {
        self.folder.path().join(index.to_string())
    }

    async fn until_it_answers(&self, index: usize) {
        self.until("a node answers", async || self.try_ask::<()>(index, &["PING"]).await.is_ok()).await;
    }

    /// Waits until all nodes know of each other and take writes.
    async fn until_whole(&self) {
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        for index in 0..self.nodes.len() {
            self.until("the cluster is whole", async || {
                let info: String = self.ask(index, &["CLUSTER", "INFO"]).await;
                info.contains("cluster_state:ok") && info.contains(&known)
            })
            .await;
        }
    }

    async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition().await {
            assert!(Instant::now() < deadline, "within {DEADLINE:?}: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        for index in 0..self.nodes.len() {
            if let Some(mut server) = self.nodes[index].server.take() {
                // It may have ended by itself, which its log says.
                let _ = server.kill();
                let _ = server.wait();
            }
            if std::thread::panicking() {
                let log = fs::read_to_string(self.folder_of(index).join("log")).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(20).collect();
                eprintln!("the end of node {index}'s log, backwards:\n{}", last.join("\n"));
            }
        }
    }
}

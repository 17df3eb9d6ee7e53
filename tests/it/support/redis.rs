//! A Redis server of a test's own, on a socket in a folder of its own.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// How long the server may take to answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// Answers no write before it is on disk; killed at the latest when dropped.
pub struct TestRedis {
    folder: TempDir,
    url: String,
    server: Child,
}

impl TestRedis {
    pub async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let url = format!("redis+unix://{}", folder.path().join("redis.sock").display());
        let server = spawn(&folder);
        let redis = Self { folder, url, server };
        redis.answers().await;
        redis
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Ends the server as a crash does.
    pub async fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// Starts the server on what it has written.
    pub async fn restart(&mut self) {
        self.kill().await;
        self.server = spawn(&self.folder);
        self.answers().await;
    }

    async fn answers(&self) {
        let client = redis::Client::open(self.url()).unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let answer: redis::RedisResult<String> = match client.get_multiplexed_async_connection().await {
                Ok(mut connection) => redis::cmd("PING").query_async(&mut connection).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(_) => return,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn spawn(folder: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--port", "0", "--unixsocket", "redis.sock", "--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", "always", "--maxmemory-policy", "noeviction"])
        .arg("--dir")
        .arg(folder.path())
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed")
}

//! A Redis of a test's own: strict durability, on a socket in a temporary folder, killed and started at will.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(20);
const LOG_SHOWN_BYTES: usize = 4_000;

/// A server that ends with the test.
pub struct TestRedis {
    folder: TempDir,
    options: Vec<(String, String)>,
    server: Option<Child>,
}

impl TestRedis {
    /// Starts a server that loses nothing it has acknowledged.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts one with further settings, as `maxmemory`.
    pub async fn with(options: &[(&str, &str)]) -> Self {
        // A socket's path has at most 107 bytes: the system's folder for temporary files is short enough.
        let folder = tempfile::Builder::new().prefix("ph").tempdir().unwrap();
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut redis = Self { folder, options, server: None };
        redis.restart().await;
        redis
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Makes what comes and goes, as a connection's buffers, small beside what is kept: 64 MiB of nothing.
    pub async fn fill(&self) {
        let mut command = redis::cmd("SETRANGE");
        command.arg("ballast").arg(64 * 1024 * 1024 - 1).arg("x");
        command.exec_async(&mut self.connect().await).await.expect("ballast");
    }

    /// A connection of the test's own, to look at keys by plain commands.
    pub async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.unwrap()
    }

    async fn try_connect(&self) -> redis::RedisResult<MultiplexedConnection> {
        // Reads of whole data sets come through it.
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(DEADLINE));
        redis::Client::open(self.url())?.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Starts the server that was stopped or killed, on its data, and waits until it answers.
    pub async fn restart(&mut self) {
        assert!(self.server.is_none(), "the server runs");
        // A killed server leaves its socket; a connection to it would be refused rather than waited for.
        let _ = fs::remove_file(self.socket());
        let log = File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(program());
        command.current_dir(self.folder.path()).stdin(Stdio::null()).stderr(log.try_clone().unwrap()).stdout(log);
        command.args(["--port", "0", "--unixsocket"]).arg(self.socket());
        command.args(["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0"]);
        command.args(["--save", "", "--maxmemory-policy", "noeviction", "--stream-node-max-bytes", "512"]);
        for (name, value) in &self.options {
            command.arg(format!("--{name}")).arg(value);
        }
        self.server = Some(command.spawn().expect("redis-server or valkey-server is installed"));
        let deadline = Instant::now() + DEADLINE;
        while !self.answers().await {
            assert!(Instant::now() < deadline, "Redis does not answer:\n{}", self.log_tail());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts the server if it does not run.
    pub async fn revive(&mut self) {
        if self.server.is_none() {
            self.restart().await;
        }
    }

    async fn answers(&self) -> bool {
        let Ok(mut connection) = self.try_connect().await else { return false };
        redis::cmd("PING").exec_async(&mut connection).await.is_ok()
    }

    /// Ends the server as a crash does (SIGKILL).
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("the server runs");
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Ends the server in good order.
    pub async fn stop(&mut self) {
        let mut server = self.server.take().expect("the server runs");
        assert!(Command::new("kill").arg(server.id().to_string()).status().unwrap().success());
        let deadline = Instant::now() + DEADLINE;
        while server.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "Redis does not stop:\n{}", self.log_tail());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Cuts the last bytes off what a stopped server has written, as a crash of the machine may.
    pub fn torn_tail(&self, bytes: u64) {
        assert!(self.server.is_none(), "the server runs");
        let files = fs::read_dir(self.folder.path().join("appendonlydir")).unwrap().map(|file| file.unwrap().path());
        let incremental: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).collect();
        let [file] = &incremental[..] else { panic!("one file is appended to, not {incremental:?}") };
        let length = fs::metadata(file).unwrap().len();
        File::options().write(true).open(file).unwrap().set_len(length.saturating_sub(bytes)).unwrap();
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let start = log.len().saturating_sub(LOG_SHOWN_BYTES);
        log.get(start..).unwrap_or(&log).to_owned()
    }
}

/// Whichever server is installed.
pub(super) fn program() -> &'static str {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_installed = |name: &&str| std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    ["redis-server", "valkey-server"].into_iter().find(is_installed).unwrap_or("redis-server")
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It may have ended by itself, which the log below says.
            let _ = server.kill();
            let _ = server.wait();
        }
        if std::thread::panicking() {
            eprintln!("the end of Redis' log:\n{}", self.log_tail());
        }
    }
}

//! The embedded Redis: a private redis-server on a Unix socket in the data folder, started, watched and stopped.
//!
//! What it acknowledged is on disk (`appendfsync always`), so killing it loses nothing: that is what a dropped
//! [`EmbeddedRedis`] falls back on. At most one server is ever on a folder, and the kernel says so: each holds a lock as
//! its standard input. It never listens on TCP and never reads or writes anything in Redis.

mod folder;
mod memory;
mod program;

use std::{path::Path, process::ExitStatus, time::Duration};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    process::{Child, Command},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tracing::{error, info, warn};

use crate::shutdown::Shutdown;
use folder::{Folder, FolderLock, ServerLock};
use program::Program;

/// How long a server may take to answer at all, or to let go of the folder; loading its data may take as long as it takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at whether it answers.
const LOOK: Duration = Duration::from_millis(20);
/// Before a crashed server is started again; doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A server that ran this long has not crashed at its start.
const STABLE: Duration = Duration::from_secs(10);

/// What the server is started with, in its folder. Strict durability: a write is answered when it is on disk.
const SETTINGS: [(&str, &str); 16] = [
    ("port", "0"),
    ("unixsocket", folder::SOCKET),
    ("unixsocketperm", "700"),
    ("dir", "."),
    ("daemonize", "no"),
    ("save", ""),
    ("appendonly", "yes"),
    ("appendfsync", "always"),
    ("no-appendfsync-on-rewrite", "no"),
    // A rewrite of the file takes a tenth of all CPU that Redis uses under load, half of it to compress.
    ("auto-aof-rewrite-min-size", "256mb"),
    ("rdbcompression", "no"),
    ("aof-load-truncated", "yes"),
    ("maxmemory-policy", "noeviction"),
    ("stream-node-max-bytes", "512"),
    ("loglevel", "notice"),
    // Its log is what it prints, so that an error before it can log is not lost.
    ("logfile", ""),
];

/// Those that say where it is.
const ADDRESS: [&str; 3] = ["port", "unixsocket", "unixsocketperm"];

/// Why the embedded Redis could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The setting `data_dir` is at fault: what is wrong with it.
    #[error("data_dir: {0}")]
    DataDir(String),
    /// There is no fitting server, or it did not come up.
    #[error(transparent)]
    Server(#[from] anyhow::Error),
}

/// Where the embedded Redis of `data_dir` is, for a Redis client, whether it runs or not.
///
/// # Errors
/// The socket's path would be longer than the system takes: a sentence.
pub fn url_of(data_dir: &Path) -> Result<String, String> {
    Folder::at(data_dir)?.url()
}

/// A command that starts a server with the settings of the embedded one, in the folder that it is started in. The address
/// is to be added.
///
/// # Errors
/// No fitting server is installed.
pub async fn like_the_embedded() -> anyhow::Result<std::process::Command> {
    let program = program::find(std::env::var_os("PATH").as_deref()).await?;
    let mut command = std::process::Command::new(program.path());
    for (name, value) in SETTINGS.iter().filter(|(name, _)| !ADDRESS.contains(name)) {
        command.arg(format!("--{name}")).arg(value);
    }
    Ok(command)
}

/// A running private Redis. Dropped without [`stop`](Self::stop), it is stopped in the background, or killed when the
/// runtime ends first.
#[derive(Debug)]
pub struct EmbeddedRedis {
    url: String,
    stop: oneshot::Sender<()>,
    watcher: JoinHandle<()>,
}

impl EmbeddedRedis {
    /// Starts it in `data_dir` and waits until it answers and has loaded its data. A server that a killed process left in
    /// the folder is stopped first. Ends early when `shutdown` says so.
    ///
    /// # Errors
    /// The folder cannot be used or is in use, no fitting server is installed, or it ended or did not answer in time.
    pub async fn start(data_dir: &Path, shutdown: &Shutdown) -> Result<Self, StartError> {
        let (folder, lock) = Folder::open(data_dir).map_err(StartError::DataDir)?;
        let url = folder.url().map_err(StartError::DataDir)?;
        let server = Server { program: program::find(std::env::var_os("PATH").as_deref()).await?, folder };
        let child = tokio::select! {
            child = server.start() => child?,
            () = shutdown.stopping() => return Err(anyhow::anyhow!("stopped while the embedded Redis was starting").into()),
        };
        info!(program = %server.program, data_dir = %server.folder.path().display(), "embedded Redis is ready");
        let (stop, stopped) = oneshot::channel();
        let watcher = tokio::spawn(server.watch(child, stopped, lock));
        Ok(Self { url, stop, watcher })
    }

    /// Where it is, for a Redis client: `unix:///…/redis.sock`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops it in good order and waits for its end.
    pub async fn stop(self) {
        // A watcher that has gone has nothing left to stop.
        let _ = self.stop.send(());
        if let Err(error) = self.watcher.await {
            error!(%error, "the watcher of the embedded Redis failed");
        }
    }
}

struct Server {
    program: Program,
    folder: Folder,
}

impl Server {
    /// A server that answers.
    async fn start(&self) -> anyhow::Result<Child> {
        let lock = self.free_folder().await?;
        let log_start = self.folder.log_len();
        let mut child = self.spawn(lock)?;
        match self.ready(&mut child).await {
            Ok(()) => Ok(child),
            Err(error) => {
                let log = self.folder.log_tail(log_start);
                Err(error.context(format!("the embedded Redis did not start; its log ends: {log}")))
            }
        }
    }

    /// Waits until no server is on the folder, asking one that is left there to stop.
    async fn free_folder(&self) -> anyhow::Result<ServerLock> {
        let deadline = Instant::now() + PATIENCE;
        let mut asked = false;
        loop {
            let lock = self.folder.lock_server()?;
            let answer = self.ask("PING").await;
            match (lock, answer) {
                (Some(lock), None) => return Ok(lock),
                (Some(_), Some(_)) => bail!(
                    "another program's Redis listens on {}; stop it, or choose another data_dir",
                    self.folder.socket().display()
                ),
                (None, _) if Instant::now() >= deadline => bail!(
                    "a Redis left in {} does not end; end it by hand and start again",
                    self.folder.path().display()
                ),
                (None, Some(_)) => {
                    if !asked {
                        warn!("stopping the Redis that a killed process left in the data folder");
                    }
                    asked = true;
                    self.ask("SHUTDOWN NOSAVE").await;
                }
                (None, None) => {}
            }
            sleep(LOOK).await;
        }
    }

    fn spawn(&self, lock: ServerLock) -> anyhow::Result<Child> {
        let log = self.folder.open_log().context("redis.log cannot be written")?;
        let mut command = Command::new(self.program.path());
        for (name, value) in SETTINGS {
            command.arg(format!("--{name}")).arg(value);
        }
        if let Some(bytes) = memory::limit_bytes() {
            command.arg("--maxmemory").arg(bytes.to_string());
        }
        command
            .current_dir(self.folder.path())
            .stdin(lock)
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C at the terminal reaches the whole group; the server must outlive our own drain.
            .process_group(0)
            // Safe, as every acknowledged write is on disk, and better than a server that nobody watches.
            .kill_on_drop(true);
        command.spawn().with_context(|| format!("{} cannot be started", self.program))
    }

    async fn ready(&self, child: &mut Child) -> anyhow::Result<()> {
        let mut deadline = Instant::now() + PATIENCE;
        let mut loading = false;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("it ended at once, {status}");
            }
            match self.ask("PING").await {
                Some(answer) if answer.starts_with("-LOADING") => {
                    if !loading {
                        info!("the embedded Redis is loading its data");
                    }
                    loading = true;
                    deadline = Instant::now() + PATIENCE;
                }
                Some(_) => return Ok(()),
                None if Instant::now() >= deadline => bail!("it did not answer within {PATIENCE:?}"),
                None => {}
            }
            sleep(LOOK).await;
        }
    }

    /// One inline command, and the first line of its answer; nothing when there is no server or no answer in time.
    async fn ask(&self, command: &str) -> Option<String> {
        let exchange = async {
            let mut stream = BufReader::new(UnixStream::connect(self.folder.socket()).await.ok()?);
            stream.write_all(format!("{command}\r\n").as_bytes()).await.ok()?;
            let mut line = String::new();
            stream.read_line(&mut line).await.ok()?;
            (!line.is_empty()).then_some(line)
        };
        timeout(Duration::from_secs(1), exchange).await.ok().flatten()
    }

    /// Starts a server that ends again, until told to stop. Holds the folder's lock meanwhile.
    async fn watch(self, mut child: Child, mut stop: oneshot::Receiver<()>, _lock: FolderLock) {
        let mut pause = FIRST_PAUSE;
        loop {
            let start = Instant::now();
            tokio::select! {
                status = child.wait() => self.report_crash(status),
                _ = &mut stop => return self.end(child).await,
            }
            if start.elapsed() >= STABLE {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                again = self.start_again(&mut pause) => child = again,
                // A server that is only starting is dropped, and so killed, here.
                _ = &mut stop => return,
            }
        }
    }

    fn report_crash(&self, status: std::io::Result<ExitStatus>) {
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        error!(status, "the embedded Redis ended by itself; starting it again");
    }

    async fn start_again(&self, pause: &mut Duration) -> Child {
        loop {
            sleep(*pause).await;
            *pause = (*pause * 2).min(LONGEST_PAUSE);
            match self.start().await {
                Ok(child) => {
                    info!("the embedded Redis is back");
                    return child;
                }
                Err(error) => error!(error = format!("{error:#}"), "the embedded Redis could not be started again"),
            }
        }
    }

    async fn end(&self, mut child: Child) {
        // Writes and syncs what is left; no RDB file is configured, so there is nothing else to save.
        self.ask("SHUTDOWN NOSAVE").await;
        if timeout(PATIENCE, child.wait()).await.is_err() {
            warn!("the embedded Redis did not stop within {PATIENCE:?} and is killed; acknowledged writes are on disk");
            if let Err(error) = child.kill().await {
                error!(%error, "the embedded Redis could not be killed");
            }
        }
    }
}

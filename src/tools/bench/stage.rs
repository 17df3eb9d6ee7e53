//! What a run needs: a private Redis, an engine and a receiver as processes of their own, a webhook for each endpoint.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command as StdCommand, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use redis::aio::MultiplexedConnection;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::Mutex,
    task::JoinSet,
};

use super::{
    CONCURRENCY, Fsync,
    event::EVENT_TYPE,
    process::cpu_seconds,
    receiver::{Arrivals, Receiver},
    source::{Source, tenant},
};
use crate::{
    connect,
    domain::id::SubscriptionId,
    manage::{Manager, NewWebhook},
    publish::{Publisher, TypeChecker},
    shutdown::Shutdown,
    tools::private_redis::PrivateRedis,
};

/// What the API of a run asks for, as in [`SETTINGS`].
pub const ADMIN_KEY: &str = "bench";

/// A backlog may grow as large as a run; all else is as users have it.
const SETTINGS: &str = r#"
shutdown_grace_seconds = 1
[redis]
durability = "relaxed"
[api]
listen = "127.0.0.1:0"
admin_key = "bench"
[delivery]
max_in_flight = 256
max_backlog = 10_000_000
[targets]
allow_cidrs = ["127.0.0.0/8"]
"#;

/// Events before the run, to each endpoint at least one, so that connections and caches are there.
pub const WARM_UP: u64 = 500;
/// How long the events of a run may take to arrive after the last was published.
const PATIENCE: Duration = Duration::from_secs(120);
/// Lines from the end of the engine's log that an error quotes.
const LOG_LINES_SHOWN: usize = 3;
const ENGINE_LOG: &str = "engine.log";

/// All that a run needs.
pub struct Stage {
    pub redis_version: String,
    pub receiver: Receiver,
    pub source: Source,
    /// The URL of the API.
    pub api: String,
    /// The webhook of the first endpoint.
    pub webhook: SubscriptionId,
    _lanes: JoinSet<()>,
    engine: Mutex<Child>,
    engine_pid: u32,
    redis_pid: u32,
    redis: PrivateRedis,
}

/// Seconds of CPU that each process has used.
#[derive(Debug, Clone, Copy)]
pub struct CpuSeconds {
    pub engine: f64,
    pub redis: f64,
    pub publisher: f64,
    pub receiver: f64,
}

impl Stage {
    /// Starts everything, and delivers a few events before it returns.
    ///
    /// # Errors
    /// Something cannot be started.
    pub async fn start(fsync: Fsync, endpoints: usize, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let redis = PrivateRedis::start(SETTINGS, shutdown).await?;
        let mut connection = redis::Client::open(redis.url())?.get_multiplexed_async_connection().await?;
        set_fsync(&mut connection, fsync).await?;
        let (redis_pid, redis_version) = server(&mut connection).await?;
        let receiver = Receiver::start(own_program()?).await?;
        let (engine, api) = start_engine(&redis).await?;
        let config = redis.config()?;
        let streams = connect::open(&config).await?;
        let manager = Manager::new(streams.clone(), &config, config.address_rules(false));
        let webhook = create_webhook(&manager, &receiver, 0, endpoints).await?;
        for endpoint in 1..endpoints {
            create_webhook(&manager, &receiver, endpoint, endpoints).await?;
        }
        let mut lanes = JoinSet::new();
        let publisher = Publisher::start(streams, TypeChecker::off(), config.delivery.max_payload_bytes, &mut lanes);
        let stage = Self {
            redis_version,
            receiver,
            source: Source { publisher, endpoints },
            api,
            webhook,
            _lanes: lanes,
            engine_pid: engine.id().context("the engine ended at once")?,
            engine: Mutex::new(engine),
            redis_pid,
            redis,
        };
        stage.publish_and_wait(WARM_UP).await?;
        Ok(stage)
    }

    /// Publishes so many events as fast as they are taken, and waits until all have arrived.
    ///
    /// # Errors
    /// An event is refused or does not arrive, or the engine ended.
    pub async fn publish_and_wait(&self, count: u64) -> anyhow::Result<Arrivals> {
        self.receiver.expect(count).await?;
        self.source.publish_all(count).await?;
        self.arrivals(count).await
    }

    /// Waits until all events of the run have arrived.
    ///
    /// # Errors
    /// They do not, or the engine ended.
    pub async fn arrivals(&self, count: u64) -> anyhow::Result<Arrivals> {
        let mut engine = self.engine.lock().await;
        tokio::select! {
            arrivals = self.receiver.arrivals(count, PATIENCE) => arrivals,
            status = engine.wait() => bail!("the engine ended, {}; its log ends: {}", status?, log_tail(&self.redis)),
        }
    }

    /// Where an endpoint is.
    pub fn url(&self) -> String {
        endpoint_url(&self.receiver, 0)
    }

    /// # Errors
    /// A process is gone.
    pub fn cpu_seconds(&self) -> anyhow::Result<CpuSeconds> {
        Ok(CpuSeconds {
            engine: cpu_seconds(self.engine_pid)?,
            redis: cpu_seconds(self.redis_pid)?,
            publisher: cpu_seconds(std::process::id())?,
            receiver: cpu_seconds(self.receiver.pid)?,
        })
    }

    /// Ends everything.
    ///
    /// # Errors
    /// Something does not end.
    pub async fn stop(self) -> anyhow::Result<()> {
        // There is nothing to finish: its data go with the folder.
        self.engine.into_inner().kill().await.context("the engine cannot be ended")?;
        self.redis.stop().await
    }
}

/// The end of what the engine logged.
fn log_tail(redis: &PrivateRedis) -> String {
    let log = fs::read_to_string(redis.folder().join(ENGINE_LOG)).unwrap_or_default();
    let mut last: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
    last.reverse();
    last.join(" | ")
}

fn endpoint_url(receiver: &Receiver, endpoint: usize) -> String {
    format!("http://{}/{endpoint}", receiver.address)
}

async fn create_webhook(
    manager: &Manager,
    receiver: &Receiver,
    endpoint: usize,
    endpoints: usize,
) -> anyhow::Result<SubscriptionId> {
    let new = NewWebhook {
        url: endpoint_url(receiver, endpoint),
        events: vec![EVENT_TYPE.to_owned()],
        max_concurrency: Some(CONCURRENCY.div_ceil(endpoints) as u32),
        ..NewWebhook::default()
    };
    Ok(manager.create_webhook(&tenant(endpoint), new).await?.subscription.id)
}

/// This program, without the settings of the environment it was started in.
fn own_program() -> anyhow::Result<StdCommand> {
    let path: PathBuf = std::env::current_exe().context("this program does not know where it is")?;
    let mut command = StdCommand::new(path);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("POSTHASTE_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Starts the engine; also gives the URL of its API.
async fn start_engine(redis: &PrivateRedis) -> anyhow::Result<(Child, String)> {
    let log = File::create(redis.folder().join(ENGINE_LOG)).context("the engine's log cannot be made")?;
    let mut command = Command::from(own_program()?);
    command.arg("serve").arg("--config").arg(redis.config_file()).arg("--redis").arg(redis.url());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).kill_on_drop(true);
    let mut engine = command.spawn().context("the engine cannot be started")?;
    let mut said = BufReader::new(engine.stdout.take().context("the engine has no output")?).lines();
    while let Some(line) = said.next_line().await? {
        if let Some(api) = line.trim().strip_prefix("API ") {
            let api = api.trim().to_owned();
            // What else it says is let go of, so that it never waits for a reader.
            tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
            return Ok((engine, api));
        }
    }
    bail!("the engine ended at once; its log ends: {}", log_tail(redis))
}

async fn set_fsync(connection: &mut MultiplexedConnection, fsync: Fsync) -> anyhow::Result<()> {
    let mut command = redis::cmd("CONFIG");
    Ok(command.arg("SET").arg("appendfsync").arg(fsync.name()).exec_async(connection).await?)
}

/// The process id and the version of the server.
async fn server(connection: &mut MultiplexedConnection) -> anyhow::Result<(u32, String)> {
    let info: String = redis::cmd("INFO").arg("server").query_async(connection).await?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let pid = field("process_id").and_then(|pid| pid.parse().ok()).context("Redis does not tell its process")?;
    Ok((pid, field("redis_version").unwrap_or_default().to_owned()))
}

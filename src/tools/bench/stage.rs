//! What a run needs: a private Redis, an engine and a receiver as processes of their own, and webhooks.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use redis::{AsyncConnectionConfig, aio::MultiplexedConnection};
use tokio::{sync::Mutex, task::JoinSet};

use super::{
    Fsync,
    behaviour::Behaviour,
    engine::{Engine, Processes},
    process::own_program,
    reading::{Reading, Watched},
    receiver::{Arrivals, Receiver},
    source::Source,
    webhooks::{Layout, Maker},
};
use crate::{
    clock::now_ms,
    connect,
    domain::id::SubscriptionId,
    manage::Manager,
    publish::{Publisher, TypeChecker},
    shutdown::Shutdown,
    streams::Streams,
    tools::private_redis::PrivateRedis,
};

/// What the API of a run asks for, as in [`SETTINGS`].
pub const ADMIN_KEY: &str = "bench";

/// A backlog may grow as large as a run, and a client may ask as often as it can; all else is as users have it.
const SETTINGS: &str = r#"
shutdown_grace_seconds = 1
[redis]
durability = "relaxed"
[api]
listen = "127.0.0.1:0"
admin_key = "bench"
rate_limit_per_minute = 100_000_000
[delivery]
max_in_flight = 256
max_backlog = 10_000_000
[targets]
allow_cidrs = ["127.0.0.0/8"]
"#;

/// Deliveries before the run, so that connections and caches are there.
const WARM_UP: usize = 500;
/// How long the deliveries of a run may take after the last event was published, besides what many of them take.
const PATIENCE: Duration = Duration::from_secs(120);
/// What each of many may take besides.
const PATIENCE_EACH: Duration = Duration::from_millis(2);
/// Between two looks at what is owed.
const LOOK: Duration = Duration::from_millis(20);

/// What a run begins with.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub fsync: Fsync,
    pub processes: Processes,
    pub layout: Layout,
    /// Of a cluster; `None`: one server.
    pub primaries: Option<usize>,
}

/// All that a run needs.
pub struct Stage {
    pub redis_version: String,
    pub receiver: Receiver,
    pub source: Source,
    pub maker: Maker,
    pub streams: Streams,
    /// The URL of the API.
    pub api: String,
    /// The first webhook, where there is one.
    pub webhook: Option<SubscriptionId>,
    pub engine_processes: usize,
    _lanes: JoinSet<()>,
    engine: Mutex<Engine>,
    watched: Watched,
    /// One to each server.
    connections: Vec<MultiplexedConnection>,
    redis: PrivateRedis,
}

/// What is owed, over all shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owed {
    /// Events of which it is not known yet who gets them.
    pub events: u64,
    pub deliveries: u64,
    /// Those of them that were attempted and are to be again.
    pub waiting: u64,
}

impl Stage {
    /// Starts everything, and delivers a few events before it returns.
    ///
    /// # Errors
    /// Something cannot be started.
    pub async fn start(setup: Setup, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let redis = match setup.primaries {
            None => PrivateRedis::start(SETTINGS, shutdown).await?,
            Some(primaries) => PrivateRedis::start_cluster(SETTINGS, primaries).await?,
        };
        let (mut connections, mut redis_pids, mut redis_version) = (Vec::new(), Vec::new(), String::new());
        for url in redis.urls() {
            let connecting = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
            let client = redis::Client::open(url)?;
            let mut connection = client.get_multiplexed_async_connection_with_config(&connecting).await?;
            set_fsync(&mut connection, setup.fsync).await?;
            let (pid, version) = server(&mut connection).await?;
            redis_version = version;
            redis_pids.push(pid);
            connections.push(connection);
        }
        let receiver = Receiver::start(own_program()?).await?;
        let engine = Engine::start(&redis, setup.processes).await?;
        let config = redis.config()?;
        let streams = connect::open(&config).await?;
        let manager = Manager::new(streams.clone(), &config, config.address_rules(false));
        let maker = Maker { manager, receiver: receiver.address };
        let mut lanes = JoinSet::new();
        let max_payload_bytes = config.delivery.max_payload_bytes;
        let publisher = Publisher::start(streams.clone(), TypeChecker::off(), max_payload_bytes, &mut lanes);
        let mut stage = Self {
            redis_version,
            source: Source { publisher, layout: setup.layout },
            maker,
            streams,
            api: engine.api.clone(),
            webhook: None,
            engine_processes: engine.pids.len(),
            _lanes: lanes,
            watched: Watched { engine: engine.pids.clone(), redis: redis_pids, receiver: receiver.pid },
            receiver,
            engine: Mutex::new(engine),
            connections,
            redis,
        };
        stage.webhook = stage.maker.create_all(setup.layout).await?;
        if stage.webhook.is_some() {
            stage.publish_and_wait(stage.warm_up()).await?;
        }
        Ok(stage)
    }

    /// How many events are delivered before the run: each webhook gets one at least, but where filters choose one of many.
    pub fn warm_up(&self) -> u64 {
        let events = match self.source.layout {
            Layout::Own(webhooks) => webhooks.max(WARM_UP),
            Layout::Shared(webhooks) => (WARM_UP / webhooks.max(1)).max(1),
            Layout::Grouped(webhooks) => webhooks.min(WARM_UP),
        };
        events as u64
    }

    /// How many deliveries so many events make.
    pub fn deliveries(&self, events: u64) -> u64 {
        events * self.source.layout.targets() as u64
    }

    /// Publishes so many events as fast as they are taken, and waits until all have arrived everywhere.
    ///
    /// # Errors
    /// An event is refused or does not arrive, or the engine ended.
    pub async fn publish_and_wait(&self, events: u64) -> anyhow::Result<Arrivals> {
        self.receiver.expect(events, self.source.layout.targets()).await?;
        self.source.publish_all(events).await?;
        self.arrivals(self.deliveries(events)).await
    }

    /// Waits until all deliveries of the run have arrived.
    ///
    /// # Errors
    /// They do not, or the engine ended.
    pub async fn arrivals(&self, deliveries: u64) -> anyhow::Result<Arrivals> {
        let mut engine = self.engine.lock().await;
        tokio::select! {
            arrivals = self.receiver.arrivals(deliveries, patience(deliveries)) => arrivals,
            error = engine.ended() => Err(error),
        }
    }

    /// What is owed to anybody.
    ///
    /// # Errors
    /// Those of Redis.
    pub async fn owed(&self) -> anyhow::Result<Owed> {
        let mut owed = Owed::default();
        for shard in self.streams.shards() {
            let figures = self.streams.figures(shard, now_ms()).await?;
            owed.events += figures.undispatched;
            owed.deliveries += figures.counts.fresh + figures.counts.waiting + figures.counts.leased;
            owed.waiting += figures.counts.waiting;
        }
        Ok(owed)
    }

    /// Waits until nothing is owed: what became of a delivery is taken in a little after it arrived.
    ///
    /// # Errors
    /// Something is owed for too long.
    pub async fn settled(&self) -> anyhow::Result<()> {
        self.wait_until(0, |owed| owed == Owed::default()).await
    }

    /// Waits for what is owed to be as it should; there are so many deliveries to wait for.
    ///
    /// # Errors
    /// It does not come to that.
    pub async fn wait_until(&self, deliveries: u64, is_so: impl Fn(Owed) -> bool) -> anyhow::Result<()> {
        let since = Instant::now();
        let mut owed = self.owed().await?;
        while !is_so(owed) {
            if since.elapsed() > patience(deliveries) {
                bail!("the engine still has {owed:?} after {:?}", since.elapsed());
            }
            tokio::time::sleep(LOOK).await;
            owed = self.owed().await?;
        }
        Ok(())
    }

    /// Where an endpoint is that takes everything at once.
    pub fn url(&self) -> String {
        self.maker.url(Behaviour::Healthy, 0)
    }

    /// The first webhook.
    ///
    /// # Errors
    /// There is none.
    pub fn webhook(&self) -> anyhow::Result<SubscriptionId> {
        self.webhook.context("the run has no webhook")
    }

    /// A connection of the benchmark's own, to look at Redis (of a cluster, its first node) by plain commands.
    pub fn connection(&self) -> MultiplexedConnection {
        self.connections[0].clone()
    }

    /// What has been used up to now; peaks of memory begin anew.
    ///
    /// # Errors
    /// A process is gone.
    pub async fn begin(&self) -> anyhow::Result<Reading> {
        self.watched.forget_peaks()?;
        self.reading().await
    }

    /// What has been used up to now.
    ///
    /// # Errors
    /// A process is gone.
    pub async fn reading(&self) -> anyhow::Result<Reading> {
        self.watched.read(&mut self.connections.clone()).await
    }

    /// Ends everything.
    ///
    /// # Errors
    /// Something does not end.
    pub async fn stop(self) -> anyhow::Result<()> {
        let killed = self.engine.into_inner().kill().await;
        self.redis.stop().await?;
        killed
    }
}

fn patience(deliveries: u64) -> Duration {
    PATIENCE + PATIENCE_EACH * u32::try_from(deliveries).unwrap_or(u32::MAX)
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

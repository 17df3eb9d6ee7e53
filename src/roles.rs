//! What a process does: one role, or with `serve` all of them.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use tokio::task::JoinSet;

use crate::{
    backoff::Backoff,
    config::{Config, Durability, RedisUrl},
    connect::{self, ConnectError},
    dispatch::{self, Leadership},
    janitor,
    redis_server::EmbeddedRedis,
    replay,
    send::{
        self,
        post::{Post, PostConfig},
    },
    shutdown::{self, Shutdown},
    sources,
    streams::{Error, Streams},
};

/// Time between two rounds of upkeep.
const UPKEEP_EVERY: Duration = Duration::from_secs(15);
/// Connections to one host that are kept while idle.
const IDLE_A_HOST: usize = 32;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything, and the embedded Redis if the configuration names no other.
    Serve,
    Dispatcher,
    Sender,
    Sources,
    Api,
}

impl Role {
    fn is(self, other: Self) -> bool {
        self == other || self == Self::Serve
    }
}

/// What the command line says besides the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Where `/metrics`, `/healthz` and `/readyz` are served by a role that has no API.
    pub metrics_listen: Option<SocketAddr>,
    /// Wait for Redis instead of ending.
    pub wait: bool,
}

/// Runs until a signal or a failure; then ends what is under way within `shutdown_grace_seconds`.
///
/// # Errors
/// What keeps it from starting, or the failure of one of its tasks.
pub async fn run(config: Config, role: Role, options: Options) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("signals cannot be listened to")?;
    run_until(config, role, options, shutdown).await
}

/// As [`run`], until `shutdown` says so.
///
/// # Errors
/// As [`run`].
pub async fn run_until(config: Config, role: Role, options: Options, shutdown: Shutdown) -> anyhow::Result<()> {
    if role.is(Role::Api) {
        config.check_api()?;
    }
    let embedded = match (&config.redis.url, role) {
        (RedisUrl::Embedded, Role::Serve) => Some(EmbeddedRedis::start(&config.data_dir, &shutdown).await?),
        _ => None,
    };
    let url = embedded.as_ref().map_or_else(|| connect::url(&config), |redis| Ok(redis.url().to_owned()))?;
    let ran = async {
        let streams = open(&config, &url, options.wait, &shutdown).await?;
        check_server(&config, &streams, embedded.is_some()).await?;
        run_roles(&config, role, options, streams, &shutdown).await
    }
    .await;
    if let Some(redis) = embedded {
        redis.stop().await;
    }
    ran
}

async fn open(config: &Config, url: &str, wait: bool, shutdown: &Shutdown) -> anyhow::Result<Streams> {
    let mut backoff = Backoff::new("waiting for Redis");
    loop {
        match connect::open_at(config, url).await {
            Err(ConnectError::Unreachable(text)) if wait => {
                let error = Error::Unavailable(text);
                tokio::select! {
                    () = backoff.pause(&error) => {}
                    () = shutdown.stopping() => anyhow::bail!("stopped while waiting for Redis"),
                }
            }
            opened => return Ok(opened?),
        }
    }
}

/// The embedded Redis is set up by us; one of the user's own is looked at.
async fn check_server(config: &Config, streams: &Streams, is_embedded: bool) -> anyhow::Result<()> {
    let report = connect::check_server(config, streams).await?;
    if !is_embedded && config.redis.durability == Durability::Auto {
        for problem in report.losses.iter().chain(&report.advice) {
            tracing::warn!(redis = report.version, problem, "Redis can be made safer; `posthaste check` shows all");
        }
    }
    Ok(())
}

async fn run_roles(
    config: &Config,
    role: Role,
    options: Options,
    streams: Streams,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let process = process_name();
    let mut tasks = JoinSet::new();
    if role.is(Role::Dispatcher) {
        start_dispatcher(config, &streams, &process, shutdown, &mut tasks);
    }
    if role.is(Role::Sources) {
        let (streams, max, shutdown) = (streams.clone(), config.delivery.max_payload_bytes, shutdown.clone());
        tasks.spawn(done(sources::run(streams, process.clone(), max, shutdown)));
    }
    if role.is(Role::Sender) {
        start_sender(config, role, &streams, &process, shutdown, &mut tasks)?;
    }
    tracing::info!(role = ?role, process, "ready");
    let _ = options;
    shutdown::run_until_stopped(tasks, shutdown, config.shutdown_grace).await
}

async fn done(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    Ok(())
}

fn start_dispatcher(
    config: &Config,
    streams: &Streams,
    process: &str,
    shutdown: &Shutdown,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) {
    let (leadership, led) = Leadership::new(streams.clone(), process.to_owned());
    let settings = janitor::Settings {
        events: config.retention.events,
        events_max_bytes: config.retention.events_max_bytes,
        attempts: config.retention.attempts,
        attempts_max_bytes: config.retention.attempts_max_bytes,
        dead_letters: config.retention.dead_letters,
        max_age: config.delivery.max_age,
        every: UPKEEP_EVERY,
    };
    tasks.spawn(done(leadership.run(shutdown.clone())));
    tasks.spawn(done(dispatch::run(streams.clone(), led.clone(), shutdown.clone())));
    tasks.spawn(done(replay::run(streams.clone(), led.clone(), shutdown.clone())));
    tasks.spawn(done(janitor::run(streams.clone(), settings, led, shutdown.clone())));
}

fn start_sender(
    config: &Config,
    role: Role,
    streams: &Streams,
    process: &str,
    shutdown: &Shutdown,
    tasks: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let post = Post::new(PostConfig {
        rules: config.address_rules(role == Role::Serve),
        response_keep_bytes: config.delivery.response_keep_bytes,
        ca_file: config.targets.ca_file.clone(),
        max_idle_per_host: IDLE_A_HOST,
    })
    .map_err(|error| config.refuse("targets.ca_file", format_args!("{error:#}")))?;
    let settings = send::Settings {
        max_in_flight: config.delivery.max_in_flight as u32,
        max_age: config.delivery.max_age,
        grace: config.shutdown_grace,
    };
    tasks.spawn(done(send::run(streams.clone(), post, settings, shutdown.clone())));
    tasks.spawn(done(stay_listed(streams.clone(), format!("sender:{process}"), shutdown.clone())));
    Ok(())
}

/// Keeps a worker in the list of those alive.
async fn stay_listed(streams: Streams, worker: String, shutdown: Shutdown) {
    let mut backoff = Backoff::new("saying that it is alive");
    while !shutdown.is_stopping() {
        match streams.check_in(&worker).await {
            Ok(_) => {
                backoff.recovered();
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                    () = shutdown.stopping() => {}
                }
            }
            Err(error) => backoff.pause(&error).await,
        }
    }
    // Whoever cannot say so is forgotten after a minute.
    let _ = streams.check_out(&worker).await;
}

/// A name of this process that no other has: host, process id, and chance.
fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "host" } else { host.trim() };
    format!("{host}-{}-{:04x}", std::process::id(), rand::random::<u16>())
}

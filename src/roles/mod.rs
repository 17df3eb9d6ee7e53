//! What a process does: one role, or with `serve` all of them.

mod admin_key;
mod otlp;

use std::{io::Write, net::SocketAddr, time::Duration};

use anyhow::Context;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, task::JoinSet};

use self::{
    admin_key::{AdminKey, admin_key},
    otlp::Exporter,
};
use crate::{
    api::{self, Api},
    backoff::Backoff,
    clock,
    config::{Config, ConfigError, Durability, RedisUrl},
    connect::{self, ConnectError},
    dispatch::{self, Leadership},
    handover::{Handover, Intake},
    janitor,
    manage::Manager,
    metrics,
    publish::{Publisher, TypeChecker},
    redis_server::EmbeddedRedis,
    replay,
    send::{self, post::Post},
    shutdown::{self, Shutdown},
    sources,
    streams::{Error, Streams},
    traces::Traces,
};

/// How often a process says that it is alive.
const LISTED_EVERY: Duration = Duration::from_secs(1);
/// Time between two rounds of upkeep.
const UPKEEP_EVERY: Duration = Duration::from_secs(15);

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

    fn name(self) -> &'static str {
        match self {
            Self::Serve => "serve",
            Self::Dispatcher => "dispatcher",
            Self::Sender => "sender",
            Self::Sources => "sources",
            Self::Api => "api",
        }
    }
}

/// What the command line says besides the configuration.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Where `/metrics`, `/healthz` and `/readyz` are served, instead of where the configuration says.
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
    run_until(config, role, options, metrics::install(role.name(), &Error::KINDS)?, shutdown).await
}

/// As [`run`], until `shutdown` says so; `figures` are what `/metrics` shows.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    config: Config,
    role: Role,
    options: Options,
    figures: PrometheusHandle,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    // What cannot work is said before anything is started.
    let listeners = Listeners::bind(&config, role, options).await?;
    let admin_key = if role.is(Role::Api) { Some(admin_key(&config)?) } else { None };
    let name = process_name();
    let exporter = Exporter::start(&config, role.name(), &name)?;
    let embedded = match (&config.redis.url, role) {
        (RedisUrl::Embedded, Role::Serve) => Some(EmbeddedRedis::start(&config.data_dir, &shutdown).await?),
        _ => None,
    };
    let url = embedded.as_ref().map_or_else(|| connect::url(&config), |redis| Ok(redis.url().to_owned()))?;
    let ran = async {
        let streams = open(&config, &url, options.wait, &shutdown).await?;
        check_server(&config, &streams, embedded.is_some()).await?;
        let types = TypeChecker::new(&streams, config.api.strict_types);
        let traces = exporter.traces();
        let shutdown = &shutdown;
        let process = Process { config: &config, role, streams, types, name, figures, traces, shutdown };
        process.run(listeners, admin_key).await
    }
    .await;
    exporter.stop().await;
    if let Some(redis) = embedded {
        redis.stop().await;
    }
    ran
}

/// Where a process is asked, each bound before it starts.
struct Listeners {
    api: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Listeners {
    async fn bind(config: &Config, role: Role, options: Options) -> Result<Self, ConfigError> {
        if role.is(Role::Api) {
            config.check_api()?;
            config.check_secrets()?;
        }
        let api = if role.is(Role::Api) { Some(bind(config, "api.listen", config.api.listen).await?) } else { None };
        let metrics = match metrics_address(config, role, options) {
            Some(address) => Some(bind(config, "metrics.listen", address).await?),
            None => None,
        };
        Ok(Self { api, metrics })
    }
}

/// Where a process shows its figures, besides its API if it has one: `serve` nowhere, unless it is told of a place.
fn metrics_address(config: &Config, role: Role, options: Options) -> Option<SocketAddr> {
    let is_wanted = role != Role::Serve || config.metrics_listen_is_set();
    options.metrics_listen.or_else(|| is_wanted.then_some(config.metrics.listen))
}

async fn bind(config: &Config, setting: &'static str, address: SocketAddr) -> Result<TcpListener, ConfigError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| config.refuse(setting, format_args!("{address} cannot be listened on: {error}")))
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

/// What the tasks of a process have in common.
struct Process<'p> {
    config: &'p Config,
    role: Role,
    streams: Streams,
    types: TypeChecker,
    name: String,
    figures: PrometheusHandle,
    traces: Traces,
    shutdown: &'p Shutdown,
}

type Tasks = JoinSet<anyhow::Result<()>>;

/// What asks Redis for something from beat to beat and works little by itself. All of it is one task: what is asked at the same
/// moment then goes to Redis in one write.
type Upkeep = FuturesUnordered<BoxFuture<'static, ()>>;

impl Process<'_> {
    async fn run(self, listeners: Listeners, admin_key: Option<AdminKey>) -> anyhow::Result<()> {
        let mut tasks = JoinSet::new();
        let mut lanes = JoinSet::new();
        let upkeep = Upkeep::new();
        lanes.spawn(metrics::keep_small(self.figures.clone()));
        let (handover, intake) = Handover::new(self.config.delivery.max_in_flight);
        let sender = (self.role.is(Role::Dispatcher) && self.role.is(Role::Sender)).then_some(handover);
        if self.role.is(Role::Sources) {
            let (streams, worker, shutdown) = (self.streams.clone(), self.worker("sources"), self.shutdown.clone());
            let (types, traces) = (self.types.clone(), self.traces.clone());
            let max = self.config.delivery.max_payload_bytes;
            upkeep.push(sources::run(streams, self.manager(), types, worker, max, traces, shutdown).boxed());
        }
        if self.role.is(Role::Sender) {
            self.start_sender(&mut tasks, intake)?;
        }
        // After the sender: nothing is leased for one that cannot start.
        if self.role.is(Role::Dispatcher) {
            self.start_dispatcher(&mut tasks, &upkeep, sender);
        }
        if let Some(listener) = listeners.metrics {
            let (streams, figures, shutdown) = (self.streams.clone(), self.figures.clone(), self.shutdown.clone());
            tasks.spawn(done(api::serve_health(listener, streams, figures, shutdown)));
        }
        if let (Some(listener), Some(admin_key)) = (listeners.api, admin_key) {
            self.greet(&listener, &admin_key);
            self.start_api(listener, &admin_key, &mut tasks, &mut lanes)?;
        }
        self.stay_listed(&upkeep);
        tasks.spawn(done(upkeep.collect()));
        tracing::info!(role = self.role.name(), process = self.name, "ready");
        shutdown::run_until_stopped(tasks, self.shutdown, self.config.shutdown_grace).await
    }

    fn start_dispatcher(&self, tasks: &mut Tasks, upkeep: &Upkeep, sender: Option<Handover>) {
        let (streams, shutdown, retention) = (&self.streams, self.shutdown, &self.config.retention);
        let (leadership, led) = Leadership::new(streams.aside(), self.name.clone());
        let settings = janitor::Settings {
            events: retention.events,
            events_max_bytes: retention.events_max_bytes,
            attempts: retention.attempts,
            attempts_max_bytes: retention.attempts_max_bytes,
            dead_letters: retention.dead_letters,
            max_age: self.config.delivery.max_age,
            durability: self.config.redis.durability,
            every: UPKEEP_EVERY,
        };
        upkeep.push(leadership.run(shutdown.clone()).boxed());
        tasks.spawn(done(dispatch::run(streams.clone(), led.clone(), sender, self.traces.clone(), shutdown.clone())));
        upkeep.push(replay::run(streams.clone(), led.clone(), shutdown.clone()).boxed());
        upkeep.push(janitor::run(streams.aside(), settings, led, shutdown.clone()).boxed());
    }

    fn start_sender(&self, tasks: &mut Tasks, intake: Intake) -> anyhow::Result<()> {
        let config = self.config;
        let post = Post::of(config, self.role == Role::Serve)?;
        let settings = send::Settings {
            max_age: config.delivery.max_age,
            grace: config.shutdown_grace,
            traces: self.traces.clone(),
        };
        tasks.spawn(done(send::run(self.streams.clone(), post, settings, intake, self.shutdown.clone())));
        Ok(())
    }

    /// Keeps what this process does in the list of workers. As a dispatcher it lists itself.
    fn stay_listed(&self, upkeep: &Upkeep) {
        let roles = [(Role::Sources, "sources"), (Role::Sender, "sender"), (Role::Api, "api")];
        let listed = roles.into_iter().filter(|(role, _)| self.role.is(*role)).map(|(_, name)| self.worker(name));
        let listed: Vec<String> = listed.collect();
        if !listed.is_empty() {
            upkeep.push(stay_listed(self.streams.aside(), listed, self.shutdown.clone()).boxed());
        }
    }

    fn worker(&self, role: &str) -> String {
        format!("{role}:{}", self.name)
    }

    fn start_api(
        &self,
        listener: TcpListener,
        admin_key: &AdminKey,
        tasks: &mut Tasks,
        lanes: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        let max_payload_bytes = self.config.delivery.max_payload_bytes;
        let manager = self.manager();
        let publisher = Publisher::start(self.streams.clone(), self.types.clone(), max_payload_bytes, lanes)
            .traced(self.traces.clone());
        let figures = self.figures.clone();
        let settings = api::Settings {
            max_payload_bytes,
            rate_limit_per_minute: self.config.api.rate_limit_per_minute,
            ingest_webhook_limit: self.config.ingest.rate_limit_per_minute,
            ingest_address_limit: self.config.ingest.address_rate_limit_per_minute,
            trusted_proxies: self.config.api.trusted_proxies.clone(),
            public_host: self.config.api.public_url.as_ref().and_then(|url| url.host_str().map(str::to_owned)),
            trusts_locality: self.trusts_locality(),
        };
        // With connections of its own: those that deliveries keep open would hide from a test what making one costs.
        let post = Post::of(self.config, self.role == Role::Serve)?;
        let api = Api::new(self.streams.clone(), manager, publisher, post, figures, &admin_key.key, settings);
        tasks.spawn(api::serve(listener, api, self.shutdown.clone()));
        Ok(())
    }

    fn manager(&self) -> Manager {
        Manager::new(self.streams.clone(), self.config, self.config.address_rules(self.role == Role::Serve))
    }

    /// Whether webhooks may point to this machine only because nobody else seems to reach it.
    fn trusts_locality(&self) -> bool {
        self.role == Role::Serve && self.config.is_local() && self.config.targets.allow_cidrs.is_none()
    }

    /// What a person who starts it at a terminal needs next; on standard output, apart from the log.
    fn greet(&self, listener: &TcpListener, admin_key: &AdminKey) {
        // Whoever has closed it does not want to know.
        let mut out = std::io::stdout().lock();
        let address = listener.local_addr().unwrap_or(self.config.api.listen);
        let _ = writeln!(out, "Posthaste {} is ready.", env!("CARGO_PKG_VERSION"));
        let _ = writeln!(out, "  API        http://{address}");
        let _ = writeln!(out, "  docs       http://{address}/docs");
        if let Some(file) = &admin_key.file {
            let _ = writeln!(out, "  admin key  {}   (kept in {})", admin_key.key, file.display());
        }
        if self.trusts_locality() {
            let _ = writeln!(out, "  targets    https, and anything on this machine (targets.allow_cidrs is not set)");
        }
    }
}

async fn done(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    Ok(())
}

/// Keeps workers in the list of those alive.
async fn stay_listed(streams: Streams, workers: Vec<String>, shutdown: Shutdown) {
    let mut backoff = Backoff::new("saying that it is alive");
    while !shutdown.is_stopping() {
        match streams.check_in(&workers).await {
            Ok(_) => {
                backoff.recovered();
                tokio::select! {
                    () = clock::beat(LISTED_EVERY) => {}
                    () = shutdown.stopping() => {}
                }
            }
            Err(error) => backoff.pause(&error).await,
        }
    }
    // Whoever cannot say so is forgotten after a minute.
    let _ = streams.check_out(&workers).await;
}

/// A name of this process that no other has: host, process id, and chance.
fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "host" } else { host.trim() };
    format!("{host}-{}-{:04x}", std::process::id(), rand::random::<u16>())
}

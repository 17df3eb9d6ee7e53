//! `posthaste demo`: what the engine does, shown in seconds on a private Redis, with a receiver of its own.
//!
//! Each line is printed when it has come true: an event's id when it is in the log, an arrival when the receiver has
//! checked its signatures. What does not come true in time ends the demo with a sentence.

mod receiver;
mod story;

use std::io::Write;

use anyhow::Context;
use tokio::task::JoinSet;

use self::{
    receiver::Receiver,
    story::{Stage, tell},
};
use super::private_redis::PrivateRedis;
use crate::{
    connect,
    manage::Manager,
    metrics,
    publish::{Publisher, TypeChecker},
    roles::{self, Options, Role},
    shutdown::Shutdown,
    streams,
};

/// Deliveries go to this machine only, every port is a free one, and a demo that is stopped ends soon.
const SETTINGS: &str = r#"
shutdown_grace_seconds = 3
[redis]
durability = "relaxed"
[targets]
allow_cidrs = ["127.0.0.0/8"]
[metrics]
listen = "127.0.0.1:0"
"#;

/// Tells the story on `out`. All that it starts has ended when it returns.
///
/// # Errors
/// Something cannot be started, or does not do what it should: a sentence.
pub async fn run(out: &mut impl Write) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("signals cannot be listened to")?;
    let redis = PrivateRedis::start(SETTINGS, &shutdown).await?;
    let shown = show(out, &redis, &shutdown).await;
    let stopped = redis.stop().await;
    shown.and(stopped)
}

async fn show(out: &mut impl Write, redis: &PrivateRedis, shutdown: &Shutdown) -> anyhow::Result<()> {
    let config = redis.config()?;
    let streams = connect::open(&config).await?;
    let mut lanes = JoinSet::new();
    let stage = Stage {
        manager: Manager::new(streams.clone(), &config, config.address_rules(false)),
        publisher: Publisher::start(streams, TypeChecker::off(), config.delivery.max_payload_bytes, &mut lanes),
        receiver: Receiver::start().await?,
        redis_url: redis.url().to_owned(),
    };
    let figures = metrics::install("demo", &streams::Error::KINDS)?;
    let mut engine = JoinSet::new();
    for role in [Role::Dispatcher, Role::Sender, Role::Sources] {
        engine.spawn(roles::run_until(config.clone(), role, Options::default(), figures.clone(), shutdown.clone()));
    }
    let told = tokio::select! {
        told = tell(out, &stage) => told,
        ended = engine.join_next() => Err(failure(ended)),
    };
    shutdown.stop();
    while engine.join_next().await.is_some() {}
    told
}

/// Why the engine ended before the story did.
fn failure(ended: Option<Result<anyhow::Result<()>, tokio::task::JoinError>>) -> anyhow::Error {
    match ended {
        Some(Ok(Err(error))) => error.context("the engine failed"),
        Some(Err(panic)) => anyhow::Error::from(panic).context("the engine failed"),
        Some(Ok(Ok(()))) | None => anyhow::anyhow!("stopped before the end of the story"),
    }
}

//! Connections to Redis: a few that are shared by short commands, and one for each blocking reader.
//!
//! Timeouts are explicit everywhere. A connection that breaks, or that leads to what is no primary any more, is dropped,
//! and the next call makes a new one, which resolves the address again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bb8_redis::bb8;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, PushInfo, RedisError,
    ServerErrorKind, aio::MultiplexedConnection, io::tcp::TcpSettings,
};
use tokio::sync::mpsc;

use super::{
    error::{Error, Result, spoils_connection},
    scripts::{self, Script},
};
use crate::metrics;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const SHARED_CONNECTIONS: u32 = 4;

/// Makes configured connections to one server.
#[derive(Debug, Clone)]
struct Connector {
    client: Client,
}

impl Connector {
    async fn connect(&self, response_timeout: Duration) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(response_timeout));
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }
}

/// A shared connection, and whether a call found it broken.
struct Link {
    connection: MultiplexedConnection,
    is_broken: Arc<AtomicBool>,
}

impl bb8::ManageConnection for Connector {
    type Connection = Link;
    type Error = RedisError;

    async fn connect(&self) -> Result<Link, RedisError> {
        let mut connection = Connector::connect(self, RESPONSE_TIMEOUT).await?;
        load_scripts(&mut connection).await?;
        Ok(Link { connection, is_broken: Arc::default() })
    }

    async fn is_valid(&self, _: &mut Link) -> Result<(), RedisError> {
        Ok(())
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.is_broken.load(Ordering::Relaxed)
    }
}

async fn load_scripts(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let mut pipeline = redis::pipe();
    for script in scripts::all() {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(&script.text).ignore();
    }
    pipeline.query_async(connection).await
}

/// The shared connections.
#[derive(Clone)]
pub(super) struct Connections {
    connector: Connector,
    pool: bb8::Pool<Connector>,
}

impl Connections {
    /// Prepares connections to `url`; none is made yet.
    ///
    /// # Errors
    /// When the URL is not one of Redis'.
    pub fn new(url: &str) -> Result<Self> {
        // Commands are small and answered one by one: waiting to fill a packet only delays them.
        let info = url.into_connection_info()?.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let connector = Connector { client: Client::open(info)? };
        let pool = bb8::Pool::builder()
            .max_size(SHARED_CONNECTIONS)
            .connection_timeout(CONNECT_TIMEOUT * 2)
            .retry_connection(false)
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(None)
            .queue_strategy(bb8::QueueStrategy::Fifo)
            .build_unchecked(connector.clone());
        Ok(Self { connector, pool })
    }

    /// One of the shared connections. It is handed back at once: many calls are under way on each.
    async fn link(&self) -> Result<(MultiplexedConnection, Arc<AtomicBool>)> {
        // The pool asks whether a connection is broken when it is handed back: one that broke since is handed back here.
        loop {
            match self.pool.get().await {
                Ok(link) if link.is_broken.load(Ordering::Relaxed) => {}
                Ok(link) => return Ok((link.connection.clone(), link.is_broken.clone())),
                Err(bb8::RunError::User(error)) => return Err(error.into()),
                // The pool keeps the reason to itself.
                Err(bb8::RunError::TimedOut) => match Connector::connect(&self.connector, RESPONSE_TIMEOUT).await {
                    Ok(_) => return Err(Error::Unavailable("no connection was free within two seconds".to_owned())),
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    /// Runs one command.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        self.carry_out(Work::Command(command)).await
    }

    /// Runs a pipeline.
    pub async fn run_all<T: FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<T> {
        self.carry_out(Work::Pipeline(pipeline)).await
    }

    /// Runs a script, which is loaded first where the server does not know it (after a restart or a failover).
    pub async fn call<T: FromRedisValue>(&self, script: &Script, command: &Cmd) -> Result<T> {
        let since = Instant::now();
        let answer = self.carry_out(Work::Script(script, command)).await;
        metrics::script_called(script.name, since.elapsed());
        answer
    }

    /// Runs one script several times in one round trip, and measures them as one. All may run once more where the server does
    /// not know the script: only for what a repeat does not change.
    pub async fn call_all<T: FromRedisValue>(&self, script: &Script, commands: Vec<Cmd>) -> Result<Vec<T>> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for command in commands {
            pipeline.add_command(command);
        }
        let since = Instant::now();
        let answer = self.carry_out(Work::Scripts(script, &pipeline)).await;
        metrics::script_called(script.name, since.elapsed());
        answer
    }

    /// A connection that turns out to be closed is replaced once: Redis was restarted since it was last used. Should the
    /// work then run twice, no delivery is lost or doubled by it: a lease may lie idle until it runs out, and what a call
    /// says it has done may be less than was done.
    async fn carry_out<T: FromRedisValue>(&self, work: Work<'_>) -> Result<T> {
        let mut answer = self.try_once(work).await?;
        if answer.as_ref().is_err_and(RedisError::is_connection_dropped) {
            answer = self.try_once(work).await?;
        }
        Ok(answer?)
    }

    async fn try_once<T: FromRedisValue>(&self, work: Work<'_>) -> Result<Result<T, RedisError>> {
        let (mut connection, is_broken) = self.link().await?;
        let answer = work.run(&mut connection).await;
        if answer.as_ref().is_err_and(spoils_connection) {
            is_broken.store(true, Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// A connection of its own for a blocking reader: a read that blocks holds up all else on its connection.
    pub async fn dedicated(&self, block: Duration) -> Result<MultiplexedConnection> {
        Ok(self.connector.connect(block + Duration::from_secs(2)).await?)
    }

    /// A connection of its own whose pushed messages come out of the receiver; it ends when the connection does.
    pub async fn subscribed(
        &self,
        channels: &[String],
    ) -> Result<(MultiplexedConnection, mpsc::UnboundedReceiver<PushInfo>)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let info = self.connector.client.get_connection_info().clone();
        let redis = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(redis))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_push_sender(sender);
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        redis::cmd("SSUBSCRIBE").arg(channels).exec_async(&mut connection).await?;
        Ok((connection, receiver))
    }
}

/// What is asked of a connection.
#[derive(Clone, Copy)]
enum Work<'w> {
    Command(&'w Cmd),
    Pipeline(&'w redis::Pipeline),
    Script(&'w Script, &'w Cmd),
    Scripts(&'w Script, &'w redis::Pipeline),
}

impl Work<'_> {
    async fn run<T: FromRedisValue>(self, connection: &mut MultiplexedConnection) -> Result<T, RedisError> {
        match self {
            Self::Command(command) => command.query_async(connection).await,
            Self::Pipeline(pipeline) => pipeline.query_async(connection).await,
            Self::Script(script, command) => match command.query_async(connection).await {
                Err(error) if is_unknown_script(&error) => {
                    load(script, connection).await?;
                    command.query_async(connection).await
                }
                answer => answer,
            },
            Self::Scripts(script, pipeline) => match pipeline.query_async(connection).await {
                Err(error) if is_unknown_script(&error) => {
                    load(script, connection).await?;
                    pipeline.query_async(connection).await
                }
                answer => answer,
            },
        }
    }
}

fn is_unknown_script(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Server(ServerErrorKind::NoScript))
}

async fn load(script: &Script, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    redis::cmd("SCRIPT").arg("LOAD").arg(&script.text).exec_async(connection).await
}

//! One server: a few connections that are shared by short commands, and one for each blocking reader.
//!
//! Timeouts are explicit everywhere. A connection that breaks, or that leads to what is no primary any more, is dropped,
//! and the next call makes a new one, which resolves the address again.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bb8_redis::bb8;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionInfo, FromRedisValue, PushInfo, RedisError,
    aio::MultiplexedConnection,
};
use tokio::sync::{Notify, mpsc};

use super::{
    super::error::{Result, spoils_connection},
    work::Work,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const SHARED_CONNECTIONS: u32 = 4;

/// Makes configured connections to one server.
#[derive(Debug, Clone)]
struct Connector {
    client: Client,
    failures: Arc<Failures>,
}

/// That no connection could be made, told to those who wait for one.
#[derive(Debug, Default)]
struct Failures {
    last: Mutex<Option<RedisError>>,
    next: Notify,
}

impl Failures {
    fn tell(&self, error: &RedisError) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        self.next.notify_waiters();
    }

    fn last(&self) -> Option<RedisError> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
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
        let made = Connector::connect(self, RESPONSE_TIMEOUT).await;
        let connection = made.inspect_err(|error| self.failures.tell(error))?;
        Ok(Link { connection, is_broken: Arc::default() })
    }

    async fn is_valid(&self, _: &mut Link) -> Result<(), RedisError> {
        Ok(())
    }

    fn has_broken(&self, link: &mut Link) -> bool {
        link.is_broken.load(Ordering::Relaxed)
    }
}

/// The connections to a server.
#[derive(Clone)]
pub(in crate::streams) struct Server {
    connector: Connector,
    pool: bb8::Pool<Connector>,
    /// Whether a call ends with the first connection that cannot be made. Otherwise it waits for one of those that other
    /// calls try to make meanwhile.
    fails_at_once: bool,
    /// One of several.
    is_node: bool,
}

impl Server {
    /// Prepares connections; none is made yet.
    ///
    /// # Errors
    /// When what is to be connected to is not possible here, as TLS to a file.
    pub(super) fn new(info: ConnectionInfo) -> Result<Self> {
        Ok(Self::over(Connector { client: Client::open(info)?, failures: Arc::default() }, SHARED_CONNECTIONS))
    }

    /// The same server over a connection apart from those that are shared here. All who use it ask at the same moment, and
    /// nobody else tries to connect while they wait: none waits, each asks again.
    pub(super) fn aside(&self) -> Self {
        let connector = Connector { failures: Arc::default(), ..self.connector.clone() };
        Self { fails_at_once: true, ..Self::over(connector, 1) }
    }

    fn over(connector: Connector, connections: u32) -> Self {
        let pool = bb8::Pool::builder()
            .max_size(connections)
            .connection_timeout(CONNECT_TIMEOUT * 2)
            .retry_connection(false)
            .test_on_check_out(false)
            .max_lifetime(None)
            .idle_timeout(None)
            .queue_strategy(bb8::QueueStrategy::Fifo)
            .build_unchecked(connector.clone());
        Self { connector, pool, fails_at_once: false, is_node: false }
    }

    /// The same server, one of several: what is to be done at others does not wait for it to come back.
    pub(super) fn among_others(self) -> Self {
        Self { fails_at_once: true, is_node: true, ..self }
    }

    pub(super) fn info(&self) -> &ConnectionInfo {
        self.connector.client.get_connection_info()
    }

    /// Whether both lead to the same server.
    pub fn is_same(&self, other: &Self) -> bool {
        self.info().addr() == other.info().addr()
    }

    /// One of the shared connections. It is handed back at once: many calls are under way on each.
    async fn link(&self) -> Result<(MultiplexedConnection, Arc<AtomicBool>), RedisError> {
        // The pool asks whether a connection is broken when it is handed back: one that broke since is handed back here.
        loop {
            let got = if self.fails_at_once {
                // It hears of all failures from here on. The pool itself says nothing of them, and waits.
                let failed = self.connector.failures.next.notified();
                tokio::select! {
                    biased;
                    got = self.pool.get() => got,
                    () = failed => Err(self.connector.failures.last().map_or(bb8::RunError::TimedOut, bb8::RunError::User)),
                }
            } else {
                self.pool.get().await
            };
            match got {
                Ok(link) if link.is_broken.load(Ordering::Relaxed) => {}
                Ok(link) => return Ok((link.connection.clone(), link.is_broken.clone())),
                Err(bb8::RunError::User(error)) => return Err(error),
                // The pool keeps the reason to itself.
                Err(bb8::RunError::TimedOut) => {
                    Connector::connect(&self.connector, RESPONSE_TIMEOUT).await?;
                    let text = "no connection was free within two seconds";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text).into());
                }
            }
        }
    }

    /// Runs one command.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        Ok(self.carry_out(Work::Command(command)).await?)
    }

    /// A connection that turns out to be closed is replaced once: Redis was restarted since it was last used. Should the
    /// work then run twice, no delivery is lost or doubled by it: a lease may lie idle until it runs out, and what a call
    /// says it has done may be less than was done.
    pub(super) async fn carry_out<T: FromRedisValue>(&self, work: Work<'_>) -> Result<T, RedisError> {
        match self.try_once(work).await? {
            Err(error) if error.is_connection_dropped() => self.try_once(work).await?,
            answer => answer,
        }
    }

    /// The outer failure is that there is no connection.
    async fn try_once<T: FromRedisValue>(&self, work: Work<'_>) -> Result<Result<T, RedisError>, RedisError> {
        let (mut connection, is_broken) = self.link().await?;
        let answer = work.run(&mut connection).await;
        if answer.as_ref().is_err_and(spoils_connection) {
            is_broken.store(true, Ordering::Relaxed);
        }
        Ok(answer)
    }

    /// A connection of its own for a blocking reader: a read that blocks holds up all else on its connection.
    pub(super) async fn dedicated(&self, block: Duration) -> Result<MultiplexedConnection, RedisError> {
        self.connector.connect(block + Duration::from_secs(2)).await
    }

    /// A connection of its own that hears some channels; what is pushed goes to `pushes`, and the end of the connection too.
    pub(super) async fn subscribed(
        &self,
        channels: &[String],
        pushes: mpsc::UnboundedSender<PushInfo>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let info = self.info().clone();
        let redis = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(redis))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_push_sender(pushes);
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        // In a cluster one call names channels of one slot only.
        for together in channels.chunks(if self.is_node { 1 } else { channels.len().max(1) }) {
            redis::cmd("SSUBSCRIBE").arg(together).exec_async(&mut connection).await?;
        }
        Ok(connection)
    }
}

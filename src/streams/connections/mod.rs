//! Connections to Redis: to one server, or to each primary of a cluster.
//!
//! A command goes where its key is. A pipeline and a script touch one slot, so that both do on a cluster what they do on one
//! server; what concerns several is asked of each, and answered by each.

mod cluster;
mod readers;
mod server;
mod slots;
mod work;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use redis::{Cmd, FromRedisValue, IntoConnectionInfo, PushInfo, aio::MultiplexedConnection, io::tcp::TcpSettings};
use socket2::TcpKeepalive;
use tokio::{sync::mpsc, time::timeout};

use self::{cluster::Cluster, work::Work};
pub(super) use self::{readers::Readers, server::Server};
use super::{
    error::{Error, Result},
    scripts::Script,
};
use crate::metrics;

/// How long each node of a cluster may take for its part of what all are asked: leaders have three seconds to renew.
const EACH_WITHIN: Duration = Duration::from_secs(1);
/// How long a connection may be silent until the other end is asked whether it is there, how often it is asked then, and how many
/// questions without an answer end the connection.
const PROBED_AFTER: Duration = Duration::from_secs(5);
const PROBED_EVERY: Duration = Duration::from_secs(1);
const PROBES: u32 = 3;

/// Commands are small and answered one by one: waiting to fill a packet only delays them. A reader that waits sends nothing, and
/// would not hear of a connection that a firewall has forgotten.
fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(PROBED_AFTER).with_interval(PROBED_EVERY).with_retries(PROBES);
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive)
}

/// The connections to Redis; cheap to clone.
#[derive(Clone)]
pub(super) enum Connections {
    Server(Arc<Server>),
    Cluster(Cluster),
}

impl Connections {
    /// Connects to `url`, and finds out whether that is a node of a cluster.
    ///
    /// # Errors
    /// When the URL is not one of Redis', or nothing answers there.
    pub async fn open(url: &str) -> Result<Self> {
        let info = url.into_connection_info()?.set_tcp_settings(tcp_settings());
        let server = Server::new(info)?;
        Ok(match cluster::is_node(&server).await? {
            true => Self::Cluster(Cluster::known_by(server).await?),
            false => Self::Server(Arc::new(server)),
        })
    }

    /// The same over one connection, apart from those that are shared here; of a cluster these.
    pub fn aside(&self) -> Self {
        match self {
            Self::Server(server) => Self::Server(Arc::new(server.aside())),
            Self::Cluster(_) => self.clone(),
        }
    }

    /// Runs one command.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        self.carry_out(Work::Command(command)).await
    }

    /// Runs a pipeline, whose keys are all in one slot.
    pub async fn run_all<T: FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<T> {
        self.carry_out(Work::Pipeline(pipeline)).await
    }

    /// Runs commands whose keys are anywhere, each answered by itself, in their order: on one server in one round trip, in a
    /// cluster all at once.
    pub async fn run_each<T: FromRedisValue>(&self, commands: Vec<Cmd>) -> Vec<Result<T>> {
        if commands.is_empty() {
            return Vec::new();
        }
        match self {
            Self::Server(server) => {
                let count = commands.len();
                apart(server.carry_out(Work::Pipeline(&pipeline(commands))).await, count)
            }
            Self::Cluster(cluster) => {
                join_all(commands.iter().map(|command| soon(cluster.carry_out(Work::Command(command))))).await
            }
        }
    }

    /// Runs a script, whose library is loaded first where the server does not have it: at a first start, or of another version.
    pub async fn call<T: FromRedisValue>(&self, script: &Script, command: &Cmd) -> Result<T> {
        let since = Instant::now();
        let answer = self.carry_out(Work::Script(script, command)).await;
        metrics::script_called(script.name, since.elapsed());
        answer
    }

    /// The same of one script, which is measured as one call. All may run once more where a server does not know the script:
    /// only for what a repeat does not change.
    pub async fn call_each<T: FromRedisValue>(&self, script: &Script, commands: Vec<Cmd>) -> Vec<Result<T>> {
        if commands.is_empty() {
            return Vec::new();
        }
        let since = Instant::now();
        let answers = match self {
            Self::Server(server) => {
                let count = commands.len();
                apart(server.carry_out(Work::Scripts(script, &pipeline(commands))).await, count)
            }
            Self::Cluster(cluster) => {
                join_all(commands.iter().map(|command| soon(cluster.carry_out(Work::Script(script, command))))).await
            }
        };
        metrics::script_called(script.name, since.elapsed());
        answers
    }

    async fn carry_out<T: FromRedisValue>(&self, work: Work<'_>) -> Result<T> {
        debug_assert!(work.is_of_one_slot(), "a pipeline or transaction of several slots");
        match self {
            Self::Server(server) => Ok(server.carry_out(work).await?),
            Self::Cluster(cluster) => cluster.carry_out(work).await,
        }
    }

    /// Whether keys of several slots can't be read in one call.
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Every server that keeps something; in a cluster each with its address.
    pub fn servers(&self) -> Vec<(Server, Option<String>)> {
        match self {
            Self::Server(server) => vec![(Server::clone(server), None)],
            Self::Cluster(cluster) => {
                let named = |server: &Server| (server.clone(), Some(server.info().addr().to_string()));
                cluster.map().primaries.iter().map(named).collect()
            }
        }
    }

    /// What belongs to keys, by the server that keeps those.
    ///
    /// # Errors
    /// No node of the cluster keeps one.
    pub fn by_server<T>(&self, items: impl Iterator<Item = (String, T)>) -> Result<Vec<(Server, Vec<T>)>> {
        match self {
            Self::Server(server) => Ok(vec![(Server::clone(server), items.map(|(_, item)| item).collect())]),
            Self::Cluster(cluster) => cluster.by_owner(items),
        }
    }

    /// A connection of its own for a blocking reader of a key: a read that blocks holds up all else on its connection.
    pub async fn dedicated(&self, key: &str, block: Duration) -> Result<Dedicated> {
        let connection = match self {
            Self::Server(server) => server.dedicated(block).await?,
            Self::Cluster(cluster) => cluster.dedicated(key.as_bytes(), block).await?,
        };
        Ok(Dedicated { connection, connections: self.clone() })
    }

    /// Connections of its own, one to each server that has some of the channels.
    ///
    /// # Errors
    /// None of them is there.
    pub async fn subscribed(&self, channels: &[String]) -> Result<Subscribed> {
        let (sender, pushes) = mpsc::unbounded_channel();
        let dedicated = |connection| Dedicated { connection, connections: self.clone() };
        let mut subscribed = Subscribed { connections: Vec::new(), pushes, is_whole: true };
        match self {
            Self::Server(server) => subscribed.connections.push(dedicated(server.subscribed(channels, sender).await?)),
            Self::Cluster(cluster) => {
                let parts = cluster.by_owner(channels.iter().map(|channel| (channel.clone(), channel.clone())))?;
                let asked = parts.iter().map(|(server, channels)| server.subscribed(channels, sender.clone()));
                for answer in join_all(asked).await {
                    match answer {
                        Ok(connection) => subscribed.connections.push(dedicated(connection)),
                        Err(_) => subscribed.is_whole = false,
                    }
                }
                if !subscribed.is_whole {
                    cluster.doubt();
                }
                if subscribed.connections.is_empty() {
                    return Err(Error::Unavailable("no node of the cluster can be listened to".to_owned()));
                }
            }
        }
        Ok(subscribed)
    }
}

/// Connections that hear channels.
pub(super) struct Subscribed {
    pub connections: Vec<Dedicated>,
    /// What is pushed on any of them; also the end of one.
    pub pushes: mpsc::UnboundedReceiver<PushInfo>,
    /// Whether all channels are heard: a node of a cluster may be away.
    pub is_whole: bool,
}

/// A connection that nobody shares.
pub(super) struct Dedicated {
    connection: MultiplexedConnection,
    connections: Connections,
}

impl Dedicated {
    /// Runs one command. After a failure the connection is of no use: what it read may have moved.
    pub async fn run<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T> {
        let answer = command.query_async(&mut self.connection).await;
        if let (Err(_), Connections::Cluster(cluster)) = (&answer, &self.connections) {
            cluster.doubt();
        }
        Ok(answer?)
    }
}

fn pipeline(commands: Vec<Cmd>) -> redis::Pipeline {
    let mut pipeline = redis::Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command);
    }
    pipeline
}

/// The answers of those servers that are there, and nothing for the others.
///
/// # Errors
/// None is there, or one refuses.
pub(super) fn those_there_are<T: Default>(answers: Vec<Result<T>>) -> Result<Vec<T>> {
    let is_any_there = answers.iter().any(Result::is_ok);
    let or_nothing = |answer: Result<T>| match answer {
        Err(Error::Unavailable(_)) if is_any_there => Ok(T::default()),
        answer => answer,
    };
    answers.into_iter().map(or_nothing).collect()
}

/// The answer to a pipeline as one to each of its commands.
fn apart<T>(answers: Result<Vec<T>, redis::RedisError>, count: usize) -> Vec<Result<T>> {
    match answers {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(error) => {
            let error = Error::from(error);
            (0..count).map(|_| Err(error.clone())).collect()
        }
    }
}

async fn soon<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::Unavailable("a node of the cluster does not answer".to_owned());
    timeout(EACH_WITHIN, answer).await.map_err(late)?
}

//! A Redis Cluster: which node has which slot, and what to do when it has moved.
//!
//! The map of slots is read from the nodes at the start and whenever a node says, or a broken connection suggests, that it is
//! out of date. How often a call is tried, and for how long, is said here; below, only a connection that was found closed is
//! replaced.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use redis::{ConnectionAddr, ConnectionInfo, FromRedisValue, RedisError, Value, aio::MultiplexedConnection};
use tokio::{sync::Mutex, time::timeout};

use super::{
    super::error::{Error, Result, is_astray, is_cut_off},
    server::Server,
    slots::{Place, Range, SLOTS, read_slots, slot_of},
    work::Work,
};

/// How often a call is tried in all, and when it is tried no more. Who calls waits and calls again.
const TRIES: u32 = 4;
const TRY_FOR: Duration = Duration::from_secs(2);
/// Before a call is repeated that no other node wants; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// How long a node may take to say who has which slot.
const MAP_WITHIN: Duration = Duration::from_secs(1);
/// How long a node may take for what any other can answer as well.
const ONE_WITHIN: Duration = Duration::from_millis(500);
/// In the map: nobody has the slot.
const NOBODY: u16 = u16::MAX;

/// The connections to all nodes of a cluster.
#[derive(Clone)]
pub(in crate::streams) struct Cluster(Arc<Inner>);

struct Inner {
    /// The node that the settings name.
    named: Server,
    map: RwLock<Arc<Map>>,
    /// One reads the map at a time, for all who want it.
    reading: Mutex<()>,
}

/// Who has which slot.
pub(super) struct Map {
    /// Grows with each reading.
    number: u64,
    /// Those that have slots.
    pub primaries: Vec<Server>,
    /// Those that know of slots besides.
    others: Vec<Server>,
    /// Of each slot the index of its primary, or [`NOBODY`].
    owners: Vec<u16>,
}

impl Map {
    pub fn owner(&self, slot: u16) -> Option<&Server> {
        self.primaries.get(usize::from(self.owners[usize::from(slot)]))
    }

    fn address(&self, slot: u16) -> Option<&ConnectionAddr> {
        self.owner(slot).map(|server| server.info().addr())
    }

    fn nodes(&self) -> impl Iterator<Item = &Server> {
        self.primaries.iter().chain(&self.others)
    }

    /// The connections to a node: those that there are, or new ones.
    fn server_at(&self, info: ConnectionInfo) -> Result<Server> {
        self.nodes()
            .find(|server| server.info().addr() == info.addr())
            .map_or_else(|| Ok(Server::new(info)?.among_others()), |known| Ok(known.clone()))
    }

    /// The next map, as `teller` tells it.
    fn next(&self, teller: &Server, ranges: &[Range]) -> Result<Self> {
        let mut next =
            Self { number: self.number + 1, primaries: vec![], others: vec![], owners: vec![NOBODY; SLOTS.into()] };
        let mut places: Vec<ConnectionAddr> = Vec::new();
        for Range { first, last, primary, replicas } in ranges {
            let address = address(teller.info().addr(), primary);
            let index = match places.iter().position(|known| *known == address) {
                Some(index) => index,
                None => {
                    next.primaries.push(self.server_at(teller.info().clone().set_addr(address.clone()))?);
                    places.push(address);
                    places.len() - 1
                }
            };
            next.owners[usize::from(*first)..=usize::from(*last)].fill(index as u16);
            for replica in replicas {
                let info = teller.info().clone().set_addr(self::address(teller.info().addr(), replica));
                if !next.others.iter().any(|known| known.info().addr() == info.addr()) {
                    next.others.push(self.server_at(info)?);
                }
            }
        }
        Ok(next)
    }
}

/// Where a node is, as the one at `teller` tells it: TLS or not as there.
fn address(teller: &ConnectionAddr, Place { host, port }: &Place) -> ConnectionAddr {
    match (teller, host) {
        // Nothing but the socket is known of a node that has not met others.
        (ConnectionAddr::Unix(_), None) => teller.clone(),
        (ConnectionAddr::Tcp(own, _), host) => ConnectionAddr::Tcp(host.as_ref().unwrap_or(own).clone(), *port),
        (ConnectionAddr::TcpTls { host: own, insecure, tls_params, .. }, host) => ConnectionAddr::TcpTls {
            host: host.as_ref().unwrap_or(own).clone(),
            port: *port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        (_, host) => ConnectionAddr::Tcp(host.clone().unwrap_or_default(), *port),
    }
}

impl Cluster {
    /// Reads the map from the node that the settings name.
    ///
    /// # Errors
    /// It does not answer.
    pub(super) async fn known_by(named: Server) -> Result<Self> {
        let named = named.among_others();
        let none =
            Map { number: 0, primaries: vec![], others: vec![named.clone()], owners: vec![NOBODY; SLOTS.into()] };
        let cluster = Self(Arc::new(Inner { named, map: RwLock::new(Arc::new(none)), reading: Mutex::new(()) }));
        cluster.read_map(0).await?;
        Ok(cluster)
    }

    /// The map as it was read last.
    pub(super) fn map(&self) -> Arc<Map> {
        // No code that can panic runs while it is locked.
        self.0.map.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the map read anew, as something failed that was read outside of this. Nobody waits for it: most of it is right.
    pub(super) fn doubt(&self) {
        let cluster = self.clone();
        // A cluster that nobody can ask is what the next call will find.
        tokio::spawn(async move { cluster.read_map(cluster.map().number).await.is_ok() });
    }

    /// Reads the map, unless somebody has since it had `number`: from all nodes at once, and of their answers takes the one
    /// that knows of the latest change.
    async fn read_map(&self, number: u64) -> Result<Arc<Map>> {
        let _one = self.0.reading.lock().await;
        let map = self.map();
        if map.number > number {
            return Ok(map);
        }
        let is_new = map.nodes().all(|server| server.info().addr() != self.0.named.info().addr());
        let nodes: Vec<&Server> = map.nodes().chain(is_new.then_some(&self.0.named)).collect();
        let answers = join_all(nodes.iter().map(|server| told_by(server))).await;
        let (mut best, mut failure): (Option<(u64, &Server, Vec<Range>)>, _) = (None, None);
        for (server, answer) in nodes.iter().zip(answers) {
            match answer {
                Ok((epoch, ranges)) if best.as_ref().is_none_or(|(known, ..)| *known < epoch) => {
                    best = Some((epoch, *server, ranges));
                }
                Ok(_) => {}
                Err(error) => failure = Some(error),
            }
        }
        let Some((_, teller, ranges)) = best else {
            return Err(failure.unwrap_or_else(|| Error::Unavailable("no node of the cluster is known".to_owned())));
        };
        let next = Arc::new(map.next(teller, &ranges)?);
        *self.0.map.write().unwrap_or_else(PoisonError::into_inner) = next.clone();
        Ok(next)
    }

    /// Has the node do it that has its key's slot; any that answers, where it has no key.
    pub(super) async fn carry_out<T: FromRedisValue>(&self, work: Work<'_>) -> Result<T> {
        let Some(key) = work.key() else { return self.anywhere(work).await };
        let mut way = Way::to(self, key);
        loop {
            match way.server().await?.carry_out(work).await {
                Ok(answer) => return Ok(answer),
                Err(error) => way.failed(error).await?,
            }
        }
    }

    /// A connection of its own to the node that has a key's slot.
    pub(super) async fn dedicated(&self, key: &[u8], block: Duration) -> Result<MultiplexedConnection> {
        let mut way = Way::to(self, key);
        loop {
            match way.server().await?.dedicated(block).await {
                Ok(connection) => return Ok(connection),
                Err(error) => way.failed(error).await?,
            }
        }
    }

    async fn anywhere<T: FromRedisValue>(&self, work: Work<'_>) -> Result<T> {
        let map = self.map();
        let mut failure = unowned(0);
        for server in &map.primaries {
            match timeout(ONE_WITHIN, server.carry_out(work)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if !is_cut_off(&error) => return Err(error.into()),
                Ok(Err(error)) => failure = error.into(),
                Err(_) => failure = Error::Unavailable("a node of the cluster does not answer".to_owned()),
            }
        }
        self.doubt();
        Err(failure)
    }

    /// What belongs to keys, by the node that has the slots of those.
    ///
    /// # Errors
    /// Nobody has the slot of one.
    pub(super) fn by_owner<T>(&self, items: impl Iterator<Item = (String, T)>) -> Result<Vec<(Server, Vec<T>)>> {
        let map = self.map();
        let mut parts: Vec<(Server, Vec<T>)> = Vec::new();
        for (key, item) in items {
            let slot = slot_of(key.as_bytes());
            let Some(owner) = map.owner(slot) else {
                self.doubt();
                return Err(unowned(slot));
            };
            match parts.iter_mut().find(|(server, _)| server.is_same(owner)) {
                Some((_, part)) => part.push(item),
                None => parts.push((owner.clone(), vec![item])),
            }
        }
        Ok(parts)
    }
}

/// The way of a call to the node that has its slot.
struct Way<'c> {
    cluster: &'c Cluster,
    slot: u16,
    /// By which it went last.
    map: Option<Arc<Map>>,
    tries_left: u32,
    since: Instant,
    pause: Duration,
}

impl<'c> Way<'c> {
    fn to(cluster: &'c Cluster, key: &[u8]) -> Self {
        let slot = slot_of(key);
        Self { cluster, slot, map: None, tries_left: TRIES - 1, since: Instant::now(), pause: FIRST_PAUSE }
    }

    /// The node to call now.
    async fn server(&mut self) -> Result<Server> {
        loop {
            let map = self.cluster.map();
            let owner = map.owner(self.slot).cloned();
            self.map = Some(map);
            match owner {
                Some(server) => return Ok(server),
                None if self.is_worth_another(false).await => {}
                None => return Err(unowned(self.slot)),
            }
        }
    }

    /// After a failure.
    ///
    /// # Errors
    /// The failure itself, where it is not worth another try.
    async fn failed(&mut self, error: RedisError) -> Result<()> {
        let is_away = is_cut_off(&error);
        if (is_away || is_astray(&error)) && self.is_worth_another(is_away).await { Ok(()) } else { Err(error.into()) }
    }

    /// Whether to try again, by a new map: at once where another node has the slot by now, and after a pause where its node
    /// can't do it at the moment. What is away is left to who calls.
    async fn is_worth_another(&mut self, is_away: bool) -> bool {
        let Some(map) = &self.map else { return true };
        let next = self.cluster.read_map(map.number).await;
        if self.tries_left == 0 || self.since.elapsed() > TRY_FOR {
            return false;
        }
        self.tries_left -= 1;
        if next.is_ok_and(|next| next.address(self.slot) != map.address(self.slot)) {
            return true;
        }
        if !is_away {
            tokio::time::sleep(self.pause).await;
            self.pause *= 2;
        }
        !is_away
    }
}

fn unowned(slot: u16) -> Error {
    Error::Unavailable(format!("no node of the cluster has slot {slot}"))
}

/// What a node says of the slots, and the number of the latest change that it knows of.
async fn told_by(server: &Server) -> Result<(u64, Vec<Range>)> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
    let asked = server.carry_out::<(String, Value)>(Work::Pipeline(&pipeline));
    let late = |_| Error::Unavailable("a node of the cluster does not say who has which slot".to_owned());
    let (info, slots) = timeout(MAP_WITHIN, asked).await.map_err(late)??;
    let epoch = info.lines().find_map(|line| line.trim_end().strip_prefix("cluster_current_epoch:")?.parse().ok());
    Ok((epoch.unwrap_or(0), read_slots(slots)?))
}

/// Whether a server is a node of a cluster.
pub(super) async fn is_node(server: &Server) -> Result<bool> {
    let info: String = server.run(redis::cmd("INFO").arg("cluster")).await?;
    Ok(info.lines().any(|line| line.trim_end() == "cluster_enabled:1"))
}

//! A receiver of deliveries with a script of answers.
//!
//! It speaks HTTP/1.1 by hand, as no server library misbehaves as endpoints do: it hangs, breaks off, resets, answers
//! garbage or without end. It listens on a free loopback port and ends with its value, connections and all.

mod certificate;
mod reply;
mod wire;

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

pub use self::{certificate::Certificate, reply::Reply};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub method: String,
    /// With the query.
    pub path: String,
    /// In their order, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub at: Instant,
    pub at_system: SystemTime,
    /// Which connection it came over: 1 for the first.
    pub connection: usize,
}

impl Received {
    /// The value of a header, named in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

type Answering = dyn Fn(&Received) -> Reply + Send + Sync;

/// A running receiver.
pub struct Receiver {
    address: SocketAddr,
    /// The PEM of the authority to trust; TLS is spoken where there is one.
    authority: Option<String>,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    inner: Mutex<Inner>,
    arrived: Notify,
}

#[derive(Default)]
struct Inner {
    received: Vec<Received>,
    connections: usize,
    under_way: usize,
    max_under_way: usize,
    scripts: HashMap<String, VecDeque<Reply>>,
    otherwise: Option<Arc<Answering>>,
}

impl State {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request and finds its answer.
    fn take(&self, received: Received) -> Reply {
        let mut inner = self.inner();
        inner.under_way += 1;
        inner.max_under_way = inner.max_under_way.max(inner.under_way);
        let scripted = inner.scripts.get_mut(&received.path).and_then(VecDeque::pop_front);
        let otherwise = inner.otherwise.clone();
        inner.received.push(received.clone());
        drop(inner);
        self.arrived.notify_waiters();
        scripted.unwrap_or_else(|| otherwise.map_or_else(|| Reply::status(200), |answering| answering(&received)))
    }

    fn done(&self) {
        self.inner().under_way -= 1;
    }
}

impl Receiver {
    /// Over plain HTTP. What no script answers gets an empty 200.
    pub async fn start() -> Self {
        Self::serve(None, None).await
    }

    /// Over TLS, as `localhost`.
    pub async fn start_tls(certificate: Certificate) -> Self {
        let (acceptor, authority) = certificate::acceptor(certificate);
        Self::serve(Some(acceptor), Some(authority)).await
    }

    async fn serve(tls: Option<TlsAcceptor>, authority: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let serving = tokio::spawn(accept(listener, tls, Arc::clone(&state)));
        Self { address, authority, state, serving }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of `path` here; by the name `localhost` with TLS, by the address without.
    pub fn url(&self, path: &str) -> String {
        match self.authority {
            Some(_) => format!("https://localhost:{}{path}", self.address.port()),
            None => format!("http://{}{path}", self.address),
        }
    }

    /// The authority whose certificates are to be trusted, PEM.
    pub fn authority(&self) -> &str {
        self.authority.as_deref().expect("a receiver that speaks TLS")
    }

    /// Answers the next requests to `path` with `replies`, one each.
    pub fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.state.inner().scripts.entry(path.to_owned()).or_default().extend(replies);
    }

    /// Answers all that no script does.
    pub fn otherwise(&self, answering: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        self.state.inner().otherwise = Some(Arc::new(answering));
    }

    /// What came to `path`, in the order of arrival.
    pub fn received(&self, path: &str) -> Vec<Received> {
        self.state.inner().received.iter().filter(|request| request.path == path).cloned().collect()
    }

    /// How many requests came.
    pub fn count(&self) -> usize {
        self.state.inner().received.len()
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.state.inner().connections
    }

    /// How many requests were unanswered at once, at most.
    pub fn max_concurrent(&self) -> usize {
        self.state.inner().max_under_way
    }

    /// Waits until `condition` holds for all that came, and gives that.
    ///
    /// # Panics
    /// When it does not within `deadline`.
    pub async fn wait_for(&self, condition: impl Fn(&[Received]) -> bool, deadline: Duration) -> Vec<Received> {
        let waiting = async {
            loop {
                let arrived = self.state.arrived.notified();
                tokio::pin!(arrived);
                arrived.as_mut().enable();
                {
                    let inner = self.state.inner();
                    if condition(&inner.received) {
                        return inner.received.clone();
                    }
                }
                arrived.await;
            }
        };
        match tokio::time::timeout(deadline, waiting).await {
            Ok(received) => received,
            Err(_) => {
                let paths: Vec<_> = self.state.inner().received.iter().map(|request| request.path.clone()).collect();
                panic!("not within {deadline:?}; {} requests came: {paths:?}", paths.len())
            }
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Ends with its task, and every connection with it.
async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(connect(stream, tls.clone(), Arc::clone(&state)));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connect(stream: TcpStream, tls: Option<TlsAcceptor>, state: Arc<State>) {
    let connection = {
        let mut inner = state.inner();
        inner.connections += 1;
        inner.connections
    };
    let _ = stream.set_nodelay(true);
    // What becomes of a connection is for the client to see.
    let _ = match tls {
        None => wire::serve(stream, connection, &state).await,
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => wire::serve(stream, connection, &state).await,
            Err(error) => Err(error),
        },
    };
}

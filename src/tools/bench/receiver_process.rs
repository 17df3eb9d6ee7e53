//! The receiver's process: it answers each POST as its path asks, as cheaply as it can, and notes what came and when.
//!
//! Its standard input says what to do, a line each; it ends when that does.
//!
//! | line | answer on standard output |
//! |---|---|
//! | at the start | the address it listens on |
//! | `expect N M` | at once `ready`: the run before is forgotten; when events 0 to N-1 have each come at M endpoints, [`Arrivals`] as JSON |
//! | `report` | [`Arrivals`] as JSON, at once |

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context;
use bytes::{Buf, BytesMut};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use super::{behaviour::Verdict, event::now_us, request::Request};

/// What answers `expect`: what comes from now on counts.
pub const READY: &str = "ready";
const TAKEN: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
/// What a slow endpoint takes before it answers.
const SLOWNESS: Duration = Duration::from_secs(1);
const BUFFER_BYTES: usize = 8 * 1024;
/// More than a request of a benchmark can have.
const REQUEST_BYTES_AT_MOST: usize = 1024 * 1024;
/// Latencies are kept to three digits, up to ten minutes.
const LONGEST_US: u64 = 600_000_000;
const DIGITS: u8 = 3;

/// What came in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Events at endpoints, each once.
    pub deliveries: u64,
    /// Requests for what had been taken before.
    pub duplicates: u64,
    /// Requests that were answered by a failure.
    pub refused: u64,
    /// When the last delivery came that had not come before: Unix microseconds.
    pub last_us: u64,
    /// From when an event was due to its first arrival.
    pub latency: Latency,
}

/// How long events took: microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

/// Runs until standard input ends.
///
/// # Errors
/// It cannot listen, or standard input or output fails.
pub async fn run() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("the receiver cannot listen")?;
    say(&listener.local_addr()?)?;
    let shared = Arc::new(Shared { run: Mutex::new(Run::expecting(0, 1)?), is_complete: Notify::new() });
    let accepting = tokio::spawn(accept(listener, shared.clone()));
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            () = shared.is_complete.notified() => report(&shared)?,
            command = commands.next_line() => match command?.as_deref().map(str::split_whitespace) {
                None => break,
                Some(words) => obey(&words.collect::<Vec<_>>(), &shared)?,
            },
        }
    }
    accepting.abort();
    Ok(())
}

fn obey(command: &[&str], shared: &Shared) -> anyhow::Result<()> {
    match command {
        ["expect", events, endpoints] => {
            let number = |word: &str| word.parse().context("`expect` takes numbers");
            *shared.run() = Run::expecting(number(events)?, number(endpoints)?)?;
            say(&READY)
        }
        ["report"] => report(shared),
        _ => anyhow::bail!("not a command of the receiver: {}", command.join(" ")),
    }
}

fn report(shared: &Shared) -> anyhow::Result<()> {
    let arrivals = shared.run().arrivals();
    say(&serde_json::to_string(&arrivals)?)
}

fn say(text: &impl std::fmt::Display) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).context("the receiver cannot answer")
}

struct Shared {
    run: Mutex<Run>,
    is_complete: Notify,
}

impl Shared {
    fn run(&self) -> MutexGuard<'_, Run> {
        // A run is whole between any two statements that can panic.
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request, and says what becomes of it.
    fn judge(&self, request: &Request<'_>) -> Verdict {
        let Some(mark) = request.mark() else { return Verdict::Take };
        let verdict = request.verdict(mark);
        let mut run = self.run();
        if verdict == Verdict::Refuse {
            run.refused += 1;
        } else if run.take(mark.number, request.endpoint(), now_us().saturating_sub(mark.due_us)) {
            self.is_complete.notify_one();
        }
        verdict
    }
}

struct Run {
    has_come: Vec<bool>,
    /// How many each event goes to.
    endpoints: usize,
    deliveries: u64,
    duplicates: u64,
    refused: u64,
    last_us: u64,
    latencies: Histogram<u64>,
}

impl Run {
    fn expecting(events: usize, endpoints: usize) -> anyhow::Result<Self> {
        let latencies = Histogram::new_with_bounds(1, LONGEST_US, DIGITS)?;
        let has_come = vec![false; events * endpoints];
        Ok(Self { has_come, endpoints, deliveries: 0, duplicates: 0, refused: 0, last_us: 0, latencies })
    }

    /// Notes an event at an endpoint, so long after it was due; says whether it was the last that is expected.
    fn take(&mut self, event: u64, endpoint: usize, after_us: u64) -> bool {
        let place = (event as usize).saturating_mul(self.endpoints).saturating_add(endpoint % self.endpoints);
        let Some(has_come) = self.has_come.get_mut(place) else { return false };
        if std::mem::replace(has_come, true) {
            self.duplicates += 1;
            return false;
        }
        self.deliveries += 1;
        self.last_us = now_us();
        self.latencies.saturating_record(after_us);
        self.deliveries == self.has_come.len() as u64
    }

    fn arrivals(&self) -> Arrivals {
        let at = |quantile| self.latencies.value_at_quantile(quantile);
        Arrivals {
            deliveries: self.deliveries,
            duplicates: self.duplicates,
            refused: self.refused,
            last_us: self.last_us,
            latency: Latency {
                p50_us: at(0.5),
                p90_us: at(0.9),
                p99_us: at(0.99),
                p999_us: at(0.999),
                max_us: self.latencies.max(),
            },
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let shared = shared.clone();
            // What becomes of a connection is for the client to see.
            tokio::spawn(async move { serve(stream, &shared).await });
        }
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(BUFFER_BYTES);
    loop {
        while let Some(request) = Request::of(&buffer) {
            let (verdict, length) = (shared.judge(&request), request.len());
            buffer.advance(length);
            match verdict {
                Verdict::Take => stream.write_all(TAKEN).await?,
                Verdict::Refuse => stream.write_all(REFUSED).await?,
                Verdict::TakeLater => {
                    tokio::time::sleep(SLOWNESS).await;
                    stream.write_all(TAKEN).await?;
                }
                // Until the client has had enough.
                Verdict::Hold => while stream.read_buf(&mut buffer).await? > 0 {},
            }
        }
        if buffer.len() > REQUEST_BYTES_AT_MOST || stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_complete_when_every_event_has_come_everywhere_and_counts_what_comes_again() {
        let mut run = Run::expecting(2, 2).unwrap();
        assert!(!run.take(1, 0, 500));
        assert!(!run.take(1, 0, 600));
        assert!(!run.take(2, 0, 600));
        assert!(!run.take(0, 0, 500));
        assert!(!run.take(0, 1, 500));
        assert!(run.take(1, 1, 2_000));
        let Arrivals { deliveries, duplicates, latency, .. } = run.arrivals();
        assert_eq!((deliveries, duplicates), (4, 1));
        assert_eq!((latency.p50_us, latency.max_us), (500, 2_000));
    }

    #[test]
    fn an_event_that_goes_to_one_endpoint_is_told_by_its_number_alone() {
        let mut run = Run::expecting(2, 1).unwrap();
        assert!(!run.take(1, 7, 1));
        assert!(run.take(0, 6, 1));
    }
}

//! The receiver's process: it answers 200 to every POST, as cheaply as it can, and notes what came and when.
//!
//! Its standard input says what to do, a line each; it ends when that does.
//!
//! | line | answer on standard output |
//! |---|---|
//! | at the start | the address it listens on |
//! | `expect N` | at once `ready`: the run before is forgotten; when events 0 to N-1 have come, [`Arrivals`] as JSON |
//! | `report` | [`Arrivals`] as JSON, at once |

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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

use super::event::{Mark, now_us};

/// What answers `expect`: what comes from now on counts.
pub const READY: &str = "ready";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUFFER_BYTES: usize = 8 * 1024;
/// More than a request of a benchmark can have.
const REQUEST_BYTES_AT_MOST: usize = 1024 * 1024;
/// Latencies are kept to three digits, up to ten minutes.
const LONGEST_US: u64 = 600_000_000;
const DIGITS: u8 = 3;

/// What came in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Different events.
    pub events: u64,
    /// Requests for events that had come before.
    pub duplicates: u64,
    /// When the last event came that had not come before: Unix microseconds.
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
    let shared = Arc::new(Shared { run: Mutex::new(Run::expecting(0)?), is_complete: Notify::new() });
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
        ["expect", count] => {
            *shared.run() = Run::expecting(count.parse().context("`expect` takes a number")?)?;
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

    fn take(&self, mark: Mark) {
        if self.run().take(mark, now_us()) {
            self.is_complete.notify_one();
        }
    }
}

struct Run {
    has_come: Vec<bool>,
    events: u64,
    duplicates: u64,
    last_us: u64,
    latencies: Histogram<u64>,
}

impl Run {
    fn expecting(count: usize) -> anyhow::Result<Self> {
        let latencies = Histogram::new_with_bounds(1, LONGEST_US, DIGITS)?;
        Ok(Self { has_come: vec![false; count], events: 0, duplicates: 0, last_us: 0, latencies })
    }

    /// Notes an event; says whether it was the last that is expected.
    fn take(&mut self, mark: Mark, now_us: u64) -> bool {
        let Some(has_come) = self.has_come.get_mut(mark.number as usize) else { return false };
        if std::mem::replace(has_come, true) {
            self.duplicates += 1;
            return false;
        }
        self.events += 1;
        self.last_us = now_us;
        self.latencies.saturating_record(now_us.saturating_sub(mark.due_us));
        self.events == self.has_come.len() as u64
    }

    fn arrivals(&self) -> Arrivals {
        let at = |quantile| self.latencies.value_at_quantile(quantile);
        Arrivals {
            events: self.events,
            duplicates: self.duplicates,
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
        while let Some((head, length)) = request(&buffer) {
            if let Some(mark) = Mark::of_body(&buffer[head..length]) {
                shared.take(mark);
            }
            buffer.advance(length);
            stream.write_all(ANSWER).await?;
        }
        if buffer.len() > REQUEST_BYTES_AT_MOST || stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// The bytes of the head and of the whole of the first request, if it is here whole.
fn request(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    let length = head.checked_add(content_length(&bytes[..head]))?;
    (length <= bytes.len()).then_some((head, length))
}

fn content_length(head: &[u8]) -> usize {
    const NAME: &[u8] = b"content-length:";
    head.split(|byte| *byte == b'\n')
        .find_map(|line| {
            let (name, value) = line.split_at_checked(NAME.len())?;
            let is_it = name.eq_ignore_ascii_case(NAME);
            if is_it { std::str::from_utf8(value).ok()?.trim().parse().ok() } else { None }
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_when_it_is_here_whole() {
        let check = |text: &str, expected| assert_eq!(request(text.as_bytes()), expected, "{text:?}");
        check("", None);
        check("POST / HTTP/1.1\r\nhost: a\r\n", None);
        check("POST / HTTP/1.1\r\nhost: a\r\n\r\n", Some((28, 28)));
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", None);
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST", Some((38, 41)));
        check("POST / HTTP/1.1\r\ncontent-length:3\r\nx: y\r\n\r\nabc", Some((43, 46)));
    }

    #[test]
    fn a_run_is_complete_when_every_event_has_come_and_counts_those_that_come_again() {
        let mut run = Run::expecting(2).unwrap();
        let mark = |number| Mark { number, due_us: 1_000 };
        assert!(!run.take(mark(1), 1_500));
        assert!(!run.take(mark(1), 1_600));
        assert!(!run.take(mark(2), 1_600));
        assert!(run.take(mark(0), 3_000));
        let Arrivals { events, duplicates, last_us, latency } = run.arrivals();
        assert_eq!((events, duplicates, last_us), (2, 1, 3_000));
        assert_eq!((latency.p50_us, latency.max_us), (500, 2_000));
    }
}

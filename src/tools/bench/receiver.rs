//! A handle on the receiver's process.

use std::{
    net::SocketAddr,
    process::{Command as StdCommand, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
    time::timeout,
};

use super::receiver_process::READY;
pub use super::receiver_process::{Arrivals, Latency};

/// The hidden command that is the receiver.
pub const COMMAND: &str = "bench-receiver";

/// A running receiver; its process ends with it.
pub struct Receiver {
    pub address: SocketAddr,
    pub pid: u32,
    pipes: Mutex<Pipes>,
    _child: Child,
}

struct Pipes {
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Receiver {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(program: StdCommand) -> anyhow::Result<Self> {
        let mut command = Command::from(program);
        command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("the receiver cannot be started")?;
        let (stdin, stdout) = child.stdin.take().zip(child.stdout.take()).context("the receiver has no pipes")?;
        let pid = child.id().context("the receiver ended at once")?;
        let mut pipes = Pipes { commands: stdin, answers: BufReader::new(stdout).lines() };
        let address = pipes.answer().await?.parse().context("the receiver does not say where it listens")?;
        Ok(Self { address, pid, pipes: Mutex::new(pipes), _child: child })
    }

    /// Begins a run of so many events, each of which goes to so many endpoints.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn expect(&self, events: u64, endpoints: usize) -> anyhow::Result<()> {
        let mut pipes = self.pipes.lock().await;
        pipes.command(&format!("expect {events} {endpoints}")).await?;
        let answer = pipes.answer().await?;
        ensure!(answer == READY, "the receiver is not ready but says {answer}");
        Ok(())
    }

    /// How many requests of the run have been refused up to now.
    ///
    /// # Errors
    /// The receiver is gone.
    pub async fn refused(&self) -> anyhow::Result<u64> {
        let mut pipes = self.pipes.lock().await;
        pipes.command("report").await?;
        Ok(read(&pipes.answer().await?)?.refused)
    }

    /// Waits for the deliveries of the run.
    ///
    /// # Errors
    /// Not all of them came in time.
    pub async fn arrivals(&self, count: u64, patience: Duration) -> anyhow::Result<Arrivals> {
        let mut pipes = self.pipes.lock().await;
        let answered = timeout(patience, pipes.answer()).await;
        let answer = match answered {
            Ok(answer) => answer?,
            Err(_) => {
                pipes.command("report").await?;
                pipes.answer().await?
            }
        };
        let arrivals = read(&answer)?;
        ensure!(
            arrivals.deliveries == count,
            "only {} of {count} deliveries arrived within {patience:?}",
            arrivals.deliveries
        );
        Ok(arrivals)
    }
}

fn read(answer: &str) -> anyhow::Result<Arrivals> {
    serde_json::from_str(answer).context("the receiver's answer cannot be read")
}

impl Pipes {
    async fn command(&mut self, line: &str) -> anyhow::Result<()> {
        self.commands.write_all(format!("{line}\n").as_bytes()).await.context("the receiver is gone")
    }

    async fn answer(&mut self) -> anyhow::Result<String> {
        self.answers.next_line().await?.context("the receiver ended")
    }
}

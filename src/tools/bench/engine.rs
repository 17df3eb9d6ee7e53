//! The engine of a run: one process, or one for each role.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use anyhow::{Context, bail};
use futures_util::future::select_all;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{process::own_program, reading::Pids};
use crate::tools::private_redis::PrivateRedis;

/// Lines from the end of the engine's log that an error quotes.
const LOG_LINES_SHOWN: usize = 3;
const LOG_FILE: &str = "engine.log";
/// For what nobody asks.
const ANY_PORT: &str = "127.0.0.1:0";

/// As what the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processes {
    /// `serve`.
    One,
    /// `dispatcher`, `api` and so many `sender`s.
    Separate { senders: usize },
}

/// The running processes; they end with it.
pub struct Engine {
    children: Vec<Child>,
    /// The URL of its API.
    pub api: String,
    pub pids: Pids,
    log: PathBuf,
}

impl Engine {
    /// Starts them; they are ready once they answer or deliver.
    ///
    /// # Errors
    /// One cannot be started.
    pub async fn start(redis: &PrivateRedis, processes: Processes) -> anyhow::Result<Self> {
        let log = redis.folder().join(LOG_FILE);
        let (with_api, others) = match processes {
            Processes::One => ("serve", vec![]),
            Processes::Separate { senders } => ("api", [&["dispatcher"][..], &vec!["sender"; senders]].concat()),
        };
        let mut children = Vec::new();
        for role in others {
            let mut command = command(redis, role, &log)?;
            command.args(["--metrics-listen", ANY_PORT]).stdout(Stdio::null());
            children.push(command.spawn().with_context(|| format!("{role} cannot be started"))?);
        }
        let mut command = command(redis, with_api, &log)?;
        if with_api == "api" {
            command.args(["--metrics-listen", ANY_PORT]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().context("the engine cannot be started")?;
        let api = api_of(&mut child, &log).await?;
        children.push(child);
        let pids =
            children.iter().map(|child| child.id().context("the engine ended at once")).collect::<Result<_, _>>()?;
        Ok(Self { children, api, pids, log })
    }

    /// Waits for the end of any of the processes, which is one too early: what it was.
    pub async fn ended(&mut self) -> anyhow::Error {
        let ends = self.children.iter_mut().map(|child| Box::pin(child.wait()));
        let (status, ..) = select_all(ends).await;
        let status = status.map_or_else(|error| error.to_string(), |status: ExitStatus| status.to_string());
        anyhow::anyhow!("the engine ended, {status}; its log ends: {}", log_tail(&self.log))
    }

    /// Ends them. There is nothing to finish: their data go with the folder.
    ///
    /// # Errors
    /// One cannot be ended.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            child.kill().await.context("the engine cannot be ended")?;
        }
        Ok(())
    }
}

fn command(redis: &PrivateRedis, role: &str, log: &Path) -> anyhow::Result<Command> {
    let log = File::options().create(true).append(true).open(log).context("the engine's log cannot be made")?;
    let mut command = Command::from(own_program()?);
    command.arg(role).arg("--config").arg(redis.config_file()).arg("--redis").arg(redis.url());
    command.stdin(Stdio::null()).stderr(log).kill_on_drop(true);
    Ok(command)
}

/// Where a process says that its API is.
async fn api_of(child: &mut Child, log: &Path) -> anyhow::Result<String> {
    let mut said = BufReader::new(child.stdout.take().context("the engine has no output")?).lines();
    while let Some(line) = said.next_line().await? {
        if let Some(api) = line.trim().strip_prefix("API ") {
            let api = api.trim().to_owned();
            // What else it says is let go of, so that it never waits for a reader.
            tokio::spawn(async move { while let Ok(Some(_)) = said.next_line().await {} });
            return Ok(api);
        }
    }
    bail!("the engine ended at once; its log ends: {}", log_tail(log))
}

/// The end of what the engine logged.
fn log_tail(log: &Path) -> String {
    let log = fs::read_to_string(log).unwrap_or_default();
    let mut last: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
    last.reverse();
    last.join(" | ")
}

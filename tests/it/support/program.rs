//! The program as its users call it.

use std::{path::Path, process::Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::timeout,
};

use super::{engine::PATIENCE, redis::TestRedis};

/// How many shards [`Engine`] sets a Redis up with.
pub const SHARDS: (&str, &str) = ("POSTHASTE_REDIS__SHARDS", "4");

/// What a command did.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// What it printed, if all went well.
    pub fn done(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout.trim_end().to_owned()
    }

    pub fn json(self) -> Value {
        let text = self.done();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// One sentence on stderr that has `part`, and nothing on stdout.
    pub fn refused(self, code: i32, part: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("error: ") && self.stderr.contains(part), "{self:?}");
        assert!(self.stdout.is_empty() && self.stderr.trim_end().lines().count() == 1, "{self:?}");
    }
}

/// Calls the program in a folder of its own, without this process' settings.
pub struct Program {
    folder: TempDir,
    environment: Vec<(&'static str, String)>,
}

impl Program {
    /// One that uses the embedded Redis of its folder.
    pub fn new() -> Self {
        // A socket's path has at most 107 bytes.
        Self { folder: tempfile::Builder::new().prefix("ph").tempdir().unwrap(), environment: Vec::new() }
    }

    pub fn on(redis: &TestRedis) -> Self {
        Self::at(redis.url())
    }

    /// One that uses the Redis there.
    pub fn at(url: String) -> Self {
        let environment = vec![("POSTHASTE_REDIS__URL", url), (SHARDS.0, SHARDS.1.to_owned())];
        Self { environment, ..Self::new() }
    }

    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
        let own = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("POSTHASTE_"));
        for (name, _) in own {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).args(arguments);
        command.current_dir(self.path()).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with_input(arguments, "").await
    }

    pub async fn run_with_input(&self, arguments: &[&str], input: &str) -> Ended {
        let mut child = self.command(arguments).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may end without having read everything.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        ended(child).await
    }
}

/// What a started command did.
pub async fn ended(child: Child) -> Ended {
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("an end in time").unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// As Ctrl-C does.
pub fn interrupt(child: &Child) {
    let id = child.id().expect("a running child").to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
}

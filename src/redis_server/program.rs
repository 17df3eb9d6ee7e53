//! Which server is installed, and whether it is new enough.

use std::{
    ffi::OsStr,
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tokio::process::Command;

/// The names a server goes by, the preferred first.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];
/// The oldest version that has every command the protocol uses.
const OLDEST: (u32, u32) = (7, 0);
const INSTALL: &str = if cfg!(target_os = "macos") { "brew install redis" } else { "apt install redis-server" };

/// An installed server that will do.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    path: PathBuf,
    version: String,
}

impl Program {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.version)
    }
}

/// The first server in the folders of `path` (as the variable `PATH` lists them).
///
/// # Errors
/// There is none, or it is too old or does not tell its version.
pub async fn find(path: Option<&OsStr>) -> anyhow::Result<Program> {
    let Some(found) = installed(path) else {
        bail!(
            "neither redis-server nor valkey-server is installed: `{INSTALL}`, or set redis.url to a Redis of your own"
        );
    };
    let shown = found.display();
    let output = Command::new(&found).arg("--version").output().await;
    let output = output.with_context(|| format!("{shown} cannot be run"))?.stdout;
    let text = String::from_utf8_lossy(&output);
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v="));
    let version = version.with_context(|| format!("{shown} --version does not say its version"))?;
    if major_minor(version).is_none_or(|version| version < OLDEST) {
        bail!("{shown} is version {version}, and 7.0 or later is needed: `{INSTALL}`, or set redis.url to a newer one");
    }
    Ok(Program { version: version.to_owned(), path: found })
}

fn installed(path: Option<&OsStr>) -> Option<PathBuf> {
    let folders: Vec<_> = path.map(|path| std::env::split_paths(path).collect()).unwrap_or_default();
    let mut places = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.find(|place| place.is_file())
}

fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    async fn find_among(servers: &[(&str, &str)]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        for (name, prints) in servers {
            let program = folder.path().join(name);
            fs::write(&program, format!("#!/bin/sh\necho '{prints}'\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let found = find(Some(folder.path().as_os_str())).await;
        found.map(|program| format!("{program}")).map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn the_first_server_that_will_do_is_found() {
        let redis = ("redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc bits=64");
        let valkey = ("valkey-server", "Valkey server v=8.1.0 sha=00000000:0");
        for (servers, end) in [
            (vec![redis], "redis-server 7.0.15"),
            (vec![valkey], "valkey-server 8.1.0"),
            (vec![valkey, redis], "redis-server 7.0.15"),
            (vec![("redis-server", "Redis server v=10.2.1")], "redis-server 10.2.1"),
        ] {
            let found = find_among(&servers).await.unwrap();
            assert!(found.ends_with(end), "{found}");
        }
    }

    #[tokio::test]
    async fn what_will_not_do_is_refused_by_name() {
        for (servers, part) in [
            (vec![], "neither redis-server nor valkey-server is installed"),
            (vec![("redis-server", "Redis server v=6.2.14 sha=0")], "redis-server is version 6.2.14, and 7.0"),
            (vec![("redis-server", "hello")], "does not say its version"),
        ] {
            let refused = find_among(&servers).await.unwrap_err();
            assert!(refused.contains(part), "{refused}");
        }
    }
}

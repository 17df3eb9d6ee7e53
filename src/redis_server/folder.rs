//! The data folder: who may use it, and what the embedded Redis keeps in it.

use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use url::Url;

/// The server's socket, in the folder.
pub const SOCKET: &str = "redis.sock";
/// Locked by the process that runs the server; holds its process id.
const FOLDER_LOCK: &str = "lock";
/// Locked by the server itself.
const SERVER_LOCK: &str = "redis.lock";
const LOG: &str = "redis.log";
const OLD_LOG: &str = "redis.log.old";

/// Bytes of log above which a start begins a new one; one old one is kept.
const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes from the end of the log that an error quotes, at most.
const TAIL_BYTES: u64 = 1_024;
/// Bytes of a Unix socket's path that the system takes (`sun_path` without its closing NUL).
const MAX_SOCKET_BYTES: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// An absolute path to a folder that is there and is ours.
pub struct Folder {
    path: PathBuf,
}

/// Held by the one process that may run a server in the folder.
pub struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Said, not left to closing: a program that another thread is just starting has a copy of every open file.
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the data folder could not be unlocked");
        }
    }
}

/// Held by the one server in the folder: its standard input. The system lets go of it when the server and its forks are
/// gone, however they ended.
pub struct ServerLock(File);

impl From<ServerLock> for Stdio {
    fn from(lock: ServerLock) -> Self {
        lock.0.into()
    }
}

impl Folder {
    /// Makes the folder if need be, readable by nobody else, and locks it.
    ///
    /// # Errors
    /// It cannot be made or written to, or another process has it: a sentence.
    pub fn open(data_dir: &Path) -> Result<(Self, FolderLock), String> {
        let shown = data_dir.display();
        let path = make(data_dir).map_err(|error| format!("{shown} cannot be made: {error}"))?;
        let mut file =
            open_to_lock(&path.join(FOLDER_LOCK)).map_err(|error| format!("{shown} cannot be used: {error}"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok() && !holder.is_empty();
                let holder = if known { format!("process {}", holder.trim()) } else { "another process".to_owned() };
                return Err(format!("{shown} is in use by {holder}; one folder serves one process"));
            }
            Err(TryLockError::Error(error)) => return Err(format!("{shown} cannot be locked: {error}")),
        }
        write_pid(&mut file).map_err(|error| format!("{shown} cannot be written to: {error}"))?;
        Ok((Self { path }, FolderLock(file)))
    }

    /// The folder as it is, for those who only want to reach the server in it.
    pub fn at(data_dir: &Path) -> Result<Self, String> {
        let shown = data_dir.display();
        let path = std::path::absolute(data_dir).map_err(|error| format!("{shown} is no folder: {error}"))?;
        Ok(Self { path: fs::canonicalize(&path).unwrap_or(path) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }

    /// The socket as a Redis client takes it.
    ///
    /// # Errors
    /// Its path is longer than the system takes: a sentence.
    pub fn url(&self) -> Result<String, String> {
        let socket = self.socket();
        let len = socket.as_os_str().as_bytes().len();
        if len > MAX_SOCKET_BYTES {
            let shown = socket.display();
            return Err(format!(
                "the socket {shown} would have a path of {len} bytes, and the system takes {MAX_SOCKET_BYTES}; choose a shorter folder"
            ));
        }
        // A file URL's path, with what needs escaping escaped.
        let url = Url::from_file_path(&socket).map_err(|()| format!("{} is no absolute path", socket.display()))?;
        Ok(format!("unix://{}", url.path()))
    }

    /// The lock for a server to be started; nothing while there is one.
    pub fn lock_server(&self) -> io::Result<Option<ServerLock>> {
        let file = open_to_lock(&self.path.join(SERVER_LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(ServerLock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The server's log, to append to.
    pub fn open_log(&self) -> io::Result<File> {
        if self.log_len() > MAX_LOG_BYTES {
            fs::rename(self.path.join(LOG), self.path.join(OLD_LOG))?;
        }
        File::options().append(true).create(true).open(self.path.join(LOG))
    }

    pub fn log_len(&self) -> u64 {
        fs::metadata(self.path.join(LOG)).map_or(0, |log| log.len())
    }

    /// The last lines that were logged after byte `start`, in one line.
    pub fn log_tail(&self, start: u64) -> String {
        let read = || {
            let mut log = File::open(self.path.join(LOG))?;
            let len = log.metadata()?.len();
            let start = if start > len { 0 } else { start };
            log.seek(SeekFrom::Start(start.max(len.saturating_sub(TAIL_BYTES))))?;
            let mut tail = Vec::new();
            log.take(TAIL_BYTES).read_to_end(&mut tail)?;
            io::Result::Ok(String::from_utf8_lossy(&tail).into_owned())
        };
        match read() {
            Ok(tail) => tail.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" | "),
            Err(error) => format!("(unreadable: {error})"),
        }
    }
}

fn make(data_dir: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(data_dir)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(&path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => path.canonicalize(),
    }
}

fn open_to_lock(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path)
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all(std::process::id().to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_for_us_alone_and_serves_one() {
        use std::os::unix::fs::PermissionsExt;

        let parent = tempfile::tempdir().unwrap();
        let data_dir = parent.path().join("a/b");
        let (folder, lock) = Folder::open(&data_dir).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
        let refused = Folder::open(&data_dir).err().unwrap();
        assert!(
            refused.ends_with(&format!("is in use by process {}; one folder serves one process", std::process::id()))
        );
        drop(lock);
        assert!(Folder::open(&data_dir).is_ok());
    }

    #[test]
    fn what_cannot_be_a_folder_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Folder::open(&file.path().join("data")).err().unwrap().contains("cannot be made"));
        assert!(Folder::open(file.path()).err().unwrap().contains("cannot be used"));
    }

    #[test]
    fn a_socket_is_a_url_unless_its_path_is_too_long() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, _lock) = Folder::open(&parent.path().join("my data")).unwrap();
        assert!(folder.url().unwrap().ends_with("/my%20data/redis.sock"));
        let (folder, _lock) = Folder::open(&parent.path().join("x".repeat(120))).unwrap();
        assert!(folder.url().unwrap_err().ends_with("choose a shorter folder"));
    }

    #[test]
    fn the_tail_of_the_log_is_what_came_after_the_start() {
        let parent = tempfile::tempdir().unwrap();
        let (folder, _lock) = Folder::open(parent.path()).unwrap();
        folder.open_log().unwrap().write_all(b"old\n").unwrap();
        let start = folder.log_len();
        folder.open_log().unwrap().write_all(b"new\n\nlast\n").unwrap();
        assert_eq!(folder.log_tail(start), "new | last");
    }
}

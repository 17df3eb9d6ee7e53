//! The embedded Redis keeps its data and its folder, whatever ends.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use posthaste::{
    redis_server::{EmbeddedRedis, StartError},
    shutdown::Shutdown,
};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const DEADLINE: Duration = Duration::from_secs(30);
/// Tells the process that [`Parent`] starts in which folder to run a server.
const LEAVE_IN: &str = "POSTHASTE_TEST_LEAVE_IN";
/// Where it writes the server's URL when all is ready.
const LEFT_URL: &str = "left-url";

async fn start(data_dir: &Path) -> EmbeddedRedis {
    EmbeddedRedis::start(data_dir, &Shutdown::new()).await.unwrap()
}

async fn connect(redis: &EmbeddedRedis) -> redis::RedisResult<MultiplexedConnection> {
    redis::Client::open(redis.url())?.get_multiplexed_async_connection().await
}

/// Repeats a command until it is answered.
async fn eventually<T: redis::FromRedisValue>(redis: &EmbeddedRedis, command: &[&str]) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = match connect(redis).await {
            Ok(mut connection) => redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) => return answer,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

async fn server_pid(redis: &EmbeddedRedis) -> String {
    let info: String = eventually(redis, &["INFO", "server"]).await;
    info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().to_owned()
}

fn kill(pid: &str) {
    assert!(Command::new("kill").args(["-9", pid]).status().unwrap().success());
}

#[tokio::test]
async fn data_survive_a_second_start() {
    let data_dir = TempDir::new().unwrap();
    let redis = start(data_dir.path()).await;
    let _: () = eventually(&redis, &["SET", "k", "kept"]).await;
    let limit: (String, String) = eventually(&redis, &["CONFIG", "GET", "maxmemory"]).await;
    assert_ne!(limit.1, "0", "publishing is refused before memory runs out");
    let fsync: (String, String) = eventually(&redis, &["CONFIG", "GET", "appendfsync"]).await;
    assert_eq!(fsync.1, "always");
    redis.stop().await;
    let redis = start(data_dir.path()).await;
    assert_eq!(eventually::<String>(&redis, &["GET", "k"]).await, "kept");
    redis.stop().await;
    assert!(!data_dir.path().join("redis.sock").exists());
}

#[tokio::test]
async fn a_killed_server_is_started_again_with_its_data() {
    let data_dir = TempDir::new().unwrap();
    let redis = start(data_dir.path()).await;
    for round in 0..2 {
        let _: () = eventually(&redis, &["SET", "k", &format!("kept {round}")]).await;
        let killed = server_pid(&redis).await;
        kill(&killed);
        let deadline = Instant::now() + DEADLINE;
        while server_pid(&redis).await == killed {
            assert!(Instant::now() < deadline);
        }
        assert_eq!(eventually::<String>(&redis, &["GET", "k"]).await, format!("kept {round}"));
    }
    redis.stop().await;
}

#[tokio::test]
async fn a_second_start_on_the_same_folder_is_refused() {
    let data_dir = TempDir::new().unwrap();
    let redis = start(data_dir.path()).await;
    let refused = EmbeddedRedis::start(data_dir.path(), &Shutdown::new()).await.unwrap_err();
    assert!(matches!(refused, StartError::DataDir(_)));
    let sentence = format!("is in use by process {}; one folder serves one process", std::process::id());
    assert!(refused.to_string().ends_with(&sentence), "{refused}");
    redis.stop().await;
}

#[tokio::test]
async fn a_folder_whose_socket_path_is_too_long_is_refused() {
    let data_dir = TempDir::new().unwrap();
    let refused = EmbeddedRedis::start(&data_dir.path().join("x".repeat(100)), &Shutdown::new()).await.unwrap_err();
    assert!(refused.to_string().contains("choose a shorter folder"), "{refused}");
}

#[tokio::test]
async fn a_server_that_cannot_read_its_data_is_reported_with_its_own_words() {
    let data_dir = TempDir::new().unwrap();
    start(data_dir.path()).await.stop().await;
    std::fs::write(data_dir.path().join("appendonlydir/appendonly.aof.manifest"), "not a manifest").unwrap();
    let refused = EmbeddedRedis::start(data_dir.path(), &Shutdown::new()).await.unwrap_err();
    assert!(refused.to_string().contains("its log ends: ") && refused.to_string().contains("manifest"), "{refused}");
}

#[tokio::test]
async fn a_dropped_server_lets_go_of_its_folder() {
    let data_dir = TempDir::new().unwrap();
    drop(start(data_dir.path()).await);
    let deadline = Instant::now() + DEADLINE;
    let redis = loop {
        match EmbeddedRedis::start(data_dir.path(), &Shutdown::new()).await {
            Ok(redis) => break redis,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        sleep(Duration::from_millis(10)).await;
    };
    redis.stop().await;
}

#[tokio::test]
async fn a_server_left_by_a_killed_process_is_taken_over() {
    let data_dir = TempDir::new().unwrap();
    let mut parent = Parent::start(data_dir.path()).await;
    parent.kill();
    let url = std::fs::read_to_string(data_dir.path().join(LEFT_URL)).unwrap();
    let mut left = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let answer: String = redis::cmd("PING").query_async(&mut left).await.unwrap();
    assert_eq!(answer, "PONG", "it outlives its parent");

    let redis = start(data_dir.path()).await;
    redis::cmd("PING").query_async::<String>(&mut left).await.expect_err("two servers are on one folder");
    assert_eq!(eventually::<String>(&redis, &["GET", "k"]).await, "from the killed one");
    redis.stop().await;
}

/// A process that runs an embedded Redis; killed at the latest when dropped.
struct Parent(Child);

impl Parent {
    async fn start(data_dir: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "embedded::a_parent_of_a_server_runs_until_it_is_killed"]).env(LEAVE_IN, data_dir);
        let parent = Self(command.stdout(Stdio::null()).spawn().unwrap());
        let deadline = Instant::now() + DEADLINE;
        while !data_dir.join(LEFT_URL).exists() {
            assert!(Instant::now() < deadline);
            sleep(Duration::from_millis(10)).await;
        }
        parent
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // Killed before, as a rule.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Does nothing but in the process that [`Parent`] starts.
#[tokio::test]
async fn a_parent_of_a_server_runs_until_it_is_killed() {
    let Some(data_dir) = std::env::var_os(LEAVE_IN) else { return };
    let redis = start(Path::new(&data_dir)).await;
    let _: () = eventually(&redis, &["SET", "k", "from the killed one"]).await;
    let written = Path::new(&data_dir).join("left-url.new");
    std::fs::write(&written, redis.url()).unwrap();
    std::fs::rename(written, Path::new(&data_dir).join(LEFT_URL)).unwrap();
    std::future::pending::<()>().await;
}

//! `posthaste serve` as a process: started, used, stopped by signals, and started again on its data.

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::time::sleep;

use crate::support::{
    engine::{PATIENCE, wait_until},
    receiver::{Received, Receiver, Reply},
};

/// A folder of its own, and what runs on it.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::Builder::new().prefix("ph").tempdir().expect("a folder") }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
        command.args(arguments).current_dir(self.folder.path());
        command.env("POSTHASTE_API__LISTEN", "127.0.0.1:0").env("POSTHASTE_LOG__LEVEL", "info");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("a finished command")
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{arguments:?}: {error}"))
    }

    /// Starts `serve` and waits until it says that it is ready.
    fn serve(&self) -> Serve {
        let log = File::create(self.log()).expect("a log");
        let mut child = self.command(&["serve"]).stdout(Stdio::piped()).stderr(log).spawn().expect("a started process");
        let mut said = BufReader::new(child.stdout.take().expect("its output")).lines();
        let first = said.next().expect("a line").expect("text");
        assert!(first.ends_with("is ready."), "{first}");
        Serve { child }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Whether the last `serve` has logged this.
    fn said(&self, text: &str) -> bool {
        fs::read_to_string(self.log()).expect("a log").contains(text)
    }

    fn create_webhook(&self, url: &str) {
        let created = self.run(&["webhook", "create", "--url", url, "--events", "*"]);
        assert!(created.status.success(), "{}", String::from_utf8_lossy(&created.stderr));
    }

    fn publish(&self) {
        assert!(self.run(&["publish", "a.b", "--data", "1"]).status.success());
    }
}

/// A running `serve`; it is killed with the value.
struct Serve {
    child: Child,
}

impl Serve {
    fn terminate(&self) {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill");
        assert!(told.success());
    }

    async fn ended(mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            assert!(Instant::now() < deadline, "it has not ended");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_signal_lets_what_is_under_way_end_and_a_second_start_finds_all_again() {
    let receiver = Receiver::start().await;
    receiver.otherwise(|_| Reply::status(200).after(Duration::from_millis(500)));
    let place = Place::new();
    let serve = place.serve();
    place.create_webhook(&receiver.url("/hook"));
    place.publish();
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    serve.terminate();
    assert_eq!(serve.ended().await.code(), Some(0));

    let again = place.serve();
    let webhooks = place.json(&["webhook", "list"]);
    assert_eq!(webhooks["data"][0]["successful_deliveries"], 1);
    place.publish();
    receiver.wait_for(|received| received.len() == 2, PATIENCE).await;
    again.terminate();
    assert_eq!(again.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once() {
    let receiver = Receiver::start().await;
    receiver.otherwise(|_| Reply::hang());
    let place = Place::new();
    let serve = place.serve();
    place.create_webhook(&receiver.url("/hangs"));
    place.publish();
    receiver.wait_for(|received| received.len() == 1, PATIENCE).await;
    let told = Instant::now();
    serve.terminate();
    // Two that are noticed together count as one.
    wait_until("the first is noticed", async || place.said("stopping")).await;
    serve.terminate();
    serve.ended().await;
    assert!(told.elapsed() < Duration::from_secs(10), "well within the grace of 15 s: {:?}", told.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_serve_on_one_folder_is_refused_and_harms_nothing() {
    let place = Place::new();
    let serve = place.serve();
    let second = place.run(&["serve"]);
    assert_eq!(second.status.code(), Some(64));
    let error = String::from_utf8_lossy(&second.stderr);
    assert!(error.contains("is in use by process"), "{error}");
    place.publish();
    serve.terminate();
    assert_eq!(serve.ended().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_serve_had_accepted_is_delivered_by_the_next() {
    let receiver = Receiver::start().await;
    let place = Place::new();
    let serve = place.serve();
    place.create_webhook(&receiver.url("/hook"));
    for _ in 0..3 {
        place.publish();
    }
    drop(serve);
    let again = place.serve();
    let all_three = |received: &[Received]| {
        received.iter().filter_map(|request| request.header("webhook-id")).collect::<HashSet<_>>().len() == 3
    };
    receiver.wait_for(all_three, PATIENCE).await;
    again.terminate();
    assert_eq!(again.ended().await.code(), Some(0));
}

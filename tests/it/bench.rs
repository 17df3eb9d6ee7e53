//! `posthaste bench`, with so little load that its figures say little: it measures, and ends.

use std::{fs, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

/// Some scenarios have a fixed rate and others many webhooks, and other tests run beside.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was measured with these arguments, and nothing is left behind.
async fn bench(arguments: &[&str]) -> Measured {
    let folder = tempfile::Builder::new().prefix("ph").tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    command.args(["bench", "--json", "--events", "100", "--seconds", "0.3", "--runs", "1"]).args(arguments);
    command.current_dir(folder.path()).env("TMPDIR", folder.path()).env("POSTHASTE_REDIS__SHARDS", "3");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    Measured(serde_json::from_slice(&output.stdout).unwrap())
}

struct Measured(Value);

impl Measured {
    fn results(&self) -> &[Value] {
        self.0["results"].as_array().unwrap()
    }

    fn cases(&self) -> Vec<&str> {
        self.results().iter().map(|result| result["case"].as_str().unwrap()).collect()
    }

    fn figure(&self, index: usize, name: &str) -> f64 {
        let figure = self.results()[index]["figures"][name]["median"].as_f64();
        figure.unwrap_or_else(|| panic!("{name} of {index}: {}", self.0))
    }

    fn within(&self, index: usize, name: &str, least: f64, most: f64) {
        let figure = self.figure(index, name);
        assert!((least..=most).contains(&figure), "{name} of {index} is {figure}, not {least} to {most}: {}", self.0);
    }

    /// What every case has that delivers: an event costs some commands, each process has some memory, time passes.
    fn delivered(&self, index: usize) {
        self.within(index, "deliveries_per_second", 1.0, 1e6);
        self.within(index, "redis_commands_per_delivery", 4.0, 2_000.0);
        self.within(index, "redis_socket_reads_per_delivery", 0.01, 200.0);
        self.within(index, "engine_cpu_seconds_per_1000", 0.001, 1_000.0);
        self.within(index, "engine_peak_mb", 5.0, 1_000.0);
        self.within(index, "redis_memory_mb", 0.5, 1_000.0);
        self.within(index, "duplicates", 0.0, 0.0);
    }

    fn beside_bare(&self, index: usize) {
        self.within(index, "bare_posts_per_second", 1.0, 1e6);
        self.within(index, "ratio_to_bare", 1e-5, 100.0);
    }

    fn times(&self, index: usize) {
        self.within(index, "p50_ms", 0.001, 60_000.0);
        self.within(index, "p99_ms", self.figure(index, "p50_ms"), 60_000.0);
        self.within(index, "p999_ms", self.figure(index, "p99_ms"), 60_000.0);
    }
}

#[tokio::test]
async fn deliveries_a_second_are_measured_to_few_endpoints_and_to_many() {
    let measured = bench(&["--scenario", "throughput", "--durability", "everysec"]).await;
    assert_eq!(measured.cases(), ["throughput, 1 endpoint", "throughput, 20 endpoints", "throughput, 1000 endpoints"]);
    for index in 0..3 {
        measured.delivered(index);
        measured.beside_bare(index);
        measured.times(index);
        measured.within(index, "attempts_per_delivery", 1.0, 1.0);
    }
    let conditions = ["date", "redis_version", "kernel", "cpu"];
    assert!(
        conditions.iter().all(|name| measured.0[name].as_str().is_some_and(|said| !said.is_empty())),
        "{}",
        measured.0
    );
}

#[tokio::test]
async fn a_fan_out_waits_for_every_webhook() {
    let measured = bench(&["--scenario", "fanout", "--webhooks", "7", "--durability", "everysec"]).await;
    assert_eq!(measured.cases(), ["fanout, 200 events to 7 webhooks", "fanout, 1 event to 7 webhooks"]);
    for index in 0..2 {
        measured.delivered(index);
        measured.beside_bare(index);
        measured.within(index, "attempts_per_delivery", 1.0, 1.0);
    }
}

#[tokio::test]
async fn latency_is_measured_at_given_rates() {
    let measured = bench(&["--scenario", "latency", "--durability", "everysec"]).await;
    assert_eq!(measured.cases(), ["latency, 100 events/s", "latency, 1000 events/s", "latency, 5000 events/s"]);
    for index in 0..3 {
        measured.delivered(index);
        measured.times(index);
        measured.within(index, "bare_p50_ms", 0.001, 60_000.0);
        measured.within(index, "bare_p99_ms", measured.figure(index, "bare_p50_ms"), 60_000.0);
    }
    // No more arrive in a second than are published in it, but that the last is due before the end.
    measured.within(0, "deliveries_per_second", 1.0, 120.0);
}

#[tokio::test]
async fn neighbours_of_a_bad_endpoint_are_measured_beside_those_of_none() {
    let measured = bench(&["--scenario", "noisy", "--durability", "everysec"]).await;
    let cases = [
        "noisy, none is bad",
        "noisy, 1 of 20 hangs",
        "noisy, 1 of 20 fails at once",
        "noisy, 1 of 20 answers after 1 s",
    ];
    assert_eq!(measured.cases(), cases);
    for index in 0..4 {
        measured.times(index);
        measured.within(index, "duplicates", 0.0, 0.0);
    }
    for index in 1..4 {
        let ratio = measured.figure(index, "p99_ms") / measured.figure(0, "p99_ms");
        measured.within(index, "p99_ratio_to_quiet", ratio * 0.999, ratio * 1.001);
    }
}

#[tokio::test]
async fn retries_are_made_until_all_is_delivered_whatever_the_durability_and_the_processes() {
    let measured = bench(&["--scenario", "retries", "--durability", "both", "--processes", "separate"]).await;
    assert_eq!(measured.cases(), ["retries, 30 % fail"; 2]);
    let modes: Vec<_> = measured.results().iter().map(|result| result["appendfsync"].as_str().unwrap()).collect();
    assert_eq!(modes, ["always", "everysec"]);
    for index in 0..2 {
        measured.delivered(index);
        measured.within(index, "attempts_per_delivery", 1.2, 1.7);
        // A retry waits for a tenth of a second.
        measured.within(index, "max_ms", 100.0, 60_000.0);
    }
}

#[tokio::test]
async fn events_are_published_over_http_and_attempts_listed() {
    let measured = bench(&["--scenario", "publish", "--durability", "everysec"]).await;
    let cases = [
        "publish, one by one, no webhook",
        "publish, batches of 100, no webhook",
        "publish, one by one, 1 webhook",
        "publish, batches of 100, 1 webhook",
    ];
    assert_eq!(measured.cases(), cases);
    for index in 0..4 {
        measured.within(index, "events_per_second", 1.0, 1e6);
        measured.within(index, "answer_p99_ms", measured.figure(index, "answer_p50_ms"), 60_000.0);
        measured.beside_bare(index);
    }
    measured.delivered(2);
    measured.delivered(3);

    let measured = bench(&["--scenario", "lists", "--durability", "everysec"]).await;
    assert_eq!(measured.cases(), ["lists, pages of attempts"]);
    measured.within(0, "failed_p50_ms", 0.001, 60_000.0);
    measured.within(0, "all_most_ms", measured.figure(0, "all_p50_ms"), 60_000.0);
}

#[tokio::test]
async fn what_takes_long_can_be_measured_small() {
    let measured =
        bench(&["--scenario", "slow", "--webhooks", "150", "--pending", "200", "--durability", "everysec"]).await;
    let cases = [
        "many, 150 webhooks",
        "backlog, 200 pending",
        "backlog, 200 pending",
        "idle, 150 webhooks",
        "memory, 150 webhooks",
        "scaling, 1 sender",
        "scaling, 2 senders",
        "scaling, 4 senders",
        "scaling, cluster of 1 primary",
        "scaling, cluster of 2 primaries",
        "scaling, cluster of 3 primaries",
    ];
    assert_eq!(measured.cases(), cases);
    for index in [0, 1, 2].into_iter().chain(5..=10) {
        measured.delivered(index);
        measured.beside_bare(index);
    }
    measured.within(1, "redis_bytes_per_pending", 1_024.0, 5_000.0);
    measured.within(2, "rate_ratio_to_small", 0.01, 100.0);
    measured.within(10, "rate_ratio_to_one_server", 0.01, 100.0);
    // The engine looks for work every few seconds, and shows that it is alive.
    measured.within(3, "redis_socket_reads_per_minute_and_process", 1.0, 1e6);
    measured.within(3, "redis_cpu_percent", 0.0, 100.0);
    measured.within(3, "quiet_after_seconds", 1.0, 60.0);
    measured.within(4, "bytes_per_webhook", 500.0, 5_000.0);
    measured.within(4, "bytes_per_event", 1_024.0, 5_000.0);
    measured.within(4, "bytes_of_an_attempts_texts", 300.0, 2_000.0);
}

//! `posthaste bench`, with so little load that its figures mean nothing: it measures, and ends.

use std::{fs, process::Stdio};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

use crate::support::engine::PATIENCE;

#[tokio::test]
async fn every_case_is_measured_and_nothing_is_left_behind() {
    let folder = tempfile::Builder::new().prefix("ph").tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_posthaste"));
    command.args(["bench", "--json", "--events", "100", "--seconds", "1", "--runs", "1", "--durability", "everysec"]);
    command.current_dir(folder.path()).env("TMPDIR", folder.path()).env("POSTHASTE_REDIS__SHARDS", "3");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["appendfsync"], "everysec");
    let results = report["results"].as_array().unwrap();
    let figure = |index: usize, name: &str| {
        let figure = results[index]["figures"][name]["median"].as_f64();
        figure.unwrap_or_else(|| panic!("{name} of {index}: {report}"))
    };
    let cases: Vec<_> = results.iter().map(|result| result["case"].as_str().unwrap()).collect();
    let expected = [
        "throughput, 1 endpoint",
        "throughput, 20 endpoints",
        "latency, 100 events/s",
        "latency, 1000 events/s",
        "lists, pages of attempts",
    ];
    assert_eq!(cases, expected);
    for index in 0..2 {
        assert!(figure(index, "deliveries_per_second") > 0.0);
        assert!(figure(index, "ratio_to_bare") > 0.0);
    }
    for index in 2..4 {
        assert!(figure(index, "p50_ms") <= figure(index, "p999_ms"));
        assert!(figure(index, "bare_p50_ms") > 0.0);
    }
    assert!(figure(4, "failed_p50_ms") > 0.0);
    assert!(figure(4, "all_p50_ms") <= figure(4, "all_most_ms"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

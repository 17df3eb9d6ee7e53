//! Every metric: its name, its labels, its meaning. No label has values that users control.

use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::domain::{
    attempt::{Answer, Attempt, FailureKind},
    outcome::Reason,
    subscription::DisabledReason,
};

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric as it is documented.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    /// Its labels, comma-separated.
    pub labels: &'static str,
    pub meaning: &'static str,
}

const fn metric(name: &'static str, kind: Kind, labels: &'static str, meaning: &'static str) -> Metric {
    Metric { name, kind, labels, meaning }
}

const PUBLISHED: &str = "posthaste_events_published_total";
const DISPATCHED: &str = "posthaste_events_dispatched_total";
const UNMATCHED: &str = "posthaste_events_unmatched_total";
const DELIVERIES: &str = "posthaste_deliveries_total";
const ATTEMPTS: &str = "posthaste_attempts_total";
const ATTEMPT_SECONDS: &str = "posthaste_attempt_duration_seconds";
const END_TO_END_SECONDS: &str = "posthaste_end_to_end_seconds";
const RETRIES: &str = "posthaste_retries_scheduled_total";
const DEAD_LETTERS: &str = "posthaste_dead_letters_total";
const BACKLOG: &str = "posthaste_backlog";
const OLDEST_SECONDS: &str = "posthaste_oldest_undelivered_seconds";
const IN_FLIGHT: &str = "posthaste_in_flight";
const REDIS_ERRORS: &str = "posthaste_redis_errors_total";
const LEASES_LOST: &str = "posthaste_leases_lost_total";
const DUPLICATES: &str = "posthaste_possible_duplicates_total";
const STALE_SETTLES: &str = "posthaste_stale_settles_total";
const MENDED: &str = "posthaste_audit_mended_total";
const DISABLED: &str = "posthaste_webhooks_disabled_total";
const WEBHOOKS_DUE: &str = "posthaste_webhooks_due";
const OVERDUE_SECONDS: &str = "posthaste_overdue_seconds";
const SHARDS: &str = "posthaste_shards";
const SHARDS_LED: &str = "posthaste_shards_led";
const BELL_GAPS: &str = "posthaste_bell_gaps_total";
const SCRIPT_SECONDS: &str = "posthaste_redis_script_seconds";
const REDIS_MEMORY: &str = "posthaste_redis_memory_bytes";
const REDIS_AOF: &str = "posthaste_redis_aof";
const REDIS_AOF_BYTES: &str = "posthaste_redis_aof_bytes";
const REDIS_FINDINGS: &str = "posthaste_redis_findings";
const BUILD_INFO: &str = "posthaste_build_info";

/// Every metric there is.
pub const ALL: &[Metric] = &[
    metric(PUBLISHED, Kind::Counter, "", "Events appended to the log by this process."),
    metric(DISPATCHED, Kind::Counter, "", "Events put on the delivery streams of all who want them."),
    metric(UNMATCHED, Kind::Counter, "", "Events that nobody wanted; they stay in the log."),
    metric(DELIVERIES, Kind::Counter, "outcome", "Deliveries that ended: delivered or dead."),
    metric(
        ATTEMPTS,
        Kind::Counter,
        "result,status_class",
        "POSTs: success or failure; 2xx to 5xx, or the kind of failure.",
    ),
    metric(ATTEMPT_SECONDS, Kind::Histogram, "", "Time from the start of a POST to the end of its answer."),
    metric(END_TO_END_SECONDS, Kind::Histogram, "", "Time from publishing an event to a 2xx."),
    metric(RETRIES, Kind::Counter, "", "Attempts that failed and are made again later."),
    metric(DEAD_LETTERS, Kind::Counter, "reason", "Deliveries given up, and entries that could not be read."),
    metric(BACKLOG, Kind::Gauge, "stage", "What waits: front_door, log, fresh, waiting, leased or dead."),
    metric(OLDEST_SECONDS, Kind::Gauge, "", "Age of the oldest delivery that is not done."),
    metric(IN_FLIGHT, Kind::Gauge, "", "POSTs under way in this process."),
    metric(REDIS_ERRORS, Kind::Counter, "kind", "Calls to Redis that failed."),
    metric(LEASES_LOST, Kind::Counter, "", "Deliveries taken over from a sender that stopped while it held them."),
    metric(
        DUPLICATES,
        Kind::Counter,
        "",
        "POSTs made although the one of a sender that stopped may have arrived: duplicates that are risked knowingly.",
    ),
    metric(STALE_SETTLES, Kind::Counter, "", "Results that came after another sender had taken the delivery over."),
    metric(
        MENDED,
        Kind::Counter,
        "",
        "What the audit found amiss and mended: 0 unless data were lost or there is a defect.",
    ),
    metric(DISABLED, Kind::Counter, "reason", "Webhooks that were disabled: gone (410), or failing for too long."),
    metric(WEBHOOKS_DUE, Kind::Gauge, "", "Webhooks that something is due for and no sender has taken up yet."),
    metric(
        OVERDUE_SECONDS,
        Kind::Gauge,
        "",
        "How long the one of these webhooks that waits longest has been due: 0 while senders keep up.",
    ),
    metric(SHARDS, Kind::Gauge, "", "Shards there are: together, all processes must lead as many."),
    metric(SHARDS_LED, Kind::Gauge, "", "Shards that this process dispatches."),
    metric(
        BELL_GAPS,
        Kind::Counter,
        "",
        "Times that a sender stopped hearing what falls due, as its connection ended: until it hears again it looks by itself.",
    ),
    metric(
        SCRIPT_SECONDS,
        Kind::Histogram,
        "script",
        "Time from the call of a script in Redis to its answer, by the script's name.",
    ),
    metric(REDIS_MEMORY, Kind::Gauge, "kind", "Memory of Redis: used, and its limit (0 for none)."),
    metric(
        REDIS_AOF,
        Kind::Gauge,
        "state",
        "The append-only file of Redis: 1 where it is enabled, its last write and its last rewrite succeeded, else 0.",
    ),
    metric(REDIS_AOF_BYTES, Kind::Gauge, "", "Size of the append-only file of Redis."),
    metric(
        REDIS_FINDINGS,
        Kind::Gauge,
        "kind",
        "What posthaste check finds amiss in Redis: faults, losses (what a crash can lose) and advice.",
    ),
    metric(BUILD_INFO, Kind::Gauge, "role,version", "1, with the role of this process and the version of the program."),
];

/// Results of attempts, and outcomes of deliveries.
const SUCCESS: &str = "success";
const FAILURE: &str = "failure";
const DELIVERED: &str = "delivered";
const DEAD: &str = "dead";

/// Bounds of histograms, in seconds.
const SECONDS: [f64; 15] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// Those of the time that a script takes.
const SCRIPT_BOUNDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0];
/// How often samples are added up: until then each is kept by itself.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Installs the recorder of a process of `role` and describes every metric; `redis_errors` are the kinds of errors there are.
///
/// # Errors
/// When one is installed already.
pub fn install(role: &'static str, redis_errors: &[&'static str]) -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Full(SCRIPT_SECONDS.to_owned()), &SCRIPT_BOUNDS)?
        .install_recorder()?;
    for metric in ALL {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.meaning),
            Kind::Gauge => describe_gauge!(metric.name, metric.meaning),
            Kind::Histogram => describe_histogram!(metric.name, metric.meaning),
        }
    }
    gauge!(BUILD_INFO, "role" => role, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // A counter that begins with its first event tells no increase by it.
    for metric in ALL.iter().filter(|metric| metric.kind == Kind::Counter && metric.labels.is_empty()) {
        counter!(metric.name).absolute(0);
    }
    for reason in Reason::ALL {
        counter!(DEAD_LETTERS, "reason" => reason.name()).absolute(0);
    }
    for kind in redis_errors {
        counter!(REDIS_ERRORS, "kind" => *kind).absolute(0);
    }
    for reason in [DisabledReason::Gone, DisabledReason::Failing { hours: 0 }] {
        counter!(DISABLED, "reason" => reason.name()).absolute(0);
    }
    for outcome in [DELIVERED, DEAD] {
        counter!(DELIVERIES, "outcome" => outcome).absolute(0);
    }
    counter!(ATTEMPTS, "result" => SUCCESS, "status_class" => status_class(200)).absolute(0);
    let failures = [status_class(400), status_class(500)].into_iter().chain(FailureKind::ALL.map(FailureKind::name));
    for class in failures {
        counter!(ATTEMPTS, "result" => FAILURE, "status_class" => class).absolute(0);
    }
    Ok(handle)
}

/// Keeps the figures small for as long as the process lives, whether anybody asks for them or not.
pub async fn keep_small(figures: PrometheusHandle) {
    loop {
        tokio::time::sleep(UPKEEP_EVERY).await;
        figures.run_upkeep();
    }
}

/// An event was appended to the log.
pub fn event_published() {
    counter!(PUBLISHED).increment(1);
}

/// Events were expanded, `unmatched` of them to nobody.
pub fn events_dispatched(count: u64, unmatched: u64) {
    counter!(DISPATCHED).increment(count);
    counter!(UNMATCHED).increment(unmatched);
}

/// An attempt was made.
pub fn attempt_made(attempt: &Attempt) {
    let class = match &attempt.answer {
        Answer::Response(response) => status_class(response.status),
        Answer::Failure(failure) => FailureKind::name(failure.kind),
    };
    let result = if attempt.is_success() { SUCCESS } else { FAILURE };
    counter!(ATTEMPTS, "result" => result, "status_class" => class).increment(1);
    histogram!(ATTEMPT_SECONDS).record(attempt.response_time_ms / 1000.0);
}

fn status_class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    }
}

/// A delivery arrived, so long after its event was published.
pub fn delivered(end_to_end: Duration) {
    counter!(DELIVERIES, "outcome" => DELIVERED).increment(1);
    histogram!(END_TO_END_SECONDS).record(end_to_end.as_secs_f64());
}

/// A delivery will be tried again.
pub fn retry_scheduled() {
    counter!(RETRIES).increment(1);
}

/// A delivery was given up.
pub fn dead_lettered(reason: Reason) {
    counter!(DELIVERIES, "outcome" => DEAD).increment(1);
    counter!(DEAD_LETTERS, "reason" => reason.name()).increment(1);
}

/// A webhook was disabled.
pub fn webhook_disabled(reason: DisabledReason) {
    counter!(DISABLED, "reason" => reason.name()).increment(1);
}

/// An entry could not be read.
pub fn malformed() {
    counter!(DEAD_LETTERS, "reason" => Reason::Malformed.name()).increment(1);
}

/// What waits at a stage.
pub fn backlog(stage: &'static str, count: u64) {
    gauge!(BACKLOG, "stage" => stage).set(count as f64);
}

/// The age of the oldest delivery that is not done.
pub fn oldest_undelivered(age: Duration) {
    gauge!(OLDEST_SECONDS).set(age.as_secs_f64());
}

/// Webhooks that something is due for now, and for how long at most.
pub fn webhooks_due(count: u64, longest: Duration) {
    gauge!(WEBHOOKS_DUE).set(count as f64);
    gauge!(OVERDUE_SECONDS).set(longest.as_secs_f64());
}

/// Of all shards, those that this process dispatches.
pub fn shards_led(led: usize, all: usize) {
    gauge!(SHARDS).set(all as f64);
    gauge!(SHARDS_LED).set(led as f64);
}

/// Hints at what falls due may have been missed.
pub fn bell_gap() {
    counter!(BELL_GAPS).increment(1);
}

/// A script was called.
pub fn script_called(script: &'static str, took: Duration) {
    histogram!(SCRIPT_SECONDS, "script" => script).record(took.as_secs_f64());
}

/// How much memory Redis uses, and may use (0: no limit).
pub fn redis_memory(used_bytes: u64, max_bytes: u64) {
    gauge!(REDIS_MEMORY, "kind" => "used").set(used_bytes as f64);
    gauge!(REDIS_MEMORY, "kind" => "limit").set(max_bytes as f64);
}

/// Whether the append-only file of Redis is enabled, its last write and its last rewrite succeeded, and its size.
pub fn redis_aof(is_enabled: bool, is_written: bool, is_rewritten: bool, bytes: u64) {
    for (state, is_so) in [("enabled", is_enabled), ("written", is_written), ("rewritten", is_rewritten)] {
        gauge!(REDIS_AOF, "state" => state).set(f64::from(u8::from(is_so)));
    }
    gauge!(REDIS_AOF_BYTES).set(bytes as f64);
}

/// How many things are amiss in Redis: faults, losses or advice.
pub fn redis_findings(kind: &'static str, count: usize) {
    gauge!(REDIS_FINDINGS, "kind" => kind).set(count as f64);
}

/// POSTs under way.
pub fn in_flight(count: usize) {
    gauge!(IN_FLIGHT).set(count as f64);
}

/// A call to Redis failed.
pub fn redis_error(kind: &'static str) {
    counter!(REDIS_ERRORS, "kind" => kind).increment(1);
}

/// A delivery was taken over from a sender that stopped.
pub fn lease_lost() {
    counter!(LEASES_LOST).increment(1);
}

/// A delivery is posted again that may have arrived before.
pub fn possible_duplicate() {
    counter!(DUPLICATES).increment(1);
}

/// Results came too late to count.
pub fn stale_settles(count: usize) {
    counter!(STALE_SETTLES).increment(count as u64);
}

/// The audit mended something.
pub fn mended(count: u64) {
    counter!(MENDED).increment(count);
}

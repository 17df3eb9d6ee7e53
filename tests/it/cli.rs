//! The program as its users call it: what it prints where, and with which code it ends.

use std::fs;

use posthaste::{
    domain::{
        id::{EventId, StreamId, SubscriptionId},
        outcome::Reason,
    },
    roles::Role,
    streams::{Ending, LogEntry, Settled},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    time::timeout,
};

use crate::support::{
    engine::{Engine, PATIENCE, wait_until},
    program::{Program, ended, interrupt},
    receiver::{Receiver, Reply},
    redis::TestRedis,
};

const URL: &str = "https://example.com/hook";

/// The types of the events of a tenant's log, and their data.
async fn log_of(engine: &Engine, tenant: &str) -> Vec<(String, String)> {
    let shard = engine.streams.shard_of(tenant);
    let page = engine.streams.log_page(shard, StreamId::ZERO, StreamId::MAX, 1_000).await.unwrap();
    let event = |entry| match entry {
        LogEntry::Event(event) => (event.event_type, String::from_utf8(event.data.to_vec()).unwrap()),
        LogEntry::Unreadable(_) => panic!("an unreadable event"),
    };
    page.into_iter().map(event).collect()
}

async fn create_webhook(program: &Program, arguments: &[&str]) -> String {
    let all = [&["webhook", "create", "--json", "--url", URL, "--events", "*"], arguments].concat();
    program.run(&all).await.json()["id"].as_str().unwrap().to_owned()
}

/// Gives up all that waits for a tenant's webhooks.
async fn give_up(engine: &Engine, tenant: &str, count: u64) {
    let shard = engine.streams.shard_of(tenant);
    let mut dead = 0;
    wait_until("the deliveries are given up", async || {
        let leases = engine.streams.lease(shard, 100).await.unwrap().leases;
        dead += leases.len() as u64;
        let ending = || Ending::Failed { reason: Reason::Exhausted, error: "refused\u{1b}[2J".into() };
        let settle = |lease| Settled { lease, ending: ending() };
        let batch: Vec<Settled> = leases.into_iter().map(settle).collect();
        if !batch.is_empty() {
            engine.streams.settle(shard, &batch).await.unwrap();
        }
        dead == count
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_done_is_said_in_one_sentence_with_a_code_of_its_own() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    program.run(&["tenant", "list"]).await.done();
    let check =
        async |program: &Program, arguments: &[&str], code, part| program.run(arguments).await.refused(code, part);

    check(&program, &["webhook", "show", "wh_none"], 1, "there is no such webhook").await;
    check(&program, &["tenant", "create", "a b"], 1, "TENANT: ").await;
    check(&program, &["publish", "a.b", "--data", "{"], 1, "data: not JSON").await;
    check(&program, &["publish", "a..b"], 1, "type: ").await;
    check(&program, &["publish", "--file", "missing.ndjson"], 1, "missing.ndjson cannot be opened").await;
    check(&program, &["webhook", "list", "--cursor", "x"], 1, "--cursor: ").await;
    check(&program, &["--config", "missing.toml", "status"], 64, "missing.toml").await;

    let refused = async |name, value, arguments: &[&str], part| {
        let program = Program::on(&redis).with(name, value);
        check(&program, arguments, 64, part).await;
    };
    refused("POSTHASTE_REDIS__SHARDS", "none", &["status"], "redis.shards").await;
    refused("POSTHASTE_REDIS__SHARDS", "7", &["status"], "redis.shards").await;
    refused("POSTHASTE_API__LISTEN", "0.0.0.0:0", &["api"], "api.admin_key").await;
    refused("POSTHASTE_API__PUBLIC_URL", "https://hooks.example.com", &["api"], "secrets.key").await;

    let embedded = Program::new();
    check(&embedded, &["status"], 69, "start `posthaste serve` first").await;
    check(&embedded, &["publish", "a.b"], 69, "start `posthaste serve` first").await;
    check(&embedded, &["--redis", "unix:///nowhere/redis.sock", "check"], 69, "redis.url").await;
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let made = program.run(&["key", "create", "--role", "tenant", "--tenant", "acme", "--json"]).await.json();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert_eq!((&made["role"], &made["tenant"]), (&json!("tenant"), &json!("acme")));
    let shown = program.run(&["key", "create", "--role", "admin"]).await;
    assert!(shown.stdout.contains("ph_") && shown.stderr.contains("not shown again"), "{shown:?}");
    let listed = program.run(&["key", "list", "--tenant", "acme"]).await.done();
    assert!(listed.contains(id) && !listed.contains(key) && listed.lines().count() == 2, "{listed}");
    program.run(&["key", "create", "--role", "read"]).await.refused(1, "--tenant: is required");
    let refused = program.run(&["key", "create", "--role", "root"]).await;
    assert!(refused.code == Some(2) && refused.stderr.contains("admin, tenant, publish or read"), "{refused:?}");
    program.run(&["key", "revoke", id]).await.done();
    program.run(&["key", "revoke", id]).await.refused(1, "there is no such key");
}

#[tokio::test]
async fn a_secret_is_rotated_and_the_new_one_shown_once() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let id = create_webhook(&program, &[]).await;
    let rotated = program.run(&["webhook", "rotate-secret", &id, "--overlap-seconds", "60", "--json"]).await.json();
    assert!(rotated["secret"].as_str().unwrap().starts_with("whsec_"));
    assert!(program.run(&["webhook", "show", &id, "--json"]).await.json().get("secret").is_none());
    let refused = program.run(&["webhook", "rotate-secret", &id, "--secret", "short"]).await;
    refused.refused(1, "--secret: ");
    program.run(&["webhook", "rotate-secret", "wh_1"]).await.refused(1, "there is no such webhook");
}

#[tokio::test]
async fn wrong_usage_is_told_from_failure() {
    let program = Program::new();
    for arguments in [&["frobnicate"][..], &["webhook", "show"], &["webhook", "update", "wh_1"], &["publish"], &[]] {
        let ended = program.run(arguments).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
        assert!(ended.stderr.contains("Usage: posthaste"), "{ended:?}");
    }
    assert_eq!(program.run(&["--version"]).await.done(), format!("posthaste {}", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn a_published_event_is_in_the_log_and_its_id_is_all_that_is_printed() {
    let redis = TestRedis::start().await;
    let (program, engine) = (Program::on(&redis), Engine::idle(&redis, &[]).await);
    fs::write(program.path().join("data.json"), "{ \"from\": \"file\" }\n").unwrap();

    let plain = program.run(&["publish", "a.plain", "--tenant", "acme"]).await.done();
    assert!(plain.parse::<EventId>().is_ok(), "{plain}");
    let keyed = ["publish", "a.keyed", "--tenant", "acme", "--idempotency-key", "k", "--data", "[1.0]", "--json"];
    let first = program.run(&keyed).await.json();
    assert_eq!(program.run(&keyed).await.json(), first);
    assert!(first["id"].as_str().unwrap().parse::<EventId>().is_ok(), "{first}");
    program.run(&["publish", "a.file", "--tenant", "acme", "--data", "@data.json"]).await.done();
    program.run_with_input(&["publish", "a.stdin", "--tenant", "acme", "--data", "-"], "\"s\"\n").await.done();

    let expected =
        [("a.plain", "{}"), ("a.keyed", "[1.0]"), ("a.file", "{ \"from\": \"file\" }"), ("a.stdin", "\"s\"")];
    let expected: Vec<(String, String)> = expected.map(|(kind, data)| (kind.into(), data.into())).into();
    assert_eq!(log_of(&engine, "acme").await, expected);
}

#[tokio::test]
async fn bad_lines_of_a_file_are_named_and_sink_no_others() {
    let redis = TestRedis::start().await;
    let (program, engine) = (Program::on(&redis), Engine::idle(&redis, &[]).await);
    let good = |n: usize| format!("{{\"type\":\"a.{n}\",\"data\":{n},\"tenant\":\"acme\"}}\n");
    let text: String = (0..700).map(good).collect();
    let bad = "nonsense\n \r\n{\"type\":\"a..b\",\"data\":1}\n{\"type\":\"other\",\"data\":1}\n";
    fs::write(program.path().join("events.ndjson"), format!("{text}{bad}")).unwrap();

    let ended = program.run(&["publish", "--file", "events.ndjson", "--tenant", "globex"]).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "701 events published\n"), "{ended:?}");
    let complaints: Vec<&str> = ended.stderr.lines().collect();
    let starts = ["line 701: event: ", "line 703: type: ", "error: 2 lines were refused"];
    assert_eq!(complaints.len(), starts.len(), "{complaints:?}");
    assert!(complaints.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{complaints:?}");

    let expected: Vec<(String, String)> = (0..700).map(|n| (format!("a.{n}"), n.to_string())).collect();
    assert!(log_of(&engine, "acme").await == expected, "all events, in the order of their lines");
    assert!(log_of(&engine, "globex").await.contains(&("other".into(), "1".into())));

    let input = format!("{}nonsense\n", good(1));
    let ended = program.run_with_input(&["publish", "--file", "-", "--json"], &input).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines[0]["id"].is_string() && lines[0]["line"] == 1, "{lines:?}");
    assert!(lines[1]["error"]["code"] == "invalid" && lines[1]["line"] == 2, "{lines:?}");
}

#[tokio::test]
async fn a_file_that_redis_goes_away_from_says_where_it_stopped() {
    let mut redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let mut child = program.command(&["publish", "--file", "-", "--json"]).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = b"{\"type\":\"a.b\",\"data\":1}\n";
    stdin.write_all(line).await.unwrap();
    let first = timeout(PATIENCE, stdout.next_line()).await.expect("an answer in time").unwrap().unwrap();
    assert!(first.contains("evt_"), "{first}");
    redis.kill();
    stdin.write_all(&line.repeat(1_500)).await.unwrap();
    let ended = ended(child).await;
    assert_eq!(ended.code, Some(69), "{ended:?}");
    assert!(ended.stderr.contains("stopped at line 2, with 1 event published before it"), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
}

#[tokio::test]
async fn a_webhook_lives_from_its_creation_to_its_deletion() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let all = "webhook create --json --tenant acme --events a,b.* --name crm --retry steady --retry-count 5 \
               --timeout-seconds 7 --max-concurrency 3 --rate-limit-per-minute 60 --ordering fifo \
               --payload-format raw --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw --inactive --url";
    let arguments: Vec<&str> = all.split_whitespace().chain([URL, "--header", "X-Env: prod"]).collect();
    let created = program.run(&arguments).await.json();
    let fields = json!({
        "tenant": "acme", "events": ["a", "b.*"], "name": "crm", "retry_count": 5, "timeout_seconds": 7,
        "retry": {"kind": "schedule", "delays_ms": [4000, 8000, 10000], "jitter": 0.0}, "max_concurrency": 3,
        "rate_limit_per_minute": 60, "ordering": "fifo", "payload_format": "raw", "headers": {"X-Env": "prod"},
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "status": "paused", "url": URL,
    });
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(&created[name], value, "{name}");
    }
    let id = created["id"].as_str().unwrap();
    let one = async |verb: &str, more: &[&str]| {
        program.run(&[&["webhook", verb, id, "--tenant", "acme", "--json"], more].concat()).await
    };

    let shown = one("show", &[]).await.json();
    assert!(shown.get("secret").is_none() && shown.get("ingest_secret").is_none(), "{shown}");
    let change =
        ["--rate-limit-per-minute", "none", "--header", "none", "--retry", "none", "--name", "new", "--active"];
    let updated = one("update", &change).await.json();
    let of_update =
        ["rate_limit_per_minute", "headers", "name", "status", "timeout_seconds"].map(|name| &updated[name]);
    assert_eq!(of_update, [&json!(null), &json!({}), &json!("new"), &json!("active"), &json!(7)]);
    assert_eq!(updated["retry"]["kind"], "exponential");
    one("update", &["--timeout-seconds", "900"]).await.refused(1, "--timeout-seconds: ");
    assert_eq!(one("pause", &[]).await.json()["status"], "paused");
    assert_eq!(one("resume", &["--skip"]).await.json()["status"], "active");
    assert_eq!(one("logs", &[]).await.json(), json!({"data": [], "next_cursor": null}));
    let stats = one("stats", &["--window", "2d"]).await.json();
    assert_eq!((&stats["window_hours"], &stats["success_rate"]), (&json!(48), &json!(null)));
    assert_eq!((&stats["status_classes"]["2xx"], stats["hours"].as_array().map(Vec::len)), (&json!(0), Some(48)));
    one("stats", &["--window", "90m"]).await.refused(1, "--window: ");

    program.run(&["webhook", "show", id]).await.refused(1, "there is no such webhook");
    assert_eq!(one("delete", &[]).await.done(), "");
    one("show", &[]).await.refused(1, "there is no such webhook");
}

#[tokio::test]
async fn what_people_read_is_aligned_and_has_the_secrets_only_once() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let created = program.run(&["webhook", "create", "--url", URL, "--events", "a"]).await;
    assert!(created.stdout.contains("\nsecret                 whsec_"), "{created:?}");
    assert!(created.stderr.contains("not shown again"), "{created:?}");
    let listed = program.run(&["webhook", "list"]).await.done();
    let lines: Vec<&str> = listed.lines().collect();
    assert!(lines[0].starts_with("ID ") && lines[1].starts_with("wh_") && lines.len() == 2, "{listed}");
    assert_eq!(lines[0].find("STATUS"), lines[1].find("active"));
    assert!(!listed.contains("whsec_") && !listed.contains('\u{1b}'), "{listed}");
    let none = program.run(&["webhook", "list", "--tenant", "other"]).await;
    assert_eq!((none.stdout.as_str(), none.stderr.as_str()), ("", "nothing found\n"));
}

#[tokio::test]
async fn a_list_goes_on_where_its_page_ended() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let mut created = Vec::new();
    for _ in 0..3 {
        created.push(create_webhook(&program, &[]).await);
    }
    let page = async |more: &[&str]| {
        let page = program.run(&[&["webhook", "list", "--json", "--limit", "2"], more].concat()).await.json();
        let ids = page["data"].as_array().unwrap().iter().map(|webhook| webhook["id"].as_str().unwrap().to_owned());
        (ids.collect::<Vec<_>>(), page["next_cursor"].as_str().map(str::to_owned))
    };
    let (first, cursor) = page(&[]).await;
    assert_eq!(first, created[..2]);
    assert_eq!(page(&["--cursor", &cursor.unwrap()]).await, (created[2..].to_vec(), None));
}

#[tokio::test]
async fn a_tenant_is_created_with_limits_that_can_be_changed_one_by_one() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let create = ["tenant", "create", "acme", "--max-stored-mb", "5", "--rate-limit-per-minute", "60", "--json"];
    let created = program.run(&create).await.json();
    assert_eq!((&created["max_stored_mb"], &created["rate_limit_per_minute"]), (&json!(5), &json!(60)));
    program.run(&create).await.refused(1, "already");
    let changed = program.run(&["tenant", "limit", "acme", "--max-stored-mb", "none", "--json"]).await.json();
    assert_eq!((&changed["max_stored_mb"], &changed["rate_limit_per_minute"]), (&json!(null), &json!(60)));
    program.run(&["tenant", "limit", "acme", "--max-stored-mb", "0"]).await.refused(1, "--max-stored-mb: ");
}

#[tokio::test]
async fn a_tenant_with_webhooks_is_not_deleted() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let created = program.run(&["tenant", "create", "acme", "--name", "Acme Ltd", "--json"]).await.json();
    assert_eq!((&created["id"], &created["name"]), (&json!("acme"), &json!("Acme Ltd")));
    program.run(&["tenant", "create", "acme"]).await.refused(1, "already");
    assert_eq!(program.run(&["tenant", "list", "--json"]).await.json()["data"], json!([created]));
    let id = create_webhook(&program, &["--tenant", "acme"]).await;
    program.run(&["tenant", "delete", "acme"]).await.refused(1, "still has webhooks");
    program.run(&["webhook", "delete", &id, "--tenant", "acme"]).await.done();
    program.run(&["tenant", "delete", "acme"]).await.done();
    assert_eq!(program.run(&["tenant", "list", "--json"]).await.json()["data"], json!([]));
}

#[tokio::test]
async fn dead_letters_are_listed_sent_once_more_and_thrown_away() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let mut engine = Engine::idle(&redis, &[]).await;
    engine.run(Role::Dispatcher);
    let webhook = engine.subscribe("acme", URL, &["*"], |_| ()).await;
    for n in 0..5 {
        engine.publish("acme", "order.paid", n.to_string()).await;
    }
    give_up(&engine, "acme", 5).await;
    let run = async |verb: &str, more: &[&str]| {
        program.run(&[&["deadletter", verb, "--tenant", "acme"], more].concat()).await
    };

    let listed = run("list", &["--json", "--reason", "exhausted", "--since", "1h"]).await.json();
    let data: Vec<&Value> = listed["data"].as_array().unwrap().iter().map(|letter| &letter["data"]).collect();
    assert_eq!(data, [&json!(4), &json!(3), &json!(2), &json!(1), &json!(0)]);
    let first = listed["data"][0]["id"].as_str().unwrap();
    assert_eq!(run("show", &[first, "--json"]).await.json(), listed["data"][0]);
    // What a receiver said cannot move the reader's cursor.
    let shown = run("list", &[]).await.done();
    assert!(shown.contains("refused\\u{1b}[2J") && !shown.contains('\u{1b}'), "{shown}");
    assert_eq!(run("list", &["--until", "1h", "--json"]).await.json()["data"], json!([]));

    let dry = ["--all", "--webhook", &webhook.to_string(), "--dry-run", "--json"];
    assert_eq!(run("replay", &dry).await.json(), json!({"count": 5, "dry_run": true}));
    assert_eq!(run("replay", &["--id", first]).await.done(), "1 dead letter sent once more");
    run("replay", &["--id", first]).await.refused(1, "there is no such dead letter");
    assert_eq!(run("replay", &["--all", "--rate", "1000"]).await.done(), "4 dead letters sent once more");
    assert_eq!(run("replay", &["--all"]).await.done(), "0 dead letters sent once more");
    give_up(&engine, "acme", 5).await;
    assert_eq!(run("purge", &["--all", "--type", "other"]).await.done(), "0 dead letters thrown away");
    assert_eq!(run("purge", &["--all", "--json"]).await.json(), json!({"count": 5, "dry_run": false}));
    assert_eq!(engine.dead_letters(webhook).await, []);
}

#[tokio::test]
async fn the_status_counts_what_waits_what_is_dead_and_who_works() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let mut engine = Engine::idle(&redis, &[]).await;
    engine.run(Role::Dispatcher);
    engine.subscribe("acme", URL, &["*"], |_| ()).await;
    engine.publish("acme", "order.paid", "1").await;
    engine.publish("acme", "order.paid", "2").await;
    give_up(&engine, "acme", 2).await;
    engine.publish("acme", "order.paid", "3").await;
    engine.wait_until_dispatched().await;

    let status = program.run(&["status", "--json"]).await.json();
    let backlog = json!({"front_door": 0, "log": 0, "fresh": 1, "waiting": 0, "leased": 0});
    assert_eq!(status["backlog"], backlog, "{status}");
    assert_eq!((&status["dead_letters"], &status["events"]), (&json!(2), &json!(3)), "{status}");
    assert_eq!(status["workers"], json!({"dispatcher": 1, "sender": 0, "sources": 0}));
    assert!(status["oldest_undelivered_seconds"].as_f64().is_some_and(|age| age < 60.0), "{status}");
    assert_eq!(status["front_door_has_leader"], false);
    let screen = program.run(&["status"]).await.done();
    assert!(screen.contains("2 dead letters") && screen.contains("dispatcher 1") && !screen.contains('\u{1b}'));
}

#[tokio::test]
async fn a_replay_is_watched_to_its_end() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let mut engine = Engine::idle(&redis, &[]).await;
    for event_type in ["order.paid", "order.sent", "contact.created"] {
        engine.publish("acme", event_type, "1").await;
    }
    engine.run(Role::Dispatcher);
    engine.wait_until_dispatched().await;
    let webhook = engine.subscribe("acme", URL, &["*"], |_| ()).await;
    let id = webhook.to_string();
    let replay = ["replay", "--tenant", "acme", "--webhook", &id, "--from", "1h", "--type", "order.*"];
    let dry = program.run(&[&replay[..], &["--dry-run", "--json"]].concat()).await.json();
    assert_eq!(dry, json!({"count": 2, "dry_run": true}));
    assert_eq!(program.run(&replay).await.done(), format!("2 events put to {id} once more"));
    let done = program.run(&[&replay[..], &["--json"]].concat()).await.json();
    assert_eq!((&done["state"], &done["queued"], &done["webhook_id"]), (&json!("done"), &json!(2), &json!(id)));
    assert_eq!(engine.state(webhook).await.state.fresh, 4);
}

#[tokio::test]
async fn a_replay_that_nobody_carries_out_says_so_and_goes_on_unwatched() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    let mut engine = Engine::idle(&redis, &[]).await;
    let webhook: SubscriptionId = create_webhook(&program, &["--tenant", "acme"]).await.parse().unwrap();
    engine.publish("acme", "order.paid", "1").await;
    let arguments = ["replay", "--tenant", "acme", "--webhook", &webhook.to_string(), "--from", "1h"];
    let mut child = program.command(&arguments).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = timeout(PATIENCE, stderr.next_line()).await.expect("a word in time").unwrap().unwrap();
    assert!(said.contains("no dispatcher is running"), "{said}");
    interrupt(&child);
    let said = timeout(PATIENCE, stderr.next_line()).await.expect("a word in time").unwrap().unwrap();
    assert!(said.contains("goes on without being watched"), "{said}");
    assert_eq!(ended(child).await.code, Some(0));

    engine.run(Role::Dispatcher);
    // Once because it was published, and once more.
    wait_until("the replay was carried out", async || engine.state(webhook).await.state.fresh == 2).await;
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_ends_a_command_without_a_word() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis);
    for arguments in [&["status", "--watch"][..], &["status", "--watch", "--json"], &["--help"], &["status"]] {
        let mut child = program.command(arguments).spawn().unwrap();
        drop(child.stdout.take());
        let ended = ended(child).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_check_tells_what_is_lacking_from_what_could_be_better() {
    let redis = TestRedis::start().await;
    let fine = Program::on(&redis).run(&["check"]).await.done();
    assert!(fine.contains("better: maxmemory is not set") && !fine.contains("fault:"), "{fine}");
    let evicting = TestRedis::with(&[("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru")]).await;
    let program = Program::on(&evicting);
    let ended = program.run(&["check"]).await;
    assert!(ended.stdout.contains("fault: maxmemory-policy is allkeys-lru"), "{ended:?}");
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), "error: 1 fault must be mended first\n"));
    let report: Value = serde_json::from_str(&program.run(&["check", "--json"]).await.stdout).unwrap();
    assert_eq!((&report["redis"]["name"], &report["findings"][0]["is_fault"]), (&json!("redis"), &json!(true)));
}

#[tokio::test]
async fn commands_find_the_redis_that_serve_has_started() {
    let program = Program::new().with("POSTHASTE_API__LISTEN", "127.0.0.1:0");
    let serve = program.command(&["serve"]).spawn().unwrap();
    wait_until("serve has started", async || program.run(&["status"]).await.code == Some(0)).await;
    program.run(&["webhook", "create", "--url", "http://127.0.0.1:9/hook", "--events", "a"]).await.done();
    assert!(program.run(&["publish", "b.c"]).await.done().parse::<EventId>().is_ok());
    interrupt(&serve);
    assert_eq!(ended(serve).await.code, Some(0));
    program.run(&["status"]).await.refused(69, "start `posthaste serve` first");
}

#[tokio::test]
async fn an_api_shows_its_figures_where_it_is_told_and_is_among_the_workers() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis).with("POSTHASTE_API__LISTEN", "127.0.0.1:0");
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let api = program.command(&["api", "--metrics-listen", &free]).spawn().unwrap();
    wait_until("it is among the workers", async || {
        let status = program.run(&["status", "--json"]).await;
        serde_json::from_str::<Value>(&status.stdout).is_ok_and(|status| status["workers"]["api"] == json!(1))
    })
    .await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let mut connection = tokio::net::TcpStream::connect(&free).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {free}\r\nconnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
    interrupt(&api);
    assert_eq!(ended(api).await.code, Some(0));
}

#[tokio::test]
async fn a_test_send_shows_what_the_endpoint_did_and_ends_with_1_when_it_did_not_take_it() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.script("/hook", [Reply::body("thanks"), Reply::status(500)]);
    let program = Program::on(&redis).with("POSTHASTE_TARGETS__ALLOW_CIDRS", "127.0.0.0/8");
    let url = receiver.url("/hook");
    let created = program.run(&["webhook", "create", "--json", "--url", &url, "--events", "a.b"]).await.json();
    let id = created["id"].as_str().unwrap();

    let own = ["webhook", "test", id, "--type", "c.d", "--data", "-", "--json"];
    let taken = program.run_with_input(&own, "[7]\n").await.json();
    assert_eq!((&taken["is_success"], &taken["response_status"]), (&json!(true), &json!(200)));
    assert_eq!((&taken["response_body"], &taken["error"]), (&json!("thanks"), &Value::Null));
    assert!(taken["timings_ms"]["first_byte"].is_number() && taken["timings_ms"]["tls"].is_null(), "{taken}");
    let received = receiver.received("/hook").remove(0);
    assert!(received.body.ends_with(b"\"data\":[7]}"), "{received:?}");

    let refused = program.run(&["webhook", "test", id]).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stdout.contains("response status   500"), "{refused:?}");
    assert!(refused.stdout.contains("the endpoint answered 500: only 2xx is success"), "{refused:?}");
    assert_eq!(refused.stderr.trim_end(), "error: the endpoint did not take it");

    let logs = program.run(&["webhook", "logs", id, "--json"]).await.json();
    let tests: Vec<_> = logs["data"].as_array().unwrap().iter().map(|attempt| &attempt["is_test"]).collect();
    assert_eq!(tests, [&json!(true), &json!(true)]);
    program.run(&["webhook", "test", id, "--data", "{"]).await.refused(1, "--data: not JSON");
    program.run(&["webhook", "test", "wh_1"]).await.refused(1, "there is no such webhook");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_adds_types_of_its_own_and_with_strict_types_only_what_fits_is_published() {
    let redis = TestRedis::start().await;
    let program = Program::on(&redis).with("POSTHASTE_API__STRICT_TYPES", "true");
    let schema = program.path().join("order.json");
    fs::write(&schema, r#"{"type": "object", "required": ["id"]}"#).unwrap();
    let schema = format!("@{}", schema.display());
    let add = ["types", "add", "order.paid", "--category", "order", "--description", "An order was paid.", "--json"];
    let with = |more: &[&str]| [&add[..], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let run = async |words: Vec<String>| program.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
    run(with(&["--schema", &schema])).await.refused(1, "--sample: does not fit the schema: \"id\"");
    run(with(&["--schema", "{\"$ref\": \"https://example.com\"}"])).await.refused(1, "--schema: $ref");
    let added = run(with(&["--schema", &schema, "--sample", "{\"id\": 17, \"a\": 1}"])).await.json();
    let expected = json!({
        "type": "order.paid", "category": "order", "description": "An order was paid.",
        "sample": { "id": 17, "a": 1 }, "schema": { "type": "object", "required": ["id"] },
    });
    assert_eq!(added, expected);
    run(with(&[])).await.refused(1, "there is such a type of events already");
    program.run(&["types", "add", "a b", "--category", "x", "--description", "x"]).await.refused(1, "TYPE: ");
    program.run(&["types", "add", "posthaste.x", "--category", "x", "--description", "x"]).await.refused(1, "TYPE: ");

    let listed = program.run(&["types", "list", "--json"]).await.json();
    assert!(listed["data"].as_array().unwrap().contains(&expected) && listed["next_cursor"].is_null());
    let table = program.run(&["types", "list", "--tenant", "acme"]).await.done();
    assert!(table.contains("message.created ") && !table.contains("order.paid"), "{table}");

    program.run(&["publish", "order.paid", "--data", "{\"id\": 1}"]).await.done();
    program.run(&["publish", "order.paid"]).await.refused(1, "data: \"id\" is a required property");
    program.run(&["publish", "order.paid", "--tenant", "acme"]).await.refused(1, "type: `order.paid` is not known");
    let lines = "{\"type\":\"order.paid\",\"data\":{\"id\":1}}\n{\"type\":\"order.paid\",\"data\":1}\n";
    let ended = program.run_with_input(&["publish", "--file", "-"], lines).await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), "1 event published\n"), "{ended:?}");
    assert!(ended.stderr.starts_with("line 2: data: "), "{ended:?}");

    program.run(&["types", "remove", "message.created"]).await.refused(1, "there is no such type among");
    program.run(&["types", "remove", "order.paid"]).await.done();
    program
        .run(&["publish", "order.paid", "--data", "{\"id\": 1}"])
        .await
        .refused(1, "type: `order.paid` is not known");
}

//! What is written down is what is there: keys, metrics, and that no test is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use posthaste::{metrics, streams::keys};

use crate::support::{
    engine::{Engine, PATIENCE, quick_retry},
    receiver::{Receiver, Reply},
    redis::TestRedis,
};

/// A channel is no key, but the scripts spell it like one.
const CHANNEL: &str = "bell";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = entries
        .flat_map(|path| if path.is_dir() { files(path.to_str().unwrap(), extension) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|its| its == extension))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "{folder}/*.{extension}");
    found
}

/// The cells of the rows below a table's header.
fn table(text: &str, header: &str) -> Vec<Vec<String>> {
    let rows =
        text.lines().skip_while(|line| !line.starts_with(header)).skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<Vec<String>> =
        rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect();
    assert!(!rows.is_empty(), "{header}");
    rows
}

fn unquoted(cell: &str) -> String {
    cell.replace('`', "")
}

#[test]
fn every_key_is_documented_with_its_type_and_no_other() {
    let rows = table(&read("streams/README.md"), "| key |");
    let kind = |cell: &str| cell.split(',').next().unwrap_or_default().to_owned();
    let documented: BTreeMap<String, String> = rows.iter().map(|row| (unquoted(&row[0]), kind(&row[1]))).collect();
    let known: BTreeMap<String, String> =
        keys::ALL.iter().map(|key| (key.pattern.to_owned(), key.kind.to_owned())).collect();
    assert_eq!(documented, known);
    for row in &rows {
        assert!(row.len() == 6 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn every_script_is_documented_and_what_it_does_when_memory_is_short() {
    let rows = table(&read("streams/README.md"), "| script |");
    let documented: BTreeMap<String, bool> = rows.iter().map(|row| (unquoted(&row[0]), row[2] == "runs")).collect();
    let scripts = files("streams", "lua").into_iter().filter_map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = read(&path);
        // Without such a first line it is a part of others.
        text.starts_with("#!lua").then(|| (name, text.starts_with("#!lua flags=allow-oom\n")))
    });
    assert_eq!(documented, scripts.collect());
}

/// The text between each `start` and the next `end`.
fn between<'a>(text: &'a str, start: &str, end: char) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).filter_map(move |rest| rest.split(end).next())
}

#[test]
fn scripts_name_known_keys_only() {
    let known: BTreeSet<&str> = keys::ALL.iter().filter_map(|key| key.pattern.strip_prefix("P:")).collect();
    let known: BTreeSet<&str> = known.iter().map(|key| key.split(':').next().unwrap()).chain([CHANNEL]).collect();
    let mut named = BTreeSet::new();
    for path in files("streams", "lua") {
        let text = read(&path);
        let names = between(&text, "key('", '\'').chain(between(&text, "P .. ':", '\''));
        // Without a name it is the function that all others go through.
        for name in names.filter(|name| !name.is_empty()) {
            assert!(known.contains(name), "{}: {name}", path.display());
            named.insert(name.to_owned());
        }
    }
    assert!(named.len() > known.len() / 2, "{named:?}");
}

/// A key as `keys::ALL` spells it up to its first part that varies: `P:dlv` of `posthaste:{s3}:dlv:wh_…`.
fn stem(key: &str) -> String {
    let rest = key.strip_prefix("posthaste:").expect("a key of ours");
    match rest.strip_prefix("{s").and_then(|rest| rest.split_once("}:")) {
        Some((_, name)) => format!("P:{}", name.split(':').next().unwrap()),
        None => format!("<prefix>:{}", rest.split(':').next().unwrap()),
    }
}

fn stem_of_pattern(pattern: &str) -> String {
    pattern.split(":<").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_that_the_engine_leaves_in_redis_is_a_known_one_of_its_type() {
    let redis = TestRedis::start().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(|request| if request.path == "/fails" { Reply::status(500) } else { Reply::status(200) });
    let engine = Engine::start(&redis).await;
    let fails = engine.subscribe("acme", &receiver.url("/fails"), &["*"], |s| s.retry = quick_retry(1)).await;
    let works =
        engine.subscribe("acme", &receiver.url("/works"), &["*"], |s| s.rate_limit_per_minute = Some(600)).await;
    let mut connection = redis.connect().await;
    for (name, value) in [("data", "1"), ("nothing", "1"), ("tenant", "no tenant")] {
        let mut entry = redis::cmd("XADD");
        entry.arg("posthaste:in").arg("*").arg("type").arg("a.b").arg("idem").arg("k").arg(name).arg(value);
        entry.exec_async(&mut connection).await.unwrap();
    }
    engine.publish("acme", "a.b", "2").await;
    engine.wait_until_drained(works).await;
    engine.wait_until_drained(fails).await;
    receiver.wait_for(|received| received.len() >= 3, PATIENCE).await;

    let types: BTreeMap<String, &str> = keys::ALL.iter().map(|key| (stem_of_pattern(key.pattern), key.kind)).collect();
    let found: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    let mut seen = BTreeSet::new();
    for key in found {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await.unwrap();
        // Some live for seconds only.
        if kind != "none" {
            assert_eq!(types.get(&stem(&key)).copied(), Some(kind.as_str()), "{key}");
            seen.insert(stem(&key));
        }
    }
    assert!(seen.len() > types.len() / 2, "{seen:?}");
    engine.stop_all().await;
}

#[test]
fn every_metric_is_documented_as_it_is() {
    let rows = table(&read("docs/metrics.md"), "| metric |");
    let documented: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.iter().map(String::as_str).map(unquoted).collect()).collect();
    let known: Vec<Vec<String>> = metrics::ALL
        .iter()
        .map(|metric| {
            let kind = format!("{:?}", metric.kind).to_lowercase();
            let labels = metric.labels.replace(',', ", ");
            vec![metric.name.to_owned(), kind, labels, metric.meaning.to_owned()]
        })
        .collect();
    assert_eq!(documented, known);
}

/// The names of metrics in a text, without what Prometheus adds to a histogram's.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("posthaste_"));
    words
        .map(|word| {
            let plain = ["_bucket", "_sum", "_count"].iter().find_map(|end| word.strip_suffix(end));
            plain.unwrap_or(word).to_owned()
        })
        .collect()
}

#[test]
fn dashboards_show_metrics_that_exist() {
    let known: BTreeSet<String> = metrics::ALL.iter().map(|metric| metric.name.to_owned()).collect();
    for path in files("grafana/provisioning/dashboards", "json") {
        let text = read(&path);
        let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(dashboard["panels"].as_array().is_some_and(|panels| !panels.is_empty()), "{}", path.display());
        let unknown: Vec<_> = metrics_in(&text).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{}: {unknown:?}", path.display());
    }
}

#[test]
fn every_alert_uses_metrics_that_exist_is_tested_and_has_its_section_in_the_runbook() {
    let known: BTreeSet<String> = metrics::ALL.iter().map(|metric| metric.name.to_owned()).collect();
    let (rules, tests, runbook) =
        (read("grafana/alerts.yml"), read("grafana/alerts_test.yml"), read("grafana/README.md"));
    for text in [&rules, &tests, &runbook] {
        let unknown: Vec<_> = metrics_in(text).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let sections: Vec<&str> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, alerts);
    for alert in alerts {
        assert!(rules.contains(&format!("grafana/README.md#{}\n", alert.to_lowercase())), "{alert} has no runbook");
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} is not tested");
    }
}

/// What is between the parentheses of each call of a macro of `tracing`.
fn log_calls(source: &str) -> Vec<String> {
    let starts = ["trace!(", "debug!(", "info!(", "warn!(", "error!("];
    let ends_at = |rest: &str| {
        let (mut depth, mut is_text, mut is_escaped) = (1, false, false);
        rest.char_indices().find_map(|(index, c)| {
            match c {
                '"' if !is_escaped => is_text = !is_text,
                '(' if !is_text => depth += 1,
                ')' if !is_text => depth -= 1,
                _ => {}
            }
            is_escaped = c == '\\' && !is_escaped;
            (depth == 0).then_some(index)
        })
    };
    let calls =
        starts.iter().flat_map(|start| source.match_indices(start).map(|(at, start)| &source[at + start.len()..]));
    calls.map(|rest| rest[..ends_at(rest).expect("an end")].to_owned()).collect()
}

/// The names of the fields of a call: `name = value`, `%name` or `name`, up to the message.
fn fields_of(call: &str) -> Vec<String> {
    let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
    for c in call.chars() {
        match c {
            '(' | '{' => depth += 1,
            ')' | '}' => depth -= 1,
            _ => {}
        }
        if c == ',' && depth == 0 { parts.push(std::mem::take(&mut part)) } else { part.push(c) }
    }
    parts.push(part);
    let named = parts.iter().map(|part| part.trim()).take_while(|part| !part.is_empty() && !part.starts_with('"'));
    named.map(|part| part.split('=').next().unwrap().trim().trim_start_matches(['%', '?']).to_owned()).collect()
}

#[test]
fn every_field_of_the_log_is_documented() {
    let rows = table(&read("docs/logs-and-traces.md"), "| field |");
    let documented: BTreeSet<String> =
        rows.iter().flat_map(|row| row[0].split(',').map(|name| unquoted(name.trim())).collect::<Vec<_>>()).collect();
    let calls = files("src", "rs").into_iter().flat_map(|path| log_calls(&read(path)));
    let mut logged: BTreeSet<String> = calls.flat_map(|call| fields_of(&call)).collect();
    // The span of a request.
    logged.insert("request_id".to_owned());
    assert_eq!(documented, logged);
}

/// `POST /api/v1/events` for each operation of the OpenAPI document.
fn routes() -> BTreeSet<String> {
    let document: serde_json::Value = serde_json::from_str(&read("docs/openapi.json")).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &serde_json::Value)| {
        let methods = item.as_object().expect("operations").keys();
        methods.map(|method| format!("{} {path}", method.to_uppercase())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn every_route_has_its_place_in_the_reference_and_no_other_has_one() {
    let text = read("docs/api.md");
    let places: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect();
    assert_eq!(places.iter().map(|place| (*place).to_owned()).collect::<BTreeSet<_>>(), routes());
    assert_eq!(places.len(), routes().len(), "one of them is there twice");
    for place in places {
        let head = format!("### `{place}`");
        let section = text.split(&head).nth(1).unwrap().split("\n#").next().unwrap();
        // The ingest is shown signed, by programs.
        assert!(section.contains("curl ") || section.contains("INGEST_URL"), "{place} has no example");
    }
}

/// The codes of the API's refusals: what stands behind a status, or at the head of a tuple or a call.
fn codes() -> BTreeSet<String> {
    let quoted = |rest: &str| rest.trim_start().strip_prefix('"')?.split_once('"').map(|(code, _)| code.to_owned());
    let errors = read("src/api/error.rs");
    let errors = errors.split("#[cfg(test)]").next().unwrap();
    let behind_status = errors.split("StatusCode::").skip(1).filter_map(|rest| quoted(rest.split_once(',')?.1));
    let chosen = errors.split("(\"").skip(1).filter_map(|rest| {
        let (code, rest) = rest.split_once('"')?;
        rest.starts_with(", ").then(|| code.to_owned())
    });
    let named = files("src/api", "rs").into_iter().flat_map(|path| {
        let text = read(&path);
        text.split("bad_request(").skip(1).filter_map(quoted).collect::<Vec<_>>()
    });
    let is_code = |text: &String| text.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
    behind_status.chain(chosen).chain(named).filter(is_code).collect()
}

#[test]
fn every_code_of_a_refusal_is_explained_and_no_other() {
    let rows = table(&read("docs/api.md"), "| code |");
    let documented: BTreeSet<String> = rows.iter().map(|row| unquoted(&row[0])).collect();
    assert_eq!(documented, codes());
    for row in &rows {
        assert!(row.len() == 4 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
}

#[test]
fn no_test_is_left_out() {
    let attribute = ["#[", "ignore"].concat();
    for path in files("src", "rs").into_iter().chain(files("tests/it", "rs")) {
        assert!(!read(&path).contains(&attribute), "{}", path.display());
    }
}

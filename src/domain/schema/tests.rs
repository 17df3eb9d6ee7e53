use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

/// Far more than anything here takes, in a build without optimisation on a busy machine; far less than an attack wants.
const SOON: Duration = Duration::from_secs(20);

fn refusal(schema: &Value) -> String {
    Schema::parse(&schema.to_string()).expect_err("a refusal")
}

#[test]
fn a_schema_is_taken_or_says_what_is_wrong_with_it() {
    let check = |schema: Value, part: &str| {
        let problem = refusal(&schema);
        assert!(problem.contains(part), "{schema}: {problem}");
    };
    for good in [
        json!({}),
        json!(true),
        json!({"$schema": DIALECT, "$id": "https://example.com/a", "type": "object"}),
        json!({"$defs": {"a": {"type": "string"}}, "properties": {"x": {"$ref": "#/$defs/a"}, "$id": {"type": "string"}}}),
        json!({"format": "no such format", "x-unknown": {"$ref": "nowhere"}, "pattern": "^\\d+$"}),
    ] {
        Schema::parse(&good.to_string()).unwrap_or_else(|problem| panic!("{good}: {problem}"));
    }
    check(json!({"type": "text"}), "at /type: ");
    check(json!({"properties": {"a": {"minimum": "1"}}}), "at /properties/a/minimum: ");
    check(json!([1]), "not");
    check(json!({"$schema": "http://json-schema.org/draft-07/schema#"}), "$schema: only https");
    check(json!({"$ref": "https://example.com/schema.json"}), "a place in the same schema");
    check(json!({"$ref": "file:///etc/passwd"}), "a place in the same schema");
    check(json!({"items": {"$ref": "other.json#/a"}}), "a place in the same schema");
    check(json!({"$ref": "#/$defs/none"}), "leads nowhere");
    check(json!({"$defs": {"a": {"$id": "b", "items": {"$ref": "#"}}}}), "$id: only the whole schema");
    check(json!({"$dynamicRef": "#a"}), "$dynamicRef is not taken");
    check(json!({"properties": {"child": {"$ref": "#"}}}), "refers to itself");
    check(json!({"pattern": "(?=a)b"}), "pattern `(?=a)b` cannot be used");
    check(json!({"patternProperties": {"(a)\\1": {}}}), "cannot be used");
    check(json!({"pattern": "(((a{1,100}){1,100}){1,100}){1,100}"}), "cannot be used");
    check(json!({"description": "x".repeat(SCHEMA_BYTES)}), "bytes; at most 65536");
    assert!(Schema::parse("{").unwrap_err().starts_with("not JSON"));
}

#[test]
fn a_misfit_says_where_and_why_and_shows_no_value() {
    let schema = json!({
        "type": "object",
        "required": ["to"],
        "properties": {
            "to": {"type": "string", "pattern": "^\\+[0-9]{7,15}$"},
            "at": {"type": "string", "format": "date-time"},
            "parts": {"type": "array", "uniqueItems": true, "items": {"anyOf": [{"type": "string"}, {"const": 1}]}},
        },
    });
    let schema = Schema::parse(&schema.to_string()).unwrap();
    let check = |data: Value, expected: Result<(), &str>| {
        assert_eq!(schema.check(data.to_string().as_bytes()), expected.map_err(str::to_owned), "{data}");
    };
    check(json!({"to": "+12025550123", "at": "2026-09-21T14:13:20Z", "parts": ["a", 1], "more": {}}), Ok(()));
    check(json!({}), Err("\"to\" is a required property"));
    check(json!([]), Err("the value is not of type \"object\""));
    check(json!({"to": "secret"}), Err("at /to: the value does not match \"^\\+[0-9]{7,15}$\""));
    check(json!({"to": "+12025550123", "at": "soon"}), Err("at /at: the value is not a \"date-time\""));
    check(json!({"to": "+12025550123", "parts": ["a", "a"]}), Err("at /parts: two items are the same"));
    let problem = schema.check(b"{\"to\": \"+12025550123\", \"parts\": [\"a\", 2]}").unwrap_err();
    assert!(problem.starts_with("at /parts/1: the value is not valid under any"), "{problem}");
    let deep = "[".repeat(500) + &"]".repeat(500);
    assert!(schema.check(deep.as_bytes()).unwrap_err().starts_with("cannot be checked"));
}

#[test]
fn what_is_told_is_cut_and_keeps_to_its_line() {
    let schema = Schema::parse("{\"additionalProperties\": {\"type\": \"string\"}}").unwrap();
    let name = "\n\u{1b}[2J".to_owned() + &"x".repeat(1_000);
    let problem = schema.check(json!({name: 1}).to_string().as_bytes()).unwrap_err();
    assert!(problem.starts_with("at /\\n\\u{1b}[2Jxxx") && problem.contains("…: the value"), "{problem}");
    assert!(problem.chars().count() < POINTER_CHARS + PROBLEM_CHARS + 30, "{problem}");
}

/// `{"<keyword>": [{"$ref": next}, {"$ref": next}]}` so many levels deep: twice the work on each.
fn doubling(keyword: &str, levels: usize) -> Value {
    let mut defs = serde_json::Map::new();
    for level in 0..levels {
        let next = json!({"$ref": format!("#/$defs/l{}", level + 1)});
        defs.insert(format!("l{level}"), json!({keyword: [next, next]}));
    }
    defs.insert(format!("l{levels}"), json!({"type": "string"}));
    json!({"$ref": "#/$defs/l0", "$defs": defs})
}

#[test]
fn a_schema_that_could_last_is_refused_at_once() {
    let started = Instant::now();
    for keyword in ["allOf", "anyOf", "oneOf", "prefixItems"] {
        assert!(refusal(&doubling(keyword, 25)).contains("too costly"), "{keyword}");
    }
    let chain = (0..200).fold(json!({"type": "string"}), |inner, _| json!({"not": inner}));
    assert!(Schema::parse(&chain.to_string()).is_err());
    let links = (0..1_500).map(|n| (format!("l{n}"), json!({"$ref": format!("#/$defs/l{}", n + 1)})));
    let links: serde_json::Map<String, Value> = links.chain([("l1500".to_owned(), json!(true))]).collect();
    assert!(refusal(&json!({"$ref": "#/$defs/l0", "$defs": links})).contains("more than 64 deep"));
    let unevaluated = (0..20).fold(json!({}), |inner, _| json!({"allOf": [inner], "unevaluatedProperties": false}));
    assert!(refusal(&unevaluated).contains("too costly"));
    let patterns: Vec<Value> = (0..2_000).map(|n| json!({"pattern": format!("a{n}.*b")})).collect();
    assert!(refusal(&json!({"allOf": patterns})).contains("too costly"));
    let long = json!({"required": (0..5_000).map(|n| n.to_string()).collect::<Vec<_>>()});
    assert!(refusal(&long).contains("too costly"));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

/// Data of at most so many bytes: an array of `item`s.
fn many(item: &str, bytes: usize) -> String {
    format!("[{}{item}]", format!("{item},").repeat(bytes.saturating_sub(2) / (item.len() + 1) - 1))
}

/// Data of at most so many bytes: `part`s in a row as one text.
fn long(part: &str, bytes: usize) -> String {
    format!("\"{}!\"", part.repeat((bytes - 3) / part.len()))
}

#[test]
fn the_costliest_check_that_is_allowed_ends_soon() {
    let check = |schema: Value, data: fn(&str, usize) -> String, part: &str| {
        let schema = Schema::parse(&schema.to_string()).unwrap_or_else(|problem| panic!("{schema}: {problem}"));
        let data = data(part, (256 * 1024).min((STEPS_AT_MOST / schema.weight()) as usize));
        assert!(schema.steps(data.len()) <= STEPS_AT_MOST, "{schema:?}");
        let started = Instant::now();
        // Whether they fit does not matter here.
        let _ = schema.check(data.as_bytes());
        assert!(started.elapsed() < SOON, "{:?}: {schema:?}", started.elapsed());
    };
    let all = |pattern: &str, count: usize| json!({"allOf": (0..count).map(|n| json!({"pattern": format!("{pattern}|{n}$")})).collect::<Vec<_>>()});
    check(json!({"pattern": "^(a+)+$"}), long, "a");
    check(json!({"pattern": "^(a|aa)+$"}), long, "a");
    check(json!({"pattern": "a.{0,30}[^a]a.{0,30}[^ab]"}), long, "ab");
    check(json!({"pattern": "(a[ab]{0,40}b[ab]{0,40}){5}[^ab!]"}), long, "aab");
    check(all("(a[ab]{0,12}b[ab]{0,12}){2}[^ab!]", 7), long, "aab");
    check(all("(a[ab]b?[ab]{0,3}){3}[^ab!]", 60), long, "aab");
    check(all("(a?){40}a{40}[^a!]", 12), long, "a");
    check(json!({"items": {"allOf": vec![json!({"type": "number"}); 250]}}), many, "1");
    let last = (0..120).map(|n| json!({"const": n})).chain([json!({"type": "number"})]).collect::<Vec<_>>();
    check(json!({"items": {"anyOf": last}}), many, "-1");
    let nested = (0..4).fold(json!({"contains": {}}), |inner, _| json!({"allOf": [inner], "unevaluatedItems": false}));
    check(nested, many, "1");
    check(json!({"uniqueItems": true}), many, "[[[1],[[2]]],3]");
    let alternatives = json!({"anyOf": [{"items": {"allOf": vec![json!({"type": "string"}); 200]}}]});
    check(alternatives, many, "1");
    check(json!({"items": {"enum": (0..120).map(|n| json!([n])).collect::<Vec<_>>()}}), many, "[119]");
}

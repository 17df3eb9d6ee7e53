//! `publish --file`: many events, in the order of their lines, with many under way at once.

use std::{path::Path, pin::Pin};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesOrdered};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::task::JoinSet;

use super::{
    context::Context,
    errors,
    lines::{Line, Lines},
    output::{Output, progress},
    values::count,
};
use crate::{
    api::Problem,
    domain::{
        Invalid,
        event::{NewEvent, is_array},
        time::parse_rfc3339,
    },
    manage::{ManageError, Manager},
    publish::{Answer, PublishError, Published, Publisher, Submitted},
};

/// Events under way at once, and the bytes of their data.
const UNDER_WAY: usize = 1_000;
const UNDER_WAY_BYTES: usize = 16 * 1024 * 1024;
/// Bytes of a line beyond those that its data may have; JSON may escape each byte of a key with six.
const LINE_EXTRA_BYTES: usize = 16 * 1024;

/// An event as a line says it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventLine<'a> {
    #[serde(rename = "type")]
    event_type: String,
    #[serde(borrow)]
    data: &'a RawValue,
    timestamp: Option<String>,
    idempotency_key: Option<String>,
    conversation_id: Option<String>,
    tenant: Option<String>,
}

/// The answer to a line, to come.
struct UnderWay {
    line: u64,
    bytes: usize,
    answer: Answer,
}

/// Publishes the events of a file, or of standard input; those that name no tenant are `tenant`'s.
pub async fn run(context: &Context, file: &Path, tenant: &str) -> anyhow::Result<()> {
    let max_payload_bytes = context.config.delivery.max_payload_bytes;
    let (lines, size) = Lines::open(file, max_payload_bytes + LINE_EXTRA_BYTES).await?;
    let streams = context.streams().await?;
    let manager = context.manager_of(&streams);
    let mut lanes = JoinSet::new();
    let publisher = context.publisher(streams, &mut lanes);
    let mut report = Report { out: context.out, bar: progress(size), published: 0, repeated: 0, refused: 0 };
    let outcome = pump(lines, tenant, &manager, &publisher, &mut report).await;
    report.bar.finish_and_clear();
    outcome?;
    report.finish()
}

async fn pump<R: tokio::io::AsyncBufRead + Unpin>(
    mut lines: Lines<R>,
    tenant: &str,
    manager: &Manager,
    publisher: &Publisher,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut under_way: FuturesOrdered<Pin<Box<dyn Future<Output = UnderWay> + Send>>> = FuturesOrdered::new();
    let (mut number, mut bytes, mut is_over) = (0, 0, false);
    loop {
        let has_room = under_way.len() < UNDER_WAY && bytes < UNDER_WAY_BYTES;
        tokio::select! {
            biased;
            Some(done) = under_way.next(), if !under_way.is_empty() => {
                bytes -= done.bytes;
                report.take(done.line, done.answer)?;
            }
            line = lines.next(), if has_room && !is_over => {
                let Some(line) = line.context("the events cannot be read")? else {
                    is_over = true;
                    continue;
                };
                number += 1;
                report.bar.set_position(lines.position);
                if matches!(&line, Line::Text(text) if text.trim_ascii().is_empty()) {
                    continue;
                }
                // Submitted one after another, or a later line could come before an earlier one in the log.
                let (size, submitted) = submit(&line, tenant, manager, publisher).await;
                bytes += size;
                // Where Redis is away each further line would only wait to hear the same.
                is_over = matches!(submitted, Err(PublishError::Redis(_)));
                under_way.push_back(Box::pin(async move {
                    let answer = match submitted {
                        Ok(submitted) => submitted.answer().await,
                        Err(refused) => Err(refused),
                    };
                    UnderWay { line: number, bytes: size, answer }
                }));
            }
            else => return Ok(()),
        }
    }
}

/// Takes a line's event; says how many bytes its data have.
async fn submit(
    line: &Line,
    tenant: &str,
    manager: &Manager,
    publisher: &Publisher,
) -> (usize, Result<Submitted, PublishError>) {
    let event = match parse(line, tenant) {
        Ok(event) => event,
        Err(refused) => return (0, Err(refused.into())),
    };
    let size = event.data.len();
    let known = manager.ensure_tenant(&event.tenant).await.map_err(|error| match error {
        ManageError::Invalid(invalid) => PublishError::Invalid(invalid),
        ManageError::Redis(error) => PublishError::Redis(error),
        other @ (ManageError::NotFound(_)
        | ManageError::AlreadyExists(_)
        | ManageError::AlreadyCreated { .. }
        | ManageError::Conflict(_)) => PublishError::Invalid(Invalid::new("tenant", other.to_string())),
    });
    match known {
        Ok(()) => (size, publisher.submit(event).await),
        Err(refused) => (size, Err(refused)),
    }
}

fn parse(line: &Line, tenant: &str) -> Result<NewEvent, Invalid> {
    let Line::Text(line) = line else { return Err(Invalid::new("data", "the line is too long")) };
    if is_array(line) {
        return Err(Invalid::new("event", "not one: an object is wanted, not an array"));
    }
    let line: EventLine<'_> =
        serde_json::from_slice(line).map_err(|error| Invalid::new("event", format!("not one: {error}")))?;
    let timestamp_ms = line
        .timestamp
        .map(|text| parse_rfc3339(&text).ok_or_else(|| Invalid::new("timestamp", "not a time of RFC 3339")))
        .transpose()?;
    Ok(NewEvent {
        tenant: line.tenant.unwrap_or_else(|| tenant.to_owned()),
        event_type: line.event_type,
        data: Bytes::copy_from_slice(line.data.get().as_bytes()),
        timestamp_ms,
        idempotency_key: line.idempotency_key,
        conversation_id: line.conversation_id,
        ..NewEvent::default()
    })
}

/// What became of the lines so far.
struct Report {
    out: Output,
    bar: ProgressBar,
    published: u64,
    /// Of those, the ones that were in the log before, by their idempotency key.
    repeated: u64,
    refused: u64,
}

impl Report {
    /// A line's answer. What is wrong with a line is told; what is wrong with Redis ends it all.
    fn take(&mut self, line: u64, answer: Answer) -> anyhow::Result<()> {
        match answer {
            Ok(Published { id, is_repeat }) => {
                self.published += 1;
                self.repeated += u64::from(is_repeat);
                self.bar.set_message(format!("{} published", self.published));
                if self.out.is_json {
                    self.out.json(&json!({ "line": line, "id": id.to_string() }))?;
                }
            }
            Err(error @ (PublishError::Invalid(_) | PublishError::Conflict | PublishError::TenantFull)) => {
                self.refused += 1;
                self.bar.suspend(|| errors::say(format_args!("line {line}: {error}")));
                if self.out.is_json {
                    self.out.json(&json!({ "line": line, "error": Problem::from(error).to_json() }))?;
                }
            }
            Err(error @ PublishError::Redis(_)) => {
                return Err(anyhow!(error).context(format!(
                    "stopped at line {line}, with {} published before it (those after it may be, too)",
                    count(self.published, "event")
                )));
            }
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        if !self.out.is_json {
            let before = match self.repeated {
                0 => String::new(),
                repeated => format!(", {repeated} of them before, by their idempotency keys"),
            };
            self.out.line(format_args!("{} published{before}", count(self.published, "event")))?;
        }
        if self.refused > 0 {
            bail!(
                "{} refused",
                if self.refused == 1 { "1 line was".to_owned() } else { format!("{} lines were", self.refused) }
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_event_or_says_what_is_wrong_with_it() {
        let check = |line: &str, expected: Result<(&str, &str, &str), &str>| {
            let parsed = parse(&Line::Text(line.into()), "acme");
            let found = parsed.as_ref().map(|event| {
                (event.tenant.as_str(), event.event_type.as_str(), std::str::from_utf8(&event.data).unwrap())
            });
            assert_eq!(found.map_err(|refused| refused.field), expected, "{line}");
        };
        check(r#"{"type":"a.b","data":{"n": 1.0}}"#, Ok(("acme", "a.b", r#"{"n": 1.0}"#)));
        check(
            r#"{"type":"a.b","data":null,"tenant":"t","timestamp":"2026-11-24T20:56:45Z"}"#,
            Ok(("t", "a.b", "null")),
        );
        check(r#"{"type":"a.b","data":1,"timestamp":"yesterday"}"#, Err("timestamp"));
        check(r#"{"type":"a.b"}"#, Err("event"));
        check(r#"{"type":"a.b","data":1,"colour":"red"}"#, Err("event"));
        check("not json", Err("event"));
        check(r#"["a.b",1,null,null,null,null]"#, Err("event"));
        assert_eq!(parse(&Line::TooLong, "acme").unwrap_err().field, "data");
    }
}

//! `listen`: a receiver to point a webhook at, which shows what arrives and whether its signatures hold.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Context as _;
use axum::http::StatusCode;
use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{
    context::Context,
    errors::say,
    output::plain,
    signatures::{SignatureJson, are_valid},
    values::duration,
};
use crate::{
    domain::{signature, time::rfc3339},
    shutdown::Shutdown,
    tools::receiver::{Answer, Arrival, Endpoint, Receiver},
};

/// Characters of a body that people are shown.
const SHOWN: usize = 2_000;
/// Requests that wait to be shown; what comes above them is answered later.
const WAITING_AT_MOST: usize = 64;

#[derive(Debug, Args)]
#[command(
    after_help = "It listens on 127.0.0.1 only and takes a POST to any path. With --json it prints an object a line.

Example:
  posthaste listen --port 9000 --secret whsec_…
  posthaste listen --fail 500:3"
)]
pub struct ListenArgs {
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 9_000)]
    port: u16,
    /// Secret of the webhook; without it signatures are not checked
    #[arg(long, value_name = "SECRET", allow_hyphen_values = true)]
    secret: Option<String>,
    /// Answer this status instead of 204; with a count only to the first so many requests
    #[arg(long, value_name = "STATUS[:COUNT]")]
    fail: Option<Failing>,
    /// Answer so long after the request
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    delay: Duration,
}

/// What is answered while it is told to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failing {
    status: StatusCode,
    /// How many requests; `None` for all.
    count: Option<u64>,
}

impl FromStr for Failing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (status, count) = text.split_once(':').map_or((text, None), |(status, count)| (status, Some(count)));
        let known = status.parse().ok().filter(|status| (200..600).contains(status));
        let status = known.and_then(|status| StatusCode::from_u16(status).ok());
        let count = count.map(|count| count.parse().map_err(|_| format!("`{count}` is no number of requests")));
        Ok(Self { status: status.ok_or("a status is a number from 200 to 599")?, count: count.transpose()? })
    }
}

/// A request and what was answered, as `listen --json` prints it.
#[derive(Debug, Serialize)]
struct Shown {
    at: String,
    path: String,
    status: u16,
    event_id: String,
    event_type: String,
    delivery_id: String,
    attempt: Option<u32>,
    /// Null where no secret is known to check by.
    is_valid: Option<bool>,
    signatures: Vec<SignatureJson>,
    body: String,
}

impl Shown {
    fn of(arrival: &Arrival, status: StatusCode, secret: Option<&str>) -> Self {
        let signatures = secret.map(|secret| SignatureJson::all(&arrival.verify(secret)));
        let at_ms = arrival.at.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_millis() as u64);
        Self {
            at: rfc3339(at_ms),
            path: arrival.path.clone(),
            status: status.as_u16(),
            event_id: arrival.event_id().to_owned(),
            event_type: arrival.header("x-webhook-event").to_owned(),
            delivery_id: arrival.header("x-webhook-delivery").to_owned(),
            attempt: arrival.header("x-webhook-attempt").parse().ok(),
            is_valid: signatures.as_deref().map(are_valid),
            signatures: signatures.unwrap_or_default(),
            body: String::from_utf8_lossy(&arrival.body).into_owned(),
        }
    }

    fn text(&self) -> String {
        let Self { at, path, status, event_id, event_type, attempt, body, .. } = self;
        let attempt = attempt.map_or(String::new(), |attempt| format!("  attempt {attempt}"));
        let end = body.char_indices().nth(SHOWN).map(|(end, _)| end);
        let rest = end.map_or(String::new(), |_| format!("… ({} bytes)", body.len()));
        let shown = plain(&body[..end.unwrap_or(body.len())]) + &rest;
        let head = plain(&format!("{at}  {path}  {event_type}  {event_id}{attempt}  answered {status}"));
        format!("{head}\n  {}\n  {shown}", self.signatures_text())
    }

    fn signatures_text(&self) -> String {
        match self.is_valid {
            None => "signatures not checked: no --secret".to_owned(),
            Some(true) => {
                let schemes: Vec<&str> = self.signatures.iter().map(|signature| signature.scheme).collect();
                format!("signatures hold: {}", schemes.join(", "))
            }
            Some(false) if self.signatures.is_empty() => "NOT SIGNED".to_owned(),
            Some(false) => {
                let refused = self.signatures.iter().filter_map(|signature| {
                    signature.reason.as_ref().map(|reason| format!("{}: {reason}", signature.scheme))
                });
                format!("signatures DO NOT HOLD: {}", refused.collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// Answers as it is told to, and hands what came on to be shown.
#[derive(Clone)]
struct Shower {
    secret: Option<String>,
    fail: Option<Failing>,
    delay: Duration,
    count: Arc<AtomicU64>,
    arrivals: mpsc::Sender<Shown>,
}

impl Endpoint for Shower {
    async fn take(&self, arrival: Arrival) -> Answer {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let failing = self.fail.filter(|failing| failing.count.is_none_or(|count| number < count));
        let status = failing.map_or(StatusCode::NO_CONTENT, |failing| failing.status);
        // The other end is gone only once this command ends.
        let _ = self.arrivals.send(Shown::of(&arrival, status, self.secret.as_deref())).await;
        Answer { status, after: self.delay }
    }
}

pub async fn run(context: &Context, args: ListenArgs) -> anyhow::Result<()> {
    let ListenArgs { port, secret, fail, delay } = args;
    if let Some(secret) = &secret {
        signature::check_secret(secret).context("--secret")?;
    }
    let shutdown = Shutdown::on_signals().context("signals cannot be listened to")?;
    let (arrivals, mut arrived) = mpsc::channel(WAITING_AT_MOST);
    let receiver = Receiver::start(port, Shower { secret, fail, delay, count: Arc::default(), arrivals }).await?;
    say(format_args!("listening on http://{}", receiver.address));
    loop {
        let shown = tokio::select! {
            shown = arrived.recv() => shown,
            () = shutdown.stopping() => None,
        };
        match shown {
            None => return Ok(()),
            Some(shown) if context.out.is_json => context.out.json(&shown)?,
            Some(shown) => context.out.line(shown.text())?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_is_cut_and_says_so() {
        let check = |body: String, expected: &str| {
            let arrival = Arrival {
                path: "/".to_owned(),
                at: UNIX_EPOCH,
                headers: axum::http::HeaderMap::new(),
                body: body.into(),
            };
            let text = Shown::of(&arrival, StatusCode::OK, None).text();
            assert_eq!(text.lines().last().map(str::trim_start), Some(expected));
        };
        check("é".repeat(SHOWN), &"é".repeat(SHOWN));
        check("é".repeat(SHOWN + 1), &format!("{}… (4002 bytes)", "é".repeat(SHOWN)));
        check("\u{7f}".repeat(3), "\\u{7f}\\u{7f}\\u{7f}");
    }

    #[test]
    fn a_failure_is_a_status_and_perhaps_a_count() {
        let check = |text: &str, expected: Option<(u16, Option<u64>)>| {
            let failing = text.parse::<Failing>().ok();
            assert_eq!(failing.map(|failing| (failing.status.as_u16(), failing.count)), expected, "{text}");
        };
        check("500", Some((500, None)));
        check("503:3", Some((503, Some(3))));
        for bad in ["", "99", "600", "500:", "500:x", "500:-1", "5:5:5"] {
            check(bad, None);
        }
    }
}

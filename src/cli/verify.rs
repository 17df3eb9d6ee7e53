//! `verify`: whether the signatures of a request hold, and why not.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;

use super::{
    context::Context,
    input,
    output::aligned,
    signatures::{SignatureJson, are_valid},
    values::{Header, moment},
};
use crate::{clock::now_ms, domain::signature, tools::receiver::TOLERANCE_S};

/// More than a delivery can have: `delivery.max_payload_bytes` is at most half of it.
const BODY_BYTES: usize = 2 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(
    after_help = "It needs neither an engine nor Redis. Exits with 0 when every signature holds, and with 1 when one does not
or when there is none.

Example:
  posthaste verify --secret whsec_… --body body.json --header 'webhook-id: evt_…' \\
    --header 'webhook-timestamp: 1790000000' --header 'webhook-signature: v1,…'"
)]
pub struct VerifyArgs {
    /// Secret of the webhook
    #[arg(long, value_name = "SECRET", allow_hyphen_values = true)]
    secret: String,
    /// Body as it arrived, byte for byte: a file, or - for standard input
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// A header as it arrived; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", required = true)]
    headers: Vec<Header>,
    /// When it arrived, if not now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    at: Option<u64>,
    /// Seconds that its timestamp may be away from then
    #[arg(long, value_name = "N", default_value_t = TOLERANCE_S)]
    tolerance_seconds: u64,
}

/// What `verify --json` prints.
#[derive(Debug, Serialize)]
struct Verdict {
    is_valid: bool,
    signatures: Vec<SignatureJson>,
}

pub fn run(context: &Context, args: VerifyArgs) -> anyhow::Result<()> {
    signature::check_secret(&args.secret).context("--secret")?;
    let body = input::read_file("--body", &args.body, BODY_BYTES, "no delivery is larger")?;
    let header = |name: &str| {
        let named = |header: &&Header| header.name.eq_ignore_ascii_case(name);
        args.headers.iter().find(named).map(|header| header.value.as_str())
    };
    let at_s = args.at.unwrap_or_else(now_ms) / 1_000;
    let signatures = SignatureJson::all(&signature::verify(&args.secret, header, &body, at_s, args.tolerance_seconds));
    ensure!(
        !signatures.is_empty(),
        "--header: none carries a signature: webhook-id, webhook-timestamp and webhook-signature, or X-Hub-Signature-256"
    );
    let verdict = Verdict { is_valid: are_valid(&signatures), signatures };
    if context.out.is_json {
        context.out.json(&verdict)?;
    } else {
        let row = |signature: &SignatureJson| {
            let reason =
                signature.reason.as_ref().map_or("holds".to_owned(), |reason| format!("does not hold: {reason}"));
            vec![signature.scheme.to_owned(), reason]
        };
        context.out.line(aligned(&verdict.signatures.iter().map(row).collect::<Vec<_>>()))?;
    }
    if !verdict.is_valid {
        bail!("a signature does not hold");
    }
    Ok(())
}

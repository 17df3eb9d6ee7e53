//! The flags for a webhook's fields, and what they ask the engine for.

use std::{collections::BTreeMap, str::FromStr};

use clap::{ArgGroup, Args};

use super::values::{Header, OrNone};
use crate::{
    api::json::RetryJson,
    manage::{NewWebhook, RetryInput, WebhookChange},
};

/// A webhook to be created.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Where to post to
    #[arg(long)]
    url: String,
    /// Event types it wants: exact, prefix.* or *; comma-separated
    #[arg(long, value_name = "TYPES", required = true, value_delimiter = ',')]
    events: Vec<String>,
    /// Secret to sign with [default: a new one]
    #[arg(long)]
    secret: Option<String>,
    /// Create it paused: it collects, and sends when it is resumed
    #[arg(long, conflicts_with = "active")]
    inactive: bool,
    /// Create it active, as is the default
    #[arg(long)]
    active: bool,
    #[command(flatten)]
    fields: FieldArgs,
}

/// A change of a webhook: what is not named stays as it is.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true).args([
    "url", "events", "active", "inactive", "name", "retry", "retry_count", "timeout_seconds", "max_concurrency",
    "rate_limit_per_minute", "ordering", "headers", "payload_format",
]))]
pub struct ChangeArgs {
    /// Where to post to
    #[arg(long)]
    url: Option<String>,
    /// Event types it wants: exact, prefix.* or *; comma-separated
    #[arg(long, value_name = "TYPES", value_delimiter = ',')]
    events: Option<Vec<String>>,
    /// Let it go on
    #[arg(long, conflicts_with = "inactive")]
    active: bool,
    /// Pause it
    #[arg(long)]
    inactive: bool,
    #[command(flatten)]
    fields: FieldArgs,
}

/// The fields that have a default, which `none` gives back.
#[derive(Debug, Args)]
struct FieldArgs {
    /// What people call it
    #[arg(long)]
    name: Option<OrNone<String>>,
    /// When to try again: a preset (fast, steady, standard, or one of the configuration), or JSON
    #[arg(long, value_name = "PRESET|JSON")]
    retry: Option<OrNone<Retries>>,
    /// Attempts after the first
    #[arg(long, value_name = "N")]
    retry_count: Option<OrNone<u32>>,
    /// Seconds that a request may take
    #[arg(long, value_name = "N")]
    timeout_seconds: Option<OrNone<u32>>,
    /// Requests under way at once, at most
    #[arg(long, value_name = "N")]
    max_concurrency: Option<OrNone<u32>>,
    /// Attempts in any minute, at most
    #[arg(long, value_name = "N")]
    rate_limit_per_minute: Option<OrNone<u32>>,
    /// `fifo`: each delivery waits for the one before it; `none`: it does not
    #[arg(long, value_name = "none|fifo")]
    ordering: Option<OrNone<String>>,
    /// Header to send with each request; may be repeated, and replaces all that were set
    #[arg(long = "header", value_name = "'NAME: VALUE'")]
    headers: Option<Vec<OrNone<Header>>>,
    /// `envelope`: the data with the event's id, type and time around them; `raw`: the data alone
    #[arg(long, value_name = "envelope|raw")]
    payload_format: Option<OrNone<String>>,
}

/// Retries as they are given: a preset's name, or a policy as JSON.
#[derive(Debug, Clone)]
struct Retries(RetryInput);

impl FromStr for Retries {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, serde_json::Error> {
        if !text.starts_with('{') {
            return Ok(Self(RetryInput::Preset(text.to_owned())));
        }
        serde_json::from_str(text).map(|retry: RetryJson| Self(RetryInput::Policy(retry.into_policy())))
    }
}

impl From<NewArgs> for NewWebhook {
    fn from(args: NewArgs) -> Self {
        let NewArgs { url, events, secret, inactive, active: _, fields } = args;
        Self {
            url,
            events,
            secret,
            is_active: inactive.then_some(false),
            name: value(fields.name),
            retry: value(fields.retry).map(|retries| retries.0),
            retry_count: value(fields.retry_count),
            timeout_seconds: value(fields.timeout_seconds),
            max_concurrency: value(fields.max_concurrency),
            rate_limit_per_minute: value(fields.rate_limit_per_minute),
            ordering: value(fields.ordering),
            headers: fields.headers.and_then(headers).unwrap_or_default(),
            payload_format: value(fields.payload_format),
            seed: None,
        }
    }
}

impl From<ChangeArgs> for WebhookChange {
    fn from(args: ChangeArgs) -> Self {
        let ChangeArgs { url, events, active, inactive, fields } = args;
        Self {
            url,
            events,
            is_active: (active || inactive).then_some(active),
            name: fields.name.map(OrNone::into_option),
            retry: fields.retry.map(|retry| retry.into_option().map(|retries| retries.0)),
            retry_count: fields.retry_count.map(OrNone::into_option),
            timeout_seconds: fields.timeout_seconds.map(OrNone::into_option),
            max_concurrency: fields.max_concurrency.map(OrNone::into_option),
            rate_limit_per_minute: fields.rate_limit_per_minute.map(OrNone::into_option),
            ordering: fields.ordering.map(OrNone::into_option),
            headers: fields.headers.map(headers),
            payload_format: fields.payload_format.map(OrNone::into_option),
        }
    }
}

fn value<T>(given: Option<OrNone<T>>) -> Option<T> {
    given.and_then(OrNone::into_option)
}

/// All headers that were given; none when one of them is `none`.
fn headers(given: Vec<OrNone<Header>>) -> Option<BTreeMap<String, String>> {
    let headers: Option<Vec<Header>> = given.into_iter().map(OrNone::into_option).collect();
    Some(headers?.into_iter().map(|Header { name, value }| (name, value)).collect())
}

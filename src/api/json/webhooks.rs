//! A webhook, and its retries, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    domain::{
        retry::RetryPolicy,
        signature::standard_secret,
        subscription::{Ordering, PayloadFormat, Status},
        time::rfc3339,
    },
    streams::Versioned,
};

/// A webhook.
#[derive(Debug, Serialize, ToSchema)]
pub struct Webhook {
    pub id: String,
    pub tenant: String,
    pub name: Option<String>,
    pub url: String,
    pub events: Vec<String>,
    /// Always null: there is no filter by content.
    #[schema(value_type = Option<serde_json::Value>)]
    pub filter: (),
    pub status: &'static str,
    pub disabled_reason: Option<String>,
    pub is_active: bool,
    pub retry_count: u32,
    pub retry: RetryJson,
    pub timeout_seconds: u32,
    pub max_concurrency: u32,
    pub rate_limit_per_minute: Option<u32>,
    pub ordering: &'static str,
    pub headers: BTreeMap<String, String>,
    pub payload_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// For libraries, where `secret` is free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standard_secret: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingest_secret: Option<String>,
    pub last_triggered_at: Option<String>,
    /// Those that have ended.
    pub total_deliveries: u64,
    pub successful_deliveries: u64,
    pub failed_deliveries: u64,
    pub created_at: String,
    pub updated_at: String,
}

/// The delays between attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[schema(as = Retry)]
pub enum RetryJson {
    Exponential {
        base_ms: u64,
        #[serde(default = "two")]
        factor: f64,
        #[serde(default = "an_hour_in_ms")]
        max_ms: u64,
        #[serde(default = "a_tenth")]
        jitter: f64,
    },
    Schedule {
        delays_ms: Vec<u64>,
        #[serde(default)]
        jitter: f64,
    },
}

fn two() -> f64 {
    2.0
}

fn an_hour_in_ms() -> u64 {
    3_600_000
}

fn a_tenth() -> f64 {
    0.1
}

impl Webhook {
    /// With its secrets only where it was just made.
    pub fn of(webhook: &Versioned, with_secrets: bool) -> Self {
        let Versioned { subscription, state, .. } = webhook;
        let secret = &subscription.secrets.current;
        Self {
            id: subscription.id.to_string(),
            tenant: subscription.tenant.clone(),
            name: Some(subscription.name.clone()).filter(|name| !name.is_empty()),
            url: subscription.url.clone(),
            events: subscription.events.iter().map(ToString::to_string).collect(),
            filter: (),
            status: state.status.name(),
            disabled_reason: state.disabled_reason.map(|reason| reason.to_string()),
            is_active: state.status == Status::Active,
            retry_count: subscription.retry.count,
            retry: RetryJson::of(&subscription.retry.policy),
            timeout_seconds: subscription.timeout_seconds,
            max_concurrency: subscription.max_concurrency,
            rate_limit_per_minute: subscription.rate_limit_per_minute,
            ordering: match subscription.ordering {
                Ordering::None => "none",
                Ordering::Fifo => "fifo",
            },
            headers: subscription.headers.clone(),
            payload_format: match subscription.payload_format {
                PayloadFormat::Envelope => "envelope",
                PayloadFormat::Raw => "raw",
            },
            secret: with_secrets.then(|| secret.clone()),
            standard_secret: standard_secret(secret).filter(|_| with_secrets),
            ingest_secret: with_secrets.then(|| subscription.ingest.current.clone()),
            last_triggered_at: state.last_triggered_at_ms.map(rfc3339),
            total_deliveries: state.delivered + state.failed,
            successful_deliveries: state.delivered,
            failed_deliveries: state.failed,
            created_at: rfc3339(subscription.created_at_ms),
            updated_at: rfc3339(subscription.updated_at_ms),
        }
    }
}

impl RetryJson {
    pub fn of(policy: &RetryPolicy) -> Self {
        match policy.clone() {
            RetryPolicy::Exponential { base_ms, factor, max_ms, jitter } => {
                Self::Exponential { base_ms, factor, max_ms, jitter }
            }
            RetryPolicy::Schedule { delays_ms, jitter } => Self::Schedule { delays_ms, jitter },
        }
    }

    pub fn into_policy(self) -> RetryPolicy {
        match self {
            Self::Exponential { base_ms, factor, max_ms, jitter } => {
                RetryPolicy::Exponential { base_ms, factor, max_ms, jitter }
            }
            Self::Schedule { delays_ms, jitter } => RetryPolicy::Schedule { delays_ms, jitter },
        }
    }
}

//! Where traces go: a collector that speaks OTLP over HTTP, in protobuf.
//!
//! What the standard has variables for is theirs: `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`,
//! `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_BSP_*`.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use http::header::RETRY_AFTER;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use opentelemetry::{InstrumentationScope, Key, KeyValue, trace::TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Handle;
use url::Url;

use crate::{
    config::{Config, ConfigError},
    domain::{address::AddressRules, attempt::Answer},
    send::post::{self, Post, PostConfig},
    traces::Traces,
};

/// What one request may take, from the name of the collector to its answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end waits for the last one.
const PATIENCE: Duration = Duration::from_secs(5);
/// What of its answer may say why it refused a batch.
const ANSWER_KEPT_BYTES: usize = 64 * 1024;
/// Batches are sent one after the other.
const CONNECTIONS_KEPT: usize = 1;

/// Sends spans in batches, from a thread of its own; what the collector does not take is dropped.
pub struct Exporter(Option<Sending>);

struct Sending {
    provider: SdkTracerProvider,
    /// Whether the collector took nothing the last time.
    is_failing: Arc<AtomicBool>,
}

impl Exporter {
    /// One to the collector that `config` names, if it names one; `process` is who sends.
    ///
    /// # Errors
    /// It cannot be sent to, as `config` has it.
    pub fn start(config: &Config, role: &'static str, process: &str) -> Result<Self, ConfigError> {
        let Some(endpoint) = &config.traces.otlp_endpoint else { return Ok(Self(None)) };
        let refuse = |error: &dyn fmt::Display| config.refuse("traces.otlp_endpoint", error);
        check_sampler(|name| std::env::var(name).ok()).map_err(|problem| refuse(&problem))?;
        let is_failing = Arc::new(AtomicBool::new(false));
        let client = Client {
            post: Post::new(post_config(config)).map_err(|error| config.refuse("targets.ca_file", error))?,
            runtime: Handle::current(),
            is_failing: Arc::clone(&is_failing),
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/')))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| refuse(&error))?;
        let mut resource = Resource::builder().with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", process.to_owned()),
            KeyValue::new("role", role),
        ]);
        if !is_named(&Resource::builder().build()) {
            resource = resource.with_service_name("posthaste");
        }
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
        Ok(Self(Some(Sending { provider, is_failing })))
    }

    /// What starts the spans.
    pub fn traces(&self) -> Traces {
        let scope = || InstrumentationScope::builder("posthaste").with_version(env!("CARGO_PKG_VERSION")).build();
        self.0.as_ref().map_or_else(Traces::default, |sending| Traces::to(sending.provider.tracer_with_scope(scope())))
    }

    /// Sends what is left, and ends.
    pub async fn stop(self) {
        let Some(Sending { provider, is_failing }) = self.0 else { return };
        // It waits for its thread.
        let stopped = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(PATIENCE)).await;
        if !matches!(stopped, Ok(Ok(()))) || is_failing.load(Ordering::Relaxed) {
            tracing::warn!("the last spans could not be sent to the collector of traces");
        }
    }
}

/// The library takes every trace where it does not understand how many are wanted.
fn check_sampler(variable: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let Some(sampler) = variable("OTEL_TRACES_SAMPLER") else { return Ok(()) };
    let is_part = |text: &str| text.trim().parse().is_ok_and(|part: f64| (0.0..=1.0).contains(&part));
    match sampler.as_str() {
        "always_on" | "always_off" | "parentbased_always_on" | "parentbased_always_off" => Ok(()),
        "traceidratio" | "parentbased_traceidratio" => match variable("OTEL_TRACES_SAMPLER_ARG") {
            Some(part) if is_part(&part) => Ok(()),
            _ => Err(format!("OTEL_TRACES_SAMPLER is {sampler}: OTEL_TRACES_SAMPLER_ARG must be a number from 0 to 1")),
        },
        _ => {
            Err("OTEL_TRACES_SAMPLER must be always_on, always_off or traceidratio, or one of these after parentbased_"
                .to_owned())
        }
    }
}

/// Whether the environment says what the service is called; where it does not, the library has a name that says so.
fn is_named(resource: &Resource) -> bool {
    resource.get(&Key::from("service.name")).is_some_and(|name| !name.as_str().starts_with("unknown_service"))
}

/// A collector is of the operator's own choice: it may be anywhere, and nothing is between.
fn post_config(config: &Config) -> PostConfig {
    let everywhere = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())];
    PostConfig {
        rules: AddressRules {
            require_https: false,
            allow_cidrs: everywhere.to_vec(),
            allow_hosts: Vec::new(),
            ports: Vec::new(),
        },
        response_keep_bytes: ANSWER_KEPT_BYTES,
        ca_file: config.targets.ca_file.clone(),
        max_idle_per_host: CONNECTIONS_KEPT,
        proxy: None,
    }
}

/// Sends batches as attempts are sent.
struct Client {
    post: Post,
    /// The exporter's thread has none.
    runtime: Handle,
    /// What does not change is not logged again.
    is_failing: Arc<AtomicBool>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let request = post::Request::new(Url::parse(&head.uri.to_string())?, head.headers, body);
        let post = self.post.clone();
        let posted = self.runtime.spawn(async move { post.send(request, TIMEOUT).await }).await?;
        self.note(&posted.answer);
        match posted.answer {
            Answer::Response(answer) => {
                let response = Response::builder().status(answer.status);
                let wait_s = answer.retry_after_ms.map(|ms| ms.div_ceil(1_000));
                let response =
                    wait_s.into_iter().fold(response, |response, wait_s| response.header(RETRY_AFTER, wait_s));
                Ok(response.body(answer.body)?)
            }
            Answer::Failure(failure) => Err(failure.text.into()),
        }
    }
}

impl Client {
    fn note(&self, answer: &Answer) {
        let error = match answer {
            Answer::Response(answer) if (200..300).contains(&answer.status) => None,
            Answer::Response(answer) => Some(format!("it answered {}", answer.status)),
            Answer::Failure(failure) => Some(failure.text.clone()),
        };
        let was_failing = self.is_failing.swap(error.is_some(), Ordering::Relaxed);
        match error {
            Some(error) if !was_failing => {
                tracing::warn!(error, "the collector of traces takes no spans: what it never takes is dropped");
            }
            None if was_failing => tracing::info!("the collector of traces takes spans again"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampler_that_the_library_would_not_understand_is_refused() {
        let check = |sampler: Option<&str>, part: Option<&str>, is_fine: bool| {
            let found = check_sampler(|name| match name {
                "OTEL_TRACES_SAMPLER" => sampler.map(str::to_owned),
                _ => part.map(str::to_owned),
            });
            assert_eq!(found.is_ok(), is_fine, "{sampler:?} {part:?}");
        };
        check(None, None, true);
        check(Some("always_off"), None, true);
        check(Some("parentbased_traceidratio"), Some("0.01"), true);
        check(Some("parentbased_traceidratio"), Some("1%"), false);
        check(Some("traceidratio"), Some("1.5"), false);
        check(Some("traceidratio"), None, false);
        check(Some("xray"), None, false);
    }
}

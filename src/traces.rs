//! Traces (OpenTelemetry): of each event a span for publishing it, one for dispatching it, and one for each attempt.
//!
//! The span of publishing is the child of what the publisher said (`traceparent`), the others are its children, and the
//! receiver is told of its attempt's. Their attributes have the names of the log's fields.

use std::time::SystemTime;

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{Span as _, SpanContext, SpanKind, Status, TraceContextExt, TraceState, Tracer},
};
use opentelemetry_sdk::trace::{SdkTracer, Span as SdkSpan};
use url::Url;

use crate::domain::{
    attempt::{Answer, Attempt},
    event::{Event, NewEvent},
    id::{DeliveryId, EventId},
    trace::TraceContext,
};

/// Starts spans, or does nothing; cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<SdkTracer>);

/// Something under way. What is dropped without a word of how it went has failed.
pub struct Span(Option<SdkSpan>);

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error("broken off"));
        }
    }
}

impl Traces {
    /// Traces that go to `tracer`.
    pub fn to(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// An event is published: the rest of its trace goes on from this span. Where nothing is traced, from where its
    /// publisher was.
    pub fn publish(&self, event: &mut NewEvent) -> Span {
        let attributes = || {
            vec![KeyValue::new("tenant", event.tenant.clone()), KeyValue::new("event_type", event.event_type.clone())]
        };
        let span = self.start("publish", SpanKind::Producer, event.trace.as_deref(), SystemTime::now(), attributes);
        if let Some(context) = span.context() {
            event.trace = Some(Box::new(context));
        }
        span
    }

    /// An event was put on the delivery streams of all who want it, that many.
    pub fn dispatched(&self, event: &Event, began: SystemTime, targets: usize) {
        let span = self.go_on(event, "dispatch", SpanKind::Internal, began, || {
            vec![KeyValue::new("deliveries", i64::try_from(targets).unwrap_or(i64::MAX))]
        });
        span.done();
    }

    /// An event is posted.
    pub fn attempt(&self, event: &Event, delivery: DeliveryId, number: u32) -> Span {
        self.go_on(event, "attempt", SpanKind::Client, SystemTime::now(), || {
            vec![
                KeyValue::new("webhook_id", delivery.subscription.to_string()),
                KeyValue::new("delivery_id", delivery.to_string()),
                KeyValue::new("attempt", i64::from(number)),
                KeyValue::new("http.request.method", "POST"),
            ]
        })
    }

    /// A span of an event that has a trace; what was published without one is not traced.
    fn go_on(
        &self,
        event: &Event,
        name: &'static str,
        kind: SpanKind,
        began: SystemTime,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) -> Span {
        let Some(trace) = &event.trace else { return Span(None) };
        self.start(name, kind, Some(trace), began, || {
            let mut all = attributes();
            all.push(KeyValue::new("tenant", event.tenant.clone()));
            all.push(KeyValue::new("event_id", event.id.to_string()));
            all.push(KeyValue::new("event_type", event.event_type.clone()));
            all
        })
    }

    fn start(
        &self,
        name: &'static str,
        kind: SpanKind,
        parent: Option<&TraceContext>,
        began: SystemTime,
        attributes: impl FnOnce() -> Vec<KeyValue>,
    ) -> Span {
        let Some(tracer) = &self.0 else { return Span(None) };
        let parent = parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(remote(parent)));
        let builder = tracer.span_builder(name).with_kind(kind).with_start_time(began);
        let mut span = builder.start_with_context(tracer, &parent);
        if span.is_recording() {
            span.set_attributes(attributes());
        }
        Span(Some(span))
    }
}

impl Span {
    /// That of nothing.
    pub fn none() -> Self {
        Self(None)
    }

    /// Where whoever goes on from here is in the trace; `None` where nothing is traced.
    pub fn context(&self) -> Option<TraceContext> {
        let context = self.0.as_ref()?.span_context();
        context.is_valid().then(|| TraceContext {
            trace_id: context.trace_id().to_bytes(),
            span_id: context.span_id().to_bytes(),
            is_sampled: context.is_sampled(),
        })
    }

    /// The event is in the log, or was there already by its idempotency key: that is another's trace then.
    pub fn published(mut self, id: EventId, is_repeat: bool) {
        if let Some(span) = self.recording() {
            span.set_attribute(KeyValue::new("event_id", id.to_string()));
            span.set_attribute(KeyValue::new("is_repeat", is_repeat));
        }
        self.done();
    }

    /// What became of the attempt.
    pub fn attempted(mut self, attempt: &Attempt) {
        let Some(span) = self.recording() else { return self.done() };
        if let Ok(url) = Url::parse(&attempt.url)
            && let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default())
        {
            span.set_attribute(KeyValue::new("server.address", host.trim_matches(['[', ']']).to_owned()));
            span.set_attribute(KeyValue::new("server.port", i64::from(port)));
        }
        let kind = match &attempt.answer {
            Answer::Response(response) => {
                span.set_attribute(KeyValue::new("http.response.status_code", i64::from(response.status)));
                response.status.to_string()
            }
            Answer::Failure(failure) => failure.kind.name().to_owned(),
        };
        if !attempt.is_success() {
            span.set_attribute(KeyValue::new("error.type", kind));
            span.set_status(Status::error(attempt.failure_text().to_owned()));
        }
        self.done();
    }

    /// It came to nothing.
    pub fn failed(mut self, error: &dyn std::fmt::Display) {
        if let Some(span) = self.recording() {
            span.set_status(Status::error(error.to_string()));
        }
        self.done();
    }

    /// The span, if anybody will see what is said of it.
    fn recording(&mut self) -> Option<&mut SdkSpan> {
        self.0.as_mut().filter(|span| span.is_recording())
    }

    /// Ends it as it is.
    fn done(mut self) {
        if let Some(mut span) = self.0.take() {
            span.end();
        }
    }
}

fn remote(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id),
        SpanId::from_bytes(context.span_id),
        if context.is_sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED },
        true,
        TraceState::NONE,
    )
}

//! An attempt: one POST, what came back, or why nothing did.

use bytes::Bytes;

use super::{
    id::{DeliveryId, EventId, SubscriptionId},
    subscription::PayloadFormat,
};

/// What a POST led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    Response(Response),
    Failure(Failure),
}

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub status: u16,
    /// In the order received; values that are not UTF-8 are shown with replacement characters.
    pub headers: Vec<(String, String)>,
    /// The first bytes of the body, as many as are kept.
    pub body: Bytes,
    /// How long the receiver asks us to stay away, from its `Retry-After`: milliseconds, not yet capped.
    pub retry_after_ms: Option<u64>,
}

/// Why no HTTP answer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    /// What happened, in plain words.
    pub text: String,
}

/// The kinds of failure that are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The host name did not resolve.
    Dns,
    /// No connection was made.
    Connect,
    /// The TLS handshake failed, or the certificate was refused.
    Tls,
    /// No whole answer within the subscription's timeout.
    Timeout,
    /// The answer's body broke off.
    Body,
    /// The address is one that must not be called.
    BlockedAddress,
    /// The answer was not HTTP, or could not be read.
    Http,
}

impl FailureKind {
    pub const ALL: [Self; 7] =
        [Self::Dns, Self::Connect, Self::Tls, Self::Timeout, Self::Body, Self::BlockedAddress, Self::Http];

    /// The public word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Body => "body",
            Self::BlockedAddress => "blocked_address",
            Self::Http => "http",
        }
    }
}

/// Where the time of an attempt went, in milliseconds; a phase that did not happen (a kept connection) is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Timings {
    pub dns: Option<f64>,
    pub connect: Option<f64>,
    pub tls: Option<f64>,
    pub first_byte: Option<f64>,
}

/// All that is kept of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    pub event: EventId,
    pub subscription: SubscriptionId,
    pub copy: u16,
    pub tenant: String,
    pub event_type: String,
    pub url: String,
    /// 1 for the first.
    pub number: u32,
    /// When the request was started: Unix milliseconds.
    pub at_ms: u64,
    /// As sent; values of headers that carry credentials are not kept.
    pub request_headers: Vec<(String, String)>,
    pub answer: Answer,
    pub response_time_ms: f64,
    pub timings: Timings,
    /// Its result came after another sender had taken the delivery over.
    pub is_late: bool,
    /// It was no delivery, but asked for to see what the endpoint does.
    pub is_test: bool,
    /// What its body was made as.
    pub payload_format: PayloadFormat,
}

impl Attempt {
    /// Whether the receiver took it: any 2xx.
    pub fn is_success(&self) -> bool {
        self.status().is_some_and(|status| (200..300).contains(&status))
    }

    /// The HTTP answer, if there was one.
    pub fn response(&self) -> Option<&Response> {
        match &self.answer {
            Answer::Response(response) => Some(response),
            Answer::Failure(_) => None,
        }
    }

    /// Why no answer came.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.answer {
            Answer::Response(_) => None,
            Answer::Failure(failure) => Some(failure),
        }
    }

    /// The HTTP status, if there was an answer.
    pub fn status(&self) -> Option<u16> {
        self.response().map(|response| response.status)
    }

    /// Why no answer came, in plain words; empty where one came.
    pub fn failure_text(&self) -> &str {
        self.failure().map_or("", |failure| &failure.text)
    }

    /// The delivery that it was for.
    pub fn delivery(&self) -> DeliveryId {
        DeliveryId { event: self.event.at, subscription: self.subscription, copy: self.copy }
    }
}

//! What a receiver does with a request.

use std::time::Duration;

use bytes::Bytes;

/// An answer, or what is done in its place.
#[derive(Debug, Clone)]
pub struct Reply {
    pub(super) delay: Duration,
    pub(super) act: Act,
}

#[derive(Debug, Clone)]
pub(super) enum Act {
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: Body,
    },
    /// These bytes as they are, then close.
    Raw(Bytes),
    Hang,
    Close,
    Reset,
}

#[derive(Debug, Clone)]
pub(super) enum Body {
    Whole(Bytes),
    /// These, of more that are announced; then close.
    Cut(Bytes),
    /// These, of more that are announced; then nothing.
    Stalled(Bytes),
    Endless,
}

impl Reply {
    /// A status with an empty body.
    pub fn status(status: u16) -> Self {
        Self::answer(status, Body::Whole(Bytes::new()))
    }

    /// 200 with this body.
    pub fn body(body: impl Into<Bytes>) -> Self {
        Self::answer(200, Body::Whole(body.into()))
    }

    /// 200 with a body that breaks off after these bytes.
    pub fn cut(body: impl Into<Bytes>) -> Self {
        Self::answer(200, Body::Cut(body.into()))
    }

    /// 200 with a body that goes no further than these bytes.
    pub fn stalled(body: impl Into<Bytes>) -> Self {
        Self::answer(200, Body::Stalled(body.into()))
    }

    /// 200 with a body of `x` without end, chunked.
    pub fn endless() -> Self {
        Self::answer(200, Body::Endless)
    }

    /// These bytes in the place of an answer.
    pub fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::of(Act::Raw(bytes.into()))
    }

    /// No answer, with the connection kept open.
    pub fn hang() -> Self {
        Self::of(Act::Hang)
    }

    /// No answer, with the connection closed.
    pub fn close() -> Self {
        Self::of(Act::Close)
    }

    /// No answer, with the connection reset.
    pub fn reset() -> Self {
        Self::of(Act::Reset)
    }

    /// With one more header.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        match &mut self.act {
            Act::Answer { headers, .. } => headers.push((name.to_owned(), value.to_owned())),
            other => panic!("{other:?} has no headers"),
        }
        self
    }

    /// `delay` later.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    fn answer(status: u16, body: Body) -> Self {
        Self::of(Act::Answer { status, headers: Vec::new(), body })
    }

    fn of(act: Act) -> Self {
        Self { delay: Duration::ZERO, act }
    }
}

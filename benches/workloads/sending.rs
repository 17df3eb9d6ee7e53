//! What an attempt sends.

use posthaste::{
    domain::{signature::SigningKeys, subscription::PayloadFormat},
    send::request::Target,
};

use super::{
    Work,
    samples::{self, NOW_MS},
    work,
};

pub fn write_body() -> Work {
    let event = samples::event();
    work(move || event.body(PayloadFormat::Envelope))
}

/// By both schemes, as each attempt is.
pub fn sign() -> Work {
    let keys = SigningKeys::new(&samples::subscription().secrets.current, None).expect("a secret");
    let (id, data) = (samples::event().id.to_string(), samples::data());
    work(move || keys.headers(&id, NOW_MS / 1_000, &data))
}

/// The body, its signatures, and all headers: those to send and those to keep.
pub fn make_request() -> Work {
    let (target, event, delivery) = (target(), samples::event(), samples::delivery());
    work(move || target.request(&event, delivery, 1, None, NOW_MS))
}

/// The headers of a request as they are kept.
pub fn kept_headers() -> Vec<(String, String)> {
    target().request(&samples::event(), samples::delivery(), 1, None, NOW_MS).1
}

fn target() -> Target {
    Target::new(samples::subscription()).expect("what can be posted to")
}

//! One attempt: what is posted (the body, the headers and the signatures of Standard Webhooks), and the record of what came
//! back.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::post::{self, Post, Posted};
use crate::{
    clock::now_ms,
    domain::{
        Invalid,
        attempt::Attempt,
        event::Event,
        id::DeliveryId,
        signature::{SigningKeys, header},
        subscription::Subscription,
        trace::{TRACEPARENT, TraceContext},
    },
};

/// Custom headers whose values are credentials: they are sent, and not kept in the attempt log.
const CREDENTIALS: [&str; 6] =
    ["authorization", "cookie", "proxy-authorization", "x-api-key", "api-key", "x-auth-token"];

/// What is kept of a request's headers, ours first.
const HEADERS_KEPT_BYTES: usize = 16 * 1024;

/// A subscription made ready to post to.
pub struct Target {
    pub subscription: Subscription,
    url: Url,
    headers: HeaderMap,
    keys: SigningKeys,
    /// The keys while the secret before the last rotation signs too, and until when: Unix milliseconds.
    overlap: Option<(SigningKeys, u64)>,
}

impl Target {
    /// # Errors
    /// When the subscription's record holds what its checks would have refused.
    pub fn new(subscription: Subscription) -> Result<Self, Invalid> {
        let url = Url::parse(&subscription.url).map_err(|error| Invalid::new("url", error.to_string()))?;
        let secrets = &subscription.secrets;
        let keys = SigningKeys::new(&secrets.current, None)?;
        let overlap = match &secrets.previous {
            Some((previous, until_ms)) => Some((SigningKeys::new(&secrets.current, Some(previous))?, *until_ms)),
            None => None,
        };
        let headers = custom_headers(&subscription.headers)?;
        Ok(Self { subscription, url, headers, keys, overlap })
    }

    fn keys_at(&self, now_ms: u64) -> &SigningKeys {
        match &self.overlap {
            Some((keys, until_ms)) if now_ms < *until_ms => keys,
            _ => &self.keys,
        }
    }

    /// How long a request may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.subscription.timeout_seconds.into())
    }

    /// Posts `event` once, as attempt `number` of `delivery`; the receiver is told of `trace`.
    pub async fn attempt(
        &self,
        post: &Post,
        event: &Event,
        delivery: DeliveryId,
        number: u32,
        trace: Option<TraceContext>,
    ) -> Attempt {
        let at_ms = now_ms();
        let (request, request_headers) = self.request(event, delivery, number, trace, at_ms);
        let Posted { answer, response_time, timings } = post.send(request, self.timeout()).await;
        Attempt {
            event: event.id,
            subscription: delivery.subscription,
            copy: delivery.copy,
            tenant: event.tenant.clone(),
            event_type: event.event_type.clone(),
            url: self.subscription.url.clone(),
            number,
            at_ms,
            request_headers,
            answer,
            // Whole microseconds: more is noise.
            response_time_ms: response_time.as_micros() as f64 / 1000.0,
            timings,
            is_late: false,
            payload_format: self.subscription.payload_format,
            is_test: false,
        }
    }

    /// The request of attempt `attempt` of a delivery, and its headers as they are kept.
    pub fn request(
        &self,
        event: &Event,
        delivery: DeliveryId,
        attempt: u32,
        trace: Option<TraceContext>,
        now_ms: u64,
    ) -> (post::Request, Vec<(String, String)>) {
        let body = event.body(self.subscription.payload_format);
        let id = event.id.to_string();
        let timestamp_s = now_ms / 1000;
        let signed = self.keys_at(now_ms).headers(&id, timestamp_s, &body);
        let ours = [
            (header::WEBHOOK_ID, id),
            (header::WEBHOOK_TIMESTAMP, timestamp_s.to_string()),
            (header::WEBHOOK_SIGNATURE, signed.webhook_signature),
            (header::HUB_SIGNATURE_256, signed.hub_signature_256.clone()),
            (header::HUB_SIGNATURE, signed.hub_signature_256),
            ("x-webhook-event", event.event_type.clone()),
            ("x-event-type", event.event_type.clone()),
            ("x-webhook-delivery", delivery.to_string()),
            ("x-webhook-attempt", attempt.to_string()),
        ];
        let mut headers = self.headers.clone();
        for (name, value) in ours.into_iter().chain(trace.map(|trace| (TRACEPARENT, trace.to_string()))) {
            // Ids, numbers, hex, base64 and event types are all header text.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        let request = post::Request::new(self.url.clone(), headers, body);
        let is_ours = |(name, _): &(&HeaderName, &HeaderValue)| !self.headers.contains_key(*name);
        let (ours, custom): (Vec<_>, Vec<_>) = request.headers.iter().partition(is_ours);
        let kept = post::within(HEADERS_KEPT_BYTES, ours.into_iter().chain(custom).map(kept_header));
        (request, kept)
    }
}

fn custom_headers(headers: &BTreeMap<String, String>) -> Result<HeaderMap, Invalid> {
    let wrong = |name: &str| Invalid::new("headers", format!("`{name}` cannot be sent"));
    headers
        .iter()
        .map(|(name, value)| {
            let value = HeaderValue::try_from(value).map_err(|_| wrong(name))?;
            Ok((HeaderName::try_from(name).map_err(|_| wrong(name))?, value))
        })
        .collect()
}

fn kept_header((name, value): (&HeaderName, &HeaderValue)) -> (String, String) {
    let value = if CREDENTIALS.contains(&name.as_str()) {
        "[not kept]".to_owned()
    } else {
        String::from_utf8_lossy(value.as_bytes()).into_owned()
    };
    (name.as_str().to_owned(), value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_kept() {
        let check = |name: &'static str, kept: &str| {
            let value = HeaderValue::from_static("value");
            assert_eq!(kept_header((&HeaderName::from_static(name), &value)).1, kept);
        };
        check("authorization", "[not kept]");
        check("x-env", "value");
    }
}

//! `/api/webhooks/ingest/{webhook_id}`: what others post, signed, becomes an event for one webhook.
//!
//! There is no key: the signature over the body opens. Whoever does not have the secret learns nothing, not even whether
//! there is such a webhook.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use axum::{
    Extension, Json as Answer,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use ipnet::IpNet;
use serde::Deserialize;

use super::{
    Api,
    error::Problem,
    extract::{Id, parse, read_body},
    rate::{self, Allowance},
    serve::Peer,
    trace::trace_of,
};
use crate::{
    clock::now_ms,
    domain::{
        event::{NewEvent, check_json, check_type},
        id::SubscriptionId,
        ingest,
        subscription::Secrets,
    },
    streams::Versioned,
};

const EVENT_TYPE: &str = "x-webhook-event";
const FORWARDED_FOR: &str = "x-forwarded-for";
/// What a signature is compared to where there is no such webhook, so that the answer takes as long.
const NO_SECRET: &str = "no webhook has this secret";

/// Post an event to one webhook, signed
///
/// Needs no key. The raw body is signed with the webhook's `ingest_secret`: by `X-Hub-Signature-256` with the type in
/// `X-Webhook-Event`, or by the headers of Standard Webhooks, not older than 5 minutes, where the type may also be the
/// body's `type`. The same signature within 24 hours answers the first id. Limited per webhook and per address.
#[utoipa::path(
    post, operation_id = "ingest_event", path = "/api/webhooks/ingest/{webhook_id}", tag = "Ingest",
    params(
        ("webhook_id" = String, Path),
        ("X-Webhook-Event" = Option<String>, Header, description = "The event's type"),
        ("X-Hub-Signature-256" = Option<String>, Header, description = "`sha256=` and the hex HMAC-SHA256 of the body"),
        ("webhook-id" = Option<String>, Header), ("webhook-timestamp" = Option<String>, Header),
        ("webhook-signature" = Option<String>, Header),
        ("traceparent" = Option<String>, Header, description = "The trace that the event belongs to (W3C)"),
    ),
    request_body(content = serde_json::Value, description = "Any JSON: the event's data"),
    responses((
        status = 202, description = "It is in the log: the event's id, by the webhook's", body = BTreeMap<String, String>
    )),
)]
pub(super) async fn post(
    State(api): State<Api>,
    Id(id): Id,
    peer: Option<Extension<Peer>>,
    request: Request,
) -> Result<Response, Problem> {
    let _slot = api.ingest_slots.take()?;
    let client = client(peer.map(|Extension(Peer(peer))| peer), request.headers(), &api.settings.trusted_proxies);
    let of_address =
        rate::count(&api, &format!("ip.{}", neighbourhood(client)), api.settings.ingest_address_limit.into()).await?;
    if of_address.is_exceeded() {
        return Ok(of_address.noted_in(Problem::rate_limited(&of_address).into_response()));
    }
    match take(&api, &id, of_address, request).await {
        Ok((allowance, response)) => Ok(allowance.noted_in(response)),
        Err(problem) => Ok(of_address.noted_in(problem.into_response())),
    }
}

async fn take(api: &Api, id: &str, of_address: Allowance, request: Request) -> Result<(Allowance, Response), Problem> {
    let (parts, body) = request.into_parts();
    let body = read_body(api, body, &parts, api.settings.max_payload_bytes).await?;
    let webhook = match id.parse::<SubscriptionId>() {
        Ok(id) => api.manager.ingest_target(id).await?,
        Err(_) => None,
    };
    let nobody = Secrets::only(NO_SECRET.to_owned());
    let secrets = webhook.as_ref().map_or(&nobody, |webhook| &webhook.subscription.ingest);
    let signatures = signatures(secrets, &parts.headers, &body);
    let (Some(Versioned { subscription, .. }), Some(signatures)) = (webhook, signatures) else {
        return Err(Problem::unsigned());
    };
    let of_webhook = rate::count(api, &subscription.id.to_string(), api.settings.ingest_webhook_limit.into()).await?;
    let allowance = of_address.tighter(of_webhook);
    if of_webhook.is_exceeded() {
        return Ok((of_webhook, Problem::rate_limited(&of_webhook).into_response()));
    }
    check_json(&body)?;
    let event = NewEvent {
        tenant: subscription.tenant,
        event_type: event_type(&parts.headers, &body)?,
        data: body.bytes.clone(),
        only_for: Some(subscription.id),
        signatures,
        trace: trace_of(&parts.headers),
        ..NewEvent::default()
    };
    let published = api.publisher.publish(event).await?;
    let answer = BTreeMap::from([(subscription.id.to_string(), published.id.to_string())]);
    Ok((allowance, (StatusCode::ACCEPTED, Answer(answer)).into_response()))
}

/// By any of the live secrets.
fn signatures(secrets: &Secrets, headers: &HeaderMap, body: &[u8]) -> Option<Vec<String>> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let now_ms = now_ms();
    secrets.live(now_ms).find_map(|secret| ingest::signatures(secret, header, body, now_ms / 1000))
}

/// The type in the header, or in a body of the Standard Webhooks form.
fn event_type(headers: &HeaderMap, body: &[u8]) -> Result<String, Problem> {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "type")]
        event_type: String,
    }
    let event_type = match headers.get(EVENT_TYPE) {
        Some(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        None => parse::<Typed>(body)
            .map(|typed| typed.event_type)
            .map_err(|_| Problem::invalid("X-Webhook-Event", "is required: the event's type"))?,
    };
    check_type("X-Webhook-Event", &event_type)?;
    Ok(event_type)
}

/// Who posts: whoever is connected; where that is a proxy that is trusted, the nearest whom it names that is none.
fn client(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(&address.to_canonical()));
    if !is_trusted(&peer) {
        return peer;
    }
    // Each proxy adds whom it was called by at the end: what stands before the first that is no address is hearsay.
    let lists = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let texts: Vec<&str> = lists.flat_map(|list| list.split(',')).collect();
    let mut named = texts.iter().rev().map_while(|text| text.trim().parse::<IpAddr>().ok());
    named.find(|address| !is_trusted(address)).unwrap_or(peer)
}

/// What is counted as one address: of IPv6 the network that one customer of a provider has (RFC 6177).
fn neighbourhood(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_network_of_ipv6_counts_as_one_address() {
        let check = |client: &str, expected: &str| {
            assert_eq!(neighbourhood(client.parse().unwrap()), expected.parse::<IpAddr>().unwrap(), "{client}");
        };
        check("192.0.2.7", "192.0.2.7");
        check("::ffff:192.0.2.7", "192.0.2.7");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::");
    }

    #[test]
    fn a_client_is_named_by_trusted_proxies_only() {
        let trusted: [IpNet; 1] = ["10.0.0.0/8".parse().unwrap()];
        let check = |peer: &str, forwarded: &str, expected: &str| {
            let headers = [(FORWARDED_FOR.parse().unwrap(), forwarded.parse().unwrap())].into_iter().collect();
            let found = client(Some(peer.parse().unwrap()), &headers, &trusted);
            assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{peer} {forwarded}");
        };
        check("8.8.8.8", "1.1.1.1", "8.8.8.8");
        check("10.0.0.1", "1.1.1.1", "1.1.1.1");
        check("10.0.0.1", "9.9.9.9, 1.1.1.1, 10.0.0.2", "1.1.1.1");
        check("10.0.0.1", "10.0.0.3", "10.0.0.1");
        check("10.0.0.1", "rubbish", "10.0.0.1");
        check("10.0.0.1", "9.9.9.9, rubbish, 1.1.1.1", "1.1.1.1");
        check("10.0.0.1", "9.9.9.9, rubbish, 10.0.0.2", "10.0.0.1");
        check("::ffff:10.0.0.1", "1.1.1.1", "1.1.1.1");
    }

    #[test]
    fn the_type_is_in_the_header_or_in_the_body() {
        let check = |header: Option<&'static str>, body: &str, expected: Result<&str, Option<&str>>| {
            let headers = header.map(|value| (EVENT_TYPE.parse().unwrap(), value.parse().unwrap()));
            let found = event_type(&headers.into_iter().collect(), body.as_bytes());
            assert_eq!(found.as_deref().map_err(|problem| problem.field.as_deref()), expected, "{header:?} {body}");
        };
        check(Some("a.b"), r#"{"type":"c"}"#, Ok("a.b"));
        check(None, r#"{"type":"c.d","data":1}"#, Ok("c.d"));
        check(None, r#"["c.d"]"#, Err(Some("X-Webhook-Event")));
        check(Some("a b"), "{}", Err(Some("X-Webhook-Event")));
    }
}

//! Who may ask, and for which tenant.

use std::net::IpAddr;

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Uri, header, request::Parts};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use url::form_urlencoded;

use super::{Api, error::Problem};
use crate::domain::event::{DEFAULT_TENANT, check_tenant};

const X_TENANT: &str = "x-tenant";

/// The admin key, as its hash: comparing it takes as long whatever was sent.
#[derive(Clone)]
pub(super) struct AdminKey([u8; 32]);

impl AdminKey {
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    fn opens_for(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let Some((scheme, key)) = value.split_once(' ') else { return false };
        let sent: [u8; 32] = Sha256::digest(key.trim()).into();
        scheme.eq_ignore_ascii_case("bearer") && bool::from(sent.ct_eq(&self.0))
    }
}

/// Lets only the holder of the admin key through.
pub(super) async fn require_key(State(api): State<Api>, request: Request, next: Next) -> Response {
    if api.admin_key.opens_for(request.headers()) {
        return next.run(request).await;
    }
    Problem::unauthorized().into_response()
}

/// On a listener for this machine only, lets only those through who call it by a name of this machine: a page on the web
/// whose name was made to resolve to 127.0.0.1 would reach us otherwise.
pub(super) async fn require_local_host(request: Request, next: Next) -> Response {
    if host(request.headers(), request.uri()).is_some_and(is_local) {
        return next.run(request).await;
    }
    Problem::forbidden_host().into_response()
}

fn host<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> Option<&'r str> {
    // A target in absolute form overrides the header (RFC 9112 §3.2.2).
    uri.authority().map(|authority| authority.as_str()).or_else(|| headers.get(header::HOST)?.to_str().ok())
}

/// Whether `host`, which may have a port, can only mean this machine.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => address,
            Some((address, port)) if is_port(port) => address,
            _ => return false,
        },
        None => match host.find(':') {
            Some(at) if is_port(&host[at..]) => &host[..at],
            Some(_) => return false,
            None => host,
        },
    };
    let name = name.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

/// The tenant that a request is for: `X-Tenant` or `?tenant=`, else `default`.
pub(super) struct Tenant(pub String);

impl FromRequestParts<Api> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        tenant(&parts.headers, parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn tenant(headers: &HeaderMap, query: &str) -> Result<String, Problem> {
    let mut named = Vec::new();
    for value in headers.get_all(X_TENANT) {
        named.push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    let parameters = form_urlencoded::parse(query.as_bytes());
    named.extend(parameters.filter(|(name, _)| name == "tenant").map(|(_, value)| value.into_owned()));
    let tenant = named.first().cloned().unwrap_or_else(|| DEFAULT_TENANT.to_owned());
    if named.iter().any(|other| *other != tenant) {
        return Err(Problem::invalid("tenant", "X-Tenant and ?tenant= name different tenants: give one"));
    }
    check_tenant(&tenant)?;
    Ok(tenant)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for good in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8080", "a.localhost:80"]
        {
            assert!(is_local(good), "{good}");
        }
        for bad in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "127.0.0.1:x",
            "127.0.0.1:80:80",
            "[::1",
            "[::1]x",
            "10.0.0.1",
            "notlocalhost",
            "[::2]:80",
        ] {
            assert!(!is_local(bad), "{bad}");
        }
    }

    #[test]
    fn the_key_opens_for_itself_only() {
        let opens = |value: &'static str| {
            let headers = [(header::AUTHORIZATION, HeaderValue::from_static(value))].into_iter().collect();
            AdminKey::new("secret").opens_for(&headers)
        };
        for good in ["Bearer secret", "bearer secret", "BEARER  secret "] {
            assert!(opens(good), "{good}");
        }
        for bad in ["", "secret", "Basic secret", "Bearer", "Bearer secre", "Bearer secrets", "Bearer SECRET"] {
            assert!(!opens(bad), "{bad}");
        }
        assert!(!AdminKey::new("secret").opens_for(&HeaderMap::new()));
    }

    #[test]
    fn a_request_is_for_one_tenant() {
        let check = |header: Option<&'static str>, query: &str, expected: Result<&str, Option<&str>>| {
            let headers = header.map(|value| (X_TENANT.parse().unwrap(), HeaderValue::from_static(value)));
            let named = tenant(&headers.into_iter().collect(), query);
            let named = named.as_deref().map_err(|problem| problem.field.as_deref());
            assert_eq!(named, expected, "{header:?} {query}");
        };
        check(None, "", Ok("default"));
        check(Some("acme"), "", Ok("acme"));
        check(None, "limit=1&tenant=acme", Ok("acme"));
        check(Some("acme"), "tenant=acme", Ok("acme"));
        check(Some("acme"), "tenant=other", Err(Some("tenant")));
        check(Some("a/b"), "", Err(Some("tenant")));
        check(None, "tenant=", Err(Some("tenant")));
    }
}

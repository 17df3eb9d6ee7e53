//! Who may ask for what, and for which tenant.

use std::net::IpAddr;

use axum::{
    extract::{FromRequestParts, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, Uri, header, request::Parts};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use url::form_urlencoded;

use super::{
    Api,
    error::Problem,
    rate::{self, Allowance},
};
use crate::domain::{
    access::{Access, KeyRole},
    event::{DEFAULT_TENANT, check_tenant},
};

const X_TENANT: &str = "x-tenant";
/// What the configured admin key is called where keys have ids.
const ADMIN: &str = "admin";

/// The admin key, as its hash: comparing it takes as long whatever was sent.
#[derive(Clone)]
pub(super) struct AdminKey([u8; 32]);

impl AdminKey {
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    fn is(&self, sent: &str) -> bool {
        let sent: [u8; 32] = Sha256::digest(sent).into();
        sent.ct_eq(&self.0).into()
    }
}

/// Whoever asks, by the key that was sent.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The key's id.
    pub id: String,
    pub role: KeyRole,
    /// The only tenant that it may ask for; `None` for any.
    pub tenant: Option<String>,
}

/// The key that a request carries (RFC 6750 §2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

/// Lets only those through whose key is one of ours, and as often as it may ask; what follows knows the [`Caller`].
pub(super) async fn require_key(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let sent = bearer(request.headers()).map(str::to_owned);
    let (caller, allowance) = match admit(&api, sent.as_deref()).await {
        Ok(admitted) => admitted,
        Err(problem) => return problem.into_response(),
    };
    let response = if allowance.is_exceeded() {
        Problem::rate_limited(&allowance).into_response()
    } else {
        request.extensions_mut().insert(caller);
        next.run(request).await
    };
    let mut response = allowance.noted_in(response);
    // It may hold secrets, and is for whoever asked alone.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn admit(api: &Api, sent: Option<&str>) -> Result<(Caller, Allowance), Problem> {
    let caller = caller(api, sent.ok_or_else(Problem::unauthorized)?).await?;
    let allowance = rate::of_caller(api, &caller).await?;
    Ok((caller, allowance))
}

async fn caller(api: &Api, sent: &str) -> Result<Caller, Problem> {
    if api.admin_key.is(sent) {
        return Ok(Caller { id: ADMIN.to_owned(), role: KeyRole::Admin, tenant: None });
    }
    let key = api.manager.key_of(sent).await?.ok_or_else(Problem::unauthorized)?;
    Ok(Caller { id: key.id.to_string(), role: key.role, tenant: key.tenant })
}

/// Lets only keys through whose role has the access that a route needs.
pub(super) async fn require(State(access): State<Access>, request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        Some(caller) if caller.role.allows(access) => next.run(request).await,
        Some(caller) => Problem::forbidden_role(caller.role, access).into_response(),
        None => Problem::unauthorized().into_response(),
    }
}

/// On a loopback listener, lets only those through who call it by a name of this machine, or by that of the public URL where
/// a proxy stands in front: a page on the web whose name was made to resolve to 127.0.0.1 would reach us otherwise.
pub(super) async fn require_known_host(State(api): State<Api>, request: Request, next: Next) -> Response {
    let is_known = |name: &str| {
        is_local(name) || api.settings.public_host.as_ref().is_some_and(|public| public.eq_ignore_ascii_case(name))
    };
    if host(request.headers(), request.uri()).and_then(name_of).is_some_and(is_known) {
        return next.run(request).await;
    }
    Problem::forbidden_host().into_response()
}

fn host<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> Option<&'r str> {
    // A target in absolute form overrides the header (RFC 9112 §3.2.2).
    uri.authority().map(|authority| authority.as_str()).or_else(|| headers.get(header::HOST)?.to_str().ok())
}

/// The name in `host`, which may have a port; an IPv6 address keeps its brackets.
fn name_of(host: &str) -> Option<&str> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, port) = host.split_at(end);
    (port.is_empty() || is_port(port)).then_some(name)
}

/// Whether a name can only mean this machine.
fn is_local(name: &str) -> bool {
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let name = name.to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
}

/// The tenant that a request is for: the key's own; for a key that is for all, `X-Tenant` or `?tenant=`, else `default`.
pub(super) struct Tenant(pub String);

impl FromRequestParts<Api> for Tenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        let own = parts.extensions.get::<Caller>().and_then(|caller| caller.tenant.as_deref());
        tenant(own, &parts.headers, parts.uri.query().unwrap_or_default()).map(Self)
    }
}

/// Whether what belongs to no tenant is shown as well: to those who may ask for any.
pub(super) struct SeesStrays(pub bool);

impl FromRequestParts<Api> for SeesStrays {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Ok(Self(parts.extensions.get::<Caller>().is_some_and(|caller| caller.tenant.is_none())))
    }
}

/// The tenant that a request names, if it names one.
pub(super) struct NamedTenant(pub Option<String>);

impl FromRequestParts<Api> for NamedTenant {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        named(&parts.headers, parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn tenant(own: Option<&str>, headers: &HeaderMap, query: &str) -> Result<String, Problem> {
    match (own, named(headers, query)?) {
        (Some(own), Some(named)) if named != own => Err(Problem::forbidden_tenant()),
        (Some(own), _) => Ok(own.to_owned()),
        (None, named) => Ok(named.unwrap_or_else(|| DEFAULT_TENANT.to_owned())),
    }
}

fn named(headers: &HeaderMap, query: &str) -> Result<Option<String>, Problem> {
    let in_headers =
        headers.get_all(X_TENANT).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let parameters = form_urlencoded::parse(query.as_bytes());
    let in_query = parameters.filter(|(name, _)| name == "tenant").map(|(_, value)| value.into_owned());
    let mut named = in_headers.chain(in_query);
    let Some(tenant) = named.next() else { return Ok(None) };
    if named.any(|other| other != tenant) {
        return Err(Problem::invalid("tenant", "X-Tenant and ?tenant= name different tenants: give one"));
    }
    check_tenant(&tenant)?;
    Ok(Some(tenant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        let is_ours = |host: &str| name_of(host).is_some_and(is_local);
        for good in ["localhost", "LOCALHOST:8080", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8080", "a.localhost:80"]
        {
            assert!(is_ours(good), "{good}");
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
            assert!(!is_ours(bad), "{bad}");
        }
    }

    #[test]
    fn the_key_is_what_follows_bearer() {
        let check = |value: &'static str, expected: Option<&str>| {
            let headers = [(header::AUTHORIZATION, HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(bearer(&headers), expected, "{value}");
        };
        for good in ["Bearer secret", "bearer secret", "BEARER  secret "] {
            check(good, Some("secret"));
        }
        for bad in ["", "secret", "Basic secret", "Bearer"] {
            check(bad, None);
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn the_admin_key_is_itself_only() {
        let key = AdminKey::new("secret");
        assert!(key.is("secret"));
        for bad in ["", "secre", "secrets", "SECRET"] {
            assert!(!key.is(bad), "{bad}");
        }
    }

    #[test]
    fn a_request_is_for_one_tenant() {
        let check = |own: Option<&str>, header: Option<&'static str>, query: &str, expected: Result<&str, &str>| {
            let headers = header.map(|value| (X_TENANT.parse().unwrap(), HeaderValue::from_static(value)));
            let named = tenant(own, &headers.into_iter().collect(), query);
            let named = named.as_deref().map_err(|problem| problem.code);
            assert_eq!(named, expected, "{own:?} {header:?} {query}");
        };
        check(None, None, "", Ok("default"));
        check(None, Some("acme"), "", Ok("acme"));
        check(None, None, "limit=1&tenant=acme", Ok("acme"));
        check(None, Some("acme"), "tenant=acme", Ok("acme"));
        check(None, Some("acme"), "tenant=other", Err("invalid"));
        check(None, Some("a/b"), "", Err("invalid"));
        check(None, None, "tenant=", Err("invalid"));
        check(Some("acme"), None, "", Ok("acme"));
        check(Some("acme"), Some("acme"), "tenant=acme", Ok("acme"));
        check(Some("acme"), Some("other"), "", Err("forbidden"));
        check(Some("acme"), None, "tenant=default", Err("forbidden"));
    }
}

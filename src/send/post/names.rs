//! From a name to the addresses that may be called.
//!
//! The check is made on the very addresses that are connected to, each time a connection is made: a name that answers
//! with another address the next time gains nothing.

use std::{future::Future, io, net::IpAddr, pin::Pin};

use url::Host;

use super::watch::Marks;
use crate::domain::address::AddressRules;

/// The addresses of a name, when they are known.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;

/// Knows the addresses of names.
pub trait Names: Send + Sync {
    /// Looks a name up, anew each time.
    fn resolve(&self, name: String) -> Resolving;
}

/// The names as the system resolves them.
pub(super) struct SystemNames;

impl Names for SystemNames {
    fn resolve(&self, name: String) -> Resolving {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }
}

/// Why a host has no address to connect to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("{host} does not resolve: {reason}")]
    NotFound { host: String, reason: String },
    #[error("{host} does not resolve to any address")]
    NoAddress { host: String },
    /// Which address is not told: what names of our network resolve to is nobody's business.
    #[error("{host} resolves to {reason}, which is not allowed (targets.allow_cidrs)")]
    Blocked { host: String, reason: &'static str },
    #[error("{address} is {reason}, which is not allowed (targets.allow_cidrs)")]
    BlockedLiteral { address: IpAddr, reason: &'static str },
}

/// The addresses of `host` that may be called. An address that stands in the place of a name is checked alike.
pub(super) async fn allowed_addresses(
    names: &dyn Names,
    rules: &AddressRules,
    host: &Host,
    marks: &Marks,
) -> Result<Vec<IpAddr>, ResolveError> {
    let literal = match host {
        Host::Domain(name) => {
            marks.resolving();
            let not_found = |error: io::Error| ResolveError::NotFound { host: name.clone(), reason: error.to_string() };
            let addresses = names.resolve(name.clone()).await.map_err(not_found)?;
            marks.resolved();
            return allowed(rules, name.clone(), addresses);
        }
        Host::Ipv4(address) => IpAddr::V4(*address),
        Host::Ipv6(address) => IpAddr::V6(*address),
    };
    if !rules.allows_host(&host.to_string()) {
        rules.check_address(literal).map_err(|reason| ResolveError::BlockedLiteral { address: literal, reason })?;
    }
    Ok(vec![literal])
}

/// Those of `addresses` that may be called; one is enough.
fn allowed(rules: &AddressRules, host: String, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, ResolveError> {
    let is_trusted = rules.allows_host(&host);
    let mut allowed = Vec::new();
    let mut blocked = None;
    for address in addresses {
        match rules.check_address(address) {
            Err(reason) if !is_trusted => blocked = Some(reason),
            _ => allowed.push(address),
        }
    }
    match blocked {
        _ if !allowed.is_empty() => Ok(allowed),
        Some(reason) => Err(ResolveError::Blocked { host, reason }),
        None => Err(ResolveError::NoAddress { host }),
    }
}

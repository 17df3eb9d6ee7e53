//! From a name to the addresses that may be called.
//!
//! The check is made on the very addresses that are connected to, each time a connection is made: a name that answers
//! with another address the next time gains nothing.

use std::{net::IpAddr, sync::Arc};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::watch;
use crate::domain::address::AddressRules;

/// The names as the system resolves them.
pub(super) struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?.collect::<Vec<_>>();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Other names, without the addresses that must not be called.
pub(super) struct CheckedNames {
    pub(super) names: Arc<dyn Resolve>,
    pub(super) rules: Arc<AddressRules>,
}

/// Why a name has no address to connect to.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("{host} does not resolve: {reason}")]
    NotFound { host: String, reason: String },
    #[error("{host} does not resolve to any address")]
    NoAddress { host: String },
    #[error("{host} resolves to {address}, {reason}")]
    Blocked { host: String, address: IpAddr, reason: &'static str },
}

impl Resolve for CheckedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let rules = Arc::clone(&self.rules);
        let resolving = self.names.resolve(name);
        Box::pin(async move {
            watch::resolving();
            let addresses = match resolving.await {
                Ok(addresses) => addresses,
                Err(error) => return Err(ResolveError::NotFound { host, reason: error.to_string() }.into()),
            };
            watch::resolved();
            Ok(allowed(&rules, host, addresses)?)
        })
    }
}

/// Those of `addresses` that may be called; one is enough.
fn allowed(rules: &AddressRules, host: String, addresses: Addrs) -> Result<Addrs, ResolveError> {
    let is_trusted = rules.allows_host(&host);
    let mut allowed = Vec::new();
    let mut blocked = None;
    for address in addresses {
        let checked = if is_trusted { Ok(()) } else { rules.check_address(address.ip()) };
        match checked {
            Ok(()) => allowed.push(address),
            Err(reason) => blocked = Some((address.ip(), reason)),
        }
    }
    match blocked {
        _ if !allowed.is_empty() => Ok(Box::new(allowed.into_iter())),
        Some((address, reason)) => Err(ResolveError::Blocked { host, address, reason }),
        None => Err(ResolveError::NoAddress { host }),
    }
}

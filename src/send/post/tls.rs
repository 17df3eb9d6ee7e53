//! How TLS is spoken: TLS 1.2 and 1.3, the system's certificate authorities and those of `targets.ca_file`.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use rustls::{
    ClientConfig, NamedGroup, RootCertStore,
    client::{
        ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::watch;

/// How many servers' sessions are remembered, to resume them without a full handshake.
const SESSIONS_KEPT: usize = 1024;

/// The settings of every TLS connection.
///
/// # Errors
/// When `ca_file` cannot be read, or has no certificate in it.
pub(super) fn client_config(ca_file: Option<&Path>) -> anyhow::Result<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS cannot be set up")?
        .with_root_certificates(roots(ca_file)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::store(Arc::new(Sessions(ClientSessionMemoryCache::new(SESSIONS_KEPT))));
    Ok(config)
}

fn roots(ca_file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let unusable = || format!("targets.ca_file: {} is not a PEM file of certificates", path.display());
        let before = roots.len();
        for certificate in CertificateDer::pem_file_iter(path).with_context(unusable)? {
            roots.add(certificate.with_context(unusable)?).with_context(unusable)?;
        }
        anyhow::ensure!(roots.len() > before, "targets.ca_file: {} has no certificate in it", path.display());
    }
    if roots.is_empty() {
        tracing::warn!("no certificate authorities on this system: every https delivery will fail");
    }
    Ok(roots)
}

/// The sessions to resume. A handshake begins by asking for one, which is how its beginning is known.
#[derive(Debug)]
struct Sessions(ClientSessionMemoryCache);

impl ClientSessionStore for Sessions {
    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        watch::handshake_begins();
        self.0.take_tls13_ticket(server)
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(server, ticket);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.0.set_tls12_session(server, session);
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.0.remove_tls12_session(server);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(server)
    }

    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(server, group);
    }
}

//! How TLS is spoken: TLS 1.2 and 1.3, the system's certificate authorities and those of `targets.ca_file`.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

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
    config.resumption = Resumption::in_memory_sessions(SESSIONS_KEPT);
    Ok(config)
}

fn roots(ca_file: Option<&Path>) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        let unusable = || format!("{} is not a PEM file of certificates", path.display());
        let before = roots.len();
        let file = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        for certificate in CertificateDer::pem_slice_iter(&file) {
            roots.add(certificate.with_context(unusable)?).with_context(unusable)?;
        }
        anyhow::ensure!(roots.len() > before, "{} has no certificate in it", path.display());
    }
    if roots.is_empty() {
        tracing::warn!("no certificate authorities on this system: every https delivery will fail");
    }
    Ok(roots)
}

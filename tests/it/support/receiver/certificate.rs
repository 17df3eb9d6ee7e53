//! Certificates for a receiver, good and bad.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// What a receiver shows its clients.
#[derive(Debug, Clone, Copy)]
pub enum Certificate {
    /// For `localhost` and `127.0.0.1`.
    Good,
    /// Good until 2001-02-03.
    Expired,
    /// Good from 3001-02-03 on.
    NotYetValid,
    /// For `elsewhere.example`.
    WrongHost,
    /// From another authority than the one that is given out as trusted.
    Untrusted,
}

/// What serves TLS with a new certificate of that kind, and the PEM of the authority to trust.
pub(super) fn acceptor(kind: Certificate) -> (TlsAcceptor, String) {
    let (trusted, pem) = authority("trusted");
    let signer = match kind {
        Certificate::Untrusted => authority("other").0,
        _ => trusted,
    };
    let names = match kind {
        Certificate::WrongHost => vec!["elsewhere.example".to_owned()],
        _ => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
    };
    let mut parameters = CertificateParams::new(names).unwrap();
    match kind {
        Certificate::Expired => {
            parameters.not_before = date_time_ymd(2000, 1, 1);
            parameters.not_after = date_time_ymd(2001, 2, 3);
        }
        Certificate::NotYetValid => parameters.not_before = date_time_ymd(3001, 2, 3),
        Certificate::Good | Certificate::WrongHost | Certificate::Untrusted => {}
    }
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.signed_by(&key, &signer).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), pem)
}

fn authority(name: &str) -> (Issuer<'static, KeyPair>, String) {
    let mut parameters = CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = parameters.self_signed(&key).unwrap().pem();
    (Issuer::new(parameters, key), pem)
}

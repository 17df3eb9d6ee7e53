//! Why a request failed, in plain words.
//!
//! An error of the HTTP client wraps those beneath it several layers deep; what happened is told by the types found on
//! the way down and by what the request was busy with, never by the text of a message.

use std::{error::Error, fmt, io, time::Duration};

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, OtherError, pki_types::UnixTime};
use url::Url;

use super::{names::ResolveError, proxy::ProxyError, watch::Phase};
use crate::domain::attempt::{Failure, FailureKind};

/// Names that a certificate is for which are shown, at most.
const NAMES_SHOWN: usize = 5;
const NAME_SHOWN_CHARS: usize = 100;

/// Whom a request goes to, as `host:port`.
pub(super) struct Target<'a> {
    host: &'a str,
    port: u16,
    /// It is reached through a proxy.
    is_proxied: bool,
}

impl<'a> Target<'a> {
    pub(super) fn of(url: &'a Url, is_proxied: bool) -> Self {
        let port = url.port_or_known_default().unwrap_or_default();
        Self { host: url.host_str().unwrap_or_default(), port, is_proxied }
    }
}

impl fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A request that took longer than it may.
pub(super) fn of_timeout(phase: Phase, target: &Target<'_>, limit: Duration) -> Failure {
    let doing = match phase {
        Phase::Resolving => format!("resolving {}", target.host),
        Phase::Connecting if target.is_proxied => format!("connecting to {target} through the proxy (targets.proxy)"),
        Phase::Connecting => format!("connecting to {target}"),
        Phase::TlsHandshake => format!("agreeing on TLS with {target}"),
        Phase::Waiting => "waiting for an answer".to_owned(),
        Phase::ReadingBody => "reading the body of the answer".to_owned(),
    };
    Failure { kind: FailureKind::Timeout, text: format!("timed out after {limit:?} while {doing}") }
}

/// A request that went wrong.
pub(super) fn of_error(error: &(dyn Error + 'static), phase: Phase, target: &Target<'_>) -> Failure {
    if let Some(error) = find::<ResolveError>(error) {
        let kind = match error {
            ResolveError::NotFound { .. } | ResolveError::NoAddress { .. } => FailureKind::Dns,
            ResolveError::Blocked { .. } | ResolveError::BlockedLiteral { .. } => FailureKind::BlockedAddress,
        };
        return Failure { kind, text: error.to_string() };
    }
    // A URL is taken with characters in its host that no request can have.
    if find::<http::Error>(error).is_some() {
        return Failure { kind: FailureKind::Dns, text: format!("{} is not the name of a host", target.host) };
    }
    if let Some(error) = find::<ProxyError>(error) {
        return Failure { kind: FailureKind::Connect, text: proxy(error) };
    }
    // TLS can be refused as late as in the place of an answer: a client certificate that is missed, for one.
    if let Some(error) = find::<rustls::Error>(error)
        && phase != Phase::ReadingBody
    {
        return Failure { kind: FailureKind::Tls, text: tls(error, target) };
    }
    let broken = find_last::<io::Error>(error).map_or("the connection was closed".to_owned(), io_reason);
    match phase {
        Phase::Resolving | Phase::Connecting => {
            Failure { kind: FailureKind::Connect, text: format!("could not connect to {target}: {broken}") }
        }
        Phase::TlsHandshake => {
            Failure { kind: FailureKind::Tls, text: format!("the TLS handshake with {target} failed: {broken}") }
        }
        Phase::Waiting => find::<hyper::Error>(error).and_then(|error| not_http(error, target)).unwrap_or_else(|| {
            Failure { kind: FailureKind::Connect, text: format!("no answer from {target}: {broken}") }
        }),
        Phase::ReadingBody => {
            Failure { kind: FailureKind::Body, text: format!("the body of the answer broke off: {broken}") }
        }
    }
}

/// An answer whose head could not be read.
fn not_http(error: &hyper::Error, target: &Target<'_>) -> Option<Failure> {
    let text = if error.is_parse_too_large() {
        format!("the headers of the answer from {target} are larger than is read")
    } else if error.is_parse() {
        format!("what {target} answered is not HTTP/1.1")
    } else {
        return None;
    };
    Some(Failure { kind: FailureKind::Http, text })
}

fn proxy(error: &ProxyError) -> String {
    match error {
        ProxyError::Unreachable(reason) | ProxyError::Broken(reason) => format!("{error}: {}", io_reason(reason)),
        ProxyError::Unauthorized | ProxyError::Refused { .. } | ProxyError::NotHttp => error.to_string(),
    }
}

fn io_reason(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    let reason = match error.kind() {
        Kind::ConnectionRefused => "the connection was refused",
        Kind::ConnectionReset => "the connection was reset",
        Kind::ConnectionAborted | Kind::BrokenPipe | Kind::NotConnected | Kind::UnexpectedEof => {
            "the connection was closed"
        }
        Kind::HostUnreachable => "the host cannot be reached",
        Kind::NetworkUnreachable | Kind::NetworkDown => "the network cannot be reached",
        Kind::TimedOut => "the host did not react",
        Kind::PermissionDenied => "this machine does not allow the connection",
        Kind::AddrNotAvailable => "this machine has no free port or no such address to connect from",
        Kind::InvalidData | Kind::InvalidInput => "what was received is malformed",
        _ if error.raw_os_error() == Some(libc::EMFILE) => "this process has too many files open",
        _ => return error.to_string(),
    };
    reason.to_owned()
}

fn tls(error: &rustls::Error, target: &Target<'_>) -> String {
    use rustls::Error as Tls;
    let reason = match error {
        Tls::InvalidCertificate(error) => return certificate(error, target),
        Tls::NoCertificatesPresented => return format!("{target} presented no certificate"),
        Tls::InvalidMessage(_) => "what it answered is not TLS",
        Tls::PeerIncompatible(_) => "it offers no TLS version (1.2 or 1.3) or cipher that is accepted here",
        Tls::NoApplicationProtocol => "it does not offer HTTP/1.1",
        Tls::AlertReceived(alert) => return alert_received(*alert, target),
        _ => "it broke the protocol",
    };
    format!("the TLS handshake with {target} failed: {reason}")
}

fn alert_received(alert: AlertDescription, target: &Target<'_>) -> String {
    let reason = match alert {
        AlertDescription::ProtocolVersion => "it takes neither TLS 1.2 nor 1.3".to_owned(),
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "it has no cipher in common with us".to_owned()
        }
        AlertDescription::UnrecognisedName => "it does not know the host name".to_owned(),
        AlertDescription::CertificateRequired => "it wants a client certificate".to_owned(),
        AlertDescription::NoApplicationProtocol => "it does not offer HTTP/1.1".to_owned(),
        AlertDescription::InternalError => "it had an internal error".to_owned(),
        alert => format!("it ended it with alert {} (RFC 8446 §6)", u8::from(alert)),
    };
    format!("the TLS handshake with {target} failed: {reason}")
}

fn certificate(error: &CertificateError, target: &Target<'_>) -> String {
    use CertificateError as Bad;
    let reason = match error {
        Bad::Expired => "has expired".to_owned(),
        Bad::ExpiredContext { not_after, .. } => format!("expired at {}", date(*not_after)),
        Bad::NotValidYet => "is not valid yet".to_owned(),
        Bad::NotValidYetContext { not_before, .. } => format!("is not valid before {}", date(*not_before)),
        Bad::NotValidForName => format!("is not for {}", target.host),
        Bad::NotValidForNameContext { presented, .. } if presented.is_empty() => {
            format!("is not for {} but names no host", target.host)
        }
        Bad::NotValidForNameContext { presented, .. } => {
            format!("is not for {} but for {}", target.host, names(presented))
        }
        Bad::UnknownIssuer => "is self-signed or from an authority that is not trusted here".to_owned(),
        Bad::Revoked => "was revoked".to_owned(),
        Bad::BadEncoding => "cannot be read".to_owned(),
        Bad::BadSignature => "has a wrong signature".to_owned(),
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => "is not one for servers".to_owned(),
        Bad::UnsupportedSignatureAlgorithmContext { .. }
        | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "is signed in a way that is not accepted here".to_owned()
        }
        // The verifier's own word for it: `CaUsedAsEndEntity`, for one.
        Bad::Other(OtherError(error)) => format!("was refused: {error}"),
        _ => "was refused".to_owned(),
    };
    format!("the certificate of {target} {reason}")
}

/// The verifier gives each as `DnsName("a.example")` or `IpAddress(…)`; the host chose them, so they are cut and escaped.
fn names(presented: &[String]) -> String {
    let bare = |name: &String| {
        let name = name.split_once('(').map_or(name.as_str(), |(_, name)| name.trim_end_matches(')').trim_matches('"'));
        name.chars().take(NAME_SHOWN_CHARS).collect::<String>().escape_debug().to_string()
    };
    let shown = presented.iter().take(NAMES_SHOWN).map(bare).collect::<Vec<_>>().join(", ");
    match presented.len().saturating_sub(NAMES_SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

fn date(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| "a time that cannot be shown".to_owned(), |time| time.to_string())
}

/// `error` and those beneath it. An I/O error hides what it wraps from `source`, which starts one further down.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    })
}

fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|error| error.downcast_ref())
}

fn find_last<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).filter_map(|error| error.downcast_ref()).last()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(error: impl Error + 'static, phase: Phase, kind: FailureKind, text: &str) {
        let url = Url::parse("https://a.example/hook").unwrap();
        assert_eq!(of_error(&error, phase, &Target::of(&url, false)), Failure { kind, text: text.to_owned() });
    }

    #[test]
    fn a_tls_error_is_found_beneath_others_and_told_in_plain_words() {
        let check = |error: rustls::Error, text: &str| {
            let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
            check(wrapped, Phase::TlsHandshake, FailureKind::Tls, text);
        };
        let alert = rustls::Error::AlertReceived;
        check(
            alert(AlertDescription::ProtocolVersion),
            "the TLS handshake with a.example:443 failed: it takes neither TLS 1.2 nor 1.3",
        );
        check(
            alert(AlertDescription::CertificateRequired),
            "the TLS handshake with a.example:443 failed: it wants a client certificate",
        );
        check(
            alert(AlertDescription::DecodeError),
            "the TLS handshake with a.example:443 failed: it ended it with alert 50 (RFC 8446 §6)",
        );
        check(CertificateError::BadSignature.into(), "the certificate of a.example:443 has a wrong signature");
        check(CertificateError::Revoked.into(), "the certificate of a.example:443 was revoked");
        let other = OtherError(std::sync::Arc::new(io::Error::other("CaUsedAsEndEntity")));
        check(CertificateError::Other(other).into(), "the certificate of a.example:443 was refused: CaUsedAsEndEntity");
    }

    #[test]
    fn names_of_a_certificate_are_few_short_and_printable() {
        let check = |presented: &[&str], shown: &str| {
            assert_eq!(names(&presented.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()), shown);
        };
        check(&[r#"DnsName("a.example")"#], "a.example");
        check(&[r#"DnsName("a.example")"#, "IpAddress(10.0.0.1)"], "a.example, 10.0.0.1");
        check(&["DnsName(\"a\nb\")"], "a\\nb");
        check(&[r#"DnsName("a")"#; 7], "a, a, a, a, a and 2 more");
        check(&[&"x".repeat(1000)], &"x".repeat(NAME_SHOWN_CHARS));
    }

    #[test]
    fn the_same_error_is_told_by_what_the_request_was_busy_with() {
        let reset = || io::Error::from(io::ErrorKind::ConnectionReset);
        check(
            reset(),
            Phase::Connecting,
            FailureKind::Connect,
            "could not connect to a.example:443: the connection was reset",
        );
        check(
            reset(),
            Phase::TlsHandshake,
            FailureKind::Tls,
            "the TLS handshake with a.example:443 failed: the connection was reset",
        );
        check(reset(), Phase::Waiting, FailureKind::Connect, "no answer from a.example:443: the connection was reset");
        check(
            reset(),
            Phase::ReadingBody,
            FailureKind::Body,
            "the body of the answer broke off: the connection was reset",
        );
    }
}

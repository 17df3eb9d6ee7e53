//! Whether the signatures of a request hold, scheme by scheme, and why not.

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use hmac::Mac;

use super::{HmacSha256, header, keyed, secret, started};

/// A way to sign a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `webhook-id`, `webhook-timestamp` and `webhook-signature`.
    StandardWebhooks,
    /// `X-Hub-Signature-256`
    HubSignature256,
    /// `X-Hub-Signature`
    HubSignature,
}

impl Scheme {
    /// What to call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::StandardWebhooks => "Standard Webhooks",
            Self::HubSignature256 => "X-Hub-Signature-256",
            Self::HubSignature => "X-Hub-Signature",
        }
    }
}

/// Whether a signature holds by one scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemeResult {
    pub scheme: Scheme,
    pub result: Result<(), Refusal>,
}

/// Why a signature does not hold, in plain words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the header `{0}` is missing")]
    MissingHeader(&'static str),
    #[error("`webhook-timestamp` is not a number of Unix seconds")]
    BadTimestamp,
    #[error("`webhook-signature` holds no `v1,` and base64 of 32 bytes")]
    NoVersion1,
    #[error("the value is not `sha256=` and 64 hexadecimal digits")]
    NotSha256,
    /// The secret's own problem.
    #[error("the secret has no key: {0}")]
    NoKey(String),
    #[error("it was made with another secret, or over other bytes")]
    Wrong,
    #[error("the signature is right, but its timestamp is {seconds} s old; {tolerance} s are allowed")]
    TooOld { seconds: u64, tolerance: u64 },
    #[error("the signature is right, but its timestamp is {seconds} s ahead; {tolerance} s are allowed")]
    TooNew { seconds: u64, tolerance: u64 },
}

/// Checks each scheme of which the request has a header; of a request with none, nothing is returned.
///
/// `header` looks a header up by its lower-case name. `body` is what was received, byte for byte. A Standard Webhooks
/// timestamp may be `tolerance_s` away from `now_s`; the hub schemes have none. The comparison takes constant time.
pub fn verify<'h>(
    secret: &str,
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now_s: u64,
    tolerance_s: u64,
) -> Vec<SchemeResult> {
    let mut results = Vec::new();
    let standard =
        [header::WEBHOOK_ID, header::WEBHOOK_TIMESTAMP, header::WEBHOOK_SIGNATURE].map(|name| (name, header(name)));
    if standard.iter().any(|(_, value)| value.is_some()) {
        let result = verify_standard(secret, standard, body, now_s, tolerance_s);
        results.push(SchemeResult { scheme: Scheme::StandardWebhooks, result });
    }
    for (scheme, name) in
        [(Scheme::HubSignature256, header::HUB_SIGNATURE_256), (Scheme::HubSignature, header::HUB_SIGNATURE)]
    {
        if let Some(value) = header(name) {
            results.push(SchemeResult { scheme, result: verify_hub(secret, value, body) });
        }
    }
    results
}

fn verify_standard(
    secret: &str,
    headers: [(&'static str, Option<&str>); 3],
    body: &[u8],
    now_s: u64,
    tolerance_s: u64,
) -> Result<(), Refusal> {
    if let Some((name, _)) = headers.iter().find(|(_, value)| value.is_none()) {
        return Err(Refusal::MissingHeader(name));
    }
    let [id, timestamp, signatures] = headers.map(|(_, value)| value.unwrap_or_default());
    let timestamp_s = unix_seconds(timestamp).ok_or(Refusal::BadTimestamp)?;
    let key = secret::standard_key(secret).map_err(|invalid| Refusal::NoKey(invalid.problem))?;
    let mac = started(&keyed(&key), &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body]);

    // Other versions may stand beside ours, and a second secret's signature during a rotation.
    let decode = |signature: &str| BASE64.decode(signature.strip_prefix("v1,")?.as_bytes()).ok();
    let tags: Vec<_> = signatures.split(' ').filter_map(decode).filter(|tag| tag.len() == 32).collect();
    if tags.is_empty() {
        return Err(Refusal::NoVersion1);
    }
    if !tags.iter().any(|tag| is_tag(&mac, tag)) {
        return Err(Refusal::Wrong);
    }
    // Last, since the age of what somebody else made says nothing.
    match (now_s.saturating_sub(timestamp_s), timestamp_s.saturating_sub(now_s)) {
        (seconds, _) if seconds > tolerance_s => Err(Refusal::TooOld { seconds, tolerance: tolerance_s }),
        (_, seconds) if seconds > tolerance_s => Err(Refusal::TooNew { seconds, tolerance: tolerance_s }),
        _ => Ok(()),
    }
}

fn unix_seconds(text: &str) -> Option<u64> {
    if text.bytes().all(|c| c.is_ascii_digit()) { text.parse().ok() } else { None }
}

fn verify_hub(secret: &str, value: &str, body: &[u8]) -> Result<(), Refusal> {
    let decode = |hex: &str| HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok();
    let tag = value.strip_prefix("sha256=").and_then(decode).filter(|tag| tag.len() == 32);
    let tag = tag.ok_or(Refusal::NotSha256)?;
    if is_tag(&started(&keyed(secret.as_bytes()), &[body]), &tag) { Ok(()) } else { Err(Refusal::Wrong) }
}

/// In constant time, so that how long a refusal takes does not tell how much of a guess was right.
fn is_tag(mac: &HmacSha256, tag: &[u8]) -> bool {
    mac.clone().verify_slice(tag).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::{super::SigningKeys, *};

    const SECRET: &str = "It's a Secret to Everybody";
    const OTHER: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = b"{\"a\":1}";
    const SENT_S: u64 = 1_614_265_330;
    const TOLERANCE_S: u64 = 300;

    type Headers = BTreeMap<&'static str, String>;

    /// A request as the engine signs it.
    fn signed(current: &str, previous: Option<&str>) -> Headers {
        let headers = SigningKeys::new(current, previous).unwrap().headers("evt_1", SENT_S, BODY);
        BTreeMap::from([
            (header::WEBHOOK_ID, "evt_1".to_owned()),
            (header::WEBHOOK_TIMESTAMP, SENT_S.to_string()),
            (header::WEBHOOK_SIGNATURE, headers.webhook_signature),
            (header::HUB_SIGNATURE_256, headers.hub_signature_256.clone()),
            (header::HUB_SIGNATURE, headers.hub_signature_256),
        ])
    }

    fn verified(secret: &str, headers: &Headers, body: &[u8], now_s: u64) -> Vec<Result<(), Refusal>> {
        let lookup = |name: &str| headers.get(name).map(String::as_str);
        verify(secret, lookup, body, now_s, TOLERANCE_S).into_iter().map(|scheme| scheme.result).collect()
    }

    #[test]
    fn what_the_engine_signs_holds_by_every_scheme() {
        assert_eq!(verified(SECRET, &signed(SECRET, None), BODY, SENT_S), [Ok(()), Ok(()), Ok(())]);
        let rotating = signed(OTHER, Some(SECRET));
        assert_eq!(verified(SECRET, &rotating, BODY, SENT_S), [Ok(()), Ok(()), Ok(())]);
        assert_eq!(verified(OTHER, &rotating, BODY, SENT_S), [Ok(()), Err(Refusal::Wrong), Err(Refusal::Wrong)]);
    }

    #[test]
    fn another_secret_or_body_is_wrong_by_every_scheme() {
        let wrong = [Err(Refusal::Wrong), Err(Refusal::Wrong), Err(Refusal::Wrong)];
        assert_eq!(verified(OTHER, &signed(SECRET, None), BODY, SENT_S), wrong);
        assert_eq!(verified(SECRET, &signed(SECRET, None), b"{\"a\":2}", SENT_S), wrong);
    }

    #[test]
    fn only_the_schemes_present_are_checked() {
        let all = signed(SECRET, None);
        let check = |names: &[&str], expected: &[Scheme]| {
            let lookup = |name: &str| all.get(name).filter(|_| names.contains(&name)).map(String::as_str);
            let schemes: Vec<_> =
                verify(SECRET, lookup, BODY, SENT_S, TOLERANCE_S).iter().map(|scheme| scheme.scheme).collect();
            assert_eq!(schemes, expected, "{names:?}");
        };
        check(&[], &[]);
        check(&["content-type"], &[]);
        check(&["webhook-id"], &[Scheme::StandardWebhooks]);
        check(&["x-hub-signature"], &[Scheme::HubSignature]);
        check(&["x-hub-signature-256", "x-hub-signature"], &[Scheme::HubSignature256, Scheme::HubSignature]);
    }

    #[test]
    fn a_refusal_of_standard_webhooks_says_why() {
        let check = |name: &'static str, value: Option<&str>, expected: Refusal| {
            let mut headers = signed(SECRET, None);
            headers.remove(name);
            headers.extend(value.map(|value| (name, value.to_owned())));
            assert_eq!(verified(SECRET, &headers, BODY, SENT_S)[0], Err(expected), "{name}: {value:?}");
        };
        for name in [header::WEBHOOK_ID, header::WEBHOOK_TIMESTAMP, header::WEBHOOK_SIGNATURE] {
            check(name, None, Refusal::MissingHeader(name));
        }
        for bad in ["", "soon", "-5", "+1614265330", "1614265330.5", "99999999999999999999"] {
            check(header::WEBHOOK_TIMESTAMP, Some(bad), Refusal::BadTimestamp);
        }
        for bad in ["", "v1,", "v1,?", "v1,AAAA", "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", "v1a,AAAA"] {
            check(header::WEBHOOK_SIGNATURE, Some(bad), Refusal::NoVersion1);
        }
        check(header::WEBHOOK_ID, Some("evt_2"), Refusal::Wrong);
        check(header::WEBHOOK_TIMESTAMP, Some("1614265331"), Refusal::Wrong);
    }

    #[test]
    fn other_versions_beside_ours_are_passed_over() {
        let mut headers = signed(SECRET, None);
        let ours = headers[header::WEBHOOK_SIGNATURE].clone();
        headers.insert(header::WEBHOOK_SIGNATURE, format!("v1a,AAAA v1,AAAA  {ours} v2,x"));
        assert_eq!(verified(SECRET, &headers, BODY, SENT_S)[0], Ok(()));
    }

    #[test]
    fn a_right_signature_is_refused_when_its_time_is_too_far_away() {
        let check = |now_s: u64, expected: Result<(), Refusal>| {
            assert_eq!(verified(SECRET, &signed(SECRET, None), BODY, now_s), [expected, Ok(()), Ok(())]);
        };
        check(SENT_S + 300, Ok(()));
        check(SENT_S + 301, Err(Refusal::TooOld { seconds: 301, tolerance: TOLERANCE_S }));
        check(SENT_S - 300, Ok(()));
        check(SENT_S - 301, Err(Refusal::TooNew { seconds: 301, tolerance: TOLERANCE_S }));
    }

    #[test]
    fn a_refusal_of_a_hub_signature_says_why() {
        let good = signed(SECRET, None).remove(header::HUB_SIGNATURE_256).unwrap();
        let check = |value: &str, expected: Result<(), Refusal>| {
            let headers = Headers::from([(header::HUB_SIGNATURE_256, value.to_owned())]);
            assert_eq!(verified(SECRET, &headers, BODY, SENT_S), [expected], "{value}");
        };
        check(&good, Ok(()));
        check(&format!("sha256={}", good["sha256=".len()..].to_uppercase()), Ok(()));
        check(&format!("sha256={}", "0".repeat(64)), Err(Refusal::Wrong));
        for bad in
            ["", "sha256=", "sha256=00", "sha1=da39a3ee5e6b4b0d3255bfef95601890afd80709", &good[7..], &good[..70]]
        {
            check(bad, Err(Refusal::NotSha256));
        }
    }

    #[test]
    fn a_secret_without_a_standard_key_still_checks_hub_signatures() {
        let mut headers = signed(SECRET, None);
        let mac = started(&keyed(b"short"), &[BODY]).finalize().into_bytes();
        headers.insert(header::HUB_SIGNATURE_256, format!("sha256={}", HEXLOWER_PERMISSIVE.encode(&mac)));
        let results = verified("short", &headers, BODY, SENT_S);
        assert!(matches!(&results[..], [Err(Refusal::NoKey(_)), Ok(()), Err(Refusal::Wrong)]), "{results:?}");
    }

    proptest! {
        #[test]
        fn no_header_panics(
            id in "\\PC{0,9}", timestamp in "[0-9]{0,22}|\\PC{0,9}", hub in "(sha256=)?[0-9a-fg]{0,70}",
            signature in "(v1,)?[A-Za-z0-9+/=, ]{0,60}|\\PC{0,9}", secret in "(whsec_)?\\PC{0,40}",
            now_s: u64, tolerance_s: u64,
        ) {
            let headers = Headers::from([
                (header::WEBHOOK_ID, id),
                (header::WEBHOOK_TIMESTAMP, timestamp),
                (header::WEBHOOK_SIGNATURE, signature),
                (header::HUB_SIGNATURE, hub),
            ]);
            let results = verify(&secret, |name| headers.get(name).map(String::as_str), BODY, now_s, tolerance_s);
            prop_assert!(results.len() == 2 && results.iter().all(|scheme| scheme.result.is_err()));
        }
    }
}

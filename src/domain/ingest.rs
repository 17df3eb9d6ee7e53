//! Requests that others post to a webhook's ingest address: whether they are signed, and by what to know them again.

use sha2::{Digest, Sha256};

use super::signature::{Scheme, header, verify};

/// Seconds that the timestamp of a Standard Webhooks signature may be away from now.
const TOLERANCE_S: u64 = 300;

/// What a signed request is known by, one for each scheme that it was signed by; `None` where a signature is missing or one
/// does not hold. `header` looks a header up by its lower-case name, `body` is what was received, byte for byte.
///
/// `X-Hub-Signature-256` and Standard Webhooks count. Whoever repeats a captured request, in whole or by one of its two
/// signatures, repeats one of these.
pub fn signatures<'h>(
    secret: &str,
    header: impl Fn(&str) -> Option<&'h str>,
    body: &[u8],
    now_s: u64,
) -> Option<Vec<String>> {
    let results = verify(secret, &header, body, now_s, TOLERANCE_S);
    let counting = results.iter().filter(|result| result.scheme != Scheme::HubSignature);
    let signatures = counting.map(|result| {
        result.result.as_ref().ok()?;
        Some(match result.scheme {
            // The signature is over the body alone, so it is that of the body under this secret.
            Scheme::HubSignature256 | Scheme::HubSignature => digest(&[b"hub", secret.as_bytes(), body]),
            Scheme::StandardWebhooks => {
                let part = |name| header(name).unwrap_or_default().as_bytes();
                let (id, timestamp) = (part(header::WEBHOOK_ID), part(header::WEBHOOK_TIMESTAMP));
                digest(&[b"standard", secret.as_bytes(), id, timestamp, body])
            }
        })
    });
    let signatures: Option<Vec<String>> = signatures.collect();
    signatures.filter(|signatures| !signatures.is_empty())
}

/// A SHA-256 over the parts, each with its length before it, in hex.
fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    data_encoding::HEXLOWER.encode(&hash.finalize())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{super::signature::SigningKeys, *};

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = b"{}";
    const NOW_S: u64 = 1_790_000_000;

    type Headers = BTreeMap<&'static str, String>;

    fn signed(names: &[&str]) -> Headers {
        let made = SigningKeys::new(SECRET, None).unwrap().headers("msg_1", NOW_S, BODY);
        let all = [
            (header::WEBHOOK_ID, "msg_1".to_owned()),
            (header::WEBHOOK_TIMESTAMP, NOW_S.to_string()),
            (header::WEBHOOK_SIGNATURE, made.webhook_signature),
            (header::HUB_SIGNATURE_256, made.hub_signature_256.clone()),
            (header::HUB_SIGNATURE, made.hub_signature_256),
        ];
        all.into_iter().filter(|(name, _)| names.iter().any(|wanted| name.starts_with(wanted))).collect()
    }

    fn known_by(headers: &Headers, secret: &str, body: &[u8], now_s: u64) -> Option<Vec<String>> {
        signatures(secret, |name| headers.get(name).map(String::as_str), body, now_s)
    }

    #[test]
    fn a_request_is_known_by_each_of_its_signatures() {
        let both = known_by(&signed(&["webhook-", "x-hub"]), SECRET, BODY, NOW_S).unwrap();
        assert_eq!(both.len(), 2);
        assert_eq!(known_by(&signed(&["webhook-"]), SECRET, BODY, NOW_S), Some(vec![both[0].clone()]));
        let mut upper = signed(&["x-hub-signature-256"]);
        upper.values_mut().for_each(|value| *value = format!("sha256={}", value[7..].to_uppercase()));
        assert_eq!(known_by(&upper, SECRET, BODY, NOW_S), Some(vec![both[1].clone()]));
    }

    #[test]
    fn what_is_not_signed_right_is_not_known() {
        let check = |headers: Headers, secret: &str, body: &[u8], now_s: u64| {
            assert_eq!(known_by(&headers, secret, body, now_s), None, "{headers:?}");
        };
        check(Headers::new(), SECRET, BODY, NOW_S);
        let mut old = signed(&["x-hub"]);
        old.remove(header::HUB_SIGNATURE_256);
        check(old, SECRET, BODY, NOW_S);
        check(signed(&["x-hub"]), "another secret of ours", BODY, NOW_S);
        check(signed(&["x-hub"]), SECRET, b"{ }", NOW_S);
        check(signed(&["webhook-"]), SECRET, BODY, NOW_S + TOLERANCE_S + 1);
        check(signed(&["webhook-", "x-hub"]), SECRET, BODY, NOW_S + TOLERANCE_S + 1);
        check(signed(&["webhook-id"]), SECRET, BODY, NOW_S);
    }
}

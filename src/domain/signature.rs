//! Signatures: what a request carries so that its receiver knows who sent it, and that nobody changed it.
//!
//! Two schemes over HMAC-SHA256 (RFC 2104, FIPS 180-4), both on every request:
//!
//! | scheme | signed | key |
//! |---|---|---|
//! | Standard Webhooks 1.0 | `id.timestamp.body` | the bytes behind `whsec_`, or a free-text secret's own bytes |
//! | `X-Hub-Signature-256` and `X-Hub-Signature` | the body | the secret's text as given |

mod secret;
mod verify;

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub use secret::{check_secret, generate, standard_secret};
pub use verify::{Refusal, Scheme, SchemeResult, verify};

use super::Invalid;

/// The name of each header that carries, or goes into, a signature; lower-case, as HTTP libraries keep them.
pub mod header {
    pub const WEBHOOK_ID: &str = "webhook-id";
    pub const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
    pub const WEBHOOK_SIGNATURE: &str = "webhook-signature";
    pub const HUB_SIGNATURE_256: &str = "x-hub-signature-256";
    pub const HUB_SIGNATURE: &str = "x-hub-signature";
}

type HmacSha256 = Hmac<Sha256>;

/// HMAC states with the key already taken in, so that each request costs its own bytes only.
#[derive(Clone)]
pub struct SigningKeys {
    /// One for each live secret, the current one first.
    standard: Vec<HmacSha256>,
    hub: HmacSha256,
}

/// The values of the signature headers of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignatureHeaders {
    /// `v1,<base64>` for each live secret, the current one first, parted by spaces.
    pub webhook_signature: String,
    /// `sha256=<hex>`, for `X-Hub-Signature-256` and `X-Hub-Signature` alike.
    pub hub_signature_256: String,
}

impl SigningKeys {
    /// The keys of a subscription's live secrets. While there is a `previous` one, it makes the hub signature: that
    /// header holds one value, and a receiver takes the new secret only some time before the old one ends.
    ///
    /// # Errors
    /// When a secret is not one that [`check_secret`] takes.
    pub fn new(current: &str, previous: Option<&str>) -> Result<Self, Invalid> {
        let live = [Some(current), previous];
        let standard = live.into_iter().flatten().map(|secret| secret::standard_key(secret).map(|key| keyed(&key)));
        Ok(Self {
            standard: standard.collect::<Result<_, Invalid>>()?,
            hub: keyed(previous.unwrap_or(current).as_bytes()),
        })
    }

    /// Signs a request: `id` is its `webhook-id`, `timestamp_s` its `webhook-timestamp` and `body` what is sent, byte
    /// for byte.
    pub fn headers(&self, id: &str, timestamp_s: u64, body: &[u8]) -> SignatureHeaders {
        let head = format!("{id}.{timestamp_s}.");
        let sign = |key: &HmacSha256| format!("v1,{}", BASE64.encode(&tag(key, &[head.as_bytes(), body])));
        SignatureHeaders {
            webhook_signature: self.standard.iter().map(sign).collect::<Vec<_>>().join(" "),
            hub_signature_256: format!("sha256={}", HEXLOWER.encode(&tag(&self.hub, &[body]))),
        }
    }
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKeys(…)")
    }
}

fn keyed(key: &[u8]) -> HmacSha256 {
    HmacSha256::new_from_slice(key).expect("HMAC takes a key of any length (RFC 2104)")
}

fn started(key: &HmacSha256, parts: &[&[u8]]) -> HmacSha256 {
    let mut mac = key.clone();
    parts.iter().for_each(|part| mac.update(part));
    mac
}

fn tag(key: &HmacSha256, parts: &[&[u8]]) -> [u8; 32] {
    started(key, parts).finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "It's a Secret to Everybody";
    const NEW: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    /// The vector that the Standard Webhooks libraries publish.
    const STANDARD: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    /// The vector that GitHub publishes, over `Hello, World!`.
    const GITHUB: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn hmac_sha256_is_that_of_rfc_4231() {
        let check = |key: &[u8], data: &[u8], hex: &str| assert_eq!(HEXLOWER.encode(&tag(&keyed(key), &[data])), hex);
        check(&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        check(
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        );
        check(
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        );
    }

    #[test]
    fn the_published_vectors_hold() {
        let keys = SigningKeys::new(NEW, None).unwrap();
        let headers = keys.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(headers.webhook_signature, STANDARD);
        assert_eq!(SigningKeys::new(OLD, None).unwrap().headers("a", 0, b"Hello, World!").hub_signature_256, GITHUB);
    }

    #[test]
    fn the_hub_key_is_the_text_and_the_standard_key_its_bytes() {
        let text = SigningKeys::new(OLD, None).unwrap().headers("a", 1, b"{}");
        let libraries = SigningKeys::new(&standard_secret(OLD).unwrap(), None).unwrap().headers("a", 1, b"{}");
        assert_eq!(text.webhook_signature, libraries.webhook_signature);
        assert_ne!(text.hub_signature_256, libraries.hub_signature_256);
    }

    #[test]
    fn during_an_overlap_both_secrets_sign_and_the_old_one_makes_the_hub_signature() {
        let headers = |current, previous| SigningKeys::new(current, previous).unwrap().headers("a", 1, b"{}");
        let (both, old, new) = (headers(NEW, Some(OLD)), headers(OLD, None), headers(NEW, None));
        assert_eq!(both.webhook_signature, format!("{} {}", new.webhook_signature, old.webhook_signature));
        assert_eq!(both.hub_signature_256, old.hub_signature_256);
    }

    #[test]
    fn a_secret_that_cannot_sign_is_refused() {
        assert_eq!(SigningKeys::new("short", None).unwrap_err().field, "secret");
        assert_eq!(SigningKeys::new(NEW, Some("whsec_?")).unwrap_err().field, "secret");
    }

    #[test]
    fn no_key_is_shown() {
        assert_eq!(format!("{:?}", SigningKeys::new(NEW, None).unwrap()), "SigningKeys(…)");
    }
}

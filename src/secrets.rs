//! Secrets at rest: sealed with XChaCha20-Poly1305 under the keys of `[secrets] key`, or kept as they are without one.

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};

const NONCE_BYTES: usize = 24;
const SEALED: &str = "sealed:";
const PLAIN: &str = "plain:";

/// A sealed text that none of the keys opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is sealed with a key that secrets.key does not list")]
pub struct Unopened;

/// Seals with the first key and opens with any.
#[derive(Clone)]
pub struct Sealer {
    keys: Vec<XChaCha20Poly1305>,
}

impl Sealer {
    /// `keys` of 32 bytes; without any, nothing is encrypted.
    pub fn new(keys: &[[u8; 32]]) -> Self {
        Self { keys: keys.iter().map(|key| XChaCha20Poly1305::new(key.into())).collect() }
    }

    /// Seals `secret` for `owner` (an id): moved to another owner's record it does not open.
    pub fn seal(&self, owner: &str, secret: &str) -> String {
        let Some(cipher) = self.keys.first() else { return format!("{PLAIN}{secret}") };
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload { msg: secret.as_bytes(), aad: owner.as_bytes() };
        let Ok(text) = cipher.encrypt(&XNonce::from(nonce), payload) else {
            unreachable!("a secret is far below the cipher's limit of 256 GiB")
        };
        format!("{SEALED}{}", BASE64_STANDARD_NO_PAD.encode([&nonce[..], &text].concat()))
    }

    /// Whether `kept` is sealed for `owner` as it would be now: with the first key, if there is any.
    pub fn is_current(&self, owner: &str, kept: &str) -> bool {
        let Some(first) = self.keys.first() else { return true };
        kept.starts_with(SEALED) && Self { keys: vec![first.clone()] }.open(owner, kept).is_ok()
    }

    /// The secret that was sealed for `owner`.
    ///
    /// # Errors
    /// When no key opens it.
    pub fn open(&self, owner: &str, kept: &str) -> Result<String, Unopened> {
        if let Some(plain) = kept.strip_prefix(PLAIN) {
            return Ok(plain.to_owned());
        }
        let sealed = kept.strip_prefix(SEALED).ok_or(Unopened)?;
        let bytes = BASE64_STANDARD_NO_PAD.decode(sealed).map_err(|_| Unopened)?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(Unopened)?;
        self.keys
            .iter()
            .find_map(|cipher| cipher.decrypt(&XNonce::from(*nonce), Payload { msg: text, aad: owner.as_bytes() }).ok())
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or(Unopened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_with_its_key_and_for_its_owner_only() {
        let (old, new) = ([1; 32], [2; 32]);
        let sealed = Sealer::new(&[old]).seal("wh_1", "whsec_x");
        assert!(!sealed.contains("whsec_x"));
        let check = |keys: &[[u8; 32]], owner: &str, opens: bool| {
            assert_eq!(
                Sealer::new(keys).open(owner, &sealed).as_deref(),
                if opens { Ok("whsec_x") } else { Err(&Unopened) }
            );
        };
        check(&[old], "wh_1", true);
        check(&[new, old], "wh_1", true);
        check(&[new], "wh_1", false);
        check(&[], "wh_1", false);
        check(&[old], "wh_2", false);
    }

    #[test]
    fn without_a_key_a_secret_is_kept_as_it_is_and_still_opens_once_there_is_one() {
        let kept = Sealer::new(&[]).seal("wh_1", "whsec_x");
        assert_eq!(Sealer::new(&[[1; 32]]).open("wh_1", &kept).as_deref(), Ok("whsec_x"));
    }

    #[test]
    fn only_what_the_first_key_sealed_is_current() {
        let (old, new) = ([1; 32], [2; 32]);
        let check = |kept: &str, keys: &[[u8; 32]], expected: bool| {
            assert_eq!(Sealer::new(keys).is_current("wh_1", kept), expected, "{kept}");
        };
        let (plain, sealed) = (Sealer::new(&[]).seal("wh_1", "x"), Sealer::new(&[old]).seal("wh_1", "x"));
        check(&plain, &[], true);
        check(&plain, &[old], false);
        check(&sealed, &[old], true);
        check(&sealed, &[old, new], true);
        check(&sealed, &[new, old], false);
    }

    #[test]
    fn rubbish_is_refused_without_a_panic() {
        for kept in ["", "sealed:", "sealed:%%", "sealed:AAAA", "other"] {
            assert_eq!(Sealer::new(&[[1; 32]]).open("wh_1", kept), Err(Unopened), "{kept}");
        }
    }
}

//! Secrets: which are taken, and the key that each stands for.

use std::borrow::Cow;

use data_encoding::BASE64;

use crate::domain::Invalid;

/// What marks a secret of the Standard Webhooks form.
const PREFIX: &str = "whsec_";

/// Bytes behind the prefix: what Standard Webhooks 1.0 recommends.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Characters of a secret without the prefix.
const TEXT_CHARS: std::ops::RangeInclusive<usize> = 16..=128;

/// Checks a secret that a user gave: `whsec_` and base64 of 24 to 64 bytes, or 16 to 128 printable ASCII characters.
///
/// # Errors
/// Why it is neither, without saying any of it.
pub fn check_secret(text: &str) -> Result<(), Invalid> {
    standard_key(text).map(drop)
}

/// A new secret of the Standard Webhooks form, from random bytes.
pub fn generate(random: [u8; 32]) -> String {
    encode(&random)
}

/// What to give to a Standard Webhooks library in place of this free-text secret, so that it has the same key. `None`
/// for a secret that they take as it is.
pub fn standard_secret(text: &str) -> Option<String> {
    (!text.starts_with(PREFIX)).then(|| encode(text.as_bytes()))
}

fn encode(key: &[u8]) -> String {
    format!("{PREFIX}{}", BASE64.encode(key))
}

/// The key of a secret's Standard Webhooks signatures.
///
/// # Errors
/// When the secret is not one of the two forms.
pub(super) fn standard_key(text: &str) -> Result<Cow<'_, [u8]>, Invalid> {
    let refuse = |problem: String| Err(Invalid::new("secret", problem));
    let Some(encoded) = text.strip_prefix(PREFIX) else {
        let (least, most) = (TEXT_CHARS.start(), TEXT_CHARS.end());
        if !text.bytes().all(|c| matches!(c, b' '..=b'~')) {
            return refuse("a character is not printable ASCII".into());
        }
        if !TEXT_CHARS.contains(&text.len()) {
            return refuse(format!("{least} to {most} characters are allowed, not {}", text.len()));
        }
        return Ok(Cow::Borrowed(text.as_bytes()));
    };
    // Strict, padding included: a receiver's library may not read what a lenient decoder here would.
    let Ok(key) = BASE64.decode(encoded.as_bytes()) else {
        return refuse(format!("what follows `{PREFIX}` is not base64 (`A-Za-z0-9+/`, padded with `=`)"));
    };
    if !KEY_BYTES.contains(&key.len()) {
        let (least, most) = (KEY_BYTES.start(), KEY_BYTES.end());
        return refuse(format!(
            "what follows `{PREFIX}` is base64 of {} bytes; {least} to {most} are allowed",
            key.len()
        ));
    }
    Ok(Cow::Owned(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_are_taken_or_refused_with_a_reason() {
        let good = |text: &str| assert_eq!(check_secret(text), Ok(()), "{text}");
        good("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        good(&encode(&[7; 24]));
        good(&encode(&[7; 64]));
        good("It's a Secret to Everybody");
        good(&"x".repeat(16));
        good(&"~".repeat(128));
        good("WHSEC_is just some text");

        let bad = |text: &str, reason: &str| {
            let refusal = check_secret(text).unwrap_err();
            assert_eq!(refusal.field, "secret", "{text}");
            assert!(refusal.problem.contains(reason), "{text}: {}", refusal.problem);
        };
        bad("", "not 0");
        bad(&"x".repeat(15), "not 15");
        bad(&"x".repeat(129), "not 129");
        bad("sixteen and an é", "printable");
        bad("sixteen and a \n line", "printable");
        bad("whsec_", "of 0 bytes");
        bad(&encode(&[7; 23]), "of 23 bytes");
        bad(&encode(&[7; 65]), "of 65 bytes");
        bad("whsec_not base64 at all, but long enough", "not base64");
        bad(encode(&[7; 32]).trim_end_matches('='), "not base64");
        bad("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS_", "not base64");
    }

    #[test]
    fn a_refusal_does_not_tell_the_secret() {
        for secret in ["hunter2", "whsec_hunter2", "hunter2 with a tab\t"] {
            assert!(!check_secret(secret).unwrap_err().to_string().contains("hunter2"));
        }
    }

    #[test]
    fn a_generated_secret_holds_its_bytes() {
        let random = std::array::from_fn(|at| at as u8);
        let secret = generate(random);
        assert_eq!(secret, "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        assert_eq!(standard_key(&secret).unwrap(), &random[..]);
        assert_eq!(standard_secret(&secret), None);
    }

    proptest! {
        #[test]
        fn a_free_text_secret_and_its_standard_form_are_one_key(text in "[ -~]{24,64}") {
            prop_assume!(!text.starts_with(PREFIX));
            let standard = standard_secret(&text).unwrap();
            prop_assert_eq!(standard_key(&standard).unwrap(), standard_key(&text).unwrap());
        }

        #[test]
        fn no_text_panics(text in "(whsec_)?\\PC{0,140}") {
            let _ = check_secret(&text);
        }
    }
}

//! The headers that a user adds to deliveries.

use std::collections::BTreeMap;

use crate::domain::Invalid;

const MAX_HEADERS: usize = 50;
const MAX_NAME_BYTES: usize = 256;
const MAX_VALUE_BYTES: usize = 4_096;

/// What HTTP or the engine sets itself: what is between two hops (RFC 9110 §7.6.1), what frames or describes the body,
/// and what a receiver is to know the engine by.
const RESERVED: [&str; 18] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "traceparent",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-event-type",
];

/// What names that the engine sets, now or later, start with.
const RESERVED_PREFIXES: [&str; 3] = ["webhook-", "x-hub-signature", "x-webhook-"];

/// Checks a webhook's own headers: at most 50, names of HTTP that the engine does not set itself, values of printable
/// ASCII.
///
/// # Errors
/// The first that cannot be sent; its value, which may be a credential, is not said.
pub fn check_headers(headers: &BTreeMap<String, String>) -> Result<(), Invalid> {
    check(headers).map_err(|problem| Invalid::new("headers", problem))
}

fn check(headers: &BTreeMap<String, String>) -> Result<(), String> {
    if headers.len() > MAX_HEADERS {
        return Err(format!("{} headers; at most {MAX_HEADERS} are allowed", headers.len()));
    }
    let mut seen = std::collections::HashSet::new();
    for (name, value) in headers {
        check_name(name)?;
        if value.len() > MAX_VALUE_BYTES {
            return Err(format!("`{name}` has {} bytes; at most {MAX_VALUE_BYTES} are allowed", value.len()));
        }
        if !value.bytes().all(|c| matches!(c, b' '..=b'~')) {
            return Err(format!("the value of `{name}` holds a character that is not printable ASCII"));
        }
        if !seen.insert(name.to_ascii_lowercase()) {
            return Err(format!("`{name}` is there twice: upper and lower case are the same"));
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), String> {
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) || !name.bytes().all(is_token) {
        let shown: String = name.chars().take(40).collect();
        return Err(format!(
            "`{}` is not the name of a header: 1 to {MAX_NAME_BYTES} letters, digits or any of !#$%&'*+-.^_`|~",
            shown.escape_debug()
        ));
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&lower.as_str()) || RESERVED_PREFIXES.iter().any(|prefix| lower.starts_with(prefix)) {
        return Err(format!("`{name}` is set by the engine or by HTTP itself"));
    }
    Ok(())
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_token(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(headers: &[(&str, &str)]) -> Result<(), Invalid> {
        check_headers(&headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn headers_of_the_users_own_are_taken() {
        let long = "v".repeat(4_096);
        assert_eq!(result(&[]), Ok(()));
        assert_eq!(result(&[("X-Env", "prod"), ("Authorization", "Bearer a b~"), ("a!#$%&'*+-.^_`|~9", "")]), Ok(()));
        assert_eq!(result(&[("X-Long", &long), ("webhook", "x"), ("x-hub", "x"), ("Accept", "*/*")]), Ok(()));
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_refused() {
        let check = |name: &str, value: &str, reason: &str| {
            let refusal = result(&[(name, value)]).unwrap_err();
            assert_eq!(refusal.field, "headers");
            assert!(refusal.problem.contains(reason), "{name}: {}", refusal.problem);
        };
        for bad in ["", " ", "a b", "a:", "a\r\nb", "é", "(a)", &"x".repeat(257)] {
            check(bad, "v", "not the name");
        }
        for bad in ["a\r\nX-Evil: 1", "a\0", "a\tb", "é", "\x7f"] {
            check("X-Env", bad, "printable");
        }
        check("X-Env", &"v".repeat(4_097), "4097 bytes");
        let reserved = ["Webhook-Id", "webhook-signature", "X-Hub-Signature", "x-hub-signature-256", "X-Webhook-Event"];
        for name in RESERVED.into_iter().chain(reserved).chain(["HOST", "Transfer-Encoding", "X-Event-Type"]) {
            check(name, "v", "set by the engine");
        }
    }

    #[test]
    fn a_header_is_there_once_whatever_its_case() {
        assert!(result(&[("X-Env", "a"), ("x-env", "b")]).unwrap_err().problem.contains("twice"));
    }

    #[test]
    fn there_are_at_most_fifty() {
        let headers = |count: usize| (0..count).map(|n| (format!("x-{n}"), String::new())).collect();
        assert_eq!(check_headers(&headers(50)), Ok(()));
        assert!(check_headers(&headers(51)).unwrap_err().problem.contains("51 headers"));
    }

    #[test]
    fn a_refusal_does_not_tell_a_value() {
        assert!(!result(&[("Authorization", "hunter2\n")]).unwrap_err().to_string().contains("hunter2"));
    }
}

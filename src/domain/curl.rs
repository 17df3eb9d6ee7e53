//! An attempt as a command line, to try it again by hand.

/// Headers that curl makes itself.
const BY_CURL: [&str; 3] = ["content-length", "host", "accept"];

/// `curl` with what was posted, quoted for a POSIX shell. Without a `body` (its event is not kept any more) it is left out.
pub fn curl(url: &str, headers: &[(String, String)], body: Option<&[u8]>) -> String {
    let mut command = format!("curl -i -X POST {}", quoted(url));
    for (name, value) in headers.iter().filter(|(name, _)| !BY_CURL.contains(&name.as_str())) {
        command.push_str(&format!(" \\\n  -H {}", quoted(&format!("{name}: {value}"))));
    }
    if let Some(body) = body {
        command.push_str(&format!(" \\\n  --data-binary {}", quoted(&String::from_utf8_lossy(body))));
    }
    command
}

/// In single quotes, in which nothing is special but the quote itself.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_it_leaves_its_quotes() {
        let headers = [("x-a".to_owned(), "it's $HOME".to_owned()), ("content-length".to_owned(), "9".to_owned())];
        let expected = "curl -i -X POST 'https://example.com/?a=1&b=2' \\\n  -H 'x-a: it'\\''s $HOME' \\\n  --data-binary '{\"n\":1}'";
        assert_eq!(curl("https://example.com/?a=1&b=2", &headers, Some(b"{\"n\":1}")), expected);
        assert_eq!(curl("https://example.com/", &[], None), "curl -i -X POST 'https://example.com/'");
    }
}

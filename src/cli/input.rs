//! What a flag gives: as it stands, of a file, or of standard input.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;

use super::lines::STDIN;

/// What `flag` gives, or the text of the file or standard input that it names without the space around it, which shells
/// add. `limit` says where `max_bytes` come from.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn read(flag: &str, given: String, max_bytes: usize, limit: &str) -> anyhow::Result<Bytes> {
    let source = match given.strip_prefix('@') {
        Some(path) => Path::new(path),
        None if given == STDIN => Path::new(STDIN),
        None => return Ok(given.into()),
    };
    Ok(Bytes::copy_from_slice(read_file(flag, source, max_bytes, limit)?.trim_ascii()))
}

/// The bytes of the file that `flag` names, or those of standard input for `-`.
///
/// # Errors
/// As [`read`].
pub fn read_file(flag: &str, path: &Path, max_bytes: usize, limit: &str) -> anyhow::Result<Vec<u8>> {
    let read = if path.as_os_str() == STDIN {
        read_at_most(io::stdin().lock(), max_bytes).with_context(|| format!("{flag}: standard input cannot be read"))?
    } else {
        File::open(path)
            .and_then(|file| read_at_most(file, max_bytes))
            .with_context(|| format!("{flag}: {} cannot be read", path.display()))?
    };
    if read.len() > max_bytes {
        bail!("{flag}: more than {max_bytes} bytes are not allowed ({limit})");
    }
    Ok(read)
}

fn read_at_most(input: impl Read, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    input.take(max_bytes as u64 + 1).read_to_end(&mut read)?;
    Ok(read)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn it_is_taken_as_given_or_from_a_file_up_to_the_limit() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b" {\"a\": 1}\n").unwrap();
        let from_file = format!("@{}", file.path().display());
        let check = |given: &str, max_bytes, expected: Result<&str, &str>| {
            let read = read("--data", given.to_owned(), max_bytes, "a setting");
            match expected {
                Ok(data) => assert_eq!(read.unwrap(), data),
                Err(part) => {
                    let error = format!("{:#}", read.unwrap_err());
                    assert!(error.starts_with("--data: ") && error.contains(part), "{error}");
                }
            }
        };
        check(" 1 ", 100, Ok(" 1 "));
        check(&from_file, 100, Ok("{\"a\": 1}"));
        check(&from_file, 5, Err("more than 5 bytes are not allowed (a setting)"));
        check("@/nowhere/at/all", 5, Err("/nowhere/at/all cannot be read"));
    }
}

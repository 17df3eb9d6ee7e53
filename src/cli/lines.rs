//! Lines of a file or of standard input, none of which can fill the memory.

use std::path::Path;

use anyhow::Context;
use tokio::{
    fs::File,
    io::{AsyncBufRead, AsyncBufReadExt, BufReader},
};

/// What standard input is called.
pub const STDIN: &str = "-";
/// Bytes read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Text(Vec<u8>),
    /// It has more bytes than a line may have, and was left out.
    TooLong,
}

/// Reads line by line.
pub struct Lines<R> {
    input: R,
    max_bytes: usize,
    line: Vec<u8>,
    is_too_long: bool,
    /// Bytes read so far.
    pub position: u64,
}

impl Lines<Box<dyn AsyncBufRead + Send + Unpin>> {
    /// Opens a file, or `-` for standard input; also says how many bytes it has, if that is known.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub async fn open(path: &Path, max_bytes: usize) -> anyhow::Result<(Self, Option<u64>)> {
        if path.as_os_str() == STDIN {
            let input = BufReader::with_capacity(BUFFER_BYTES, tokio::io::stdin());
            return Ok((Self::new(Box::new(input), max_bytes), None));
        }
        let file = File::open(path).await.with_context(|| format!("{} cannot be opened", path.display()))?;
        let size = file.metadata().await.ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
        Ok((Self::new(Box::new(BufReader::with_capacity(BUFFER_BYTES, file)), max_bytes), size))
    }
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// Lines of up to `max_bytes`.
    pub fn new(input: R, max_bytes: usize) -> Self {
        Self { input, max_bytes, line: Vec::new(), is_too_long: false, position: 0 }
    }

    /// The next line; `None` at the end. Cancel safe: what was read of a line is kept.
    ///
    /// # Errors
    /// The input cannot be read.
    pub async fn next(&mut self) -> std::io::Result<Option<Line>> {
        loop {
            let bytes = self.input.fill_buf().await?;
            if bytes.is_empty() {
                let is_line = self.is_too_long || !self.line.is_empty();
                return Ok(is_line.then(|| self.take()));
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() > self.max_bytes {
                self.is_too_long = true;
                self.line.clear();
            } else if !self.is_too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            self.position += used as u64;
            if end.is_some() {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Line {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.is_too_long) { Line::TooLong } else { Line::Text(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_read_whatever_the_size_of_the_buffer_and_long_ones_are_left_out() {
        let text = |text: &str| Line::Text(text.into());
        for capacity in [1, 2, 3, 100] {
            let check = async |input: &str, expected: &[Line]| {
                let mut lines = Lines::new(BufReader::with_capacity(capacity, input.as_bytes()), 4);
                let mut found = Vec::new();
                while let Some(line) = lines.next().await.unwrap() {
                    found.push(line);
                }
                assert_eq!(found, expected, "{input:?} by {capacity}");
                assert_eq!(lines.position, input.len() as u64);
            };
            check("", &[]).await;
            check("a\n\nb", &[text("a"), text(""), text("b")]).await;
            check("abcd\r\n", &[Line::TooLong]).await;
            check("abcd\nabcdefghi\nx\n", &[text("abcd"), Line::TooLong, text("x")]).await;
            check("abcdefghi", &[Line::TooLong]).await;
        }
    }
}

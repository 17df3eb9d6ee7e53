//! What the receiver reads of a request: as little as it can, as cheaply as it can.

use super::{
    behaviour::{Behaviour, Verdict},
    event::Mark,
};

/// A whole request.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'b> {
    head: &'b [u8],
    body: &'b [u8],
}

impl<'b> Request<'b> {
    /// The first of the bytes, if it is here whole.
    pub fn of(bytes: &'b [u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let (head, rest) = bytes.split_at(end);
        Some(Self { head, body: rest.get(..number(head, b"content-length:").unwrap_or(0))? })
    }

    /// Bytes of all of it.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Which event it brings; `None` where it brings none.
    pub fn mark(&self) -> Option<Mark> {
        Mark::of_body(self.body)
    }

    /// To which endpoint: the second part of its path.
    pub fn endpoint(&self) -> usize {
        self.part(2).and_then(parsed).unwrap_or(0)
    }

    /// What becomes of it, by the first part of its path and its attempt.
    pub fn verdict(&self, mark: Mark) -> Verdict {
        let behaviour = self.part(1).map_or(Behaviour::Healthy, Behaviour::of_name);
        behaviour.verdict(mark, number(self.head, b"x-webhook-attempt:").unwrap_or(1) as u32)
    }

    /// A part of the path; the first slash is behind part 0, the method.
    fn part(&self, index: usize) -> Option<&'b [u8]> {
        let line = self.head.split(|byte| *byte == b'\r').next()?;
        let target = line.split(|byte| *byte == b' ').nth(1)?;
        target.split(|byte| *byte == b'/').nth(index)
    }
}

/// That in a header; the name is in lower case and with its colon.
fn number(head: &[u8], name: &[u8]) -> Option<usize> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        if found.eq_ignore_ascii_case(name) { parsed(value.trim_ascii()) } else { None }
    })
}

fn parsed(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_when_it_is_here_whole() {
        let check = |text: &str, expected| {
            let length = Request::of(text.as_bytes()).map(|request| (request.head.len(), request.len()));
            assert_eq!(length, expected, "{text:?}");
        };
        check("", None);
        check("POST / HTTP/1.1\r\nhost: a\r\n", None);
        check("POST / HTTP/1.1\r\nhost: a\r\n\r\n", Some((28, 28)));
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab", None);
        check("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST", Some((38, 41)));
        check("POST / HTTP/1.1\r\ncontent-length:3\r\nx: y\r\n\r\nabc", Some((43, 46)));
    }

    #[test]
    fn its_path_and_its_attempt_say_where_it_goes_and_what_becomes_of_it() {
        let check = |head: &str, endpoint, verdict| {
            let text = format!("{head}\r\n\r\n");
            let request = Request::of(text.as_bytes()).unwrap();
            let mark = Mark { number: 0, due_us: 0 };
            assert_eq!((request.endpoint(), request.verdict(mark)), (endpoint, verdict), "{head}");
        };
        check("POST /ok/7 HTTP/1.1", 7, Verdict::Take);
        check("POST / HTTP/1.1", 0, Verdict::Take);
        check("POST /fail/12 HTTP/1.1\r\nhost: a", 12, Verdict::Refuse);
        check("POST /once/3 HTTP/1.1\r\nX-Webhook-Attempt: 1", 3, Verdict::Refuse);
        check("POST /once/3 HTTP/1.1\r\nx-webhook-attempt: 2", 3, Verdict::Take);
    }
}

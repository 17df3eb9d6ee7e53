//! The rules about a webhook's fields, one function each; the names are those of docs/api.md.

use std::{collections::BTreeMap, ops::RangeInclusive};

use super::{Manager, RetryInput};
use crate::domain::{
    Invalid,
    address::check_headers,
    filter::Pattern,
    retry::{Retry, RetryPolicy},
    subscription::{LONGEST_TIMEOUT_SECONDS, Ordering, PayloadFormat},
};

const NAME_CHARS: usize = 200;
const EVENTS_AT_MOST: usize = 100;
const TIMEOUT_SECONDS: RangeInclusive<u32> = 1..=LONGEST_TIMEOUT_SECONDS;
const MAX_CONCURRENCY: RangeInclusive<u32> = 1..=1_000;
const RATE_LIMIT_PER_MINUTE: RangeInclusive<u32> = 1..=60_000;
const REPLAYS_PER_SECOND: RangeInclusive<u32> = 1..=1_000_000;

/// A name: 200 characters at most, none of which moves a terminal's cursor.
pub(super) fn check_name(name: &str) -> Result<(), Invalid> {
    check_text("name", name, NAME_CHARS)
}

/// Text on one line: so many characters at most, none of which moves a terminal's cursor.
pub(super) fn check_text(field: &'static str, text: &str, most: usize) -> Result<(), Invalid> {
    let length = text.chars().count();
    if length > most {
        return Err(Invalid::new(field, format!("at most {most} characters are allowed, not {length}")));
    }
    if text.contains(char::is_control) {
        return Err(Invalid::new(field, "control characters are not allowed"));
    }
    Ok(())
}

/// Event filters, each once.
pub(super) fn events(texts: &[String]) -> Result<Vec<Pattern>, Invalid> {
    let mut patterns: Vec<Pattern> = Vec::with_capacity(texts.len().min(EVENTS_AT_MOST));
    for text in texts {
        let pattern = text.parse()?;
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
        if patterns.len() > EVENTS_AT_MOST {
            return Err(Invalid::new("events", format!("at most {EVENTS_AT_MOST} filters are allowed")));
        }
    }
    if patterns.is_empty() {
        return Err(Invalid::new("events", "at least one filter is needed: a type, `prefix.*`, or `*` for all"));
    }
    Ok(patterns)
}

pub(super) fn ordering(text: &str) -> Result<Ordering, Invalid> {
    match text {
        "none" => Ok(Ordering::None),
        "fifo" => Ok(Ordering::Fifo),
        other => Err(Invalid::new("ordering", format!("`none` or `fifo` is allowed, not `{}`", other.escape_debug()))),
    }
}

pub(super) fn payload_format(text: &str) -> Result<PayloadFormat, Invalid> {
    match text {
        "envelope" => Ok(PayloadFormat::Envelope),
        "raw" => Ok(PayloadFormat::Raw),
        other => {
            let problem = format!("`envelope` or `raw` is allowed, not `{}`", other.escape_debug());
            Err(Invalid::new("payload_format", problem))
        }
    }
}

pub(super) fn headers(headers: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    check_headers(&headers)?;
    Ok(headers)
}

/// How many a second are replayed; `None` for no limit.
///
/// # Errors
/// For none, and for more than is ever reached.
pub fn check_rate(rate: Option<u32>) -> Result<Option<u32>, Invalid> {
    rate.map(|rate| within("rate", rate, REPLAYS_PER_SECOND)).transpose()
}

pub(super) fn within<T: PartialOrd + std::fmt::Display>(
    field: &'static str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<T, Invalid> {
    if allowed.contains(&value) {
        return Ok(value);
    }
    Err(Invalid::new(field, format!("{} to {} is allowed, not {value}", allowed.start(), allowed.end())))
}

/// What a webhook that says nothing, or takes it back, is given.
impl Manager {
    pub(super) fn url(&self, text: &str) -> Result<String, Invalid> {
        self.settings.rules.check_url(text).map(String::from)
    }

    pub(super) fn timeout_seconds(&self, given: Option<u32>) -> Result<u32, Invalid> {
        within("timeout_seconds", given.unwrap_or(self.settings.timeout_seconds), TIMEOUT_SECONDS)
    }

    pub(super) fn max_concurrency(&self, given: Option<u32>) -> Result<u32, Invalid> {
        within("max_concurrency", given.unwrap_or(self.settings.max_concurrency), MAX_CONCURRENCY)
    }

    pub(super) fn rate_limit(&self, given: Option<u32>) -> Result<Option<u32>, Invalid> {
        let limit = given.or(self.settings.rate_limit_per_minute);
        limit.map(|limit| within("rate_limit_per_minute", limit, RATE_LIMIT_PER_MINUTE)).transpose()
    }

    /// The retries that `policy` and `count` ask for; what they leave open is the default's. A schedule has as many as
    /// delays unless a number is given.
    pub(super) fn retry(&self, policy: Option<RetryInput>, count: Option<u32>) -> Result<Retry, Invalid> {
        let mut retry = match policy {
            None => self.settings.retry.clone(),
            Some(RetryInput::Preset(name)) => self.preset(&name)?,
            Some(RetryInput::Policy(RetryPolicy::Schedule { delays_ms, jitter })) => Retry::schedule(delays_ms, jitter),
            Some(RetryInput::Policy(policy)) => Retry { count: self.settings.retry.count, policy },
        };
        retry.count = count.unwrap_or(retry.count);
        retry.validate()?;
        Ok(retry)
    }

    fn preset(&self, name: &str) -> Result<Retry, Invalid> {
        self.settings.presets.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.settings.presets.keys().map(String::as_str).collect();
            let problem = format!("no preset is called `{}`; there are {}", name.escape_debug(), known.join(", "));
            Invalid::new("retry", problem)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn event_filters_are_kept_once_each_and_in_their_order() {
        let kept: Vec<String> =
            events(&texts(&["b.*", "a", "b.*", "*"])).unwrap().iter().map(Pattern::to_string).collect();
        assert_eq!(kept, ["b.*", "a", "*"]);
    }

    #[test]
    fn what_is_not_allowed_is_refused_by_its_public_name() {
        let many: Vec<String> = (0..=EVENTS_AT_MOST).map(|n| format!("t{n}")).collect();
        let check = |refused: Option<Invalid>, field: &str| assert_eq!(refused.map(|e| e.field), Some(field));
        check(events(&[]).err(), "events");
        check(events(&many).err(), "events");
        check(events(&texts(&["a", "b c"])).err(), "events");
        check(ordering("lifo").err(), "ordering");
        check(payload_format("xml").err(), "payload_format");
        check(check_name(&"é".repeat(NAME_CHARS + 1)).err(), "name");
        check(check_name("a\u{1b}[2J").err(), "name");
        check(within("max_concurrency", 0, MAX_CONCURRENCY).err(), "max_concurrency");
        check(check_rate(Some(0)).err(), "rate");
        check(check_rate(Some(1_000_001)).err(), "rate");
        check(within("timeout_seconds", 301, TIMEOUT_SECONDS).err(), "timeout_seconds");
        assert!(events(&many[1..]).is_ok());
        assert_eq!(check_name(&"é".repeat(NAME_CHARS)), Ok(()));
    }
}

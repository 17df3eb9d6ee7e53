//! How the values of flags are read. What is of the wrong form is wrong usage; what is out of range is for the engine to
//! refuse.

use std::{fmt, str::FromStr, time::Duration};

use crate::{
    clock::now_ms,
    domain::{
        outcome::Reason,
        time::{parse_duration_ms, parse_moment},
    },
};

/// What takes a setting back.
const NONE: &str = "none";

/// A value, or `none` to take back what was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrNone<T> {
    None,
    Value(T),
}

impl<T> OrNone<T> {
    pub fn into_option(self) -> Option<T> {
        match self {
            Self::None => None,
            Self::Value(value) => Some(value),
        }
    }
}

impl<T: FromStr> FromStr for OrNone<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == NONE { Ok(Self::None) } else { text.parse().map(Self::Value) }
    }
}

/// A header as it is given: `Name: value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: String,
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("a header is given as 'Name: value'")?;
        Ok(Self { name: name.trim().to_owned(), value: value.trim().to_owned() })
    }
}

/// Whether attempts that succeeded, or those that failed, are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum AttemptStatus {
    Success,
    Failed,
}

/// A moment, as Unix milliseconds.
pub fn moment(text: &str) -> Result<u64, String> {
    parse_moment(text, now_ms()).ok_or_else(|| {
        "a time is RFC 3339, a date, Unix milliseconds, `now`, or an age such as 15m, 24h or 7d".to_owned()
    })
}

/// How long something is.
pub fn duration(text: &str) -> Result<Duration, String> {
    let ms = parse_duration_ms(text).ok_or("a duration is a number and its unit, such as 90s, 24h or 7d")?;
    Ok(Duration::from_millis(ms))
}

/// Why something is a dead letter.
pub fn reason(text: &str) -> Result<Reason, String> {
    Reason::of_name(text).ok_or_else(|| {
        let known: Vec<&str> = Reason::ALL.into_iter().map(Reason::name).collect();
        format!("a reason is one of {}", known.join(", "))
    })
}

/// An id of the kind that is asked for.
pub fn id<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A count with its noun: `1 event`, `2 events`.
pub fn count(number: u64, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_takes_a_setting_back() {
        let check = |text: &str, expected| assert_eq!(text.parse::<OrNone<u32>>().ok(), expected, "{text}");
        check("none", Some(OrNone::None));
        check("7", Some(OrNone::Value(7)));
        check("-7", None);
        check("None", None);
    }

    #[test]
    fn a_header_has_a_name_and_a_value() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let header = text.parse::<Header>().ok();
            let parts = header.as_ref().map(|header| (header.name.as_str(), header.value.as_str()));
            assert_eq!(parts, expected, "{text}");
        };
        check("X-Env: prod", Some(("X-Env", "prod")));
        check("X-Time:12:30", Some(("X-Time", "12:30")));
        check("X-Empty:", Some(("X-Empty", "")));
        check("X-Env", None);
    }

    #[test]
    fn times_and_reasons_of_no_known_form_are_refused() {
        assert!(duration("24h") == Ok(Duration::from_secs(86_400)) && duration("a day").is_err());
        assert!(moment("15m").is_ok() && moment("2026-11-24").is_ok() && moment("soon").is_err());
        assert_eq!(reason("max_age"), Ok(Reason::MaxAge));
        assert!(reason("bored").unwrap_err().contains("exhausted, gone"));
    }

    #[test]
    fn a_count_agrees_with_its_noun() {
        let check = |number, expected: &str| assert_eq!(count(number, "event"), expected);
        check(0, "0 events");
        check(1, "1 event");
        check(2, "2 events");
    }
}

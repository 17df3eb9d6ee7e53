//! Moments and durations as text. A moment is Unix milliseconds, never before 1970.

use jiff::{
    Timestamp,
    civil::{Date, DateTime},
    tz::Offset,
};

/// `2026-11-24T20:56:45.123Z`: RFC 3339, UTC, milliseconds. What is past the year 9999 is shown as its end.
pub fn rfc3339(ms: u64) -> String {
    let moment = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", moment.unwrap_or(Timestamp::MAX))
}

/// Reads RFC 3339 with any offset; what is finer than a millisecond is cut off. `None` for any other text and for what
/// is before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    // jiff also reads forms of ISO 8601 that RFC 3339 leaves out, such as a time without seconds.
    if !has_rfc3339_form(text.as_bytes()) {
        return None;
    }
    since_1970(text.parse().ok()?)
}

/// `YYYY-MM-DDThh:mm:ss`, a fraction or none, and an offset (RFC 3339 §5.6).
fn has_rfc3339_form(text: &[u8]) -> bool {
    let Some((moment, rest)) = text.split_at_checked(19) else { return false };
    let fraction = match rest {
        [b'.', digits @ ..] => digits.iter().take_while(|c| c.is_ascii_digit()).count() + 1,
        _ => 0,
    };
    is_like(moment, b"0000-00-00T00:00:00")
        && fraction != 1
        && match &rest[fraction..] {
            [b'Z' | b'z'] => true,
            [b'+' | b'-', offset @ ..] => is_like(offset, b"00:00"),
            _ => false,
        }
}

/// Whether `text` has a digit where `form` has a `0`, and else what it has; for `T`, also `t` or a space.
fn is_like(text: &[u8], form: &[u8]) -> bool {
    let fits = |(c, like): (&u8, &u8)| match like {
        b'0' => c.is_ascii_digit(),
        b'T' => b"Tt ".contains(c),
        other => c == other,
    };
    text.len() == form.len() && text.iter().zip(form).all(fits)
}

fn since_1970(moment: Timestamp) -> Option<u64> {
    // Compared first: the division to milliseconds would round the last one before 1970 up to it.
    if moment < Timestamp::UNIX_EPOCH { None } else { u64::try_from(moment.as_millisecond()).ok() }
}

/// Reads a moment as people give it: RFC 3339; a date, its midnight in UTC; 13 digits, Unix milliseconds; `now`; or an
/// age, as `15m`, before now (at most back to 1970).
pub fn parse_moment(text: &str, now_ms: u64) -> Option<u64> {
    if text == "now" {
        return Some(now_ms);
    }
    if is_like(text.as_bytes(), b"0000000000000") {
        return text.parse().ok();
    }
    if is_like(text.as_bytes(), b"0000-00-00") {
        return since_1970(to_timestamp(text.parse::<Date>().ok()?.at(0, 0, 0, 0))?);
    }
    parse_duration_ms(text).map(|age_ms| now_ms.saturating_sub(age_ms)).or_else(|| parse_rfc3339(text))
}

/// Reads a whole number and its unit, `ms`, `s`, `m`, `h` or `d`, as milliseconds.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms)
}

/// Reads an HTTP date in its three forms (RFC 9110 §5.6.7); what is before 1970 is 1970. The day of the week is not
/// compared: it says nothing that the date does not.
pub fn parse_http_date(text: &str, now_ms: u64) -> Option<u64> {
    let words: Vec<&str> = text.split([' ', ',', '-']).filter(|word| !word.is_empty()).collect();
    let (year, month, day, time) = match words[..] {
        // Sun, 06 Nov 1994 08:49:37 GMT, or Sunday, 06-Nov-94 08:49:37 GMT
        [_, day, month, year, time, "GMT"] => (year, month, day, time),
        // Sun Nov  6 08:49:37 1994
        [_, month, day, time, year] => (year, month, day, time),
        _ => return None,
    };
    let year = match (year.len(), number(year)?) {
        (4, year) => year,
        (2, year) => full_year(year, now_ms),
        _ => return None,
    };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let time = time.as_bytes();
    if !is_like(time, b"00:00:00") {
        return None;
    }
    let two = |at: usize| (time[at] - b'0') as i8 * 10 + (time[at + 1] - b'0') as i8;
    // A leap second is taken as the one before it, as Unix time does.
    let (month, day) = (i8::try_from(month).ok()?, i8::try_from(number(day)?).ok()?);
    let moment = DateTime::new(year, month, day, two(0), two(3), two(6).min(59), 0).ok()?;
    Some(u64::try_from(to_timestamp(moment)?.as_millisecond()).unwrap_or(0))
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Digits and nothing else, so that a sign is refused.
fn number(digits: &str) -> Option<i16> {
    if digits.bytes().all(|c| c.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// A year of two digits is never more than 50 years ahead (RFC 9110 §5.6.7).
fn full_year(two_digits: i16, now_ms: u64) -> i16 {
    let now = i64::try_from(now_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX);
    let this_year = Offset::UTC.to_datetime(now).year();
    let year = this_year - this_year % 100 + two_digits;
    if year > this_year + 50 { year - 100 } else { year }
}

fn to_timestamp(utc: DateTime) -> Option<Timestamp> {
    Offset::UTC.to_timestamp(utc).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-24T20:56:45.123Z
    const NOW: u64 = 1_795_553_805_123;
    /// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
    const EXAMPLE: u64 = 784_111_777_000;

    #[test]
    fn moments_are_written_in_utc_with_milliseconds() {
        let check = |ms: u64, text: &str| assert_eq!(rfc3339(ms), text);
        check(0, "1970-01-01T00:00:00.000Z");
        check(NOW, "2026-11-24T20:56:45.123Z");
        check(EXAMPLE, "1994-11-06T08:49:37.000Z");
        check(u64::MAX, "9999-12-30T22:00:00.999Z");
    }

    #[test]
    fn rfc3339_is_read_with_any_offset_and_nothing_else_is() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_rfc3339(text), expected, "{text}");
        check("2026-11-24T20:56:45.123Z", Some(NOW));
        check("2026-11-24t20:56:45.123999z", Some(NOW));
        check("2026-11-24 20:56:45.123Z", Some(NOW));
        check("2026-11-24T22:26:45.123+01:30", Some(NOW));
        check("2026-11-23T21:57:45.123-22:59", Some(NOW));
        check("2026-11-24T20:56:45.123-00:00", Some(NOW));
        check("2026-11-24T20:56:45Z", Some(NOW - 123));
        check("1970-01-01T00:00:00Z", Some(0));
        check("1970-01-01T01:00:00+01:00", Some(0));
        for bad in [
            "",
            "2026-11-24",
            "2026-11-24T20:56Z",
            "2026-11-24T20:56:45",
            "2026-11-24T20:56:45.Z",
            "2026-11-24T20:56:45,5Z",
            "2026-11-24T20:56:45+01",
            "2026-11-24T20:56:45+0100",
            "2026-11-24T20:56:45Z[UTC]",
            "2026-13-24T20:56:45Z",
            "2026-02-29T20:56:45Z",
            "2026-11-24T25:56:45Z",
            "1969-12-31T23:59:59.9999Z",
            "1970-01-01T00:00:00+00:01",
            "+02026-11-24T20:56:45Z",
            "20261124T205645Z",
            "2026-11-24T20:56:45é",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn a_moment_may_be_given_in_many_ways() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_moment(text, NOW), expected, "{text}");
        check("now", Some(NOW));
        check("2026-11-24T20:56:45.123Z", Some(NOW));
        check("1970-01-02", Some(86_400_000));
        check("1795553805123", Some(NOW));
        check("90s", Some(NOW - 90_000));
        check("7d", Some(NOW - 7 * 86_400_000));
        check("99999d", Some(0));
        for bad in ["", "yesterday", "1969-12-31", "2026-02-30", "179555380512", "17955538051230", "-5m", "5", "5 m"] {
            check(bad, None);
        }
    }

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_duration_ms(text), expected, "{text}");
        check("0s", Some(0));
        check("250ms", Some(250));
        check("90s", Some(90_000));
        check("15m", Some(900_000));
        check("24h", Some(86_400_000));
        check("7d", Some(604_800_000));
        for bad in ["", "s", "7", "7w", "+7d", "-7d", "1.5h", "7 d", "7D", "1h30m", "99999999999999999d", "٣d"] {
            check(bad, None);
        }
    }

    #[test]
    fn the_three_forms_of_an_http_date_are_read() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_http_date(text, NOW), expected, "{text}");
        check("Sun, 06 Nov 1994 08:49:37 GMT", Some(EXAMPLE));
        check("Sunday, 06-Nov-94 08:49:37 GMT", Some(EXAMPLE));
        check("Sun Nov  6 08:49:37 1994", Some(EXAMPLE));
        check("Sat, 31 Dec 2016 23:59:60 GMT", parse_rfc3339("2016-12-31T23:59:59Z"));
        check("Monday, 24-Nov-76 00:00:00 GMT", parse_rfc3339("2076-11-24T00:00:00Z"));
        check("Monday, 24-Nov-77 00:00:00 GMT", parse_rfc3339("1977-11-24T00:00:00Z"));
        check("Sun, 06 Nov 1904 08:49:37 GMT", Some(0));
        for bad in [
            "",
            "GMT",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 31 Feb 1994 08:49:37 GMT",
            "Sun, 06 Nom 1994 08:49:37 GMT",
            "Sun, 06 Nov 994 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
        ] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn a_moment_survives_its_text(ms in 0..253_402_207_200_000u64) {
            prop_assert_eq!(parse_rfc3339(&rfc3339(ms)), Some(ms));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9TZtzsmhd:., GMTSunNov]{0,32}", any in "\\PC{0,24}", now: u64) {
            for text in [text, any] {
                parse_moment(&text, now);
                parse_http_date(&text, now);
            }
        }
    }
}

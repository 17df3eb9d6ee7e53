//! What a command prints: data on stdout, as aligned text for people or as the API's JSON; progress on stderr.
//!
//! Text that users or receivers chose is never written to a terminal as it is: control characters are shown escaped.

use std::{
    fmt::{self, Write as _},
    io::{self, ErrorKind, IsTerminal, Write},
    time::Duration,
};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use serde_json::Value;

use super::errors::{OutputClosed, say};
use crate::{api::json::Page, logging::wants_colours};

/// Between two columns.
const GAP: &str = "  ";
/// Between two steps of a progress bar that does not know how much there is.
const TICK: Duration = Duration::from_millis(100);
/// What stands for a field that has no value.
const NOTHING: &str = "-";

/// Where data go, and in which form.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub is_json: bool,
    pub paint: Paint,
}

impl Output {
    pub fn new(is_json: bool) -> Self {
        Self { is_json, paint: Paint { is_on: io::stdout().is_terminal() && wants_colours() } }
    }

    /// Writes a value as one line of JSON.
    ///
    /// # Errors
    /// [`OutputClosed`], or that it could not be written.
    pub fn json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string(value).context("the answer is no JSON")?)
    }

    /// Writes text and a line end.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn line(&self, text: impl fmt::Display) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(OutputClosed.into()),
            written => written.context("standard output cannot be written"),
        }
    }

    /// Writes one thing: its JSON, or its `fields` one a line, those that it has.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn one(&self, thing: &impl Serialize, fields: &[&str]) -> anyhow::Result<()> {
        if self.is_json {
            return self.json(thing);
        }
        let thing = to_value(thing)?;
        let known = fields.iter().filter(|name| thing.get(name).is_some());
        let rows: Vec<_> = known.map(|name| vec![name.replace('_', " "), field(&thing, name)]).collect();
        self.line(aligned(&rows))
    }

    /// Writes a page of a list: its JSON, or a table of `columns` (title and field).
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn page<T: Serialize>(&self, page: &Page<T>, columns: &[(&str, &str)]) -> anyhow::Result<()> {
        if self.is_json {
            return self.json(page);
        }
        if page.data.is_empty() {
            say("nothing found");
        } else {
            let mut rows = vec![columns.iter().map(|(title, _)| (*title).to_owned()).collect()];
            for thing in &page.data {
                let thing = to_value(thing)?;
                rows.push(columns.iter().map(|(_, name)| field(&thing, name)).collect());
            }
            self.line(aligned(&rows))?;
        }
        if let Some(cursor) = &page.next_cursor {
            say(format_args!("there is more: go on with --cursor {cursor}"));
        }
        Ok(())
    }
}

fn to_value(thing: &impl Serialize) -> anyhow::Result<Value> {
    serde_json::to_value(thing).context("the answer is no JSON")
}

/// A field of a thing as people read it, on one line.
fn field(thing: &Value, name: &str) -> String {
    shown(&thing[name])
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => NOTHING.to_owned(),
        Value::String(text) if text.is_empty() => NOTHING.to_owned(),
        Value::String(text) => plain(text),
        Value::Array(items) if items.is_empty() => NOTHING.to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
        Value::Object(fields) if fields.is_empty() => NOTHING.to_owned(),
        Value::Object(_) | Value::Bool(_) | Value::Number(_) => plain(&value.to_string()),
    }
}

/// Text with its control characters escaped, so that nobody's data can move the cursor or hide a line.
pub fn plain(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut plain, c| {
        match c {
            c if c.is_control() => plain.extend(c.escape_default()),
            c => plain.push(c),
        }
        plain
    })
}

/// Rows with their columns one below the other; no line ends in spaces.
pub fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
    let widest = |column| rows.iter().map(|row| width(row, column)).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(widest).collect();
    let lines = rows.iter().map(|row| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:<width$}{GAP}");
        }
        line.trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Colours, on a terminal.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    is_on: bool,
}

impl Paint {
    /// For stderr.
    pub fn stderr() -> Self {
        Self { is_on: io::stderr().is_terminal() && wants_colours() }
    }

    pub fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    pub fn yellow(self, text: &str) -> String {
        self.with("33", text)
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.is_on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A progress bar on stderr, if that is a terminal; `total` may be unknown. Its message says what was done so far.
pub fn progress(total: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = match total {
        Some(_) => "{bar:30} {percent:>3}%  {msg}",
        None => "{spinner} {msg}",
    };
    // The templates are constants; were one wrong, the bar would only look otherwise.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr()).with_style(style);
    bar.enable_steady_tick(TICK);
    bar
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_stand_one_below_the_other_and_lines_do_not_end_in_spaces() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let check = |rows: &[Vec<String>], expected: &str| assert_eq!(aligned(rows), expected);
        check(&[], "");
        check(&[row(&["ID", "NAME"]), row(&["wh_1", "é"]), row(&["x", "yz"])], "ID    NAME\nwh_1  é\nx     yz");
        check(&[row(&["a", ""]), row(&["b"])], "a\nb");
    }

    #[test]
    fn a_field_is_shown_on_one_line_and_cannot_move_the_cursor() {
        let check = |value: Value, expected: &str| assert_eq!(shown(&value), expected);
        check(json!(null), "-");
        check(json!(""), "-");
        check(json!("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        check(json!(["a", "b.*"]), "a,b.*");
        check(json!([]), "-");
        check(json!(3), "3");
        check(json!({}), "-");
        check(json!({"kind": "schedule"}), r#"{"kind":"schedule"}"#);
    }

    #[test]
    fn colours_are_off_unless_asked_for() {
        let check = |is_on, expected: &str| assert_eq!(Paint { is_on }.red("no"), expected);
        check(false, "no");
        check(true, "\u{1b}[31mno\u{1b}[0m");
    }
}

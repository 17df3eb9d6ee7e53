//! A JSON Schema (draft 2020-12) that a stranger may have written, and whether data fit it.
//!
//! Neither a schema nor data can make a check last: what a schema costs for each byte of data is counted before it is
//! used, the product is bounded, and patterns run on an engine whose time is linear. Nothing is ever fetched.

mod pattern;
mod unique;
mod weigh;

use jsonschema::{Draft, Validator};
use serde_json::Value;

use self::weigh::Weight;

/// Bytes of a schema's text.
pub const SCHEMA_BYTES: usize = 64 * 1024;
/// Steps of one check: the schema's weight times the bytes of the data.
const STEPS_AT_MOST: u64 = 64 * 1024 * 1024;
/// The same, of a check that looks for each failed alternative: each step may leave an error in memory.
const EXPLAINED_STEPS: u64 = 256 * 1024;
/// Characters of what is told of a failure, and of where it was.
const PROBLEM_CHARS: usize = 300;
const POINTER_CHARS: usize = 200;
/// The only dialect taken; a schema need not name it.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// A schema that is ready to check data.
pub struct Schema {
    validator: Validator,
    weight: Weight,
}

impl Schema {
    /// Reads a schema and makes it ready.
    ///
    /// # Errors
    /// What is wrong with it, in plain words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > SCHEMA_BYTES {
            return Err(format!("{} bytes; at most {SCHEMA_BYTES} are allowed", text.len()));
        }
        let mut schema: Value = serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))?;
        // Names for others to refer to it by: here nobody does, and what `#` means must not depend on them.
        if let Some(fields) = schema.as_object_mut() {
            let dialect = fields.remove("$schema");
            if dialect.is_some_and(|dialect| dialect.as_str().is_none_or(|name| name.trim_end_matches('#') != DIALECT))
            {
                return Err(format!("$schema: only {DIALECT} is taken"));
            }
            fields.remove("$id");
        }
        jsonschema::draft202012::meta::validate(&schema).map_err(|error| told(&error, &error.to_string()))?;
        let weight = weigh::weigh(&schema)?;
        let options = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .offline()
            .should_validate_formats(true)
            // Whether text is a pattern is nobody's business here, and costly to find out.
            .with_format("regex", |_: &str| true)
            .with_keyword("uniqueItems", unique::keyword)
            .with_pattern_options(pattern::engine(pattern::LARGEST_BYTES));
        let validator = options.build(&schema).map_err(|error| told(&error, &error.to_string()))?;
        Ok(Self { validator, weight })
    }

    /// What it costs for each byte of data, from 1 to a few thousand.
    pub fn weight(&self) -> u64 {
        self.weight.steps
    }

    /// Steps, of some nanoseconds each, that a check of so many bytes may take.
    pub fn steps(&self, bytes: usize) -> u64 {
        self.weight.steps * bytes as u64
    }

    /// Checks data, given as JSON.
    ///
    /// # Errors
    /// Where they do not fit first, as a JSON pointer, and why. Of the data's values it shows none.
    pub fn check(&self, data: &[u8]) -> Result<(), String> {
        let steps = self.steps(data.len());
        if steps > STEPS_AT_MOST {
            let most = STEPS_AT_MOST / self.weight.steps;
            return Err(format!("{} bytes; the type's schema can be checked on at most {most}", data.len()));
        }
        let data: Value = serde_json::from_slice(data).map_err(|error| format!("cannot be checked: {error}"))?;
        if self.validator.is_valid(&data) {
            return Ok(());
        }
        if self.weight.gathers && steps > EXPLAINED_STEPS {
            return Err("does not fit the type's schema; it is too large to say where".to_owned());
        }
        self.validator.validate(&data).map_err(|error| told(&error, &error.masked_with("the value").to_string()))
    }
}

impl std::fmt::Debug for Schema {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Schema(weight {})", self.weight.steps)
    }
}

fn told(error: &jsonschema::ValidationError<'_>, problem: &str) -> String {
    let problem = shown(problem, PROBLEM_CHARS);
    match error.instance_path().as_str() {
        "" => problem,
        pointer => format!("at {}: {problem}", shown(pointer, POINTER_CHARS)),
    }
}

/// Text on one line, cut to so many characters.
fn shown(text: &str, chars: usize) -> String {
    let mut shown = String::new();
    for (at, c) in text.chars().enumerate() {
        match c {
            _ if at == chars => return shown + "…",
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests;

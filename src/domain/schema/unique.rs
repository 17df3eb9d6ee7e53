//! `uniqueItems`, by sorting. By hashes, as the library does it, items can be chosen that all hash alike.

use std::cmp::Ordering;

use jsonschema::{Keyword, ValidationError, paths::Location};
use serde_json::{Map, Number, Value};

/// Makes the keyword for a schema that has it.
#[expect(clippy::unnecessary_wraps, reason = "the library asks for a Result")]
pub fn keyword<'a>(
    _: &'a Map<String, Value>,
    value: &'a Value,
    _: Location,
) -> Result<Box<dyn for<'i> Keyword<'i>>, ValidationError<'a>> {
    Ok(Box::new(Unique { is_wanted: value == &Value::Bool(true) }))
}

struct Unique {
    is_wanted: bool,
}

impl<'i> Keyword<'i> for Unique {
    fn validate(&self, instance: &'i Value) -> Result<(), ValidationError<'i>> {
        if self.is_valid(instance) { Ok(()) } else { Err(ValidationError::custom("two items are the same")) }
    }

    fn is_valid(&self, instance: &'i Value) -> bool {
        match instance {
            Value::Array(items) if self.is_wanted => are_unique(items),
            _ => true,
        }
    }
}

fn are_unique(items: &[Value]) -> bool {
    let mut sorted: Vec<&Value> = items.iter().collect();
    sorted.sort_unstable_by(|a, b| order(a, b));
    sorted.windows(2).all(|pair| order(pair[0], pair[1]) != Ordering::Equal)
}

/// Some order of all values, in which those are equal that JSON Schema calls so: `1` and `1.0`, but not `1` and `true`.
fn order(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => order_of_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => in_turn(a.iter().zip(b).map(|(a, b)| order(a, b)), a.len(), b.len()),
        (Value::Object(a), Value::Object(b)) => {
            // The fields of both come in the order of their names.
            let fields = a.iter().zip(b).map(|(a, b)| a.0.cmp(b.0).then_with(|| order(a.1, b.1)));
            in_turn(fields, a.len(), b.len())
        }
        (a, b) => rank(a).cmp(&rank(b)),
    }
}

fn in_turn(mut pairs: impl Iterator<Item = Ordering>, a_length: usize, b_length: usize) -> Ordering {
    pairs.find(|order| order.is_ne()).unwrap_or_else(|| a_length.cmp(&b_length))
}

/// By their nearest fractions, and where these are the same by their whole numbers: those may have more digits.
fn order_of_numbers(a: &Number, b: &Number) -> Ordering {
    // Adding zero makes -0 and 0 the same.
    let fraction = |number: &Number| number.as_f64().unwrap_or_default() + 0.0;
    let whole = |number: &Number| number.as_i128().unwrap_or_else(|| fraction(number) as i128);
    fraction(a).total_cmp(&fraction(b)).then_with(|| whole(a).cmp(&whole(b)))
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_the_same_as_json_schema_has_it() {
        let check = |items: &str, expected: bool| {
            let items: Vec<Value> = serde_json::from_str(items).unwrap();
            assert_eq!(are_unique(&items), expected, "{items:?}");
        };
        check("[]", true);
        check("[1, true, \"1\", null, [1], {\"a\": 1}, 1.5]", true);
        check("[1, 2, 1.0]", false);
        check("[0, -0.0]", false);
        check("[9007199254740992, 9007199254740993]", true);
        check("[9007199254740993, 9007199254740992, 9007199254740992.0]", false);
        check("[18446744073709551615, 18446744073709551614, -1]", true);
        check("[[1, [2]], [[1], 2], [1, 2]]", true);
        check("[{\"a\": 1, \"b\": 2}, {\"b\": 2, \"a\": 1}]", false);
        check("[{\"a\": 1}, {\"a\": 2}, {\"b\": 1}, {\"a\": 1, \"b\": 1}]", true);
        check("[null, 1, null]", false);
    }
}

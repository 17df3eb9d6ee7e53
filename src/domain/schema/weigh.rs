//! What a schema costs for each byte of data, and whether that can be known at all.
//!
//! A check looks at each value of the data with each subschema that can apply to it, so the number of subschemas, each
//! counted as often as it is referred to, bounds the work for one value; and no data have more values than bytes.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::pattern;

/// Steps for each byte of data.
const STEPS_AT_MOST: u64 = 4_096;
/// Subschemas inside one another; each is some of the stack.
const NESTED_AT_MOST: u32 = 64;
/// Items are sorted to find equal ones.
const UNIQUE_STEPS: u64 = 32;
/// What is evaluated is looked up again on each level.
const UNEVALUATED_FACTOR: u64 = 4;

const ONE: [&str; 12] = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
const LISTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
const BY_NAME: [&str; 4] = ["dependencies", "dependentSchemas", "patternProperties", "properties"];

/// What a schema costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// For each byte of data.
    pub steps: u64,
    /// Whether a failure is told with the failures of all alternatives.
    pub gathers: bool,
    height: u32,
}

/// Weighs a schema that its dialect's own schema allows.
///
/// # Errors
/// It refers to something outside, or to itself, or may cost too much.
pub fn weigh(schema: &Value) -> Result<Weight, String> {
    check_names(schema, true)?;
    let mut scale = Scale { root: schema, open: HashSet::new(), known: HashMap::new(), prices: HashMap::new() };
    let weight = scale.weigh(schema)?;
    if weight.height > NESTED_AT_MOST {
        return Err(too_deep());
    }
    if weight.steps > STEPS_AT_MOST {
        return Err(format!(
            "too costly: more than {STEPS_AT_MOST} steps for each byte of data (a subschema counts as often as it is \
             referred to, a pattern by its size)"
        ));
    }
    Ok(weight)
}

fn too_deep() -> String {
    format!("subschemas are nested, or refer to one another, more than {NESTED_AT_MOST} deep")
}

/// With a name of its own a part would give another meaning to the references in it.
fn check_names(value: &Value, is_root: bool) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            if !is_root
                && let Some(name) =
                    ["$id", "$schema"].into_iter().find(|name| fields.get(*name).is_some_and(Value::is_string))
            {
                return Err(format!("{name}: only the whole schema may have one"));
            }
            fields.values().try_for_each(|value| check_names(value, false))
        }
        Value::Array(items) => items.iter().try_for_each(|item| check_names(item, false)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

struct Scale<'s> {
    root: &'s Value,
    /// The subschemas around the one that is weighed, by where they are in memory.
    open: HashSet<*const Value>,
    known: HashMap<*const Value, Weight>,
    /// The steps of each pattern.
    prices: HashMap<&'s str, u64>,
}

impl<'s> Scale<'s> {
    fn weigh(&mut self, schema: &'s Value) -> Result<Weight, String> {
        let place = std::ptr::from_ref(schema);
        if let Some(weight) = self.known.get(&place) {
            return Ok(*weight);
        }
        if !self.open.insert(place) {
            return Err("$ref: a schema that refers to itself is not taken: how long a check lasts could not be known"
                .to_owned());
        }
        // Before the stack is used up; what was weighed at another place adds its height in the end.
        if self.open.len() > NESTED_AT_MOST as usize {
            return Err(too_deep());
        }
        let weight = match schema {
            Value::Object(keywords) => self.weigh_keywords(keywords)?,
            Value::Bool(_) => Weight { steps: 1, gathers: false, height: 1 },
            _ => return Err("$ref: leads to something that is no schema".to_owned()),
        };
        self.open.remove(&place);
        self.known.insert(place, weight);
        Ok(weight)
    }

    fn weigh_keywords(&mut self, keywords: &'s Map<String, Value>) -> Result<Weight, String> {
        let mut whole = Weight {
            steps: own_steps(keywords).saturating_add(self.pattern_steps(keywords)?),
            gathers: keywords.contains_key("anyOf") || keywords.contains_key("oneOf"),
            height: 0,
        };
        for part in self.parts(keywords)? {
            let part = self.weigh(part)?;
            whole.steps = whole.steps.saturating_add(part.steps);
            whole.gathers |= part.gathers;
            whole.height = whole.height.max(part.height);
        }
        whole.height = whole.height.saturating_add(1);
        if keywords.contains_key("unevaluatedItems") || keywords.contains_key("unevaluatedProperties") {
            whole.steps = whole.steps.saturating_mul(UNEVALUATED_FACTOR);
        }
        Ok(whole)
    }

    /// The steps of the patterns of a schema.
    fn pattern_steps(&mut self, keywords: &'s Map<String, Value>) -> Result<u64, String> {
        let own = keywords.get("pattern").and_then(Value::as_str);
        let of_names = keywords.get("patternProperties").and_then(Value::as_object);
        let patterns = own.into_iter().chain(of_names.into_iter().flat_map(|named| named.keys().map(String::as_str)));
        patterns.map(|pattern| self.price(pattern)).try_fold(0, |sum: u64, price| Ok(sum.saturating_add(price?)))
    }

    fn price(&mut self, text: &'s str) -> Result<u64, String> {
        if let Some(price) = self.prices.get(text) {
            return Ok(*price);
        }
        // So many are too many, whatever they are: it need not be found out.
        let price = match self.prices.len() as u64 * pattern::LEAST_STEPS {
            sum if sum > STEPS_AT_MOST => STEPS_AT_MOST,
            _ => pattern::steps(text).ok_or_else(|| {
                let shown = super::shown(text, super::POINTER_CHARS);
                format!("pattern `{shown}` cannot be used: it is none, looks around or back, or repeats too much")
            })?,
        };
        self.prices.insert(text, price);
        Ok(price)
    }

    /// The subschemas that a schema applies.
    fn parts(&self, keywords: &'s Map<String, Value>) -> Result<Vec<&'s Value>, String> {
        let mut parts = Vec::new();
        for (name, value) in keywords {
            match (name.as_str(), value) {
                ("$ref", Value::String(reference)) => parts.push(self.resolve(reference)?),
                ("$dynamicRef" | "$recursiveRef", _) => return Err(format!("{name} is not taken; use $ref")),
                (name, Value::Array(items)) if LISTS.contains(&name) => parts.extend(items),
                (name, Value::Object(named)) if BY_NAME.contains(&name) => {
                    parts.extend(named.values().filter(|part| !part.is_array()));
                }
                (name, part) if ONE.contains(&name) => parts.push(part),
                _ => {}
            }
        }
        Ok(parts)
    }

    fn resolve(&self, reference: &str) -> Result<&'s Value, String> {
        let pointer = reference.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(pointer) = pointer.filter(|pointer| !pointer.contains('%')) else {
            return Err(format!(
                "$ref: `{}` is not taken; a reference is `#/…`, a place in the same schema",
                super::shown(reference, super::POINTER_CHARS)
            ));
        };
        self.root
            .pointer(pointer)
            .ok_or_else(|| format!("$ref: `{}` leads nowhere", super::shown(reference, super::POINTER_CHARS)))
    }
}

/// The steps of a schema without those it applies.
fn own_steps(keywords: &Map<String, Value>) -> u64 {
    let of = |(name, value): (&String, &Value)| match (name.as_str(), value) {
        ("uniqueItems", _) => UNIQUE_STEPS,
        ("const" | "dependencies" | "dependentRequired" | "enum" | "required", value) => count(value),
        _ => 0,
    };
    1 + keywords.iter().map(of).sum::<u64>()
}

/// The values in a value, with itself.
fn count(value: &Value) -> u64 {
    let inner: u64 = match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    };
    1 + inner
}

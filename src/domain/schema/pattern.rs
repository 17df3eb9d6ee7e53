//! What a pattern costs. Its engine takes linear time, but for each byte it may be in as many states as the pattern has.

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Value, json};

/// Bytes of a compiled pattern, of the smallest that are told apart and of the largest that is taken.
const SMALLEST_BYTES: usize = 1024;
pub const LARGEST_BYTES: usize = 128 * 1024;
/// A state has some tens of bytes.
const BYTES_A_STEP: usize = 64;

/// Steps of any pattern, at the least.
pub const LEAST_STEPS: u64 = (SMALLEST_BYTES / BYTES_A_STEP) as u64;

/// The engine for patterns of up to so many bytes: without look-around or back-references, and so in linear time.
pub fn engine(size_bytes: usize) -> PatternOptions<jsonschema::Regex> {
    PatternOptions::regex().size_limit(size_bytes).dfa_size_limit(LARGEST_BYTES)
}

/// Steps for each byte of a text; `None` for a pattern that cannot be used.
pub fn steps(pattern: &str) -> Option<u64> {
    let schema = json!({ "pattern": pattern });
    let mut bytes = SMALLEST_BYTES;
    // How large it is shows only by whether it may be so large.
    while bytes <= LARGEST_BYTES {
        if compile(&schema, bytes).is_some() {
            return Some((bytes / BYTES_A_STEP) as u64);
        }
        bytes *= 2;
    }
    None
}

fn compile(schema: &Value, bytes: usize) -> Option<Validator> {
    let options = jsonschema::options().with_draft(Draft::Draft202012).offline();
    options.with_pattern_options(engine(bytes)).build(schema).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_costs_by_the_states_that_it_has() {
        let check = |pattern: &str, least: u64, most: u64| {
            let steps = steps(pattern).expect("a price");
            assert!((least..=most).contains(&steps), "{pattern}: {steps}");
        };
        check("^evt_", LEAST_STEPS, LEAST_STEPS);
        check("^\\+[1-9][0-9]{6,14}$", LEAST_STEPS, 32);
        check("^[a-z]{2}(-[A-Z]{2})?$", LEAST_STEPS, 32);
        check("^(a+)+$", LEAST_STEPS, 32);
        check("(a[ab]{0,40}b[ab]{0,40}){5}[^ab]", 256, 2048);
        for unusable in ["(?=a)b", "(a)\\1", "(", "(((a{1,100}){1,100}){1,100}){1,100}"] {
            assert_eq!(steps(unusable), None, "{unusable}");
        }
    }
}

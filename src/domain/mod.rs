//! The nouns: what an event, a subscription, a delivery and an attempt are, and the rules about them.
//!
//! Nothing here awaits, reads a clock, draws a random number or does I/O: time and jitter are arguments.

pub mod access;
pub mod address;
pub mod attempt;
pub mod catalog;
pub mod curl;
pub mod delivery;
pub mod digest;
pub mod event;
pub mod filter;
pub mod id;
pub mod ingest;
pub mod outcome;
pub mod retry;
pub mod schema;
pub mod signature;
pub mod statistics;
pub mod subscription;
pub mod time;
pub mod trace;

/// A value that a user gave and that cannot be taken: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// The public name of the field, as in the API and (with dashes) on the command line.
    pub field: &'static str,
    /// What is wrong, and what would be right; no full stop.
    pub problem: String,
}

impl Invalid {
    /// A refusal of `field`.
    pub fn new(field: &'static str, problem: impl Into<String>) -> Self {
        Self { field, problem: problem.into() }
    }

    /// A refusal of what lacks `field`.
    pub fn required(field: &'static str) -> Self {
        Self::new(field, "is required")
    }
}

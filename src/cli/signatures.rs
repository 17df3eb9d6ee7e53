//! What a receiver makes of a request's signatures, as `verify` and `listen` print it.

use serde::Serialize;

use crate::domain::signature::SchemeResult;

/// Whether a signature holds by one scheme.
#[derive(Debug, Serialize)]
pub struct SignatureJson {
    pub scheme: &'static str,
    pub is_valid: bool,
    /// Why it does not hold.
    pub reason: Option<String>,
}

impl SignatureJson {
    pub fn all(results: &[SchemeResult]) -> Vec<Self> {
        let one = |result: &SchemeResult| Self {
            scheme: result.scheme.name(),
            is_valid: result.result.is_ok(),
            reason: result.result.as_ref().err().map(ToString::to_string),
        };
        results.iter().map(one).collect()
    }
}

/// Whether a request is to be trusted: it has a signature, and none that does not hold.
pub fn are_valid(signatures: &[SignatureJson]) -> bool {
    !signatures.is_empty() && signatures.iter().all(|signature| signature.is_valid)
}

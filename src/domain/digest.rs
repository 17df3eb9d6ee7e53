//! What is known again by a digest: a request, an idempotency key, a signature.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

/// The first 16 bytes of a SHA-256 over the parts, each ended by a zero byte, in hex.
pub fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    HEXLOWER.encode(&hash.finalize()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_eq!(digest(&[b"a"]).len(), 32);
        assert_ne!(digest(&[b"a", b"b"]), digest(&[b"ab"]));
        assert_ne!(digest(&[b"a", b""]), digest(&[b"a"]));
    }
}

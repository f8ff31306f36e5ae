//! Numbers that nobody else has had.

use std::hash::{BuildHasher, RandomState};

/// One, out of what std makes its hash tables unpredictable with. No secret.
pub(crate) fn number() -> u64 {
    RandomState::new().hash_one(0)
}

/// Two of them, in hex.
pub(crate) fn name() -> String {
    format!("{:016x}{:016x}", number(), number())
}

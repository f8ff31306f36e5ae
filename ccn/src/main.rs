//! The `ccn` binary.
fn main() {}

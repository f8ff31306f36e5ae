//! The `interop` binary.
fn main() {}

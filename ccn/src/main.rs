//! The `ccn` binary: see [`ccn::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ccn::cli::main()
}

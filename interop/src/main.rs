//! The `interop` binary: the lab for people. What it shows is in the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use interop::{bench, demo, simulate};

/// The lab: real routers, a real gateway and real packets in network namespaces.
#[derive(Debug, Parser)]
#[command(name = "interop", version, about, disable_help_subcommand = true)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring up a small IDC and a small cloud, link a VPC, and show packets pass
    Demo(demo::Options),
    /// Put subjects through the same work and print what it took, with ratios
    Bench(bench::Options),
    /// Model a large cloud: what etcd, an API server and a gateway would carry, and what breaks first
    Simulate(simulate::Options),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Demo(options) => demo::main(options),
        Command::Bench(options) => bench::main(&options),
        Command::Simulate(options) => simulate::main(&options),
    }
}

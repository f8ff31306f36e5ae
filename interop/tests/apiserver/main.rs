//! API servers: what they take orders from whom, what they wait for, and that one killed in the middle of an order
//! costs nothing and does nothing twice.

#![allow(
    clippy::print_stdout,
    reason = "a test says what it saw; the harness shows it when it fails"
)]

mod gateways;
mod generations;
mod metrics;
mod openapi;
mod orders;
mod stream;

use std::error::Error;
use std::time::Duration;

type Failure = Box<dyn Error + Send + Sync>;

/// How long a condition may take to come true.
const SOON: Duration = Duration::from_secs(30);
/// How long a test may take that starts an etcd and servers.
const DEADLINE: Duration = Duration::from_secs(180);

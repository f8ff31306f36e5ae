//! What an operator looks at when something does not work: packets as they pass, and what is wrong.

#![allow(
    clippy::print_stdout,
    reason = "a test says what it saw; the harness shows it when it fails"
)]

mod doctor;
mod drain;
mod links;
mod records;
mod standby;
mod trace;

use std::error::Error;
use std::time::Duration;

type Failure = Box<dyn Error + Send + Sync>;

/// How long a condition may take to come true.
const SOON: Duration = Duration::from_secs(30);

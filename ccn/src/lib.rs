//! The CCN gateway: ClassicLink records, plans, planes, agent and CLI.
//!
//! One way through the house: record -> inventory -> plan -> plane -> announcement.

pub mod record;
pub mod store;

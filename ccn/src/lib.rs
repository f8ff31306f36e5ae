//! The CCN gateway: ClassicLink records, plans, planes, agent and CLI.
//!
//! One way through the house: record -> inventory -> plan -> plane -> announcement.

pub mod agent;
pub mod announce;
pub mod api;
pub mod apiserver;
pub mod cli;
mod cluster;
pub mod config;
pub mod controller;
pub mod doctor;
pub mod drain;
pub mod explain;
pub mod fixture;
pub mod inventory;
pub mod ledger;
pub mod link;
pub mod memory;
pub mod metrics;
pub mod order;
pub mod plan;
pub mod plane;
pub mod reach;
pub mod record;
pub mod region;
pub mod reload;
pub mod startup;
pub mod store;
pub mod suspicion;
pub mod trace;
mod unique;

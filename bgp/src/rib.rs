//! The routing tables: what peers told us, what is best, what each peer is told (RFC 4271
//! section 3.2). Plain data structures; no session, socket or clock.
//!
//! Adj-RIBs-In and Loc-RIB are one [`table`](table::Table): a prefix with every accepted path,
//! the selected ones first. What was not accepted is kept by the [`import`] side of its peer. What
//! was told is kept once for all peers that are told the same.

pub mod aggregate;
pub mod attributes;
mod chunked;
pub mod export;
pub(crate) mod group;
pub mod import;
pub(crate) mod interner;
pub mod next_hop;
pub(crate) mod paths;
mod queue;
pub mod select;
pub mod table;

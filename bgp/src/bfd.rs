//! Bidirectional Forwarding Detection (RFC 5880): whether the path to a peer carries packets, known
//! within milliseconds.
//!
//! From the ground up: [`packet`] and [`auth`] (octets), [`session`] (one session, sans-IO).

pub mod auth;
pub mod packet;
pub mod session;

pub use packet::Packet;

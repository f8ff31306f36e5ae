//! A BGP-4 speaker: a sans-IO protocol core and a thin tokio shell around it.
//!
//! Knows nothing of VPCs, kernels or routing tables outside BGP.

pub mod wire;

pub use wire::prefix::{AfiSafi, Family, Prefix, PrefixError};

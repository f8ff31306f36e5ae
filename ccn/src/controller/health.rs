//! How this gateway is doing, for its operators and for others.

use crate::record::Health;

/// What the plane last said of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct PlaneHealth {
    pub(super) last_error: Option<String>,
    pub(super) failed_entries: usize,
    /// Kernel operations of the last resync and of everything since the start.
    pub(super) last_resync_operations: Option<usize>,
    pub(super) operations: u64,
}

impl PlaneHealth {
    /// As others are told.
    pub(super) fn in_a_word(&self) -> Health {
        match self {
            PlaneHealth {
                last_error: Some(_),
                ..
            } => Health::Failing,
            PlaneHealth {
                last_resync_operations: None,
                ..
            } => Health::Starting,
            PlaneHealth {
                failed_entries: 0, ..
            } => Health::Healthy,
            _ => Health::Degraded,
        }
    }
}

/// What others are told of this gateway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// The newest generation that the plane has acknowledged.
    pub generation: u64,
    /// How it is doing.
    pub health: Health,
}

//! What a gateway says of one link: how far it has come there.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far a link has come at one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct LinkReport {
    /// In a word.
    pub state: Progress,
    /// Why it has come no further, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The generation of the store that this is made of.
    pub generation: u64,
}

/// How far a link has come, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Accepted, and not in the kernel yet.
    Pending,
    /// In the kernel and read back; not announced (yet).
    Programmed,
    /// In the kernel, read back and announced.
    Announced,
    /// In the kernel and read back; not announced because the gateway is drained.
    Drained,
    /// Withdrawn; its forwarding is on its way out.
    Removing,
    /// Nothing of it is left.
    Removed,
    /// It is disabled, and nothing of it is left.
    Disabled,
    /// Another link is in its way, and it waits until that goes.
    Standby,
    /// It cannot stand beside other records.
    Conflict,
    /// The plane could not take it.
    Failed,
    /// A later version's word.
    #[serde(other)]
    Unknown,
}

impl Progress {
    /// How far that is, for comparison: of several gateways the one with the least tells how far the link is.
    #[must_use]
    pub fn steps(self) -> u8 {
        match self {
            Progress::Failed | Progress::Conflict => 0,
            Progress::Unknown | Progress::Pending => 1,
            Progress::Removing => 2,
            Progress::Programmed => 3,
            Progress::Drained => 6,
            Progress::Disabled | Progress::Removed | Progress::Standby => 4,
            Progress::Announced => 5,
        }
    }

    /// Whether a gateway that says so may have something of the link in its kernel.
    #[must_use]
    pub fn may_forward(self) -> bool {
        !matches!(
            self,
            Progress::Removed | Progress::Disabled | Progress::Standby
        )
    }

    /// The name used in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Progress::Pending => "pending",
            Progress::Programmed => "programmed",
            Progress::Announced => "announced",
            Progress::Drained => "drained",
            Progress::Removing => "removing",
            Progress::Removed => "removed",
            Progress::Disabled => "disabled",
            Progress::Standby => "standby",
            Progress::Conflict => "conflict",
            Progress::Failed => "failed",
            Progress::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

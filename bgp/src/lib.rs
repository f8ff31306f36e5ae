//! A BGP-4 speaker: a sans-IO protocol core and a thin tokio shell around it.
//!
//! Knows nothing of VPCs, kernels or routing tables outside BGP.

pub mod config;
pub mod core;
pub mod event;
pub mod fsm;
pub mod policy;
pub mod rib;
pub mod speaker;
mod transport;
pub mod wire;

pub use config::{ConfigError, GracefulRestart, Multipath, PeerConfig, PeerName, SpeakerConfig};
pub use event::{Advertised, Announcement, Event, Path, PeerStatus, PrefixCounts, RouteChange};
pub use fsm::State as SessionState;
pub use policy::{ExportPolicy, ImportPolicy, PrefixList, PrefixRule};
pub use rib::attributes::RouteAttributes;
pub use speaker::{PeerError, Speaker, StartError, Stop, Stopped, Subscription};
pub use wire::community::Community;
pub use wire::prefix::{AfiSafi, Family, Prefix, PrefixError};

//! A BGP-4 speaker: a sans-IO protocol core and a thin tokio shell around it.
//!
//! Knows nothing of VPCs, kernels or routing tables outside BGP.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use bgp::{Announcement, Event, ExportPolicy, ImportPolicy, PeerConfig, Speaker, SpeakerConfig, Stop};
//!
//! let router = PeerConfig {
//!     import: ImportPolicy::All,
//!     export: ExportPolicy::Local,
//!     ..PeerConfig::new("idc1".parse()?, "10.99.0.2".parse()?, 65002)
//! };
//! let speaker = Speaker::start(SpeakerConfig {
//!     listen: vec!["10.99.0.1:179".parse()?],
//!     peers: vec![router],
//!     ..SpeakerConfig::new(65001, "10.99.0.1".parse()?)
//! })?;
//! speaker.announce(vec![Announcement::new("10.1.0.0/16".parse()?)]).await?;
//! let mut subscription = speaker.subscribe();
//! while let Some(event) = subscription.next().await {
//!     if let Event::Route(route) = event {
//!         tracing::info!(prefix = %route.prefix, paths = route.paths.len(), "learned");
//!     }
//! }
//! speaker.stop(Stop::Cease(None)).await;
//! # Ok(())
//! # }
//! ```
//!
//! From the ground up: [`wire`] (octets and messages), [`policy`], [`config`], [`fsm`] (one
//! connection), [`rib`] (the tables), [`core`] (all of it, still without sockets or clock), and
//! [`speaker`] (the tokio shell).

pub mod bfd;
pub mod bmp;
pub mod config;
pub mod core;
mod cursor;
pub mod event;
pub mod fsm;
pub mod mrt;
pub mod policy;
pub mod rib;
#[cfg(feature = "schema")]
mod schema;
pub mod speaker;
pub mod tap;
mod transport;
pub mod wire;

pub use config::{
    AddPath, Aggregate, AsPathChecks, BfdAuth, BfdAuthMethod, BfdConfig, BmpCollector,
    Capabilities, ConfigError, DynamicAsn, DynamicPeers, GracefulRestart, LimitAction, MaxPrefixes,
    MrtConfig, Multipath, PeerConfig, PeerName, PrefixLimit, SpeakerConfig,
};
pub use core::PolicyChange;
pub use event::{
    Advertised, AggregateStatus, Announcement, CapabilityStatus, DynamicStatus, Event, Path,
    PeerStatus, PrefixCounts, RouteChange,
};
pub use fsm::State as SessionState;
pub use policy::{ExportPolicy, ImportPolicy, Rule, RuleList};
pub use rib::attributes::RouteAttributes;
pub use rib::next_hop::NextHopState;
pub use speaker::{
    PeerError, ReconfigureError, Reconfigured, Speaker, StartError, Stop, Stopped, Subscription,
};
pub use transport::{KeyError, PeerSecretError, SecretError};
pub use wire::community::Community;
pub use wire::prefix::{AfiSafi, Family, Prefix, PrefixError};

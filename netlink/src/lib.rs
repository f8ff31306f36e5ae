//! Typed, batched rtnetlink: links, addresses, routes, policy rules, neighbours, BPF filters of links,
//! network namespaces and a monitor of changes; and one nftables filter.
//!
//! A [`Socket`] sends [`Request`]s, alone or in batches that cost one acknowledgement, and dumps
//! what the kernel holds, filtered by the kernel. A [`Monitor`] tells of changes as they come, a
//! [`Journal`] of those that came so far. Nothing is lost in silence: an overrun receive buffer or a
//! dump that changed under the reader is an error or a `Resync`, never a shorter list. A
//! [`Netfilter`] keeps the one filter that rtnetlink has no words for. This crate knows nothing of
//! VPCs or BGP.

mod address;
mod answer;
mod attribute;
mod error;
mod filter;
mod frame;
mod journal;
mod link;
mod mac;
mod monitor;
mod namespace;
mod neighbour;
mod new_link;
mod nftables;
mod request;
mod route;
mod route_message;
mod rule;
mod socket;

pub use address::Address;
pub use error::{BatchError, Error, Failure};
pub use filter::{BpfFilter, Filter, FilterPlace, FilterProgram, Hook, Qdisc};
pub use ipnet::IpNet;
pub use journal::Journal;
pub use link::{Link, LinkChange, LinkStats, VxlanSettings};
pub use mac::{Mac, MacError};
pub use monitor::{Change, Event, Group, Monitor};
pub use namespace::Namespace;
pub use neighbour::{ForwardingEntry, Neighbour};
pub use new_link::{LinkSpec, NewLink, Vxlan};
pub use nftables::{InputFilter, InputFilterState, Netfilter};
pub use nix::errno::Errno;
pub use request::Request;
pub use route::{Encap, Family, NextHop, Route, RouteFilter, RouteKind};
pub use rule::{Rule, RuleAction};
pub use socket::Socket;

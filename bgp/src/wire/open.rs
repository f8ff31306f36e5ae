//! OPEN (RFC 4271 section 4.2): who the peer is and what it can do.

use std::net::Ipv4Addr;

use bytes::BytesMut;

use crate::wire::attribute::AS_TRANS;
use crate::wire::capability::{Capability, GracefulRestart};
use crate::wire::error::{EncodeError, OpenError};
use crate::wire::prefix::Family;

/// An OPEN message of BGP version 4.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Open {
    /// The 2-octet field "My Autonomous System"; [`Open::asn`] is the number that counts.
    pub my_as: u16,
    /// Proposed hold time in seconds: 0 (no keepalives) or at least 3.
    pub hold_time: u16,
    /// BGP identifier, never 0.0.0.0 when received.
    pub router_id: Ipv4Addr,
    /// Capabilities in the order received.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// An OPEN of the speaker `asn`. Its 4-octet AS capability is added to `capabilities`.
    pub fn new(
        asn: u32,
        hold_time: u16,
        router_id: Ipv4Addr,
        mut capabilities: Vec<Capability>,
    ) -> Open {
        capabilities.push(Capability::FourOctetAs(asn));
        Open {
            my_as: u16::try_from(asn).unwrap_or(AS_TRANS),
            hold_time,
            router_id,
            capabilities,
        }
    }

    /// The speaker's AS number: of the capability if there is one (RFC 6793 section 4.1).
    pub fn asn(&self) -> u32 {
        self.four_octet_as().unwrap_or(u32::from(self.my_as))
    }

    /// The AS number of the 4-octet AS capability.
    pub fn four_octet_as(&self) -> Option<u32> {
        self.capabilities
            .iter()
            .find_map(|capability| match capability {
                Capability::FourOctetAs(asn) => Some(*asn),
                _ => None,
            })
    }

    /// The families to exchange. Without any multiprotocol capability that is IPv4 unicast
    /// (RFC 4760 section 8).
    pub fn families(&self) -> Vec<Family> {
        let mut any = false;
        let mut families = Vec::new();
        for capability in &self.capabilities {
            if let Capability::Multiprotocol(afi_safi) = capability {
                any = true;
                families.extend(
                    afi_safi
                        .family()
                        .filter(|family| !families.contains(family)),
                );
            }
        }
        if !any {
            families.push(Family::Ipv4Unicast);
        }
        families
    }

    /// Whether the peer understands ROUTE-REFRESH.
    pub fn route_refresh(&self) -> bool {
        self.capabilities.contains(&Capability::RouteRefresh)
    }

    /// The graceful restart capability. Of several the last counts (RFC 4724 section 3).
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities
            .iter()
            .rev()
            .find_map(|capability| match capability {
                Capability::GracefulRestart(restart) => Some(restart),
                _ => None,
            })
    }
}

impl Open {
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let _ = out;
        unimplemented!()
    }

    pub(super) fn parse(body: &[u8]) -> Result<Open, OpenError> {
        let _ = body;
        unimplemented!()
    }
}

//! OPEN (RFC 4271 section 4.2): who the peer is and what it can do.

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};
use nom::Parser;
use nom::combinator::{all_consuming, complete, rest};
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16, be_u32};

use crate::wire::attribute::AS_TRANS;
use crate::wire::capability::{Capability, GracefulRestart};
use crate::wire::error::{EncodeError, OpenError};
use crate::wire::prefix::Family;

/// The version of the protocol spoken here.
const VERSION: u8 = 4;
/// Optional parameter "Capabilities" (RFC 5492).
const PARAMETER_CAPABILITIES: u8 = 2;
/// Marks extended optional parameters, both as length and as type (RFC 9072).
const PARAMETER_EXTENDED: u8 = 255;

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

/// Parsing and writing.
impl Open {
    /// Checks in the order of RFC 4271 section 6.2: version first, since nothing else can be
    /// trusted without it.
    pub(super) fn parse(body: &[u8]) -> Result<Open, OpenError> {
        let fixed = (be_u8, be_u16, be_u16, be_u32, rest);
        let (_, (version, my_as, hold_time, router_id, parameters)) =
            complete(fixed)
                .parse(body)
                .map_err(|_: nom::Err<()>| OpenError::Parameters)?;
        if version != VERSION {
            return Err(OpenError::Version(version));
        }
        let open = Open {
            my_as,
            hold_time,
            router_id: Ipv4Addr::from_bits(router_id),
            capabilities: parse_parameters(parameters)?,
        };
        if open.my_as == 0 || open.asn() == 0 {
            return Err(OpenError::AsZero);
        }
        if matches!(hold_time, 1 | 2) {
            return Err(OpenError::HoldTime(hold_time));
        }
        if open.router_id.is_unspecified() {
            return Err(OpenError::Identifier(open.router_id));
        }
        Ok(open)
    }

    /// Writes all capabilities into one parameter (RFC 5492 section 4), in the extended form
    /// where the classic one is too short (RFC 9072 section 2).
    pub(super) fn put(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        out.put_u8(VERSION);
        out.put_u16(self.my_as);
        out.put_u16(self.hold_time);
        out.put_slice(&self.router_id.octets());
        let mut capabilities = BytesMut::new();
        for capability in &self.capabilities {
            capability.put(&mut capabilities)?;
        }
        let length = capabilities.len();
        match u8::try_from(length + 2) {
            _ if length == 0 => out.put_u8(0),
            Ok(with_header) => {
                out.put_slice(&[with_header, PARAMETER_CAPABILITIES, with_header - 2]);
            }
            Err(_) => {
                let max = usize::from(u16::MAX);
                let with_header = u16::try_from(length + 3).map_err(|_| EncodeError::TooLong {
                    length: length + 3,
                    max,
                })?;
                out.put_slice(&[PARAMETER_EXTENDED, PARAMETER_EXTENDED]);
                out.put_u16(with_header);
                out.put_u8(PARAMETER_CAPABILITIES);
                out.put_u16(with_header - 3);
            }
        }
        out.put_slice(&capabilities);
        Ok(())
    }
}

/// The optional parameters with the length octet before them, classic or extended.
fn parse_parameters(octets: &[u8]) -> Result<Vec<Capability>, OpenError> {
    // RFC 9072: the type octet decides; the classic length before it is not looked at.
    let (extended, parameters) = match octets {
        [1..=255, PARAMETER_EXTENDED, parameters @ ..] => {
            (true, whole(length_data(be_u16), parameters)?)
        }
        parameters => (false, whole(length_data(be_u8), parameters)?),
    };
    let mut capabilities = Vec::new();
    let mut rest = parameters;
    while !rest.is_empty() {
        let (after, (kind, value)) = if extended {
            (be_u8, length_data(be_u16)).parse(rest)
        } else {
            (be_u8, length_data(be_u8)).parse(rest)
        }
        .map_err(|_: nom::Err<()>| OpenError::Parameters)?;
        if kind != PARAMETER_CAPABILITIES {
            return Err(OpenError::Parameter(kind));
        }
        parse_capabilities(value, &mut capabilities)?;
        rest = after;
    }
    Ok(capabilities)
}

/// The capabilities of one parameter: RFC 5492 allows any number of them in any number of those.
fn parse_capabilities(octets: &[u8], into: &mut Vec<Capability>) -> Result<(), OpenError> {
    let mut rest = octets;
    while !rest.is_empty() {
        let (after, (code, value)) = (be_u8, length_data(be_u8))
            .parse(rest)
            .map_err(|_: nom::Err<()>| OpenError::Parameters)?;
        into.push(Capability::parse(code, value)?);
        rest = after;
    }
    Ok(())
}

/// What the parser yields, if it leaves nothing over.
fn whole<'a>(
    parser: impl Parser<&'a [u8], Output = &'a [u8], Error = ()>,
    octets: &'a [u8],
) -> Result<&'a [u8], OpenError> {
    match all_consuming(parser).parse(octets) {
        Ok((_, value)) => Ok(value),
        Err(_) => Err(OpenError::Parameters),
    }
}

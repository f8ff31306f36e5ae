//! The values that fields hold: numbers and addresses with their ranges.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::LazyLock;

use bgp::Prefix;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::Reason;
use super::fields::{self, expected};

/// A number or text of a field that is out of its range or form; the text says which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

/// A VXLAN network identifier, 1 to 16,777,215 (RFC 7348 section 5; 0 is not used).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u32")]
pub struct Vni(u32);

impl Vni {
    /// The highest VNI: 24 bits.
    pub const MAX: u32 = (1 << 24) - 1;

    /// # Errors
    /// When `vni` is 0 or needs more than 24 bits.
    pub fn new(vni: u32) -> Result<Self, ValueError> {
        Self::try_from(u64::from(vni))
    }

    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl TryFrom<u64> for Vni {
    type Error = ValueError;

    fn try_from(vni: u64) -> Result<Self, ValueError> {
        match u32::try_from(vni) {
            Ok(number @ 1..=Self::MAX) => Ok(Vni(number)),
            _ => Err(ValueError(format!(
                "{vni} is no VNI: it must be 1 to {}",
                Self::MAX
            ))),
        }
    }
}

impl From<Vni> for u32 {
    fn from(vni: Vni) -> u32 {
        vni.0
    }
}

impl FromStr for Vni {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = text.parse::<u64>();
        number
            .map_err(|_| {
                ValueError(format!(
                    "\"{text}\" is no VNI: it must be 1 to {}",
                    Self::MAX
                ))
            })?
            .try_into()
    }
}

impl fmt::Display for Vni {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A unicast Ethernet address that is not all zero, written `02:00:ac:10:00:0b`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// What a gateway's VXLAN device has unless configured otherwise: what VMs use as the MAC of
    /// their router. Locally administered, the same on every gateway of a region.
    pub const GATEWAY: Mac = Mac([0x02, 0xcc, 0x0e, 0x00, 0x00, 0x01]);

    /// # Errors
    /// When the group bit is set (multicast, broadcast) or all bytes are zero.
    pub fn new(bytes: [u8; 6]) -> Result<Self, ValueError> {
        if bytes[0] & 1 != 0 {
            let mac = Mac(bytes);
            return Err(ValueError(format!(
                "{mac} is a multicast MAC: a unicast one is needed"
            )));
        }
        if bytes == [0; 6] {
            return Err(ValueError(
                "00:00:00:00:00:00 is no MAC of a VM or node".to_owned(),
            ));
        }
        Ok(Mac(bytes))
    }

    /// The six bytes.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// The inner MAC of an SLB node that names none: `02:00` and four bytes of its VTEP. Those
    /// are the address itself for IPv4, and a 32-bit FNV-1a hash of the address for IPv6.
    pub fn of_node(vtep: Vtep) -> Mac {
        let four = match vtep.addr() {
            IpAddr::V4(v4) => v4.octets(),
            IpAddr::V6(v6) => {
                let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
                v6.octets()
                    .into_iter()
                    .fold(0x811c_9dc5, step)
                    .to_be_bytes()
            }
        };
        Mac([0x02, 0, four[0], four[1], four[2], four[3]])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        netlink::Mac(self.0).fmt(f)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let mac: netlink::Mac = text
            .parse()
            .map_err(|_| ValueError(format!("\"{text}\" is no MAC: write it 02:00:00:00:00:01")))?;
        Mac::new(mac.0)
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// An underlay address that terminates VXLAN: unicast, neither loopback nor link-local.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vtep(IpAddr);

impl Vtep {
    /// # Errors
    /// When the address cannot be the far end of a tunnel (unspecified, loopback, link-local,
    /// multicast, broadcast, IPv4-mapped).
    pub fn new(addr: IpAddr) -> Result<Self, ValueError> {
        ordinary_host(addr).map_err(|reason| ValueError(format!("no VTEP: {reason}")))?;
        Ok(Vtep(addr))
    }

    /// The address.
    pub fn addr(self) -> IpAddr {
        self.0
    }
}

impl Serialize for Vtep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Vtep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl FromStr for Vtep {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let addr = text
            .parse()
            .map_err(|_| ValueError(format!("\"{text}\" is no IP address")))?;
        Vtep::new(addr)
    }
}

impl fmt::Display for Vtep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A node's share of an SLB's flows, 1 to 256 (what a kernel next hop can weigh).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u16")]
pub struct Weight(u16);

impl Weight {
    /// The only weight of a VM's single hop.
    pub const ONE: Weight = Weight(1);

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u64> for Weight {
    type Error = ValueError;

    fn try_from(weight: u64) -> Result<Self, ValueError> {
        match u16::try_from(weight) {
            Ok(number @ 1..=256) => Ok(Weight(number)),
            _ => Err(ValueError(format!(
                "{weight} is no weight: it must be 1 to 256"
            ))),
        }
    }
}

impl From<Weight> for u16 {
    fn from(weight: Weight) -> u16 {
        weight.0
    }
}

/// A differentiated services code point, 0 to 63 (RFC 2474).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u8")]
pub struct Dscp(u8);

impl Dscp {
    /// The number.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<u64> for Dscp {
    type Error = ValueError;

    fn try_from(dscp: u64) -> Result<Self, ValueError> {
        match u8::try_from(dscp) {
            Ok(number @ 0..=63) => Ok(Dscp(number)),
            _ => Err(ValueError(format!("{dscp} is no DSCP: it must be 0 to 63"))),
        }
    }
}

impl FromStr for Dscp {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let number = text.parse::<u64>();
        number
            .map_err(|_| ValueError(format!("\"{text}\" is no DSCP: it must be 0 to 63")))?
            .try_into()
    }
}

impl From<Dscp> for u8 {
    fn from(dscp: Dscp) -> u8 {
        dscp.0
    }
}

impl fmt::Display for Dscp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What no VPC, classic network or VTEP may touch, and what it is called.
static RESERVED: LazyLock<Vec<(Prefix, &str)>> = LazyLock::new(|| {
    let ranges = [
        ("0.0.0.0/8", "this-network"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved and broadcast"),
        ("::/96", "unspecified, loopback and IPv4-compatible"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    ];
    ranges
        .into_iter()
        .filter_map(|(range, name)| Some((range.parse().ok()?, name)))
        .collect()
});

/// Whether a prefix is ordinary unicast space, all of it.
///
/// The text of the error names the reserved range it touches.
pub(super) fn ordinary(prefix: &Prefix) -> Result<(), String> {
    match RESERVED.iter().find(|(range, _)| range.overlaps(prefix)) {
        Some((range, name)) => Err(format!("{prefix} touches {range} ({name} addresses)")),
        None => Ok(()),
    }
}

/// As [`ordinary`], of one address.
pub(super) fn ordinary_host(addr: IpAddr) -> Result<(), String> {
    let plain = match addr {
        IpAddr::V4(addr) => matches!(addr.octets()[0], 1..=126 | 128..=168 | 170..=223),
        IpAddr::V6(addr) => matches!(addr.segments()[0], 1..=0xfe7f),
    };
    // Most are far from anything reserved.
    match plain {
        true => Ok(()),
        false => ordinary(&Prefix::host(addr)),
    }
}

/// A prefix of ordinary unicast space.
pub(super) fn prefix(value: &Value) -> Result<Prefix, Reason> {
    let prefix: Prefix = fields::text(value)?;
    ordinary(&prefix).map_err(Reason::Invalid)?;
    Ok(prefix)
}

/// An address of ordinary unicast space.
pub(super) fn address(value: &Value) -> Result<IpAddr, Reason> {
    let text = value
        .as_str()
        .ok_or_else(|| expected("an IP address in quotes", value))?;
    ordinary_address(text)
}

/// As [`address`], of its text.
pub(super) fn ordinary_address(text: &str) -> Result<IpAddr, Reason> {
    let addr: IpAddr = text
        .parse()
        .map_err(|_| Reason::Invalid(format!("\"{text}\" is no IP address")))?;
    ordinary_host(addr).map_err(Reason::Invalid)?;
    Ok(addr)
}

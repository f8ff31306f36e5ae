//! Address families and IP prefixes.
//!
//! A [`Prefix`] is canonical by construction: it never carries host bits and its length always
//! fits its family, so equal networks are equal values. Nothing here knows about routes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// AFI of IPv4 (IANA address family numbers).
pub const AFI_IPV4: u16 = 1;
/// AFI of IPv6 (IANA address family numbers).
pub const AFI_IPV6: u16 = 2;
/// SAFI of unicast forwarding (RFC 4760 section 6).
pub const SAFI_UNICAST: u8 = 1;

/// The address families this speaker carries routes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

impl Family {
    /// Every family, in the order of their numbers.
    pub const ALL: [Family; 2] = [Family::Ipv4Unicast, Family::Ipv6Unicast];

    /// The Address Family Identifier (RFC 4760 section 3).
    pub const fn afi(self) -> u16 {
        match self {
            Family::Ipv4Unicast => AFI_IPV4,
            Family::Ipv6Unicast => AFI_IPV6,
        }
    }

    /// The Subsequent Address Family Identifier (RFC 4760 section 3).
    pub const fn safi(self) -> u8 {
        SAFI_UNICAST
    }

    /// The longest prefix of the family: 32 or 128 bits.
    pub const fn max_len(self) -> u8 {
        match self {
            Family::Ipv4Unicast => 32,
            Family::Ipv6Unicast => 128,
        }
    }

    /// The name used in configuration and output: `ipv4` or `ipv6`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Family::Ipv4Unicast => "ipv4",
            Family::Ipv6Unicast => "ipv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A family name other than `ipv4` or `ipv6`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown address family {0:?}, expected \"ipv4\" or \"ipv6\"")]
pub struct UnknownFamily(pub String);

impl FromStr for Family {
    type Err = UnknownFamily;

    fn from_str(text: &str) -> Result<Self, UnknownFamily> {
        Family::ALL
            .into_iter()
            .find(|family| family.as_str() == text)
            .ok_or_else(|| UnknownFamily(text.to_owned()))
    }
}

impl Serialize for Family {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Family {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// An (AFI, SAFI) pair as it stands on the wire, known to us or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address Family Identifier.
    pub afi: u16,
    /// Subsequent Address Family Identifier.
    pub safi: u8,
}

impl AfiSafi {
    /// The family, when it is one this speaker carries.
    pub const fn family(self) -> Option<Family> {
        match (self.afi, self.safi) {
            (AFI_IPV4, SAFI_UNICAST) => Some(Family::Ipv4Unicast),
            (AFI_IPV6, SAFI_UNICAST) => Some(Family::Ipv6Unicast),
            _ => None,
        }
    }
}

impl From<Family> for AfiSafi {
    fn from(family: Family) -> Self {
        AfiSafi {
            afi: family.afi(),
            safi: family.safi(),
        }
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family() {
            Some(family) => family.fmt(f),
            None => write!(f, "afi {} safi {}", self.afi, self.safi),
        }
    }
}

/// Why a text or a pair of address and length is no [`Prefix`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// No `/` in the text: a host must be written as /32 or /128.
    #[error("{0:?} has no prefix length, expected ADDRESS/LENGTH")]
    MissingLength(String),
    /// The part before the `/` is no IP address.
    #[error("{0:?} does not start with an IP address")]
    Address(String),
    /// The part after the `/` is no number from 0 to 255 in plain digits.
    #[error("{0:?} does not end with a prefix length")]
    Length(String),
    /// The length exceeds what the family has.
    #[error("prefix length {len} of {address} exceeds {max}")]
    TooLong {
        /// The address it was given with.
        address: IpAddr,
        /// The length at fault.
        len: u8,
        /// 32 or 128.
        max: u8,
    },
    /// Bits beyond the length are set.
    #[error("{address}/{len} has host bits set, the network is {network}")]
    HostBits {
        /// The address as given.
        address: IpAddr,
        /// The length as given.
        len: u8,
        /// The network that contains the address.
        network: Prefix,
    },
}

/// An IPv4 or IPv6 network: address and length, host bits always zero.
///
/// Ordered by family, then address, then length: a network sorts right before what it contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Repr);

// Octet arrays rather than integers: alignment 1 keeps a Prefix at 18 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    V4(Ipv4Addr, u8),
    V6(Ipv6Addr, u8),
}

const fn mask_v4(len: u8) -> u32 {
    match len {
        0 => 0,
        len => u32::MAX << (32 - len as u32),
    }
}

const fn mask_v6(len: u8) -> u128 {
    match len {
        0 => 0,
        len => u128::MAX << (128 - len as u32),
    }
}

impl Prefix {
    /// The network of exactly this address and length.
    ///
    /// # Errors
    /// [`PrefixError::TooLong`] or [`PrefixError::HostBits`].
    pub fn new(address: IpAddr, len: u8) -> Result<Prefix, PrefixError> {
        let network = Prefix::containing(address, len)?;
        if network.addr() == address {
            Ok(network)
        } else {
            Err(PrefixError::HostBits {
                address,
                len,
                network,
            })
        }
    }

    /// The network of this length that contains the address: host bits are cleared.
    ///
    /// # Errors
    /// [`PrefixError::TooLong`].
    pub fn containing(address: IpAddr, len: u8) -> Result<Prefix, PrefixError> {
        let max = match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        };
        if len > max {
            return Err(PrefixError::TooLong { address, len, max });
        }
        Ok(match address {
            IpAddr::V4(address) => Prefix::masked_v4(address, len),
            IpAddr::V6(address) => Prefix::masked_v6(address, len),
        })
    }

    /// The network that is this one host.
    pub const fn host(address: IpAddr) -> Prefix {
        match address {
            IpAddr::V4(address) => Prefix(Repr::V4(address, 32)),
            IpAddr::V6(address) => Prefix(Repr::V6(address, 128)),
        }
    }

    /// `len` must be at most 32.
    pub(crate) const fn masked_v4(address: Ipv4Addr, len: u8) -> Prefix {
        Prefix(Repr::V4(
            Ipv4Addr::from_bits(address.to_bits() & mask_v4(len)),
            len,
        ))
    }

    /// `len` must be at most 128.
    pub(crate) const fn masked_v6(address: Ipv6Addr, len: u8) -> Prefix {
        Prefix(Repr::V6(
            Ipv6Addr::from_bits(address.to_bits() & mask_v6(len)),
            len,
        ))
    }

    /// The network of this length around it; itself, if it is not longer.
    pub(crate) const fn truncated(&self, len: u8) -> Prefix {
        match self.0 {
            Repr::V4(address, own) if len < own => Prefix::masked_v4(address, len),
            Repr::V6(address, own) if len < own => Prefix::masked_v6(address, len),
            _ => *self,
        }
    }

    /// The network address.
    pub const fn addr(&self) -> IpAddr {
        match self.0 {
            Repr::V4(address, _) => IpAddr::V4(address),
            Repr::V6(address, _) => IpAddr::V6(address),
        }
    }

    /// The length in bits: 0 to 32, or 0 to 128.
    #[allow(clippy::len_without_is_empty)] // a length in bits, not a count of things
    pub const fn len(&self) -> u8 {
        match self.0 {
            Repr::V4(_, len) | Repr::V6(_, len) => len,
        }
    }

    /// The unicast family the network belongs to.
    pub const fn family(&self) -> Family {
        match self.0 {
            Repr::V4(..) => Family::Ipv4Unicast,
            Repr::V6(..) => Family::Ipv6Unicast,
        }
    }

    /// Whether `other` is this network or a part of it. Never true across families.
    pub const fn contains(&self, other: &Prefix) -> bool {
        match (self.0, other.0) {
            (Repr::V4(net, len), Repr::V4(other, other_len)) => {
                len <= other_len && other.to_bits() & mask_v4(len) == net.to_bits()
            }
            (Repr::V6(net, len), Repr::V6(other, other_len)) => {
                len <= other_len && other.to_bits() & mask_v6(len) == net.to_bits()
            }
            _ => false,
        }
    }

    /// Whether the address lies in this network. Never true across families.
    pub const fn contains_addr(&self, address: IpAddr) -> bool {
        self.contains(&Prefix::host(address))
    }

    /// Whether the two networks share an address.
    pub const fn overlaps(&self, other: &Prefix) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// Length octet and significant octets, as RFC 4271 section 4.3 encodes a network.
    pub(crate) fn with_nlri<T>(&self, f: impl FnOnce(u8, &[u8]) -> T) -> T {
        let octets = |len: u8| usize::from(len).div_ceil(8);
        match self.0 {
            Repr::V4(address, len) => f(len, &address.octets()[..octets(len)]),
            Repr::V6(address, len) => f(len, &address.octets()[..octets(len)]),
        }
    }

    /// Octets the network takes in an NLRI field: 1 to 5, or 1 to 17.
    pub const fn nlri_len(&self) -> usize {
        1 + (self.len() as usize).div_ceil(8)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.addr(), self.len()))
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let (address, len) = text
            .split_once('/')
            .ok_or_else(|| PrefixError::MissingLength(text.to_owned()))?;
        let address = address
            .parse()
            .map_err(|_| PrefixError::Address(text.to_owned()))?;
        // u8's own parser takes "+8" and "008".
        let plain =
            len.bytes().all(|c| c.is_ascii_digit()) && (len == "0" || !len.starts_with('0'));
        let len = len
            .parse()
            .ok()
            .filter(|_| plain)
            .ok_or_else(|| PrefixError::Length(text.to_owned()))?;
        Prefix::new(address, len)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl From<Prefix> for ipnet::IpNet {
    fn from(prefix: Prefix) -> Self {
        // A Prefix never exceeds its family's length, which is all that new_assert checks.
        ipnet::IpNet::new_assert(prefix.addr(), prefix.len())
    }
}

impl TryFrom<ipnet::IpNet> for Prefix {
    type Error = PrefixError;

    fn try_from(net: ipnet::IpNet) -> Result<Self, PrefixError> {
        Prefix::new(net.addr(), net.prefix_len())
    }
}

#[cfg(test)]
mod tests;

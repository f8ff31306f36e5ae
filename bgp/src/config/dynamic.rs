//! Peers that are not configured one by one: whoever connects from inside a prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use super::intercept::{Given, Taker, intercept};
use super::{AS_TRANS_U32, PeerConfig, PeerName, is_link_local};
use crate::wire::Prefix;

/// Peers of one kind. In TOML a table like that of a peer, with `prefix` in place of `address`,
/// and `limit`; `asn` may also be a list, or `"external"`: any AS but ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicPeers {
    /// Where they connect from. Of link-local addresses, `interface` of the template says on
    /// which link: such a group of one is what others call an unnumbered peer.
    pub prefix: Prefix,
    /// How many there may be at once, 1 to 10000.
    pub limit: u32,
    /// Their AS numbers.
    pub asn: DynamicAsn,
    /// Everything else. Its name is the first part of theirs, `NAME-ADDRESS`; its address and AS
    /// number are those of whoever connects; it is passive.
    pub template: PeerConfig,
}

/// Which AS numbers the peers of a group may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DynamicAsn {
    /// One of these, at least one.
    Listed(Vec<u32>),
    /// Any but ours.
    External,
}

/// Most peers of one group.
pub const MAX_DYNAMIC: u32 = 10_000;
const DEFAULT_LIMIT: u32 = 100;
/// The address of a dynamic peer has to fit into its name.
const LONGEST_NAME: usize = 24;

impl DynamicAsn {
    /// Whether a peer of this AS is welcome to a speaker of AS `ours`.
    pub fn permits(&self, asn: u32, ours: u32) -> bool {
        match self {
            DynamicAsn::Listed(asns) => asns.contains(&asn),
            DynamicAsn::External => asn != ours,
        }
    }

    /// Whether all of them are of the AS `ours`.
    pub fn is_internal(&self, ours: u32) -> bool {
        matches!(self, DynamicAsn::Listed(asns) if asns.iter().all(|asn| *asn == ours))
    }
}

impl DynamicPeers {
    /// A group with the terms of this template; its address and AS number do not matter.
    pub fn new(prefix: Prefix, asn: DynamicAsn, template: PeerConfig) -> DynamicPeers {
        DynamicPeers {
            prefix,
            limit: DEFAULT_LIMIT,
            asn,
            template,
        }
    }

    /// What a peer at this address is called and how it is treated; its AS number is 0 until it
    /// has told, unless there is only one that it can be.
    pub fn peer(&self, address: IpAddr) -> PeerConfig {
        // At most 24 + 1 + 39 characters: it always is a name.
        let name = format!("{}-{address}", self.template.name);
        PeerConfig {
            name: PeerName::try_from(name.as_str()).unwrap_or_else(|_| self.template.name.clone()),
            address,
            asn: match &self.asn {
                DynamicAsn::Listed(asns) if asns.len() == 1 => asns[0],
                _ => 0,
            },
            passive: true,
            ..self.template.clone()
        }
    }

    pub(super) fn check(&self, ours: u32) -> Result<(), String> {
        if self.template.name.as_str().len() > LONGEST_NAME {
            return Err(format!(
                "name must have at most {LONGEST_NAME} characters: the address of each peer is \
                 put behind it"
            ));
        }
        if !(1..=MAX_DYNAMIC).contains(&self.limit) {
            return Err(format!("limit must be 1..={MAX_DYNAMIC}"));
        }
        match &self.asn {
            DynamicAsn::Listed(asns) if asns.is_empty() => {
                return Err("asn must name at least one AS, or be \"external\"".to_owned());
            }
            DynamicAsn::Listed(asns) => {
                if let Some(asn) = asns.iter().find(|asn| matches!(**asn, 0 | AS_TRANS_U32)) {
                    return Err(format!("asn {asn} is reserved"));
                }
            }
            DynamicAsn::External => {}
        }
        if is_link_local(self.prefix.addr()) && self.template.interface.is_none() {
            return Err(format!(
                "prefix {} is link-local and says nothing about the interface: set interface as \
                 well",
                self.prefix
            ));
        }
        // What remains is checked as if one were there (addresses of RFC 5737 and RFC 3849).
        let example: IpAddr = match self.prefix.addr() {
            IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        };
        let asn = match &self.asn {
            DynamicAsn::Listed(asns) => asns[0],
            DynamicAsn::External if ours == 1 => 2,
            DynamicAsn::External => 1,
        };
        PeerConfig {
            address: example,
            asn,
            ..self.template.clone()
        }
        .check()
    }
}

impl<'de> Deserialize<'de> for DynamicPeers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut own = Own::default();
        let template = intercept(&mut own, deserializer)?;
        let missing = <D::Error as de::Error>::missing_field;
        Ok(DynamicPeers {
            prefix: own.prefix.ok_or_else(|| missing("prefix"))?,
            limit: own.limit.unwrap_or(DEFAULT_LIMIT),
            asn: own.asn.ok_or_else(|| missing("asn"))?,
            template,
        })
    }
}

/// The entries that a peer does not have.
#[derive(Default)]
struct Own {
    prefix: Option<Prefix>,
    limit: Option<u32>,
    asn: Option<DynamicAsn>,
}

impl Taker for Own {
    /// A peer needs an address and an AS number; these are never used.
    fn given(&self) -> Vec<(&'static str, Given)> {
        let address = Ipv6Addr::UNSPECIFIED.to_string();
        vec![("address", Given::Text(address)), ("asn", Given::Number(0))]
    }

    fn wants(&self, key: &str) -> bool {
        matches!(key, "prefix" | "limit" | "asn" | "address" | "passive")
    }

    fn take<'de, D: Deserializer<'de>>(
        &mut self,
        key: &str,
        value: D,
    ) -> Result<Vec<(&'static str, Given)>, D::Error> {
        match key {
            "prefix" => self.prefix = Some(Prefix::deserialize(value)?),
            "limit" => self.limit = Some(u32::deserialize(value)?),
            "asn" => self.asn = Some(DynamicAsn::deserialize(value)?),
            _ => {
                let fault = format!("dynamic peers have no {key}: they connect from their prefix");
                return Err(de::Error::custom(fault));
            }
        }
        Ok(Vec::new())
    }
}

impl<'de> Deserialize<'de> for DynamicAsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyForm;

        impl<'de> Visitor<'de> for AnyForm {
            type Value = DynamicAsn;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AS number, a list of them, or \"external\"")
            }

            fn visit_u64<E: de::Error>(self, asn: u64) -> Result<DynamicAsn, E> {
                let asn = u32::try_from(asn).map_err(|_| E::custom("asn has more than 32 bits"))?;
                Ok(DynamicAsn::Listed(vec![asn]))
            }

            fn visit_i64<E: de::Error>(self, asn: i64) -> Result<DynamicAsn, E> {
                let asn = u32::try_from(asn).map_err(|_| E::custom("asn has more than 32 bits"))?;
                Ok(DynamicAsn::Listed(vec![asn]))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<DynamicAsn, E> {
                match text {
                    "external" => Ok(DynamicAsn::External),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<DynamicAsn, A::Error> {
                let mut asns = Vec::new();
                while let Some(asn) = list.next_element()? {
                    asns.push(asn);
                }
                Ok(DynamicAsn::Listed(asns))
            }
        }
        deserializer.deserialize_any(AnyForm)
    }
}

#[cfg(test)]
mod tests {
    use super::super::SpeakerConfig;
    use super::*;

    fn group(fields: &str) -> Result<DynamicPeers, String> {
        let text = format!(
            "asn = 65001\nrouter_id = \"10.0.0.1\"\n\n[[dynamic]]\nname = \"tor\"\n{fields}\n"
        );
        let mut config: SpeakerConfig = toml::from_str(&text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config.dynamic.remove(0))
    }

    #[test]
    fn a_group_reads_like_a_peer_with_a_prefix() {
        let read = group("prefix = \"10.1.0.0/16\"\nasn = 65002\nhold_time = 3\nimport = \"all\"");
        let read = read.unwrap();
        assert_eq!(
            (read.prefix.to_string().as_str(), read.limit),
            ("10.1.0.0/16", 100)
        );
        assert_eq!(read.asn, DynamicAsn::Listed(vec![65002]));
        let peer = read.peer("10.1.2.3".parse().unwrap());
        assert_eq!(
            (peer.name.as_str(), peer.asn, peer.hold_time),
            ("tor-10.1.2.3", 65002, 3)
        );
        assert!(peer.passive && peer.import == crate::policy::ImportPolicy::All);
        for (text, asn) in [
            ("[65002, 65003]", DynamicAsn::Listed(vec![65002, 65003])),
            ("\"external\"", DynamicAsn::External),
        ] {
            let read = group(&format!("prefix = \"fd00::/8\"\nlimit = 2\nasn = {text}")).unwrap();
            assert_eq!((read.limit, &read.asn), (2, &asn));
            let long = read.peer("fd12:3456:789a:bcde:f012:3456:789a:bcde".parse().unwrap());
            assert_eq!(long.asn, 0);
            assert_eq!(long.name, "tor-fd12:3456:789a:bcde:f012:3456:789a:bcde");
        }
    }

    #[test]
    fn faults_of_a_group_name_field_and_line() {
        let base = "prefix = \"10.1.0.0/16\"\nasn = 65002\n";
        for (fields, reason) in [
            ("asn = 65002".to_owned(), "missing field `prefix`"),
            ("prefix = \"10.1.0.0/16\"".to_owned(), "missing field `asn`"),
            (
                format!("{base}limit = 0"),
                "dynamic tor: limit must be 1..=10000",
            ),
            (
                format!("{base}address = \"10.1.0.1\""),
                "dynamic peers have no address",
            ),
            (
                format!("{base}passive = false"),
                "dynamic peers have no passive",
            ),
            (format!("{base}holdtime = 3"), "unknown field `holdtime`"),
            (format!("{base}holdtime = 3"), "line 8"),
            (
                format!("{base}hold_time = 2"),
                "hold_time must be 0, or 3 to 65535",
            ),
            (
                format!("{base}multihop = 0"),
                "dynamic tor: multihop must be 1 to 255",
            ),
            (
                "prefix = \"10.1.0.0/16\"\nasn = []".to_owned(),
                "at least one AS",
            ),
            (
                "prefix = \"10.1.0.0/16\"\nasn = [0]".to_owned(),
                "asn 0 is reserved",
            ),
            (
                "prefix = \"10.1.0.0/16\"\nasn = \"any\"".to_owned(),
                "or \"external\"",
            ),
            ("prefix = \"10.1.0.0/33\"\nasn = 1".to_owned(), "line 6"),
            (
                "prefix = \"fe80::/10\"\nasn = 1".to_owned(),
                "set interface as well",
            ),
        ] {
            let error = group(&fields).unwrap_err();
            assert!(error.contains(reason), "{reason:?} expected, got: {error}");
        }
    }
}

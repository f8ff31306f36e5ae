//! BFD with a peer (RFC 5880): `bfd = true`, or a table of what differs from the defaults.

use std::fmt;
use std::num::NonZeroU8;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::{Hops, PeerConfig};
use crate::bfd::Path;
use crate::bfd::auth::{Digest, Method};

/// Intervals that make sense, in milliseconds: below, an ordinary machine cannot keep the promise;
/// above, BGP's own timers notice as soon.
const INTERVALS: std::ops::RangeInclusive<u32> = 10..=60_000;
const MULTIPLIERS: std::ops::RangeInclusive<u8> = 1..=50;

/// BFD with one peer.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BfdConfig {
    /// How often we want to send, 10 to 60000 ms. The peer may ask for less.
    pub min_tx_ms: u32,
    /// How often the peer may send, 10 to 60000 ms.
    pub min_rx_ms: u32,
    /// How many of our packets in a row may be missed before the peer counts us as gone, 1 to 50.
    pub multiplier: NonZeroU8,
    /// Whether routers may lie between (RFC 5883, port 4784) or not (RFC 5881, port 3784); absent:
    /// as `multihop` and `ttl_security` of the peer say.
    pub multihop: Option<bool>,
    /// The least TTL of packets to believe, if routers may lie between; absent: any. RFC 5883 does not
    /// say what they leave with: we send 255, BIRD less.
    pub min_ttl: Option<u8>,
    /// Whether to say nothing before the peer has.
    pub passive: bool,
    /// Whether the BGP session waits for BFD to be up, at most for the hold time: no KEEPALIVE answers
    /// the peer's OPEN before (as in draft-ietf-idr-bgp-bfd-strict-mode, by configuration alone).
    pub strict: bool,
    /// Authentication (RFC 5880 section 6.7).
    pub auth: Option<BfdAuth>,
}

impl Default for BfdConfig {
    fn default() -> Self {
        BfdConfig {
            min_tx_ms: 50,
            min_rx_ms: 50,
            multiplier: NonZeroU8::new(3).unwrap_or(NonZeroU8::MIN),
            multihop: None,
            min_ttl: None,
            passive: false,
            strict: false,
            auth: None,
        }
    }
}

impl BfdConfig {
    /// Whether one BFD session serves both.
    pub(crate) fn same_session(&self, other: &BfdConfig) -> bool {
        let strict = other.strict;
        *other
            == BfdConfig {
                strict,
                ..self.clone()
            }
    }
}

/// Authentication of BFD packets.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BfdAuth {
    /// How.
    #[serde(rename = "type")]
    pub method: BfdAuthMethod,
    /// Which key, for both ends.
    pub key_id: u8,
    /// The file that holds the key: 1 to 16 octets (20 for SHA1) without its last newline, and not
    /// readable by everybody.
    pub key_file: PathBuf,
}

/// The methods of RFC 5880.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BfdAuthMethod {
    /// A password that everybody on the path can read.
    Simple,
    /// Keyed MD5.
    KeyedMd5,
    /// MD5 with a new sequence number in each packet.
    MeticulousMd5,
    /// Keyed SHA1.
    KeyedSha1,
    /// SHA1 with a new sequence number in each packet.
    MeticulousSha1,
}

impl BfdAuthMethod {
    /// The method, as [`crate::bfd`] knows it.
    pub const fn method(self) -> Method {
        Method::Digest(match self {
            BfdAuthMethod::Simple => return Method::Password,
            BfdAuthMethod::KeyedMd5 => Digest::KeyedMd5,
            BfdAuthMethod::MeticulousMd5 => Digest::MeticulousMd5,
            BfdAuthMethod::KeyedSha1 => Digest::KeyedSha1,
            BfdAuthMethod::MeticulousSha1 => Digest::MeticulousSha1,
        })
    }
}

impl PeerConfig {
    /// What lies between us and the peer, for BFD.
    pub(crate) fn bfd_path(&self, bfd: &BfdConfig) -> Path {
        let allowed = match self.hops(false) {
            Hops::Within(hops) | Hops::Reach(hops) => hops,
        };
        match bfd.multihop.unwrap_or(allowed > 1) {
            true => Path::Multihop {
                min_ttl: bfd.min_ttl.unwrap_or_default(),
            },
            false => Path::SingleHop,
        }
    }

    /// Whether one BFD session serves both: what it was, it still is.
    pub(crate) fn same_bfd(&self, other: &PeerConfig) -> bool {
        let same = match (&self.bfd, &other.bfd) {
            (Some(ours), Some(theirs)) => {
                ours.same_session(theirs) && self.bfd_path(ours) == other.bfd_path(theirs)
            }
            (None, None) => true,
            _ => false,
        };
        let ends = |peer: &PeerConfig| (peer.address, peer.local_address);
        same && ends(self) == ends(other) && self.interface == other.interface
    }

    pub(super) fn check_bfd(&self) -> Result<(), String> {
        let Some(bfd) = &self.bfd else {
            return Ok(());
        };
        for (field, value) in [("min_tx_ms", bfd.min_tx_ms), ("min_rx_ms", bfd.min_rx_ms)] {
            if !INTERVALS.contains(&value) {
                let (least, most) = INTERVALS.into_inner();
                return Err(format!(
                    "bfd.{field} must be {least} to {most} milliseconds"
                ));
            }
        }
        if !MULTIPLIERS.contains(&bfd.multiplier.get()) {
            let (least, most) = MULTIPLIERS.into_inner();
            return Err(format!("bfd.multiplier must be {least} to {most}"));
        }
        if bfd.min_ttl.is_some() && self.bfd_path(bfd) == Path::SingleHop {
            let fault = "bfd.min_ttl means nothing on a single hop, where only 255 is believed: \
                         set bfd.multihop = true, or take it out";
            return Err(fault.to_owned());
        }
        Ok(())
    }
}

/// `true`, `false` or a table.
pub(super) fn switch<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BfdConfig>, D::Error> {
    deserializer.deserialize_any(Switch)
}

struct Switch;

impl<'de> Visitor<'de> for Switch {
    type Value = Option<BfdConfig>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false, or a table such as { min_tx_ms = 50, multiplier = 3 }")
    }

    fn visit_bool<E>(self, on: bool) -> Result<Self::Value, E> {
        Ok(on.then(BfdConfig::default))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        BfdConfig::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(fields: &str) -> Result<PeerConfig, String> {
        let text = format!("name = \"a\"\naddress = \"10.0.0.2\"\nasn = 65002\n{fields}");
        let peer: PeerConfig = toml::from_str(&text).map_err(|error| error.to_string())?;
        peer.check_bfd()?;
        Ok(peer)
    }

    #[test]
    fn it_is_a_switch_or_a_table() {
        let with = |change: fn(&mut BfdConfig)| {
            let mut config = BfdConfig::default();
            change(&mut config);
            Some(config)
        };
        for (fields, expected) in [
            ("", None),
            ("bfd = false", None),
            ("bfd = true", with(|_| {})),
            ("bfd = {}", with(|_| {})),
            ("[bfd]\nmin_tx_ms = 300", with(|bfd| bfd.min_tx_ms = 300)),
            ("bfd = { strict = true }", with(|bfd| bfd.strict = true)),
            (
                "bfd = { min_rx_ms = 10, multiplier = 5, multihop = true, min_ttl = 250, passive = true }",
                with(|bfd| {
                    bfd.min_rx_ms = 10;
                    bfd.multiplier = NonZeroU8::new(5).unwrap();
                    bfd.multihop = Some(true);
                    bfd.min_ttl = Some(250);
                    bfd.passive = true;
                }),
            ),
            (
                "bfd.auth = { type = \"meticulous-sha1\", key_id = 7, key_file = \"/k\" }",
                with(|bfd| {
                    bfd.auth = Some(BfdAuth {
                        method: BfdAuthMethod::MeticulousSha1,
                        key_id: 7,
                        key_file: "/k".into(),
                    });
                }),
            ),
        ] {
            assert_eq!(peer(fields).map(|peer| peer.bfd), Ok(expected), "{fields}");
        }
    }

    #[test]
    fn faults_name_the_field() {
        for (fields, reason) in [
            ("bfd = 50", "expected true, false, or a table"),
            ("bfd = \"on\"", "expected true, false, or a table"),
            ("bfd = { min_tx = 50 }", "unknown field `min_tx`"),
            (
                "bfd = { min_tx_ms = 9 }",
                "bfd.min_tx_ms must be 10 to 60000",
            ),
            (
                "bfd = { min_rx_ms = 60001 }",
                "bfd.min_rx_ms must be 10 to 60000",
            ),
            ("bfd = { min_rx_ms = -1 }", "min_rx_ms"),
            ("bfd = { multiplier = 0 }", "multiplier"),
            (
                "bfd = { multiplier = 51 }",
                "bfd.multiplier must be 1 to 50",
            ),
            ("bfd = { min_ttl = 250 }", "set bfd.multihop = true"),
            (
                "bfd = { auth = { type = \"md5\" } }",
                "unknown variant `md5`",
            ),
            (
                "bfd = { auth = { type = \"simple\", key_id = 1 } }",
                "missing field `key_file`",
            ),
        ] {
            let error = peer(fields).unwrap_err();
            assert!(error.contains(reason), "{fields}: {error}");
        }
    }

    #[test]
    fn a_session_is_kept_as_long_as_it_can_be() {
        let peer = |fields| peer(fields).unwrap();
        let strict = peer("bfd = { strict = true }");
        for (fields, same) in [
            ("bfd = true", true),
            ("bfd = { strict = true }\nhold_time = 90", true),
            ("bfd = { multiplier = 5 }", false),
            ("bfd = true\nmultihop = 2", false),
            ("bfd = true\nlocal_address = \"10.0.0.1\"", false),
            ("", false),
        ] {
            assert_eq!(strict.same_bfd(&peer(fields)), same, "{fields}");
        }
    }

    #[test]
    fn what_lies_between_follows_from_the_session() {
        let multihop = |min_ttl| Path::Multihop { min_ttl };
        for (fields, path) in [
            ("bfd = true", Path::SingleHop),
            ("ttl_security = 1\nbfd = true", Path::SingleHop),
            ("multihop = 1\nbfd = true", Path::SingleHop),
            ("multihop = 2\nbfd = true", multihop(0)),
            ("multihop = 255\nbfd = true", multihop(0)),
            ("ttl_security = 3\nbfd = true", multihop(0)),
            ("multihop = 2\nbfd = { multihop = false }", Path::SingleHop),
            ("bfd = { multihop = true }", multihop(0)),
            ("multihop = 9\nbfd = { min_ttl = 247 }", multihop(247)),
        ] {
            let peer = peer(fields).unwrap();
            let bfd = peer.bfd.as_ref().unwrap();
            assert_eq!(peer.bfd_path(bfd), path, "{fields}");
        }
    }
}

//! What protects a session: keys for its segments, and how far they may have come.
//!
//! Says where keys lie, never what they are: nothing here can be printed that is secret.

use std::path::PathBuf;

use super::PeerConfig;

/// Segments authenticated by TCP-AO (RFC 5925), with one key for both directions.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpAo {
    /// The file that holds the key; at most 80 octets without its last newline.
    pub key_file: PathBuf,
    /// The KeyID of what we send.
    pub key_id: u8,
    /// The KeyID of what the peer sends.
    pub recv_id: u8,
    /// How authentication codes are made.
    #[serde(default)]
    pub algorithm: AoAlgorithm,
}

/// The algorithms that RFC 5926 requires, and one that Linux and some routers have beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
pub enum AoAlgorithm {
    /// HMAC-SHA-1-96 (RFC 5926 section 3.2.1).
    #[default]
    #[serde(rename = "hmac-sha-1-96")]
    HmacSha1,
    /// AES-128-CMAC-96 (RFC 5926 section 3.2.2).
    #[serde(rename = "aes-128-cmac-96")]
    AesCmac,
    /// HMAC-SHA-256, cut to 96 bits as well.
    #[serde(rename = "hmac-sha-256-96")]
    HmacSha256,
}

/// How far the packets of a session go, and may have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hops {
    /// Packets leave with this TTL, 1 to 255; where they came from does not matter.
    Reach(u8),
    /// Packets leave with TTL 255, and those that have come more than this many hops (1: from
    /// a neighbour on the link) are dropped by the kernel (RFC 5082).
    Within(u8),
}

impl Hops {
    /// The TTL to send with.
    pub const fn ttl(self) -> u8 {
        match self {
            Hops::Reach(ttl) => ttl,
            Hops::Within(_) => u8::MAX,
        }
    }

    /// The lowest TTL to accept; 0: any.
    pub const fn least(self) -> u8 {
        match self {
            Hops::Reach(_) => 0,
            Hops::Within(hops) => u8::MAX - (hops - 1),
        }
    }
}

impl PeerConfig {
    /// How far the packets of a session with this peer go. An external peer is expected on the
    /// link unless `multihop` or `ttl_security` say otherwise.
    pub fn hops(&self, internal: bool) -> Hops {
        match (self.ttl_security, self.multihop) {
            (Some(hops), _) => Hops::Within(hops),
            (None, Some(hops)) => Hops::Reach(hops),
            (None, None) if internal => Hops::Reach(u8::MAX),
            (None, None) => Hops::Reach(1),
        }
    }

    pub(super) fn check_security(&self) -> Result<(), String> {
        if self.ttl_security.is_some() && self.multihop.is_some() {
            let fault = "multihop and ttl_security exclude each other: ttl_security alone says how \
                         many hops the peer may be away";
            return Err(fault.to_owned());
        }
        if self.multihop == Some(0) {
            return Err("multihop must be 1 to 255 hops".to_owned());
        }
        if matches!(self.ttl_security, Some(0 | 255)) {
            return Err("ttl_security must be 1 to 254 hops".to_owned());
        }
        if self.password_file.is_some() && self.tcp_ao.is_some() {
            return Err("password_file (TCP-MD5) and tcp_ao exclude each other".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops_follow_from_what_is_configured() {
        // internal, ttl_security, multihop; sent with, least accepted
        for (internal, ttl_security, multihop, sent, least) in [
            (false, None, None, 1, 0),
            (true, None, None, 255, 0),
            (false, None, Some(3), 3, 0),
            (true, None, Some(64), 64, 0),
            (false, Some(1), None, 255, 255),
            (false, Some(2), None, 255, 254),
            (true, Some(254), None, 255, 2),
        ] {
            let peer = PeerConfig {
                ttl_security,
                multihop,
                ..PeerConfig::new("a".parse().unwrap(), "10.0.0.2".parse().unwrap(), 65002)
            };
            peer.check_security().unwrap();
            let hops = peer.hops(internal);
            assert_eq!((hops.ttl(), hops.least()), (sent, least), "{hops:?}");
        }
    }
}

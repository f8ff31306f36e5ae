//! Ethernet addresses. Text form is six hexadecimal octets joined by colons.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A 48-bit Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// Why a text is not a MAC.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a MAC address (want six hexadecimal octets such as 02:00:00:00:00:01)")]
pub struct MacError(pub String);

impl Mac {
    /// `fe80::` with this MAC in its lower 48 bits: an address that stands for the MAC alone, so
    /// that one permanent neighbour entry serves every route to it. It is not an EUI-64.
    #[must_use]
    pub fn link_local(self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f])
    }

    /// The MAC that an address stands for, if it is one of [`Mac::link_local`].
    #[must_use]
    pub fn of_link_local(addr: Ipv6Addr) -> Option<Mac> {
        let octets = addr.octets();
        let mac = Mac([
            octets[10], octets[11], octets[12], octets[13], octets[14], octets[15],
        ]);
        (mac.link_local() == addr).then_some(mac)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Mac, MacError> {
        let refuse = || MacError(text.chars().take(64).collect());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(refuse)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(refuse());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        if parts.next().is_some() {
            Err(refuse())
        } else {
            Ok(Mac(octets))
        }
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Mac, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms() {
        let cases: &[(&str, Option<[u8; 6]>)] = &[
            ("02:00:00:00:00:01", Some([2, 0, 0, 0, 0, 1])),
            ("AA:bb:Cc:0:1:2", Some([0xaa, 0xbb, 0xcc, 0, 1, 2])),
            ("", None),
            ("02:00:00:00:00", None),
            ("02:00:00:00:00:01:02", None),
            ("02-00-00-00-00-01", None),
            ("02:00:00:00:00:+1", None),
            ("02:00:00:00:00:100", None),
        ];
        for (text, want) in cases {
            assert_eq!(text.parse::<Mac>().ok().map(|m| m.0), *want, "{text}");
        }
        assert_eq!(Mac([2, 0, 0, 0, 0, 1]).to_string(), "02:00:00:00:00:01");
        assert_eq!(
            Mac([2, 0, 0, 0xa, 0, 1]).link_local().to_string(),
            "fe80::200:a:1"
        );
    }
}

//! The name of a network interface, and addresses that mean something on one interface only.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use super::intercept::{Given, Taker};

/// The name of a network interface: 1 to 15 octets, none of them `/` or white space, as the
/// kernel has it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(Arc<str>);

/// A text that cannot name an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot name an interface: expected 1 to 15 characters without spaces and slashes")]
pub struct InterfaceNameError(pub String);

impl InterfaceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for InterfaceName {
    type Error = InterfaceNameError;

    fn try_from(text: &str) -> Result<Self, InterfaceNameError> {
        let fits = (1..=15).contains(&text.len())
            && !matches!(text, "." | "..")
            && text
                .chars()
                .all(|c| !c.is_whitespace() && !c.is_control() && c != '/');
        fits.then(|| InterfaceName(text.into()))
            .ok_or_else(|| InterfaceNameError(text.to_owned()))
    }
}

impl std::str::FromStr for InterfaceName {
    type Err = InterfaceNameError;

    fn from_str(text: &str) -> Result<Self, InterfaceNameError> {
        InterfaceName::try_from(text)
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for InterfaceName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for InterfaceName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        InterfaceName::try_from(text.as_ref()).map_err(de::Error::custom)
    }
}

/// Whether the address means something on one interface only (RFC 4291 section 2.5.6).
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Takes the interface from behind an address, as in `fe80::2%eth0` (RFC 4007 section 11).
pub(super) struct Zone;

impl Taker for Zone {
    fn wants(&self, key: &str) -> bool {
        key == "address"
    }

    fn take<'de, D: Deserializer<'de>>(
        &mut self,
        _key: &str,
        value: D,
    ) -> Result<Vec<(&'static str, Given)>, D::Error> {
        let text = String::deserialize(value)?;
        let (address, interface) = match text.split_once('%') {
            Some((address, interface)) => (address, Some(interface)),
            None => (text.as_str(), None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| de::Error::custom(format!("{text:?} is no IP address")))?;
        let mut entries = vec![("address", Given::Text(address.to_string()))];
        if let Some(interface) = interface {
            if !is_link_local(address) {
                let fault = format!("{address} is not link-local and has no interface behind it");
                return Err(de::Error::custom(fault));
            }
            let interface = InterfaceName::try_from(interface).map_err(de::Error::custom)?;
            entries.push(("interface", Given::Text(interface.to_string())));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_the_kernel_takes() {
        for (text, fits) in [
            ("eth0", true),
            ("bond0.100", true),
            ("abcdefghijklmno", true),
            ("abcdefghijklmnop", false),
            ("", false),
            (".", false),
            ("..", false),
            ("a/b", false),
            ("a b", false),
            ("a\0", false),
        ] {
            assert_eq!(InterfaceName::try_from(text).is_ok(), fits, "{text:?}");
        }
    }

    #[test]
    fn an_interface_may_stand_behind_the_address() {
        let peer = |address: &str| -> Result<crate::PeerConfig, String> {
            let text = format!("name = \"a\"\nasn = 1\n{address}\n");
            toml::from_str(&text).map_err(|error| error.to_string())
        };
        let read = peer("address = \"fe80::2%eth0\"").unwrap();
        assert_eq!(read.address.to_string(), "fe80::2");
        assert_eq!(read.interface.unwrap().as_str(), "eth0");
        assert_eq!(peer("address = \"10.0.0.2\"").unwrap().interface, None);
        for (address, reason) in [
            ("address = \"fe80::2%\"", "cannot name an interface"),
            ("address = \"10.0.0.2%eth0\"", "not link-local"),
            ("address = \"nowhere\"", "\"nowhere\" is no IP address"),
            ("address = \"nowhere\"", "line 3"),
            ("address = 7", "invalid type: integer"),
            ("", "missing field `address`"),
            (
                "address = \"fe80::2%eth0\"\ninterface = \"eth0\"",
                "duplicate field `interface`",
            ),
        ] {
            let error = peer(address).unwrap_err();
            assert!(error.contains(reason), "{reason:?} expected, got: {error}");
        }
    }
}

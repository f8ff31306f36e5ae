//! The names of things: text that is safe in a key, a URL, a log line and a command line.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest id, in bytes.
const MAX_LEN: usize = 63;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum IdError {
    /// Nothing there.
    #[error("is empty: a name has 1 to 63 characters")]
    Empty,
    /// Over 63 characters.
    #[error("has {0} characters: at most 63 are allowed")]
    TooLong(usize),
    /// A character that keys do not carry.
    #[error(
        "\"{text}\" holds the character {character:?}: use letters, digits, '.', '_' and '-' only"
    )]
    Character {
        /// The text at fault.
        text: String,
        /// Its first character at fault.
        character: char,
    },
    /// A first character that looks like an option or a hidden file.
    #[error("\"{0}\" must begin with a letter or a digit")]
    Start(String),
    /// A classic name that reads as an address.
    #[error("\"{0}\" is an address: a classic network needs a name that is none")]
    Address(String),
}

fn checked(text: &str) -> Result<(), IdError> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    if text.len() <= MAX_LEN
        && text.bytes().all(allowed)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        return Ok(());
    }
    // Something is wrong: what?
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    let count = text.chars().count();
    if count > MAX_LEN {
        return Err(IdError::TooLong(count));
    }
    let wrong = |c: &char| !u8::try_from(*c).is_ok_and(allowed);
    if let Some(character) = text.chars().find(wrong) {
        return Err(IdError::Character {
            text: text.to_owned(),
            character,
        });
    }
    Err(IdError::Start(text.to_owned()))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident $(, $also:expr)?) => {
        $(#[$doc])*
        ///
        /// 1 to 63 characters of `[A-Za-z0-9._-]`, the first a letter or a digit. Cheap to clone.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                checked(text)?;
                $($also(text)?;)?
                Ok(Self(Arc::from(text)))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id! {
    /// The id of a VPC.
    VpcId
}
id! {
    /// The id of a VM, unique in its VPC.
    VmId
}
id! {
    /// The id of an SLB, unique in its VPC.
    SlbId
}
id! {
    /// The id of a CCSI.
    CcsiId
}
id! {
    /// The id of a link.
    LinkId
}
id! {
    /// The name of a gateway group.
    GroupName
}
id! {
    /// The name of a gateway, unique in its region.
    GatewayName
}
id! {
    /// The name of a classic network; never one that reads as an address, so that a link's
    /// `classic` items have one meaning.
    ClassicName, not_an_address
}

fn not_an_address(text: &str) -> Result<(), IdError> {
    match text.parse::<IpAddr>() {
        Ok(_) => Err(IdError::Address(text.to_owned())),
        Err(_) => Ok(()),
    }
}

impl Default for GroupName {
    /// The group of links and gateways that name none: `default`.
    fn default() -> Self {
        GroupName(Arc::from("default"))
    }
}

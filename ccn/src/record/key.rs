//! Where a record stands in the store: `vpcs/web`, `vms/web/web-1`, ...

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::id::IdError;
use super::{CcsiId, ClassicName, GatewayName, LinkId, SlbId, VmId, VpcId};

/// The kinds of records, in the order an import writes them: what is named before what names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `vpcs`
    Vpc,
    /// `ccsis`
    Ccsi,
    /// `classic`
    Classic,
    /// `vms`
    Vm,
    /// `slbs`
    Slb,
    /// `links`
    Link,
    /// `gateways`; only gateways write these, each its own
    Gateway,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Kind; 7] = [
        Kind::Vpc,
        Kind::Ccsi,
        Kind::Classic,
        Kind::Vm,
        Kind::Slb,
        Kind::Link,
        Kind::Gateway,
    ];

    /// Whether such a record is written by nobody but by what it tells of.
    pub fn registers_itself(self) -> bool {
        self == Kind::Gateway
    }

    /// The first part of the keys of this kind.
    pub fn folder(self) -> &'static str {
        match self {
            Kind::Vpc => "vpcs",
            Kind::Ccsi => "ccsis",
            Kind::Classic => "classic",
            Kind::Vm => "vms",
            Kind::Slb => "slbs",
            Kind::Link => "links",
            Kind::Gateway => "gateways",
        }
    }
}

/// The key of a record, without the store's root. Ordered by [`Kind`], then by id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// `vpcs/<vpc>`
    Vpc(VpcId),
    /// `ccsis/<ccsi>`
    Ccsi(CcsiId),
    /// `classic/<name>`
    Classic(ClassicName),
    /// `vms/<vpc>/<vm>`
    Vm(VpcId, VmId),
    /// `slbs/<vpc>/<slb>`
    Slb(VpcId, SlbId),
    /// `links/<link>`
    Link(LinkId),
    /// `gateways/<gateway>`
    Gateway(GatewayName),
}

impl RecordKey {
    /// Which kind of record stands here.
    pub fn kind(&self) -> Kind {
        match self {
            RecordKey::Vpc(_) => Kind::Vpc,
            RecordKey::Ccsi(_) => Kind::Ccsi,
            RecordKey::Classic(_) => Kind::Classic,
            RecordKey::Vm(..) => Kind::Vm,
            RecordKey::Slb(..) => Kind::Slb,
            RecordKey::Link(_) => Kind::Link,
            RecordKey::Gateway(_) => Kind::Gateway,
        }
    }
}

impl fmt::Display for RecordKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.kind().folder();
        match self {
            RecordKey::Vpc(id) => write!(f, "{folder}/{id}"),
            RecordKey::Ccsi(id) => write!(f, "{folder}/{id}"),
            RecordKey::Classic(id) => write!(f, "{folder}/{id}"),
            RecordKey::Vm(vpc, id) => write!(f, "{folder}/{vpc}/{id}"),
            RecordKey::Slb(vpc, id) => write!(f, "{folder}/{vpc}/{id}"),
            RecordKey::Link(id) => write!(f, "{folder}/{id}"),
            RecordKey::Gateway(name) => write!(f, "{folder}/{name}"),
        }
    }
}

/// Why a text is no [`RecordKey`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum KeyError {
    /// The first part names no kind of record.
    #[error(
        "the key \"{0}\" is of no known kind: it begins with none of vpcs/, ccsis/, classic/, vms/, slbs/, links/, gateways/"
    )]
    Kind(String),
    /// Too few or too many parts.
    #[error("the key \"{key}\" does not have the form {form}")]
    Form {
        /// The key at fault.
        key: String,
        /// The form of its kind.
        form: &'static str,
    },
    /// A part is no id.
    #[error("the key \"{key}\": a part {error}")]
    Id {
        /// The key at fault.
        key: String,
        /// What is wrong with the part.
        error: IdError,
    },
}

impl FromStr for RecordKey {
    type Err = KeyError;

    fn from_str(key: &str) -> Result<Self, KeyError> {
        let mut parts = key.split('/');
        let folder = parts.next().unwrap_or_default();
        let kind = Kind::ALL.into_iter().find(|kind| kind.folder() == folder);
        let kind = kind.ok_or_else(|| KeyError::Kind(key.to_owned()))?;
        let (one, two, three) = (parts.next(), parts.next(), parts.next());
        let id = |error| KeyError::Id {
            key: key.to_owned(),
            error,
        };
        let form = |form| KeyError::Form {
            key: key.to_owned(),
            form,
        };
        match (kind, one, two, three) {
            (Kind::Vpc, Some(vpc), None, None) => Ok(RecordKey::Vpc(vpc.parse().map_err(id)?)),
            (Kind::Ccsi, Some(ccsi), None, None) => Ok(RecordKey::Ccsi(ccsi.parse().map_err(id)?)),
            (Kind::Classic, Some(name), None, None) => {
                Ok(RecordKey::Classic(name.parse().map_err(id)?))
            }
            (Kind::Vm, Some(vpc), Some(vm), None) => Ok(RecordKey::Vm(
                vpc.parse().map_err(id)?,
                vm.parse().map_err(id)?,
            )),
            (Kind::Slb, Some(vpc), Some(slb), None) => Ok(RecordKey::Slb(
                vpc.parse().map_err(id)?,
                slb.parse().map_err(id)?,
            )),
            (Kind::Link, Some(link), None, None) => Ok(RecordKey::Link(link.parse().map_err(id)?)),
            (Kind::Gateway, Some(name), None, None) => {
                Ok(RecordKey::Gateway(name.parse().map_err(id)?))
            }
            (Kind::Vpc, ..) => Err(form("vpcs/<vpc>")),
            (Kind::Ccsi, ..) => Err(form("ccsis/<ccsi>")),
            (Kind::Classic, ..) => Err(form("classic/<name>")),
            (Kind::Vm, ..) => Err(form("vms/<vpc>/<vm>")),
            (Kind::Slb, ..) => Err(form("slbs/<vpc>/<slb>")),
            (Kind::Link, ..) => Err(form("links/<link>")),
            (Kind::Gateway, ..) => Err(form("gateways/<gateway>")),
        }
    }
}

impl Serialize for RecordKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecordKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

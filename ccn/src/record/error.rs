//! Why a record is refused or quarantined: the record, the field, the reason and what to do.

use std::net::IpAddr;

use bgp::Prefix;
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::{CcsiId, ClassicName, KeyError, LinkId, RecordKey, Vni, VpcId};

/// A record at fault.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[error("{key}: {field}: {reason}")]
pub struct RecordError {
    /// The key as it stands in the store, which need not be a good one.
    pub key: String,
    /// The field, with its index where it is a list (`subnets[1]`). `key` and `value` stand for
    /// the key itself and for the value as a whole.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub reason: Reason,
}

impl RecordError {
    /// A fault of the record at `key`.
    pub fn new(key: &RecordKey, field: impl Into<String>, reason: Reason) -> Self {
        RecordError {
            key: key.to_string(),
            field: field.into(),
            reason,
        }
    }
}

impl Serialize for RecordError {
    /// `{key, field, code, reason}`; the code is [`Reason::code`].
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fault = serializer.serialize_struct("RecordError", 4)?;
        fault.serialize_field("key", &self.key)?;
        fault.serialize_field("field", &self.field)?;
        fault.serialize_field("code", self.reason.code())?;
        fault.serialize_field("reason", &self.reason.to_string())?;
        fault.end()
    }
}

/// What is wrong with a field. The text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Reason {
    /// The key is none.
    #[error("{0}")]
    BadKey(KeyError),
    /// Only a gateway itself writes its record.
    #[error("a gateway registers itself: this is no record to write")]
    RegistersItself,
    /// The value is larger than any record may be.
    #[error("has {len} bytes: at most {max} are allowed")]
    TooLong {
        /// Bytes of the value.
        len: usize,
        /// The most it may have.
        max: usize,
    },
    /// The value does not parse.
    #[error("is no JSON: {0}")]
    NotJson(String),
    /// The value is JSON, but no object.
    #[error("is no JSON object")]
    NotObject,
    /// A field that must be there is not.
    #[error("is missing")]
    Missing,
    /// A value of the wrong type, form or range.
    #[error("{0}")]
    Invalid(String),
    /// A list that needs an item has none.
    #[error("is empty: at least one item is needed")]
    Empty,
    /// A list is longer than a record may have.
    #[error("has {len} items: at most {max} are allowed")]
    TooMany {
        /// Items of the list.
        len: usize,
        /// The most it may have.
        max: usize,
    },
    /// An item stands twice in one list.
    #[error("{0} is there twice: name it once")]
    Duplicate(String),
    /// Two subnets of one VPC overlap.
    #[error("{subnet} overlaps {other} of the same VPC: subnets of one VPC must be apart")]
    SubnetsOverlap {
        /// The subnet at fault.
        subnet: Prefix,
        /// The one that stands before it.
        other: Prefix,
    },
    /// Another VPC has the VNI.
    #[error("VNI {vni} is already used by vpcs/{by}: a VNI belongs to one VPC, choose another")]
    VniTaken {
        /// The VNI.
        vni: Vni,
        /// Who has it.
        by: VpcId,
    },
    /// The VPC is not there, or is quarantined itself.
    #[error(
        "VPC {0} is unknown (there is no good record vpcs/{0}): create it first, or name another"
    )]
    UnknownVpc(VpcId),
    /// The VPC is a member of another CCSI.
    #[error(
        "VPC {vpc} is already in ccsis/{ccsi}: a VPC is in one CCSI at most, take it out there first"
    )]
    InOtherCcsi {
        /// The VPC.
        vpc: VpcId,
        /// Where it is a member.
        ccsi: CcsiId,
    },
    /// Two members of one CCSI overlap.
    #[error(
        "VPC {vpc} ({subnet}) overlaps VPC {other} ({other_subnet}) of the same CCSI: \
         change a subnet or use another CCSI"
    )]
    MembersOverlap {
        /// The member left out.
        vpc: VpcId,
        /// Its subnet.
        subnet: Prefix,
        /// The member created earlier.
        other: VpcId,
        /// That one's subnet.
        other_subnet: Prefix,
    },
    /// An address that its VPC does not hold.
    #[error("{addr} is in none of the subnets of vpcs/{vpc}: correct the address or add a subnet")]
    OutsideSubnets {
        /// The address.
        addr: IpAddr,
        /// The VPC of the VM or SLB.
        vpc: VpcId,
    },
    /// Another VM or SLB of the VPC has the address.
    #[error("{addr} is already used by {by}: an address is used once in a VPC, choose another")]
    AddressTaken {
        /// The address.
        addr: IpAddr,
        /// Who has it.
        by: RecordKey,
    },
    /// The classic network is not there, or is quarantined itself.
    #[error(
        "classic network {0} is unknown (there is no good record classic/{0}): create it first, or give a CIDR"
    )]
    UnknownClassic(ClassicName),
    /// A link without any pair of subnet and classic prefix of one family.
    #[error(
        "no classic prefix is of the family of any subnet of VPC {0}, so nothing would be joined: \
         add one, or add a subnet"
    )]
    NothingJoined(VpcId),
    /// A classic prefix covers addresses of a VPC that it could not be told from.
    #[error(
        "classic prefix {classic} overlaps subnet {subnet} of VPC {vpc}, which is {how}: \
         use a classic prefix that is apart from it"
    )]
    ClassicOverlapsSubnet {
        /// The classic prefix.
        classic: Prefix,
        /// The subnet.
        subnet: Prefix,
        /// The VPC.
        vpc: VpcId,
        /// What the VPC has to do with the link.
        how: Standing,
    },
    /// Another link has what this one asks for.
    #[error("{0}: unlink links/{by} first, or make this one a standby (--standby), which takes over when that goes", by = .0.by())]
    Conflict(Box<Conflict>),
    /// The plane that runs cannot tell replies from new connections.
    #[error(
        "mode classic-to-vpc needs flow state, which the plane in use does not keep: \
         use mode both or another plane"
    )]
    NeedsFlowState,
    /// The plane cannot set a DSCP of the link's own.
    #[error(
        "a DSCP of the link's own cannot be set by the plane in use: leave dscp out, or use \
         another plane"
    )]
    NeedsMarking,
}

/// Two links that cannot both be served: what the one asks for, and the other that has it. Of these the one that is
/// marked as a standby waits for the other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Conflict {
    /// The VPC is linked with the prefix already.
    #[error("{classic} is already linked with VPC {vpc} by links/{by}")]
    LinkedTwice {
        /// The classic prefix.
        classic: Prefix,
        /// The VPC.
        vpc: VpcId,
        /// The link that has the pair.
        by: LinkId,
    },
    /// A classic prefix covers addresses of a VPC that are announced.
    #[error(
        "classic prefix {classic} overlaps subnet {subnet} of VPC {vpc}, which is linked by links/{by}"
    )]
    ClassicOverlapsSubnet {
        /// The classic prefix.
        classic: Prefix,
        /// The subnet.
        subnet: Prefix,
        /// Its VPC.
        vpc: VpcId,
        /// The link by which it is announced.
        by: LinkId,
    },
    /// A subnet of the VPC to be linked is covered by a classic prefix that another link uses.
    #[error(
        "subnet {subnet} of VPC {vpc} overlaps classic prefix {classic} of links/{by} (VPC {other}), \
         and cannot be announced to it"
    )]
    SubnetOverlapsClassic {
        /// The subnet.
        subnet: Prefix,
        /// The VPC.
        vpc: VpcId,
        /// The classic prefix.
        classic: Prefix,
        /// The VPC that is linked with it.
        other: VpcId,
        /// The link that uses it.
        by: LinkId,
    },
    /// Two linked VPCs would announce the same addresses.
    #[error(
        "subnet {subnet} of VPC {vpc} overlaps {other_subnet} of VPC {other}, which is linked by links/{by}, \
         and only one of them can be announced"
    )]
    LinkedSubnetsOverlap {
        /// The subnet.
        subnet: Prefix,
        /// The VPC to be linked.
        vpc: VpcId,
        /// The subnet that is announced already.
        other_subnet: Prefix,
        /// Its VPC.
        other: VpcId,
        /// The link by which it is.
        by: LinkId,
    },
}

impl Conflict {
    /// The link that is in the way.
    pub fn by(&self) -> &LinkId {
        match self {
            Conflict::LinkedTwice { by, .. }
            | Conflict::ClassicOverlapsSubnet { by, .. }
            | Conflict::SubnetOverlapsClassic { by, .. }
            | Conflict::LinkedSubnetsOverlap { by, .. } => by,
        }
    }

    /// See [`Reason::code`].
    pub fn code(&self) -> &'static str {
        match self {
            Conflict::LinkedTwice { .. } => "linked-twice",
            Conflict::ClassicOverlapsSubnet { .. } => "classic-overlaps-subnet",
            Conflict::SubnetOverlapsClassic { .. } => "subnet-overlaps-classic",
            Conflict::LinkedSubnetsOverlap { .. } => "linked-subnets-overlap",
        }
    }
}

/// What a VPC has to do with a link whose classic prefix it overlaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It is the one to be linked.
    Own,
    /// It shares the CCSI, and so the routing table, of the linked VPC.
    SameCcsi,
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Standing::Own => "the one to be linked",
            Standing::SameCcsi => "in the CCSI of the linked VPC",
        })
    }
}

impl Reason {
    /// A stable name for scripts and counters.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::BadKey(_) => "bad-key",
            Reason::RegistersItself => "registers-itself",
            Reason::TooLong { .. } => "too-long",
            Reason::NotJson(_) => "not-json",
            Reason::NotObject => "not-object",
            Reason::Missing => "missing",
            Reason::Invalid(_) => "invalid",
            Reason::Empty => "empty",
            Reason::TooMany { .. } => "too-many",
            Reason::Duplicate(_) => "duplicate",
            Reason::SubnetsOverlap { .. } => "subnets-overlap",
            Reason::VniTaken { .. } => "vni-taken",
            Reason::UnknownVpc(_) => "unknown-vpc",
            Reason::InOtherCcsi { .. } => "in-other-ccsi",
            Reason::MembersOverlap { .. } => "members-overlap",
            Reason::OutsideSubnets { .. } => "outside-subnets",
            Reason::AddressTaken { .. } => "address-taken",
            Reason::UnknownClassic(_) => "unknown-classic",
            Reason::NothingJoined(_) => "nothing-joined",
            Reason::ClassicOverlapsSubnet { .. } => "classic-overlaps-subnet",
            Reason::Conflict(conflict) => conflict.code(),
            Reason::NeedsFlowState => "needs-flow-state",
            Reason::NeedsMarking => "needs-marking",
        }
    }
}

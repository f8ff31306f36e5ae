//! Records: what the store holds, as types that cannot hold nonsense.
//!
//! Bytes and JSON become [`Record`]s here and nowhere else; every refusal is a [`RecordError`]
//! that names the record, the field and the reason. What one record says about itself is settled
//! here (ranges, formats, subnets that overlap inside one VPC). What two records say about each
//! other is the business of the inventory; this room never looks at a second record.

mod error;
mod fields;
mod gateway;
mod id;
mod key;
mod quick;
mod report;
mod schema;
mod value;

pub use error::{Conflict, Reason, RecordError, Standing};
pub use gateway::{Fullest, Gateway, Health, PeersUp, Role};
pub use id::{CcsiId, ClassicName, GatewayName, GroupName, IdError, LinkId, SlbId, VmId, VpcId};
pub use key::{KeyError, Kind, RecordKey};
pub use report::{LinkReport, Progress};
pub use value::{Dscp, Mac, ValueError, Vni, Vtep, Weight};

use std::fmt;
use std::net::IpAddr;

use bgp::Prefix;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use fields::{Fault, Fields};

/// Fields of a record that this version does not know; kept and written back untouched.
pub type Extra = Map<String, Value>;

/// The longest value of one record, in bytes of JSON.
pub const MAX_VALUE_BYTES: usize = 1 << 20;
/// The most subnets one VPC may have.
pub const MAX_SUBNETS: usize = 256;
/// The most addresses one VM, or VIPs one SLB, may have.
pub const MAX_ADDRESSES: usize = 64;
/// The most nodes one SLB may have.
pub const MAX_NODES: usize = 256;
/// The most VPCs one CCSI may have.
pub const MAX_MEMBERS: usize = 4096;
/// The most prefixes one classic network, or classic items one link, may have.
pub const MAX_CLASSIC: usize = 1024;

/// `vpcs/<vpc>`: a tenant network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Vpc {
    /// The VXLAN network identifier, unique in the region.
    pub vni: Vni,
    /// IPv4 and IPv6 subnets; they never overlap one another.
    pub subnets: Vec<Prefix>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// `vms/<vpc>/<vm>`: an instance in a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Vm {
    /// At least one address, none twice.
    pub addrs: Vec<IpAddr>,
    /// The inner destination MAC of packets to this VM.
    pub mac: Mac,
    /// Where the VM's host terminates VXLAN.
    pub vtep: Vtep,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// `slbs/<vpc>/<slb>`: a load balancer in a VPC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Slb {
    /// At least one virtual address, none twice.
    pub vips: Vec<IpAddr>,
    /// The nodes that serve the VIPs, no VTEP twice; none at all means that nothing does.
    pub nodes: Vec<SlbNode>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// One node of an [`Slb`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct SlbNode {
    /// Where the node terminates VXLAN.
    pub vtep: Vtep,
    /// Its share of the flows.
    pub weight: Weight,
    /// The inner destination MAC; without one, [`Mac::of_node`] of the VTEP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

impl SlbNode {
    /// The inner destination MAC of packets to this node: its own, or the one made from its VTEP.
    pub fn inner_mac(&self) -> Mac {
        self.mac.unwrap_or_else(|| Mac::of_node(self.vtep))
    }
}

/// `ccsis/<ccsi>`: a group of VPCs that may reach one another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Ccsi {
    /// The members, none twice.
    pub vpcs: Vec<VpcId>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// `classic/<name>`: a named set of IDC prefixes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Classic {
    /// The prefixes, none twice.
    pub prefixes: Vec<Prefix>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// `links/<link>`: the joining of one VPC with classic prefixes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Link {
    /// The VPC.
    pub vpc: VpcId,
    /// The classic side: prefixes and names, at least one, none twice.
    pub classic: Vec<ClassicRef>,
    /// The gateways that serve it; `default` where the record does not say.
    pub group: GroupName,
    /// Who may open connections.
    pub mode: Mode,
    /// The outer DSCP of this link's packets; without one, the inner DSCP is copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dscp: Option<Dscp>,
    /// It keeps its place among the links, and nothing of it is announced or forwarded.
    #[serde(skip_serializing_if = "is_false")]
    pub disabled: bool,
    /// Where another link is in its way, it waits until that goes; and it makes way for any link that is no standby.
    #[serde(skip_serializing_if = "is_false")]
    pub standby: bool,
    /// What the record was before its last change, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
    /// The last change is taken back unless it is confirmed by then, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub confirm_by: Option<u64>,
    /// The record goes when its last change is confirmed.
    #[serde(skip_serializing_if = "is_false")]
    pub unlink_when_confirmed: bool,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a link was before. JSON: `"none"`, or the fields of the link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Previous {
    /// There was none.
    Nothing,
    /// This one; what it was before in turn is not kept.
    Link(Box<Link>),
}

impl Serialize for Previous {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Previous::Nothing => serializer.serialize_str(NO_LINK),
            Previous::Link(link) => link.serialize(serializer),
        }
    }
}

/// How [`Previous::Nothing`] is written.
const NO_LINK: &str = "none";

fn is_false(flag: &bool) -> bool {
    !flag
}

/// One item of a link's classic side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClassicRef {
    /// A prefix, given in full or as a single address.
    Prefix(Prefix),
    /// The prefixes of `classic/<name>`, whatever they are at the time.
    Name(ClassicName),
}

impl fmt::Display for ClassicRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClassicRef::Prefix(prefix) => prefix.fmt(f),
            ClassicRef::Name(name) => name.fmt(f),
        }
    }
}

impl std::str::FromStr for ClassicRef {
    type Err = String;

    /// A CIDR (`10.80.1.0/24`), a single address (`10.80.1.5`, taken as a /32 or /128) or a name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('/') {
            let prefix = text.parse::<Prefix>().map_err(|error| error.to_string())?;
            value::ordinary(&prefix)?;
            return Ok(ClassicRef::Prefix(prefix));
        }
        if let Ok(addr) = text.parse::<IpAddr>() {
            let prefix = Prefix::host(addr);
            value::ordinary(&prefix)?;
            return Ok(ClassicRef::Prefix(prefix));
        }
        text.parse::<ClassicName>()
            .map(ClassicRef::Name)
            .map_err(|error| error.to_string())
    }
}

impl Serialize for ClassicRef {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ClassicRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Who may open connections over a link.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Either side.
    #[default]
    Both,
    /// Classic hosts only; the VPC's packets pass only as replies, which takes flow state.
    ClassicToVpc,
}

impl Mode {
    /// The name used in records: `both` or `classic-to-vpc`.
    pub fn as_str(self) -> &'static str {
        match self {
            Mode::Both => "both",
            Mode::ClassicToVpc => "classic-to-vpc",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "both" => Ok(Mode::Both),
            "classic-to-vpc" => Ok(Mode::ClassicToVpc),
            other => Err(format!(
                "\"{other}\" is not a mode: use both or classic-to-vpc"
            )),
        }
    }
}

/// The value of a record, of the kind its key says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// `vpcs/<vpc>`
    Vpc(Vpc),
    /// `ccsis/<ccsi>`
    Ccsi(Ccsi),
    /// `classic/<name>`
    Classic(Classic),
    /// `vms/<vpc>/<vm>`
    Vm(Vm),
    /// `slbs/<vpc>/<slb>`
    Slb(Slb),
    /// `links/<link>`
    Link(Link),
    /// `gateways/<gateway>`
    Gateway(Gateway),
}

impl Record {
    /// Parses the JSON value of the record at `key`.
    ///
    /// # Errors
    /// The first field at fault, with its index where it is a list (`subnets[1]`); the field is
    /// `value` when the value as a whole is no JSON object.
    pub fn parse(key: &RecordKey, value: &[u8]) -> Result<Record, RecordError> {
        if value.len() > MAX_VALUE_BYTES {
            let reason = Reason::TooLong {
                len: value.len(),
                max: MAX_VALUE_BYTES,
            };
            return Err(RecordError::new(key, "value", reason));
        }
        if key.kind() == Kind::Vm
            && let Some(vm) = quick::vm(value)
        {
            return Ok(Record::Vm(vm));
        }
        let value: Value = serde_json::from_slice(value)
            .map_err(|error| RecordError::new(key, "value", Reason::NotJson(error.to_string())))?;
        Record::from_value(key, value)
    }

    /// Parses a JSON value that is already a tree. Errors as [`Record::parse`].
    pub fn from_value(key: &RecordKey, value: Value) -> Result<Record, RecordError> {
        let fields = Fields::of(value);
        let record = match key.kind() {
            Kind::Vpc => fields.and_then(Vpc::from_fields).map(Record::Vpc),
            Kind::Ccsi => fields.and_then(Ccsi::from_fields).map(Record::Ccsi),
            Kind::Classic => fields.and_then(Classic::from_fields).map(Record::Classic),
            Kind::Vm => fields.and_then(Vm::from_fields).map(Record::Vm),
            Kind::Slb => fields.and_then(Slb::from_fields).map(Record::Slb),
            Kind::Link => fields.and_then(Link::from_fields).map(Record::Link),
            Kind::Gateway => fields.and_then(Gateway::from_fields).map(Record::Gateway),
        };
        record.map_err(|(field, reason)| RecordError::new(key, field, reason))
    }

    /// Which kind of record this is.
    pub fn kind(&self) -> Kind {
        match self {
            Record::Vpc(_) => Kind::Vpc,
            Record::Ccsi(_) => Kind::Ccsi,
            Record::Classic(_) => Kind::Classic,
            Record::Vm(_) => Kind::Vm,
            Record::Slb(_) => Kind::Slb,
            Record::Link(_) => Kind::Link,
            Record::Gateway(_) => Kind::Gateway,
        }
    }

    /// The canonical JSON: known fields in their declared order, then the unknown ones.
    pub fn to_json(&self) -> Vec<u8> {
        let json = match self {
            Record::Vpc(record) => serde_json::to_vec(record),
            Record::Ccsi(record) => serde_json::to_vec(record),
            Record::Classic(record) => serde_json::to_vec(record),
            Record::Vm(record) => serde_json::to_vec(record),
            Record::Slb(record) => serde_json::to_vec(record),
            Record::Link(record) => serde_json::to_vec(record),
            Record::Gateway(record) => serde_json::to_vec(record),
        };
        // Maps with string keys and numbers that came from JSON: there is nothing that can fail.
        json.unwrap_or_default()
    }
}

impl Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Record::Vpc(record) => record.serialize(serializer),
            Record::Ccsi(record) => record.serialize(serializer),
            Record::Classic(record) => record.serialize(serializer),
            Record::Vm(record) => record.serialize(serializer),
            Record::Slb(record) => record.serialize(serializer),
            Record::Link(record) => record.serialize(serializer),
            Record::Gateway(record) => record.serialize(serializer),
        }
    }
}

impl Vpc {
    fn from_fields(mut fields: Fields) -> Result<Self, Fault> {
        let vni = fields.required("vni")?;
        let subnets: Vec<Prefix> = fields.list("subnets", 0, MAX_SUBNETS, value::prefix)?;
        if let Some((later, other)) = first_overlap(&subnets) {
            let reason = Reason::SubnetsOverlap {
                subnet: subnets[later],
                other: subnets[other],
            };
            return Err((format!("subnets[{later}]"), reason));
        }
        Ok(Vpc {
            vni,
            subnets,
            extra: fields.rest(),
        })
    }
}

/// Two prefixes that overlap, as indices: the later and the earlier one.
fn first_overlap(prefixes: &[Prefix]) -> Option<(usize, usize)> {
    let mut order: Vec<usize> = (0..prefixes.len()).collect();
    order.sort_by_key(|index| (prefixes[*index], *index));
    // Prefixes overlap only by one holding the other, and sorted, a prefix is followed by what it
    // holds: two neighbours overlap if any two do.
    let overlap = order
        .windows(2)
        .find(|pair| prefixes[pair[0]].contains(&prefixes[pair[1]]))?;
    Some((overlap[0].max(overlap[1]), overlap[0].min(overlap[1])))
}

impl Vm {
    fn from_fields(mut fields: Fields) -> Result<Self, Fault> {
        let addrs = fields.set("addrs", 1, MAX_ADDRESSES, value::address)?;
        let mac = fields.required("mac")?;
        let vtep = fields.required("vtep")?;
        Ok(Vm {
            addrs,
            mac,
            vtep,
            extra: fields.rest(),
        })
    }
}

impl Slb {
    fn from_fields(mut fields: Fields) -> Result<Self, Fault> {
        let vips = fields.set("vips", 1, MAX_ADDRESSES, value::address)?;
        let nodes = fields.objects("nodes", MAX_NODES, |mut node| {
            let vtep = node.required("vtep")?;
            let weight = node.required("weight")?;
            let mac = node.optional("mac")?;
            Ok(SlbNode {
                vtep,
                weight,
                mac,
                extra: node.rest(),
            })
        })?;
        let vteps: Vec<Vtep> = nodes.iter().map(|node| node.vtep).collect();
        if let Some(index) = fields::first_repeated(&vteps) {
            let field = format!("nodes[{index}].vtep");
            return Err((field, Reason::Duplicate(vteps[index].to_string())));
        }
        Ok(Slb {
            vips,
            nodes,
            extra: fields.rest(),
        })
    }
}

impl Ccsi {
    fn from_fields(mut fields: Fields) -> Result<Self, Fault> {
        let vpcs = fields.set("vpcs", 0, MAX_MEMBERS, fields::text)?;
        Ok(Ccsi {
            vpcs,
            extra: fields.rest(),
        })
    }
}

impl Classic {
    fn from_fields(mut fields: Fields) -> Result<Self, Fault> {
        let prefixes = fields.set("prefixes", 1, MAX_CLASSIC, value::prefix)?;
        Ok(Classic {
            prefixes,
            extra: fields.rest(),
        })
    }
}

impl Link {
    fn from_fields(mut fields: Fields) -> Result<Self, Fault> {
        let vpc = fields.required("vpc")?;
        let classic = fields.set("classic", 1, MAX_CLASSIC, fields::text)?;
        let group = fields.optional("group")?.unwrap_or_default();
        let mode = fields.optional("mode")?.unwrap_or_default();
        let dscp = fields.optional("dscp")?;
        let disabled = fields.optional("disabled")?.unwrap_or_default();
        let standby = fields.optional("standby")?.unwrap_or_default();
        let previous = fields.optional::<Value>("previous")?;
        let previous = previous.map(previous_link).transpose()?;
        let confirm_by = fields.optional("confirm_by")?;
        let unlink_when_confirmed = fields.optional("unlink_when_confirmed")?;
        Ok(Link {
            vpc,
            classic,
            group,
            mode,
            dscp,
            disabled,
            standby,
            previous,
            confirm_by,
            unlink_when_confirmed: unlink_when_confirmed.unwrap_or_default(),
            extra: fields.rest(),
        })
    }
}

/// What stands in the field `previous` of a link.
fn previous_link(value: Value) -> Result<Previous, Fault> {
    match value {
        Value::String(text) if text == NO_LINK => Ok(Previous::Nothing),
        Value::Object(map) if map.contains_key("previous") => {
            let reason = Reason::Invalid("is one step back, and has one of its own".to_owned());
            Err(("previous.previous".to_owned(), reason))
        }
        value => {
            let inner = |(field, reason): Fault| match reason {
                Reason::NotObject => ("previous".to_owned(), reason),
                reason => (format!("previous.{field}"), reason),
            };
            let link = Fields::of(value).and_then(Link::from_fields);
            Ok(Previous::Link(Box::new(link.map_err(inner)?)))
        }
    }
}

#[cfg(test)]
mod tests;

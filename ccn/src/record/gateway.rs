//! `gateways/<gateway>`: what a gateway says of itself while it lives.

use std::fmt;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::fields::{self, Fault, Fields};
use super::{Extra, GroupName, Vtep};
use crate::plane::Abilities;

/// The most roles one gateway may have.
const MAX_ROLES: usize = 16;

/// A gateway that is there; the record goes with the gateway's lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Gateway {
    /// The links that it serves are those of this group.
    pub group: GroupName,
    /// Where hypervisors send VXLAN to.
    pub vtep: Vtep,
    /// Its BGP identifier.
    pub router_id: Ipv4Addr,
    /// Its AS.
    pub asn: u32,
    /// What it does.
    pub roles: Vec<Role>,
    /// The newest generation that its kernel has acknowledged.
    pub generation: u64,
    /// How it is doing.
    pub health: Health,
    /// It is drained, or on the way to it: no new links should count on it. Not written where it is false.
    #[serde(skip_serializing_if = "super::is_false")]
    pub draining: bool,
    /// What its plane can do beyond what every plane does; absent: it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abilities: Option<Abilities>,
    /// Which of its limits is nearest; absent: it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fullest: Option<Fullest>,
    /// Its sessions; absent: it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<PeersUp>,
    /// Fields this version does not know.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a gateway does.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[schemars(rename = "GatewayRole")]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It joins VPCs with the classic network.
    ClassicLink,
}

/// The limit of a gateway of which the largest part is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Fullest {
    /// Which, as in `ccn limits`.
    pub name: String,
    /// In use.
    pub used: u64,
    /// The most there may be.
    pub max: u64,
}

impl Fullest {
    /// How much of it is used, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.max == 0 {
            return 0.0;
        }
        self.used as f64 / self.max as f64
    }
}

/// Sessions with routers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PeersUp {
    /// That are established.
    pub up: usize,
    /// That there should be.
    pub all: usize,
}

/// How a gateway is doing.
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
pub enum Health {
    /// Its kernel has not been compared yet.
    #[default]
    Starting,
    /// Its kernel holds all that it shall.
    Healthy,
    /// Its kernel refused some entries.
    Degraded,
    /// Its plane failed; what its kernel holds is not known.
    Failing,
}

impl Health {
    /// The name used in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Degraded => "degraded",
            Health::Failing => "failing",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::ClassicLink => "classic-link",
        })
    }
}

impl std::str::FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "classic-link" => Ok(Role::ClassicLink),
            other => Err(format!("\"{other}\" is no role: use classic-link")),
        }
    }
}

impl Gateway {
    pub(super) fn from_fields(mut fields: Fields) -> Result<Self, Fault> {
        let group = fields.optional("group")?.unwrap_or_default();
        let vtep = fields.required("vtep")?;
        let router_id = fields.required("router_id")?;
        let asn = fields.required("asn")?;
        let roles = fields.set("roles", 0, MAX_ROLES, fields::text)?;
        let generation = fields.required("generation")?;
        let health = fields.required("health")?;
        let draining = fields.optional("draining")?.unwrap_or(false);
        let abilities = fields.optional("abilities")?;
        let fullest = fields.optional("fullest")?;
        let peers = fields.optional("peers")?;
        Ok(Gateway {
            group,
            vtep,
            router_id,
            asn,
            roles,
            generation,
            health,
            draining,
            abilities,
            fullest,
            peers,
            extra: fields.rest(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::record::{Record, RecordKey};

    const GOOD: &str = r#"{"group":"a","vtep":"172.16.0.1","router_id":"10.99.0.1","asn":65001,"roles":["classic-link"],"generation":7,"health":"healthy","later":true}"#;

    fn parse(value: &str) -> Result<Record, String> {
        let key: RecordKey = "gateways/gw-1".parse().unwrap();
        Record::parse(&key, value.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_gateway_is_written_as_it_was_read() {
        let record = parse(GOOD).unwrap();
        assert_eq!(String::from_utf8(record.to_json()).unwrap(), GOOD);
        let draining = GOOD.replace("\"later\"", "\"draining\":true,\"later\"");
        let record = parse(&draining).unwrap();
        assert_eq!(String::from_utf8(record.to_json()).unwrap(), draining);
        let full =
            r#""fullest":{"name":"links","used":3,"max":4},"peers":{"up":1,"all":2},"later""#;
        let full = GOOD.replace("\"later\"", full);
        let record = parse(&full).unwrap();
        assert_eq!(String::from_utf8(record.to_json()).unwrap(), full);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        for (good, bad, named) in [
            ("172.16.0.1", "127.0.0.1", "gateways/gw-1: vtep"),
            ("10.99.0.1", "10.99.0", "router_id"),
            ("65001", "-1", "asn"),
            ("classic-link", "barber", "roles[0]"),
            ("\"generation\":7,", "", "generation: is missing"),
            ("healthy", "fine", "health"),
            ("\"later\":true", "\"draining\":1", "draining"),
            ("\"later\":true", "\"fullest\":{\"name\":1}", "fullest"),
            ("\"later\":true", "\"peers\":{\"up\":-1}", "peers"),
        ] {
            let error = parse(&GOOD.replace(good, bad)).expect_err(bad);
            assert!(error.contains(named), "{bad}: {error}");
        }
    }
}

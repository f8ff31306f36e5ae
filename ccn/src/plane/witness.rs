//! What the kernel itself says would become of a packet, and whether the model says the same.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::model::Verdict;
use crate::record::{LinkId, Mac, Vni};

/// What the kernel says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Witness {
    /// Into VXLAN.
    Encapsulate {
        /// VNI it would carry.
        vni: Vni,
        /// Outer destination.
        vtep: IpAddr,
        /// Inner destination MAC.
        mac: Mac,
        /// The link that lets it pass, where the plane tells.
        link: Option<LinkId>,
    },
    /// Natively to the IDC.
    Forward {
        /// The interface.
        interface: String,
        /// The router, or the destination itself.
        next_hop: IpAddr,
        /// The link that lets it pass, where the plane tells.
        link: Option<LinkId>,
    },
    /// Nowhere.
    Drop {
        /// The name of the reason, as in [`DropReason`](super::model::DropReason).
        reason: String,
    },
    /// To the gateway itself.
    Host,
}

impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Witness::Encapsulate { vni, vtep, mac, .. } => {
                write!(f, "encapsulate with VNI {vni} to {vtep}, inner MAC {mac}")
            }
            Witness::Forward {
                interface,
                next_hop,
                ..
            } => write!(f, "forward by {interface} via {next_hop}"),
            Witness::Drop { reason } => write!(f, "drop: {reason}"),
            Witness::Host => write!(f, "leave it to the gateway itself"),
        }
    }
}

impl Witness {
    /// Whether this is what the model says of the packet: one of the hops, where it names several.
    #[must_use]
    pub fn agrees(&self, verdict: &Verdict) -> bool {
        match (self, verdict) {
            (
                Witness::Encapsulate { vni, vtep, mac, .. },
                Verdict::Encapsulate {
                    vni: model_vni,
                    hops,
                },
            ) => {
                let mut hops = hops.iter();
                vni == model_vni && hops.any(|hop| hop.vtep == *vtep && hop.mac == *mac)
            }
            (Witness::Forward { next_hop, .. }, Verdict::Forward { next_hops, .. }) => {
                next_hops.contains(next_hop)
            }
            (Witness::Drop { reason }, Verdict::Drop { reason: model, .. }) => {
                reason == model.as_str()
            }
            _ => false,
        }
    }
}

/// The kernel's word beside the model's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Testimony {
    /// What the kernel says; absent when it was not or could not be asked.
    pub says: Option<Witness>,
    /// Whether that is what the model says.
    pub agrees: Option<bool>,
    /// The same for people, or why the kernel was not asked.
    pub detail: String,
}

impl Testimony {
    /// Holds what the kernel says against the model.
    #[must_use]
    pub fn of(says: Witness, verdict: &Verdict) -> Testimony {
        let agrees = says.agrees(verdict);
        let detail = match agrees {
            true => format!("agrees: {says}"),
            false => format!("DISAGREES: {says}"),
        };
        Testimony {
            says: Some(says),
            agrees: Some(agrees),
            detail,
        }
    }

    /// The kernel said nothing.
    #[must_use]
    pub fn none(why: impl Into<String>) -> Testimony {
        Testimony {
            says: None,
            agrees: None,
            detail: why.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::entry::Hop;
    use crate::plane::model::DropReason;

    #[test]
    fn the_same_is_the_same_and_nothing_else_is() {
        let vni = |number| Vni::new(number).unwrap();
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mac = |text: &str| text.parse::<Mac>().unwrap();
        let (first, second) = (mac("02:00:00:00:00:01"), mac("02:00:00:00:00:02"));
        let hop = |vtep, mac| Hop {
            vtep: ip(vtep),
            mac,
            weight: 1,
        };
        let encapsulate = Verdict::Encapsulate {
            vni: vni(7),
            hops: vec![hop("172.16.0.1", first), hop("172.16.0.2", second)],
        };
        let forward = Verdict::Forward {
            route: "10.80.1.0/24".parse().unwrap(),
            next_hops: [ip("10.99.0.2"), ip("10.99.0.3")].into(),
        };
        let drop = Verdict::drop(DropReason::NoLink);
        let sent = |number, vtep, mac| Witness::Encapsulate {
            vni: vni(number),
            vtep: ip(vtep),
            mac,
            link: None,
        };
        let via = |next_hop| Witness::Forward {
            interface: "idc0".to_owned(),
            next_hop: ip(next_hop),
            link: None,
        };
        let dropped = |reason: &str| Witness::Drop {
            reason: reason.to_owned(),
        };
        for (witness, verdict, agrees) in [
            (sent(7, "172.16.0.1", first), &encapsulate, true),
            (sent(7, "172.16.0.2", second), &encapsulate, true),
            (sent(7, "172.16.0.2", first), &encapsulate, false),
            (sent(8, "172.16.0.1", first), &encapsulate, false),
            (sent(7, "172.16.0.1", first), &forward, false),
            (via("10.99.0.3"), &forward, true),
            (via("10.99.0.4"), &forward, false),
            (dropped("no-link"), &drop, true),
            (dropped("bad-source"), &drop, false),
            (dropped("no-link"), &forward, false),
            (Witness::Host, &drop, false),
        ] {
            let testimony = Testimony::of(witness.clone(), verdict);
            assert_eq!(
                testimony.agrees,
                Some(agrees),
                "{witness} beside {verdict:?}"
            );
        }
    }
}

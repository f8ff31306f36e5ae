//! A row of the table: what is sent in which region, and what must become of it.

use std::net::IpAddr;

use ccn::plane::entry::Hop;
use ccn::plane::model::packet::{IPV4, IPV6};
use ccn::plane::model::{Answer, DropReason, Ingress};
use ccn::record::{Mac, Vni, Vtep};

use crate::packet::Ip;
use crate::region::{Region, Router};

/// Who is held against the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// `ccn::plane::model`.
    Model,
    /// The `routes` plane.
    Routes,
    /// The `ebpf` plane.
    Ebpf,
}

/// What follows an Ethernet header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Ip(Ip),
    /// An EtherType, and whatever follows it.
    Raw(u16, Vec<u8>),
}

/// What is sent, and where it enters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) ingress: Ingress,
    pub(crate) content: Content,
    /// Of the header outside; only with VXLAN.
    pub(crate) outer_dscp: u8,
    pub(crate) outer_ecn: u8,
    /// To another MAC than the gateway's: the outermost from the IDC, else the inner.
    pub(crate) mac: Option<[u8; 6]>,
    /// Octets behind the packet that are none of it.
    pub(crate) padding: usize,
}

/// A packet that a router of the IDC sends to the gateway.
pub(crate) fn idc(ip: Ip) -> Sent {
    Sent {
        ingress: Ingress::Idc,
        content: Content::Ip(ip),
        outer_dscp: 0,
        outer_ecn: 0,
        mac: None,
        padding: 0,
    }
}

/// A packet that a VM sends, from the host that has it (or any, if none does).
pub(crate) fn vxlan(vni: u32, ip: Ip) -> Sent {
    Sent {
        ingress: Ingress::Vxlan {
            vni: Vni::new(vni).expect("a VNI"),
        },
        ..idc(ip)
    }
}

impl Sent {
    pub(crate) fn outer(mut self, dscp: u8, ecn: u8) -> Sent {
        (self.outer_dscp, self.outer_ecn) = (dscp, ecn);
        self
    }

    pub(crate) fn at_mac(mut self, mac: [u8; 6]) -> Sent {
        self.mac = Some(mac);
        self
    }

    /// With octets behind it that are none of it.
    pub(crate) fn padded(mut self) -> Sent {
        self.padding = 6;
        self
    }

    /// The same with something else than IP in it.
    pub(crate) fn raw(mut self, ethertype: u16, octets: &[u8]) -> Sent {
        self.content = Content::Raw(ethertype, octets.to_vec());
        self
    }

    pub(crate) fn ip(&self) -> &Ip {
        match &self.content {
            Content::Ip(ip) => ip,
            Content::Raw(ethertype, _) => panic!("EtherType {ethertype:#x} is no IP packet"),
        }
    }

    /// EtherType and what follows it.
    pub(crate) fn octets(&self, marker: u64) -> (u16, Vec<u8>) {
        match &self.content {
            Content::Ip(ip) => {
                let ethertype = if ip.src.is_ipv4() { IPV4 } else { IPV6 };
                (ethertype, ip.octets(marker))
            }
            Content::Raw(ethertype, octets) => (*ethertype, octets.clone()),
        }
    }
}

/// What must become of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expect {
    /// It arrives, as a router sends it on: one hop less, a right checksum, and the same octets.
    Arrives(Arrival),
    /// It is dropped in silence, and counted under this reason.
    Drop(DropReason),
    /// It is dropped and counted, and its sender gets an ICMP error.
    Answer(Answer),
    /// Sent for each of `flows` source ports, it arrives at each place by its share, and again at the
    /// same place when it is sent again.
    Spread {
        flows: u16,
        places: Vec<(Place, u32)>,
    },
    /// It arrives at one of these places, whichever.
    OneOf(Arrival, Vec<Place>),
    /// A socket of the gateway itself gets its payload.
    Stack,
    /// It arrives nowhere, and no reason is counted.
    Lost,
}

/// How a packet arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) at: Place,
    /// Another ECN field than it was sent with.
    pub(crate) ecn: Option<u8>,
    /// DSCP and ECN of the outer header, where they are not those inside.
    pub(crate) outer_dscp: Option<u8>,
    pub(crate) outer_ecn: Option<u8>,
    /// In fragments, which make up the whole.
    pub(crate) in_fragments: bool,
}

/// Where packets arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A VM by name: its VNI, its host, its MAC.
    Vm(&'static str),
    /// The node of an SLB: VNI and host; the MAC is made from the host's VTEP.
    Node(u32, u8),
    /// Whatever is there, by its VNI.
    Hop(Vni, Hop),
    /// A router of the IDC.
    Router(Router),
}

impl Place {
    /// The router with this MAC, if it is one's.
    pub(crate) fn of_router(mac: [u8; 6]) -> Option<Place> {
        let router = Router(mac[5]);
        (router.mac() == mac).then_some(Place::Router(router))
    }

    /// The router's address in a family.
    pub(crate) fn router(&self, v4: bool) -> Option<IpAddr> {
        match self {
            Place::Router(router) => Some(router.addr(v4)),
            _ => None,
        }
    }

    /// VNI, VTEP and MAC of what is in a VPC; nothing of a router.
    pub(crate) fn hop(&self, region: &Region, weight: u32) -> Option<(Vni, Hop)> {
        let (vni, vtep, mac) = match self {
            Place::Vm(name) => {
                let vm = region.named(name);
                let mac = Mac::new(vm.mac).expect("a MAC");
                (vm.vni, region.vtep(vm.host), mac)
            }
            Place::Node(vni, host) => {
                let vtep = region.vtep(*host);
                let mac = Mac::of_node(Vtep::new(vtep).expect("a VTEP"));
                (*vni, vtep, mac)
            }
            Place::Hop(vni, hop) => return Some((*vni, *hop)),
            Place::Router(_) => return None,
        };
        let hop = Hop {
            vtep,
            mac,
            weight: weight as u16,
        };
        Some((Vni::new(vni).expect("a VNI"), hop))
    }
}

impl Arrival {
    /// As it was sent.
    pub(crate) fn at(at: Place) -> Arrival {
        Arrival {
            at,
            ecn: None,
            outer_dscp: None,
            outer_ecn: None,
            in_fragments: false,
        }
    }
}

fn arrives(at: Place) -> Expect {
    Expect::Arrives(Arrival::at(at))
}

pub(crate) fn to_vm(name: &'static str) -> Expect {
    arrives(Place::Vm(name))
}

pub(crate) fn to_node(vni: u32, host: u8) -> Expect {
    arrives(Place::Node(vni, host))
}

pub(crate) fn to_router(number: u8) -> Expect {
    arrives(Place::Router(Router(number)))
}

impl Expect {
    fn change(mut self, change: impl FnOnce(&mut Arrival)) -> Expect {
        match &mut self {
            Expect::Arrives(arrival) => change(arrival),
            other => panic!("{other:?} is no arrival"),
        }
        self
    }

    /// It arrives with this ECN field instead of its own.
    pub(crate) fn ecn(self, ecn: u8) -> Expect {
        self.change(|arrival| arrival.ecn = Some(ecn))
    }

    /// The outer header has this DSCP instead of the one inside.
    pub(crate) fn outer_dscp(self, dscp: u8) -> Expect {
        self.change(|arrival| arrival.outer_dscp = Some(dscp))
    }

    /// The outer header has this ECN field instead of the one inside.
    pub(crate) fn outer_ecn(self, ecn: u8) -> Expect {
        self.change(|arrival| arrival.outer_ecn = Some(ecn))
    }

    pub(crate) fn in_fragments(self) -> Expect {
        self.change(|arrival| arrival.in_fragments = true)
    }
}

/// What somebody does instead of what the row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exception {
    pub(crate) by: By,
    /// What it does instead; `None`: it is not asked at all.
    pub(crate) instead: Option<Expect>,
    pub(crate) why: &'static str,
}

/// A row of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// Sent before, each of which must arrive somewhere.
    pub(crate) before: Vec<Sent>,
    pub(crate) sent: Sent,
    pub(crate) expect: Expect,
    pub(crate) exceptions: Vec<Exception>,
}

pub(crate) fn row(name: impl Into<String>, sent: Sent, expect: Expect) -> Row {
    Row {
        name: name.into(),
        before: Vec::new(),
        sent,
        expect,
        exceptions: Vec::new(),
    }
}

impl Row {
    /// What was sent before makes the difference.
    pub(crate) fn after(mut self, before: impl IntoIterator<Item = Sent>) -> Row {
        self.before.extend(before);
        self
    }

    /// It is documented not to support this.
    pub(crate) fn not(self, by: By, why: &'static str) -> Row {
        self.except(by, None, why)
    }

    /// It is documented to do something else.
    pub(crate) fn but(self, by: By, instead: Expect, why: &'static str) -> Row {
        self.except(by, Some(instead), why)
    }

    fn except(mut self, by: By, instead: Option<Expect>, why: &'static str) -> Row {
        self.exceptions.push(Exception { by, instead, why });
        self
    }

    /// What this one must do; nothing if it is not asked.
    pub(crate) fn expected(&self, by: By) -> Option<&Expect> {
        match self.exceptions.iter().find(|exception| exception.by == by) {
            None => Some(&self.expect),
            Some(exception) => exception.instead.as_ref(),
        }
    }
}

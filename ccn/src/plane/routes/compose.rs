//! What one entry needs in the kernel: its neighbours, routes and rules, as functions of the entry and
//! of this host. Pure; who shares an object with whom is not known here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bgp::Prefix;
use netlink::{Encap, Family, IpNet, Mac, NextHop, Route, Rule};

use super::layout::{DROP_MAC, IDC_TABLE, METRIC, Reason, endpoint_metric, priority, scope_table};
use super::objects::Object;
use crate::plane::LearnedNextHops;
use crate::plane::entry::{EntryKey, EntryValue, Hop, ScopeId};
use crate::record::Vni;

/// What of this host the objects depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Marks routes, rules and neighbours as ours.
    pub(crate) protocol: u8,
    /// Our underlay address.
    pub(crate) vtep: IpAddr,
    /// Name of the VXLAN device.
    pub(crate) vxlan: String,
    /// Its index.
    pub(crate) vxlan_index: u32,
    /// Index of the device of each drop reason.
    pub(crate) drop_index: BTreeMap<Reason, u32>,
    /// The IDC's side.
    pub(crate) idc: Vec<IdcLink>,
}

/// An interface on the IDC's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IdcLink {
    pub(crate) name: String,
    pub(crate) index: u32,
    /// Its own addresses, with the length of the subnet behind it.
    pub(crate) subnets: Vec<IpNet>,
}

/// Claims of things that are there always, and of what an address or a learned route overrides.
pub(crate) const FALLBACK: u8 = 1;
pub(crate) const PREFERRED: u8 = 0;

impl Host {
    /// Indices of the devices that are ours.
    pub(crate) fn devices(&self) -> Vec<u32> {
        self.drop_index
            .values()
            .copied()
            .chain([self.vxlan_index])
            .collect()
    }

    /// Index of the IDC interface behind which a next hop is.
    pub(crate) fn idc_link_to(&self, hop: IpAddr) -> Option<u32> {
        if let (IpAddr::V6(addr), [only]) = (hop, self.idc.as_slice())
            && addr.is_unicast_link_local()
        {
            return Some(only.index);
        }
        let behind = |link: &&IdcLink| {
            link.subnets
                .iter()
                .any(|net| net.contains(&hop) && !is_link_local(hop))
        };
        self.idc.iter().find(behind).map(|link| link.index)
    }

    /// The objects of one entry, with the rank of the claim.
    pub(crate) fn objects(&self, key: &EntryKey, value: &EntryValue) -> Vec<(u8, Object)> {
        match (key, value) {
            (EntryKey::Source { vni, subnet }, EntryValue::Source { scope }) => {
                self.source(*vni, (*subnet).into(), *scope)
            }
            (EntryKey::Endpoint { scope, addr }, EntryValue::Endpoint { vni, hops }) => {
                self.endpoint(*scope, *addr, *vni, hops)
            }
            (
                EntryKey::Permit {
                    vni,
                    subnet,
                    classic,
                    ..
                },
                EntryValue::Permit { scope, .. },
            ) => self.permit(*vni, (*subnet).into(), (*classic).into(), *scope),
            _ => Vec::new(),
        }
    }

    fn source(&self, vni: Vni, subnet: IpNet, scope: ScopeId) -> Vec<(u8, Object)> {
        let family = Family::of(subnet.addr());
        let at = priority::exact(priority::VPC_TO_VPC, &[subnet]);
        let from_subnet = Rule {
            from: Some(subnet),
            ..self.rule_of_vni(family, at, vni, scope_table(scope))
        };
        let mut list = vec![(PREFERRED, Object::rule(from_subnet))];
        for family in Family::BOTH {
            let other =
                self.rule_of_vni(family, priority::BAD_SOURCE, vni, Reason::BadSource.table());
            list.push((PREFERRED, Object::rule(other)));
        }
        list.extend(self.closed(scope, subnet));
        list
    }

    /// What makes a scope's table drop what no endpoint in it takes; whoever leads packets into the
    /// table claims it.
    fn closed(&self, scope: ScopeId, subnet: IpNet) -> Vec<(u8, Object)> {
        let table = scope_table(scope);
        let drops = [
            self.drop_route(table, subnet, Reason::NoSuchEndpoint),
            self.drop_route(table, Family::V4.everything(), Reason::NoLink),
            self.drop_route(table, Family::V6.everything(), Reason::NoLink),
        ];
        drops.into_iter().map(|object| (FALLBACK, object)).collect()
    }

    fn endpoint(&self, scope: ScopeId, addr: IpAddr, vni: Vni, hops: &[Hop]) -> Vec<(u8, Object)> {
        let table = scope_table(scope);
        let net = IpNet::from(addr);
        // The kernel refuses a next hop given twice, so its shares are added up.
        let mut shares: BTreeMap<(IpAddr, [u8; 6]), u16> = BTreeMap::new();
        for hop in hops {
            let share = shares.entry((hop.vtep, hop.mac.bytes())).or_default();
            *share = share.saturating_add(hop.weight).min(256);
        }
        let mut list = Vec::new();
        let mut next_hops = Vec::new();
        for ((vtep, mac), weight) in shares {
            let mac = Mac(mac);
            let source = Some(self.vtep).filter(|own| own.is_ipv4() == vtep.is_ipv4());
            let encap = Encap {
                source,
                ..Encap::new(vni.number().into(), vtep)
            };
            next_hops.push(NextHop {
                weight,
                encap: Some(encap),
                ..NextHop::via(mac.link_local().into(), self.vxlan_index)
            });
            let neighbour = Object::neighbour(self.vxlan_index, mac, self.protocol);
            list.push((PREFERRED, neighbour));
        }
        let route = self.route(table, net, self.metric(table, net));
        list.push((PREFERRED, Object::route(Route { next_hops, ..route })));
        list
    }

    fn permit(&self, vni: Vni, subnet: IpNet, classic: IpNet, scope: ScopeId) -> Vec<(u8, Object)> {
        let family = Family::of(subnet.addr());
        if family != Family::of(classic.addr()) {
            return Vec::new();
        }
        let to_idc = priority::exact(priority::VPC_TO_IDC, &[subnet, classic]);
        let mut list = vec![(
            PREFERRED,
            Object::rule(Rule {
                from: Some(subnet),
                to: Some(classic),
                ..self.rule_of_vni(family, to_idc, vni, IDC_TABLE)
            }),
        )];
        for link in &self.idc {
            let at = priority::idc_to_vpc(classic, subnet);
            list.push((
                PREFERRED,
                Object::rule(Rule {
                    iif: Some(link.name.clone()),
                    from: Some(classic),
                    to: Some(subnet),
                    protocol: self.protocol,
                    ..Rule::lookup(family, at, scope_table(scope))
                }),
            ));
        }
        // A route, not a rule: the kernel walks all IPv6 routes for each rule that changes.
        let reason = Reason::NotLinkedSource;
        list.push((PREFERRED, self.drop_route(reason.table(), subnet, reason)));
        list.extend(self.closed(scope, subnet));
        list
    }

    /// What is there whatever the entries are: the ways into the drop devices.
    pub(crate) fn always(&self) -> Vec<(Object, u8)> {
        let mut list = Vec::new();
        for index in self.drop_index.values() {
            list.push((
                Object::neighbour(*index, DROP_MAC, self.protocol),
                PREFERRED,
            ));
        }
        for family in Family::BOTH {
            let all = family.everything();
            for reason in [Reason::BadSource, Reason::UnknownVni, Reason::NotLinked] {
                list.push((self.drop_route(reason.table(), all, reason), FALLBACK));
            }
            list.push((
                self.drop_route(IDC_TABLE, all, Reason::NoIdcRoute),
                FALLBACK,
            ));
            let rule = |iif: &str, at, table| Rule {
                iif: Some(iif.to_owned()),
                protocol: self.protocol,
                ..Rule::lookup(family, at, table)
            };
            let vxlan = &self.vxlan;
            list.push((
                Object::rule(rule(
                    vxlan,
                    priority::UNKNOWN_VNI,
                    Reason::UnknownVni.table(),
                )),
                PREFERRED,
            ));
            for link in &self.idc {
                for (at, reason) in [
                    (priority::NOT_LINKED_SOURCE, Reason::NotLinkedSource),
                    (priority::NOT_LINKED, Reason::NotLinked),
                ] {
                    let rule = rule(&link.name, at, reason.table());
                    list.push((Object::rule(rule), PREFERRED));
                }
            }
            for (at, table) in [
                (priority::OWN_MAIN, Route::MAIN),
                (priority::OWN_TO_IDC, IDC_TABLE),
            ] {
                let own = Rule {
                    suppress_prefix_length: Some(0),
                    ..rule("lo", at, table)
                };
                list.push((Object::rule(own), PREFERRED));
            }
        }
        list
    }

    /// The route of a learned prefix, and why next hops of it are not used, if any are not. None is
    /// left without a usable next hop.
    pub(crate) fn learned_route(
        &self,
        prefix: Prefix,
        hops: &LearnedNextHops,
    ) -> (Option<Object>, Option<String>) {
        let mut unusable = Vec::new();
        let mut next_hops = Vec::new();
        for hop in hops {
            match self.idc_link_to(*hop) {
                Some(index) => next_hops.push(NextHop::via(*hop, index)),
                None => unusable.push(hop.to_string()),
            }
        }
        let route = (!next_hops.is_empty()).then(|| self.learned(prefix, next_hops));
        let names: Vec<&str> = self.idc.iter().map(|link| link.name.as_str()).collect();
        let reason = (!unusable.is_empty()).then(|| {
            format!(
                "next hop {} is in no subnet of an IDC interface ({})",
                unusable.join(", "),
                names.join(", ")
            )
        });
        (route, reason)
    }

    /// A route learned from the IDC.
    fn learned(&self, prefix: Prefix, next_hops: Vec<NextHop>) -> Object {
        Object::route(Route {
            next_hops,
            ..self.route(IDC_TABLE, prefix.into(), METRIC)
        })
    }

    /// The rule by which this host itself reaches a subnet.
    pub(crate) fn own_rule(&self, subnet: Prefix, scope: ScopeId) -> Object {
        let subnet = IpNet::from(subnet);
        Object::rule(Rule {
            iif: Some("lo".to_owned()),
            to: Some(subnet),
            protocol: self.protocol,
            ..Rule::lookup(
                Family::of(subnet.addr()),
                priority::exact(priority::OWN_TO_VPC, &[subnet]),
                scope_table(scope),
            )
        })
    }

    fn rule_of_vni(&self, family: Family, priority: u32, vni: Vni, table: u32) -> Rule {
        Rule {
            iif: Some(self.vxlan.clone()),
            tunnel_id: Some(vni.number().into()),
            protocol: self.protocol,
            ..Rule::lookup(family, priority, table)
        }
    }

    fn drop_route(&self, table: u32, net: IpNet, reason: Reason) -> Object {
        // An index of 0 is refused by the kernel, and the refusal reported.
        let index = self.drop_index.get(&reason).copied().unwrap_or(0);
        let hop = NextHop::via(DROP_MAC.link_local().into(), index);
        let route = self.route(table, net, self.metric(table, net));
        Object::route(Route {
            next_hops: vec![hop],
            ..route
        })
    }

    /// A subnet may be as long as an address is; both must then be the same object.
    fn metric(&self, table: u32, net: IpNet) -> u32 {
        if net.prefix_len() == net.max_prefix_len() {
            endpoint_metric(table, net)
        } else {
            METRIC
        }
    }

    fn route(&self, table: u32, prefix: IpNet, metric: u32) -> Route {
        let route = Route::new(prefix, NextHop::dev(0));
        Route {
            table,
            metric,
            protocol: self.protocol,
            next_hops: Vec::new(),
            ..route
        }
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

//! Entries to kernel objects. Pure and incremental: each entry claims objects, an object is desired
//! while a claim on it stands, and the best claim decides what it is.
//!
//! After any history the desired state is the same as from the last entries alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bgp::Prefix;
use netlink::{Encap, Family, IpNet, Mac, NextHop, Route, Rule};

use super::layout::{DROP_MAC, IDC_TABLE, METRIC, Reason, endpoint_metric, priority, scope_table};
use super::objects::{Key, Object, State};
use super::own_rules::OwnRules;
use crate::plane::LearnedNextHops;
use crate::plane::entry::{EntryKey, EntryValue, Hop, ScopeId};
use crate::record::{Mode, Vni};

/// Most VNIs: the kernel asks rules one after the other.
pub(crate) const MAX_VNIS: usize = 256;
/// Most addresses of VMs and SLBs.
pub(crate) const MAX_ENDPOINTS: usize = 50_000;
/// Most places that serve one address; the kernel takes weights up to 256 each.
const MAX_HOPS: usize = 256;

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

/// The smallest is the best; equal ones are decided by the order of the objects.
type Claims = BTreeMap<(u8, Object), usize>;

/// Claims of things that are there always, and of what an address or a learned route overrides.
const FALLBACK: u8 = 1;
const PREFERRED: u8 = 0;

/// Keeps the desired state.
#[derive(Debug)]
pub(crate) struct Translator {
    host: Host,
    entries: BTreeMap<EntryKey, EntryValue>,
    learned: BTreeMap<Prefix, Object>,
    claims: BTreeMap<Key, Claims>,
    desired: State,
    touched: BTreeSet<Key>,
    vnis: BTreeMap<Vni, usize>,
    endpoints: usize,
    own: OwnRules,
}

impl Translator {
    /// One that holds only what is there always: the ways into the drop devices.
    pub(crate) fn new(host: Host) -> Translator {
        let mut translator = Translator {
            entries: BTreeMap::new(),
            learned: BTreeMap::new(),
            claims: BTreeMap::new(),
            desired: State::new(),
            touched: BTreeSet::new(),
            vnis: BTreeMap::new(),
            endpoints: 0,
            own: OwnRules::default(),
            host,
        };
        for (object, rank) in translator.always() {
            translator.claim(rank, object);
        }
        translator
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// What the kernel should hold. Call [`Translator::settle`] before.
    pub(crate) fn desired(&self) -> &State {
        &self.desired
    }

    pub(crate) fn entries(&self) -> &BTreeMap<EntryKey, EntryValue> {
        &self.entries
    }

    pub(crate) fn vnis(&self) -> usize {
        self.vnis.len()
    }

    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// Brings what depends on several entries up to date, and returns the keys of all objects that
    /// may have changed since the last call.
    pub(crate) fn settle(&mut self) -> BTreeSet<Key> {
        if let Some((gone, new)) = self.own.settle() {
            for (subnet, scope) in new {
                self.claim(PREFERRED, self.own_rule(subnet, scope));
            }
            for (subnet, scope) in gone {
                self.release(PREFERRED, &self.own_rule(subnet, scope));
            }
        }
        std::mem::take(&mut self.touched)
    }

    /// Takes an entry in, in place of the one with its key. A refused one changes nothing; the
    /// answer says why.
    pub(crate) fn put(&mut self, key: &EntryKey, value: &EntryValue) -> Result<(), String> {
        let old = self.entries.get(key);
        if old == Some(value) {
            return Ok(());
        }
        refuse_unsupported(key, value)?;
        let old_vni = old.and_then(|value| vni_of(key, value));
        if let Some(vni) = vni_of(key, value)
            && !self.vnis.contains_key(&vni)
            && self.vnis.len() >= MAX_VNIS
            && !old_vni.is_some_and(|old| self.vnis.get(&old) == Some(&1))
        {
            return Err(format!(
                "the routes plane holds at most {MAX_VNIS} VNIs; {vni} is one more"
            ));
        }
        let is_endpoint = matches!(key, EntryKey::Endpoint { .. });
        if is_endpoint && old.is_none() && self.endpoints >= MAX_ENDPOINTS {
            return Err(format!(
                "the routes plane holds at most {MAX_ENDPOINTS} endpoints"
            ));
        }
        let old = self.entries.insert(key.clone(), value.clone());
        self.count(key, value);
        for (rank, object) in self.objects(key, value) {
            self.claim(rank, object);
        }
        if let Some(old) = old {
            self.forget(key, &old);
        }
        Ok(())
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &EntryKey) {
        if let Some(old) = self.entries.remove(key) {
            self.forget(key, &old);
        }
    }

    fn forget(&mut self, key: &EntryKey, value: &EntryValue) {
        for (rank, object) in self.objects(key, value) {
            self.release(rank, &object);
        }
        if let Some(vni) = vni_of(key, value)
            && let Some(count) = self.vnis.get_mut(&vni)
        {
            *count -= 1;
            if *count == 0 {
                self.vnis.remove(&vni);
            }
        }
        if matches!(key, EntryKey::Endpoint { .. }) {
            self.endpoints -= 1;
        }
        self.own.remove(key, value);
    }

    fn count(&mut self, key: &EntryKey, value: &EntryValue) {
        if let Some(vni) = vni_of(key, value) {
            *self.vnis.entry(vni).or_default() += 1;
        }
        if matches!(key, EntryKey::Endpoint { .. }) {
            self.endpoints += 1;
        }
        self.own.add(key, value);
    }

    /// Sets the next hops of a learned prefix; none takes it out. The answer says which next hops
    /// are unusable; the others are used all the same.
    pub(crate) fn learn(&mut self, prefix: Prefix, hops: &LearnedNextHops) -> Result<(), String> {
        let mut unusable = Vec::new();
        let mut next_hops = Vec::new();
        for hop in hops {
            match self.host.idc_link_to(*hop) {
                Some(index) => next_hops.push(NextHop::via(*hop, index)),
                None => unusable.push(hop.to_string()),
            }
        }
        let new = (!next_hops.is_empty()).then(|| {
            Object::route(Route {
                next_hops,
                ..self.route(IDC_TABLE, prefix.into(), METRIC)
            })
        });
        let old = match &new {
            Some(object) => self.learned.insert(prefix, object.clone()),
            None => self.learned.remove(&prefix),
        };
        if let Some(object) = new {
            self.claim(PREFERRED, object);
        }
        if let Some(object) = old {
            self.release(PREFERRED, &object);
        }
        if unusable.is_empty() {
            return Ok(());
        }
        Err(format!(
            "next hop {} is in no subnet of an IDC interface ({})",
            unusable.join(", "),
            self.host
                .idc
                .iter()
                .map(|link| link.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        ))
    }

    /// The entries that these objects are there for. One pass over all entries: for telling of
    /// failures only.
    pub(crate) fn owners(&self, keys: &BTreeSet<Key>) -> BTreeMap<Key, Vec<EntryKey>> {
        let mut owners: BTreeMap<Key, Vec<EntryKey>> = BTreeMap::new();
        for (entry, value) in &self.entries {
            let own = match (entry, value) {
                (EntryKey::Permit { subnet, .. }, EntryValue::Permit { scope, .. }) => {
                    Some(self.own_rule(*subnet, *scope).key())
                }
                _ => None,
            };
            for key in self.keys_of(entry, value).into_iter().chain(own) {
                if keys.contains(&key) {
                    owners.entry(key).or_default().push(entry.clone());
                }
            }
        }
        owners
    }

    /// Whether a learned prefix has a usable next hop.
    pub(crate) fn has_learned(&self, prefix: &Prefix) -> bool {
        self.learned.contains_key(prefix)
    }

    /// The keys of what an entry needs, whether it is held or not.
    pub(crate) fn keys_of(&self, key: &EntryKey, value: &EntryValue) -> Vec<Key> {
        self.objects(key, value)
            .iter()
            .map(|(_, object)| object.key())
            .collect()
    }

    fn claim(&mut self, rank: u8, object: Object) {
        let key = object.key();
        *self
            .claims
            .entry(key.clone())
            .or_default()
            .entry((rank, object))
            .or_default() += 1;
        self.decide(key);
    }

    fn release(&mut self, rank: u8, object: &Object) {
        let key = object.key();
        let Some(claims) = self.claims.get_mut(&key) else {
            return;
        };
        let claim = (rank, object.clone());
        if let Some(count) = claims.get_mut(&claim) {
            *count -= 1;
            if *count == 0 {
                claims.remove(&claim);
            }
        }
        if claims.is_empty() {
            self.claims.remove(&key);
        }
        self.decide(key);
    }

    fn decide(&mut self, key: Key) {
        let best = self
            .claims
            .get(&key)
            .and_then(|claims| claims.first_key_value());
        match best {
            Some(((_, object), _)) if self.desired.get(&key) == Some(object) => return,
            Some(((_, object), _)) => {
                self.desired.insert(key.clone(), object.clone());
            }
            None => {
                self.desired.remove(&key);
            }
        }
        self.touched.insert(key);
    }

    /// The objects of one entry, with the rank of the claim.
    fn objects(&self, key: &EntryKey, value: &EntryValue) -> Vec<(u8, Object)> {
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
        let table = scope_table(scope);
        let mut list = vec![(
            PREFERRED,
            Object::rule(Rule {
                from: Some(subnet),
                ..self.from_vni(
                    family,
                    priority::exact(priority::VPC_TO_VPC, &[subnet]),
                    vni,
                    table,
                )
            }),
        )];
        list.push((
            FALLBACK,
            self.drop_route(table, subnet, Reason::NoSuchEndpoint),
        ));
        for family in Family::BOTH {
            let drop = Reason::BadSource.table();
            list.push((
                PREFERRED,
                Object::rule(self.from_vni(family, priority::BAD_SOURCE, vni, drop)),
            ));
            list.push((
                FALLBACK,
                self.drop_route(table, family.everything(), Reason::NoLink),
            ));
        }
        list
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
            let source = Some(self.host.vtep).filter(|own| own.is_ipv4() == vtep.is_ipv4());
            let encap = Encap {
                source,
                ..Encap::new(vni.number().into(), vtep)
            };
            next_hops.push(NextHop {
                weight,
                encap: Some(encap),
                ..NextHop::via(mac.link_local().into(), self.host.vxlan_index)
            });
            let neighbour = Object::neighbour(self.host.vxlan_index, mac, self.host.protocol);
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
                ..self.from_vni(family, to_idc, vni, IDC_TABLE)
            }),
        )];
        let not_linked = priority::exact(priority::NOT_LINKED_SOURCE, &[subnet]);
        for link in &self.host.idc {
            let rule = |at, table| Rule {
                iif: Some(link.name.clone()),
                protocol: self.host.protocol,
                ..Rule::lookup(family, at, table)
            };
            list.push((
                PREFERRED,
                Object::rule(Rule {
                    from: Some(classic),
                    to: Some(subnet),
                    ..rule(priority::idc_to_vpc(classic, subnet), scope_table(scope))
                }),
            ));
            list.push((
                PREFERRED,
                Object::rule(Rule {
                    to: Some(subnet),
                    ..rule(not_linked, Reason::NotLinkedSource.table())
                }),
            ));
        }
        list
    }

    fn always(&self) -> Vec<(Object, u8)> {
        let mut list = Vec::new();
        for index in self.host.drop_index.values() {
            list.push((
                Object::neighbour(*index, DROP_MAC, self.host.protocol),
                PREFERRED,
            ));
        }
        for family in Family::BOTH {
            let all = family.everything();
            for reason in [
                Reason::BadSource,
                Reason::UnknownVni,
                Reason::NotLinkedSource,
                Reason::NotLinked,
            ] {
                list.push((self.drop_route(reason.table(), all, reason), FALLBACK));
            }
            list.push((
                self.drop_route(IDC_TABLE, all, Reason::NoIdcRoute),
                FALLBACK,
            ));
            let rule = |iif: &str, at, table| Rule {
                iif: Some(iif.to_owned()),
                protocol: self.host.protocol,
                ..Rule::lookup(family, at, table)
            };
            let vxlan = &self.host.vxlan;
            list.push((
                Object::rule(rule(
                    vxlan,
                    priority::UNKNOWN_VNI,
                    Reason::UnknownVni.table(),
                )),
                PREFERRED,
            ));
            for link in &self.host.idc {
                let not_linked = rule(&link.name, priority::NOT_LINKED, Reason::NotLinked.table());
                list.push((Object::rule(not_linked), PREFERRED));
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

    fn own_rule(&self, subnet: Prefix, scope: ScopeId) -> Object {
        let subnet = IpNet::from(subnet);
        Object::rule(Rule {
            iif: Some("lo".to_owned()),
            to: Some(subnet),
            protocol: self.host.protocol,
            ..Rule::lookup(
                Family::of(subnet.addr()),
                priority::exact(priority::OWN_TO_VPC, &[subnet]),
                scope_table(scope),
            )
        })
    }

    fn from_vni(&self, family: Family, priority: u32, vni: Vni, table: u32) -> Rule {
        Rule {
            iif: Some(self.host.vxlan.clone()),
            tunnel_id: Some(vni.number().into()),
            protocol: self.host.protocol,
            ..Rule::lookup(family, priority, table)
        }
    }

    fn drop_route(&self, table: u32, net: IpNet, reason: Reason) -> Object {
        // An index of 0 is refused by the kernel, and the refusal reported.
        let index = self.host.drop_index.get(&reason).copied().unwrap_or(0);
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
            protocol: self.host.protocol,
            next_hops: Vec::new(),
            ..route
        }
    }
}

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
    fn idc_link_to(&self, hop: IpAddr) -> Option<u32> {
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
}

fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

fn vni_of(key: &EntryKey, value: &EntryValue) -> Option<Vni> {
    match (key, value) {
        (EntryKey::Source { vni, .. } | EntryKey::Permit { vni, .. }, _)
        | (_, EntryValue::Endpoint { vni, .. }) => Some(*vni),
        _ => None,
    }
}

fn refuse_unsupported(key: &EntryKey, value: &EntryValue) -> Result<(), String> {
    match (key, value) {
        (EntryKey::Source { .. }, EntryValue::Source { .. }) => Ok(()),
        (EntryKey::Endpoint { .. }, EntryValue::Endpoint { hops, .. }) => match hops.len() {
            1..=MAX_HOPS => Ok(()),
            n => Err(format!(
                "an endpoint is served by 1 to {MAX_HOPS} places, not {n}"
            )),
        },
        (
            EntryKey::Permit { .. },
            EntryValue::Permit {
                mode: Mode::ClassicToVpc,
                ..
            },
        ) => Err("mode classic-to-vpc needs flow state, which the routes plane has not".to_owned()),
        (EntryKey::Permit { .. }, EntryValue::Permit { dscp: Some(_), .. }) => {
            Err("a DSCP of the link's own is nothing the routes plane can set".to_owned())
        }
        (EntryKey::Permit { .. }, EntryValue::Permit { .. }) => Ok(()),
        _ => Err("the value is not one for this kind of entry".to_owned()),
    }
}

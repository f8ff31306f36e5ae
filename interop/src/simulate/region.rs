//! The made-up region of a sample, shard by shard, and what becomes of it: VMs that move, go and come; links that are
//! made and taken back; and, where that is wanted, records that are wrong.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use ccn::fixture::{self, FixtureError, FixtureSpec};
use ccn::record::{ClassicRef, GroupName, Link, LinkId, Mode, Previous, Record, RecordKey, VpcId};
use serde_json::Value;

use super::chance::Chance;
use super::etcd::{Etcd, Op, Writer};

/// VPCs of a CCSI of the fixture; two CCSIs in a row have the same addresses.
pub(super) const PAIR: u32 = 16;
/// Records that are written at once when a store is filled.
const AT_ONCE: usize = 100;

/// The tenants of a group of gateways.
#[derive(Debug)]
struct Tenants {
    group: GroupName,
    vms: Vec<Arc<str>>,
    gone: Vec<(Arc<str>, Bytes)>,
    /// VPCs of which no two have an address in common.
    linkable: Vec<VpcId>,
    linked: BTreeSet<usize>,
    wrong: Vec<Arc<str>>,
}

/// See the room.
#[derive(Debug)]
pub(super) struct Region {
    tenants: Vec<Tenants>,
    hosts: u32,
    wrongs: u64,
}

/// Which group a record belongs to; none: every one.
fn group_of(key: &str, groups: usize) -> Option<usize> {
    let mut parts = key.split('/');
    let kind = parts.next()?;
    let id = parts.next()?;
    let number: u32 = id.rsplit_once('-')?.1.parse().ok()?;
    let pair = match kind {
        "vpcs" | "vms" | "slbs" => number / PAIR,
        "ccsis" => number / 2,
        _ => return None,
    };
    Some(pair as usize % groups)
}

fn link_id(vpc: &VpcId) -> Option<LinkId> {
    vpc.as_str().parse().ok()
}

impl Region {
    /// Fills these stores (one for all groups, or one each) with a region, and links `links` VPCs of each group, or as
    /// many as half of those that can be.
    pub(super) fn fill(
        spec: FixtureSpec,
        groups: usize,
        links: usize,
        etcds: &mut [Etcd],
    ) -> Result<Region, FixtureError> {
        let tenants = (0..groups).map(|group| Tenants {
            group: name(group),
            vms: Vec::new(),
            gone: Vec::new(),
            linkable: Vec::new(),
            linked: BTreeSet::new(),
            wrong: Vec::new(),
        });
        let mut region = Region {
            tenants: tenants.collect(),
            hosts: spec.hosts,
            wrongs: 0,
        };
        let shards = etcds.len();
        let mut waiting: Vec<Vec<Op>> = vec![Vec::new(); shards];
        for line in fixture::generate(&spec)? {
            // The fixture makes no line that is not one.
            let Ok(Value::Object(line)) = serde_json::from_str(&line) else {
                continue;
            };
            let key: Arc<str> = line["key"].as_str().unwrap_or_default().into();
            let value = Bytes::from(line["value"].to_string());
            let group = group_of(&key, groups);
            if let Some(group) = group {
                region.tenants[group].settle(&key);
            }
            let wanted = match group {
                Some(group) => group % shards..group % shards + 1,
                None => 0..shards,
            };
            for shard in wanted {
                waiting[shard].push(Op::Put(key.clone(), value.clone()));
                if waiting[shard].len() == AT_ONCE {
                    let ops = std::mem::take(&mut waiting[shard]);
                    etcds[shard].write(Writer::Controllers, ops, 0);
                }
            }
        }
        for (etcd, ops) in etcds.iter_mut().zip(waiting) {
            etcd.write(Writer::Controllers, ops, 0);
        }
        for group in 0..groups {
            let linkable = region.tenants[group].linkable.len();
            for vpc in 0..links.min(linkable / 2) {
                let op = region.toggle(group, vpc);
                etcds[group % shards].write(Writer::Orders, op.into_iter().collect(), 0);
            }
        }
        Ok(region)
    }

    /// A change of a VM in a group: two of four move, one goes, one comes.
    pub(super) fn change(&mut self, group: usize, etcd: &Etcd, chance: &mut Chance) -> Option<Op> {
        let vtep = self.vtep(chance);
        let tenants = &mut self.tenants[group];
        let what = chance.below(4);
        if what == 0
            && let Some((key, value)) = tenants.gone.pop()
        {
            tenants.vms.push(key.clone());
            return Some(Op::Put(key, value));
        }
        if tenants.vms.is_empty() {
            return None;
        }
        let place = chance.place(tenants.vms.len());
        let key = tenants.vms[place].clone();
        let value = etcd.row(&key)?.value.clone();
        if what == 1 {
            tenants.vms.swap_remove(place);
            tenants.gone.push((key.clone(), value));
            return Some(Op::Delete(key));
        }
        Some(Op::Put(key, moved(&value, &vtep)?))
    }

    /// A record that is wrong, or the end of one: no JSON, nonsense in a field, an address that another VM has.
    pub(super) fn wrong(&mut self, group: usize, etcd: &Etcd, chance: &mut Chance) -> Option<Op> {
        self.wrongs += 1;
        let wrongs = self.wrongs;
        let tenants = &mut self.tenants[group];
        if chance.below(2) == 0
            && let Some(key) = tenants.wrong.pop()
        {
            return Some(Op::Delete(key));
        }
        let place = chance.place(tenants.vms.len());
        let beside = tenants.vms.get(place)?.clone();
        let (vpc, _) = beside.rsplit_once('/')?;
        let value = match chance.below(3) {
            0 => Bytes::from_static(b"{\"addrs\":"),
            1 => Bytes::from_static(b"{\"addrs\":[\"10.0.0.999\"],\"mac\":\"x\",\"vtep\":7}"),
            _ => etcd.row(&beside)?.value.clone(),
        };
        let key: Arc<str> = format!("{vpc}/wrong-{wrongs}").into();
        tenants.wrong.push(key.clone());
        Some(Op::Put(key, value))
    }

    /// Links a VPC of a group that is not linked, or takes the link of one back.
    pub(super) fn order(&mut self, group: usize, chance: &mut Chance) -> Option<Op> {
        let linkable = self.tenants[group].linkable.len();
        if linkable == 0 {
            return None;
        }
        self.toggle(group, chance.place(linkable))
    }

    fn toggle(&mut self, group: usize, place: usize) -> Option<Op> {
        let tenants = &mut self.tenants[group];
        let vpc = tenants.linkable.get(place)?.clone();
        let id = link_id(&vpc)?;
        let key: Arc<str> = RecordKey::Link(id).to_string().into();
        if tenants.linked.remove(&place) {
            return Some(Op::Delete(key));
        }
        tenants.linked.insert(place);
        let record = Record::Link(Link {
            vpc,
            classic: vec![ClassicRef::Name("idc-0".parse().ok()?)],
            group: tenants.group.clone(),
            mode: Mode::Both,
            dscp: None,
            disabled: false,
            standby: false,
            previous: Some(Previous::Nothing),
            confirm_by: None,
            unlink_when_confirmed: false,
            extra: serde_json::Map::new(),
        });
        Some(Op::Put(key, record.to_json().into()))
    }

    fn vtep(&self, chance: &mut Chance) -> String {
        let host = chance.below(self.hosts.into()) as u32;
        std::net::Ipv4Addr::from_bits(0xac10_000b + host).to_string()
    }
}

impl Tenants {
    fn settle(&mut self, key: &Arc<str>) {
        if key.starts_with("vms/") {
            self.vms.push(key.clone());
        }
        let vpc = key.strip_prefix("vpcs/");
        let Some(vpc) = vpc.and_then(|vpc| vpc.parse::<VpcId>().ok()) else {
            return;
        };
        let number = vpc.as_str().rsplit_once('-');
        let number = number.and_then(|(_, number)| number.parse::<u32>().ok());
        if number.is_some_and(|number| number % PAIR < PAIR / 2) {
            self.linkable.push(vpc);
        }
    }
}

/// The name of a group.
pub(super) fn name(group: usize) -> GroupName {
    format!("group-{group:03}").parse().unwrap_or_default()
}

/// A VM's record, on another host.
fn moved(value: &Bytes, vtep: &str) -> Option<Bytes> {
    const FIELD: &str = "\"vtep\":\"";
    let text = std::str::from_utf8(value).ok()?;
    let begin = text.find(FIELD)? + FIELD.len();
    let end = begin + text[begin..].find('"')?;
    Some(Bytes::from(format!(
        "{}{vtep}{}",
        &text[..begin],
        &text[end..]
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_belongs_to_the_group_of_its_ccsi() {
        for (key, group) in [
            ("vpcs/vpc-0015", Some(0)),
            ("vms/vpc-0016/vm-0000001", Some(1)),
            ("slbs/vpc-0033/slb-00001", Some(0)),
            ("ccsis/ccsi-0003", Some(1)),
            ("classic/idc-1", None),
        ] {
            assert_eq!(group_of(key, 2), group, "{key}");
        }
    }

    #[test]
    fn a_vm_that_moves_keeps_all_but_its_host() {
        let value = Bytes::from_static(br#"{"addrs":["10.0.0.1"],"mac":"06:00","vtep":"1.2.3.4"}"#);
        let moved = moved(&value, "5.6.7.8");
        let expected = br#"{"addrs":["10.0.0.1"],"mac":"06:00","vtep":"5.6.7.8"}"#;
        assert_eq!(moved.as_deref(), Some(&expected[..]));
    }
}

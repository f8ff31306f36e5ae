//! Which packets `ccn doctor` asks model and kernel about: some of every link, both ways, and between
//! VPCs. Pure, and always the same for the same records.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bgp::Prefix;

use crate::inventory::Inventory;
use crate::record::{GroupName, Vni, VpcId};

/// A packet to ask about; without a VNI it comes from the IDC.
pub type Question = (IpAddr, IpAddr, Option<Vni>);

/// At most so many packets, spread over the links of this group and over the VPCs in CCSIs.
#[must_use]
pub fn packets(inventory: &Inventory, group: &GroupName, most: usize) -> Vec<Question> {
    let links: Vec<_> = inventory
        .links()
        .filter(|(_, link)| link.is_served_by(group))
        .collect();
    let mut questions = Vec::new();
    // Two packets a link, three quarters of all.
    let of_links = (most * 3 / 4).div_ceil(2);
    for (turn, (_, link)) in spread(&links, of_links).enumerate() {
        let Some(vpc) = inventory.vpc(&link.vpc) else {
            continue;
        };
        let Some(vm) = address_of(inventory, &link.vpc, turn) else {
            continue;
        };
        let mut classics = link.classic.iter();
        if let Some(classic) = classics.find(|prefix| prefix.addr().is_ipv4() == vm.is_ipv4()) {
            let host = inside(classic, turn);
            questions.push((host, vm, None));
            questions.push((vm, host, Some(vpc.vni)));
        }
    }
    let ccsis: Vec<_> = inventory
        .ccsis()
        .filter(|(_, vpcs)| !vpcs.is_empty())
        .collect();
    let rest = most.saturating_sub(questions.len());
    for (turn, (_, vpcs)) in spread(&ccsis, rest).enumerate() {
        let mut members = vpcs.iter().cycle().skip(turn % vpcs.len());
        let (Some(from), Some(to)) = (members.next(), members.next()) else {
            continue;
        };
        let (Some(src), Some(dst)) = (
            address_of(inventory, from, turn),
            address_of(inventory, to, turn),
        ) else {
            continue;
        };
        if let Some(vpc) = inventory.vpc(from)
            && src.is_ipv4() == dst.is_ipv4()
        {
            questions.push((src, dst, Some(vpc.vni)));
        }
    }
    questions.truncate(most);
    questions
}

/// So many of them, as far apart as can be.
fn spread<T>(all: &[T], most: usize) -> impl Iterator<Item = &T> {
    let count = most.min(all.len());
    (0..count).filter_map(move |turn| all.get(turn * all.len() / count.max(1)))
}

/// The address of some VM, another one at each turn.
fn address_of(inventory: &Inventory, vpc: &VpcId, turn: usize) -> Option<IpAddr> {
    let count = inventory.vms_of(vpc).count();
    // A prime, so that turns of any stride meet all.
    let (_, vm) = inventory
        .vms_of(vpc)
        .nth(turn.wrapping_mul(7919) % count.max(1))?;
    vm.addrs.get(turn % vm.addrs.len().max(1)).copied()
}

/// A host in a prefix: not the network itself, where there is more.
fn inside(prefix: &Prefix, turn: usize) -> IpAddr {
    let bits = prefix.family().max_len() - prefix.len();
    let offset = 1 + turn as u128 % 200;
    let offset = match bits {
        8.. => offset,
        bits => offset & ((1 << bits) - 1),
    };
    match prefix.addr() {
        IpAddr::V4(net) => Ipv4Addr::from_bits(net.to_bits() | offset as u32).into(),
        IpAddr::V6(net) => Ipv6Addr::from_bits(net.to_bits() | offset).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::inventory::history::{MapStore, put};

    #[test]
    fn every_link_and_ccsi_is_asked_about_both_ways() {
        let mut store = MapStore::default();
        let vm = |vpc: &str, n: u8, addrs: &[&str]| {
            put(
                &format!("vms/{vpc}/vm-{n}"),
                json!({"addrs": addrs, "mac": format!("02:00:00:00:00:{n:02}"), "vtep": "172.16.0.11"}),
            )
        };
        let changes = [
            put(
                "vpcs/web",
                json!({"vni": 1001, "subnets": ["10.1.0.0/24", "fd00:1::/64"]}),
            ),
            put("vpcs/db", json!({"vni": 1002, "subnets": ["10.1.1.0/24"]})),
            put(
                "vpcs/empty",
                json!({"vni": 1003, "subnets": ["10.1.2.0/24"]}),
            ),
            put("ccsis/prod", json!({"vpcs": ["web", "db"]})),
            put(
                "links/web",
                json!({"vpc": "web", "classic": ["10.80.1.0/24", "fd80:1::/64"]}),
            ),
            put(
                "links/db",
                json!({"vpc": "db", "classic": ["10.80.2.1/32"]}),
            ),
            put(
                "links/empty",
                json!({"vpc": "empty", "classic": ["10.80.3.0/24"]}),
            ),
            put(
                "links/far",
                json!({"vpc": "db", "classic": ["10.80.4.0/24"], "group": "west"}),
            ),
            vm("web", 1, &["fd00:1::11"]),
            vm("db", 2, &["10.1.1.21"]),
        ];
        let mut inventory = Inventory::default();
        inventory.apply(&store.commit(&changes));
        assert_eq!(inventory.quarantine().next(), None);
        let group = GroupName::default();
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let vni = |number| Some(Vni::new(number).expect("a VNI"));
        let asked = packets(&inventory, &group, 100);
        // By id: db, empty, web; the two VMs of the CCSI are of two families.
        assert_eq!(
            asked,
            [
                (ip("10.80.2.1"), ip("10.1.1.21"), None),
                (ip("10.1.1.21"), ip("10.80.2.1"), vni(1002)),
                (ip("fd80:1::3"), ip("fd00:1::11"), None),
                (ip("fd00:1::11"), ip("fd80:1::3"), vni(1001)),
            ]
        );
        inventory.apply(&store.commit(&[vm("web", 1, &["10.1.0.13"])]));
        let asked = packets(&inventory, &group, 100);
        let between = (ip("10.1.1.21"), ip("10.1.0.13"), vni(1002));
        assert_eq!((asked.len(), asked.last()), (5, Some(&between)));
        for most in 0..6 {
            assert!(packets(&inventory, &group, most).len() <= most);
        }
    }
}

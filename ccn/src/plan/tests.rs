use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{self, FixtureSpec};
use crate::inventory::history::{MapStore, delete, history, put};
use crate::store::{Change, Stored};

/// A plan that follows an inventory by differences.
#[derive(Default)]
struct World {
    store: MapStore,
    inventory: Inventory,
    entries: Entries,
    announcements: Announcements,
}

fn planner() -> Planner {
    Planner::new(GroupName::default())
}

impl World {
    fn commit(&mut self, changes: &[Change]) -> Delta {
        let effects = self.inventory.apply(&self.store.commit(changes));
        let delta = planner().update(&self.inventory, &effects, self.store.generation);
        for (key, value) in &delta.removals {
            assert_eq!(
                self.entries.remove(key).as_ref(),
                Some(value),
                "removed as it was"
            );
        }
        for (key, value) in &delta.upserts {
            let before = self.entries.insert(key.clone(), value.clone());
            assert_ne!(before.as_ref(), Some(value), "only what differs");
        }
        for (prefix, links) in &delta.announcements {
            let before = match links.is_empty() {
                true => self.announcements.remove(prefix),
                false => self.announcements.insert(*prefix, links.clone()),
            };
            assert_ne!(before.unwrap_or_default(), *links, "only what differs");
        }
        delta
    }

    fn good() -> World {
        let mut world = World::default();
        let vm = |addrs: &[&str]| json!({"addrs": addrs, "mac": "02:00:00:00:00:01", "vtep": "172.16.0.11"});
        world.commit(&[
            put(
                "vpcs/web",
                json!({"vni": 100, "subnets": ["10.1.0.0/24", "fd01::/64"]}),
            ),
            put("vpcs/db", json!({"vni": 101, "subnets": ["10.1.1.0/24"]})),
            put("ccsis/prod", json!({"vpcs": ["web", "db"]})),
            put("classic/office", json!({"prefixes": ["10.80.1.0/24"]})),
            put("vms/web/w1", vm(&["10.1.0.11", "fd01::11"])),
            put("vms/db/d1", vm(&["10.1.1.21"])),
        ]);
        world
    }
}

fn lines(entries: &Entries) -> Vec<String> {
    entries
        .iter()
        .map(|(key, value)| match value {
            EntryValue::Source { scope } => format!("{key} -> {scope}"),
            EntryValue::Endpoint { vni, hops } => {
                let hops: Vec<String> = hops.iter().map(|hop| hop.vtep.to_string()).collect();
                format!("{key} -> vni {vni} {}", hops.join(" "))
            }
            EntryValue::Permit { scope, mode, dscp } => format!("{key} -> {scope} {mode} {dscp:?}"),
        })
        .collect()
}

#[test]
fn a_small_region_and_a_link() {
    let mut world = World::good();
    assert_eq!(
        lines(&world.entries),
        [
            "source vni 100 subnet 10.1.0.0/24 -> scope 100",
            "source vni 100 subnet fd01::/64 -> scope 100",
            "source vni 101 subnet 10.1.1.0/24 -> scope 100",
            "endpoint 10.1.0.11 in scope 100 -> vni 100 172.16.0.11",
            "endpoint 10.1.1.21 in scope 100 -> vni 101 172.16.0.11",
            "endpoint fd01::11 in scope 100 -> vni 100 172.16.0.11",
        ]
    );
    assert!(world.announcements.is_empty(), "nothing is linked");

    let delta = world.commit(&[put(
        "links/l",
        json!({"vpc": "web", "classic": ["office"], "dscp": 10}),
    )]);
    let permit = "permit of link l: vni 100 subnet 10.1.0.0/24 with 10.80.1.0/24";
    assert_eq!(
        lines(&delta.upserts),
        [format!("{permit} -> scope 100 both Some(10)")]
    );
    assert!(delta.removals.is_empty());
    let announced: Vec<String> = delta
        .announcements
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        announced,
        ["10.1.0.0/24"],
        "no IPv6 on the classic side, so none is announced"
    );

    let delta = world.commit(&[delete("links/l")]);
    assert_eq!((delta.upserts.len(), delta.removals.len()), (0, 1));
    assert!(delta.announcements.values().all(BTreeSet::is_empty));
    assert!(world.announcements.is_empty());
}

#[test]
fn a_vm_that_moves_is_one_upsert() {
    let mut world = World::good();
    let moved = json!({"addrs": ["10.1.1.21"], "mac": "02:00:00:00:00:01", "vtep": "172.16.0.12"});
    let delta = world.commit(&[put("vms/db/d1", moved)]);
    assert_eq!(
        lines(&delta.upserts),
        ["endpoint 10.1.1.21 in scope 100 -> vni 101 172.16.0.12"]
    );
    assert!(delta.removals.is_empty() && delta.announcements.is_empty());
}

#[test]
fn leaving_a_ccsi_moves_every_endpoint_of_the_vpc() {
    let mut world = World::good();
    let delta = world.commit(&[put("ccsis/prod", json!({"vpcs": ["db"]}))]);
    assert_eq!(
        lines(&delta.upserts),
        [
            "source vni 101 subnet 10.1.1.0/24 -> scope 101",
            "endpoint 10.1.1.21 in scope 101 -> vni 101 172.16.0.11",
        ]
    );
    assert_eq!(
        lines(&delta.removals),
        ["endpoint 10.1.1.21 in scope 100 -> vni 101 172.16.0.11"]
    );
}

#[test]
fn links_of_another_group_are_not_ours() {
    let mut world = World::good();
    let link = json!({"vpc": "web", "classic": ["office"], "group": "west"});
    let delta = world.commit(&[put("links/l", link)]);
    assert_eq!(
        delta,
        Delta {
            generation: 2,
            ..Delta::default()
        }
    );
    let west = Planner::new("west".parse().unwrap());
    assert_eq!(west.announcements(&world.inventory).len(), 1);
}

proptest! {
    /// Differences taken in turn give the plan made anew, entry by entry.
    #[test]
    fn incremental_equals_from_scratch(history in history()) {
        let mut world = World::default();
        for changes in &history {
            let delta = world.commit(changes);
            prop_assert!(delta.upserts.keys().all(|key| !delta.removals.contains_key(key)));
            let mut anew = Inventory::default();
            let effects = anew.load(world.store.all());
            prop_assert_eq!(&world.entries, &planner().entries(&anew), "after {:?}", changes);
            prop_assert_eq!(&world.announcements, &planner().announcements(&anew));
            let first = planner().update(&anew, &effects, world.store.generation);
            let is_endpoint = |key: &EntryKey| matches!(key, EntryKey::Endpoint { .. });
            let mut backing = world.entries.clone();
            backing.retain(|key, _| !is_endpoint(key));
            prop_assert_eq!(&first.upserts, &backing, "the first update names what announcements rest on");
            prop_assert!(first.whole && first.removals.is_empty());
            prop_assert_eq!(&first.announcements, &world.announcements);
        }
    }

    /// Two prefixes that are announced never overlap: the IDC has one way to each address.
    #[test]
    fn announcements_never_overlap(history in history()) {
        let mut world = World::default();
        for changes in &history {
            world.commit(changes);
            let announced: Vec<&Prefix> = world.announcements.keys().collect();
            prop_assert!(announced.windows(2).all(|pair| !pair[0].overlaps(pair[1])));
        }
    }
}

#[test]
fn a_disabled_link_is_planned_for_nobody_and_keeps_its_place() {
    let link = |disabled: bool| json!({"vpc": "web", "classic": ["office"], "disabled": disabled});
    let mut world = World::good();
    let without = world.entries.clone();
    let made = world.commit(&[put("links/web", link(false))]);
    let (with, announced) = (world.entries.clone(), world.announcements.clone());
    assert!(!announced.is_empty());
    let gone = world.commit(&[put("links/web", link(true))]);
    assert_eq!(world.entries, without);
    assert_eq!(world.announcements, Announcements::new());
    assert_eq!(gone.removals, made.upserts);
    // Who comes later cannot have what it had: bringing it back never fails on that.
    let again = json!({"vpc": "web", "classic": ["10.80.1.0/24"]});
    let errors = world.inventory.check(&[put("links/other", again)]);
    let errors = errors.expect_err("its place is taken");
    assert_eq!(errors[0].reason.code(), "linked-twice");
    world.commit(&[put("links/web", link(false))]);
    assert_eq!((world.entries, world.announcements), (with, announced));
}

#[test]
fn a_rehearsal_sees_the_plan_and_leaves_the_inventory_as_it_was() {
    let mut world = World::good();
    let link = put("links/web", json!({"vpc": "web", "classic": ["office"]}));
    let before = world.inventory.clone();
    let rehearsed = world
        .inventory
        .rehearse(std::slice::from_ref(&link), |inventory, effects| {
            planner().update(inventory, effects, 0)
        })
        .expect("a good link");
    assert_eq!(world.inventory, before);
    let done = world.commit(&[link]);
    assert_eq!(
        (rehearsed.upserts, rehearsed.announcements),
        (done.upserts, done.announcements)
    );
}

#[test]
fn many_endpoints_are_listed_as_few_are() {
    let spec = FixtureSpec {
        vms: 2 * MANY as u64,
        vpcs: 100,
        hosts: 20,
        seed: 1,
    };
    let lines = fixture::generate(&spec).expect("a region");
    let stored = lines.map(|line| {
        let entry: Value = serde_json::from_str(&line).expect("JSON");
        Stored {
            key: entry["key"].as_str().expect("a key").to_owned(),
            created: 1,
            modified: 1,
            value: entry["value"].to_string().into_bytes().into(),
        }
    });
    let mut inventory = Inventory::default();
    inventory.load(stored.collect());
    assert_eq!(inventory.vm_count(), 2 * MANY);
    let mut one_by_one = Vec::new();
    for (id, vpc) in inventory.vpcs() {
        let of_vpc = inventory.endpoints_of(id);
        one_by_one.extend(of_vpc.map(|(addr, hops)| Endpoint {
            scope: vpc.scope,
            addr,
            vni: vpc.vni,
            hops,
        }));
    }
    let listed = planner().endpoints(&inventory);
    assert_eq!(listed, Endpoints::from(one_by_one));
    assert!(
        listed
            .iter()
            .is_sorted_by_key(|endpoint| (endpoint.scope, endpoint.addr))
    );
}

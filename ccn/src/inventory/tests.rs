use std::collections::BTreeSet;
use std::net::IpAddr;

use bgp::Prefix;
use proptest::prelude::*;
use serde_json::json;

use super::history::{MapStore, delete, history, put};
use super::*;
use crate::record::{Ccsi, ClassicRef, Link, Vpc, VpcId};
use crate::store::{Change, Stored};

/// An inventory beside its store.
#[derive(Default)]
struct World {
    store: MapStore,
    inventory: Inventory,
}

impl World {
    fn new(records: &[(&str, serde_json::Value)]) -> World {
        let mut world = World::default();
        for (key, value) in records {
            world.commit(&[put(key, value)]);
        }
        world
    }

    fn commit(&mut self, changes: &[Change]) -> Effects {
        self.inventory.apply(&self.store.commit(changes))
    }

    fn faults(&self) -> Vec<(String, String, &'static str)> {
        let fault = |e: &RecordError| (e.key.clone(), e.field.clone(), e.reason.code());
        self.inventory.quarantine().map(fault).collect()
    }
}

fn good() -> Vec<(&'static str, serde_json::Value)> {
    let vm = |addrs: serde_json::Value| json!({"addrs": addrs, "mac": "02:00:00:00:00:01", "vtep": "172.16.0.11"});
    vec![
        (
            "vpcs/web",
            json!({"vni": 100, "subnets": ["10.1.0.0/24", "fd01::/64"]}),
        ),
        ("vpcs/db", json!({"vni": 101, "subnets": ["10.1.1.0/24"]})),
        ("vpcs/alone", json!({"vni": 90, "subnets": ["10.1.0.0/16"]})),
        ("ccsis/prod", json!({"vpcs": ["web", "db"]})),
        (
            "classic/office",
            json!({"prefixes": ["10.80.1.0/24", "fd80:1::/64"]}),
        ),
        ("vms/web/w1", vm(json!(["10.1.0.11", "fd01::11"]))),
        ("vms/db/d1", vm(json!(["10.1.1.21"]))),
        ("vms/alone/a1", vm(json!(["10.1.0.11"]))),
        (
            "slbs/web/lb",
            json!({"vips": ["10.1.0.100"], "nodes": [{"vtep": "172.16.0.12", "weight": 2}, {"vtep": "172.16.0.11", "weight": 1}]}),
        ),
        ("links/l1", json!({"vpc": "web", "classic": ["office"]})),
    ]
}

#[test]
fn a_link_has_the_generation_that_changed_it_last() {
    let mut world = World::new(&good());
    let id = "l1".parse().unwrap();
    let created = world.inventory.link_generation(&id);
    assert!(created.is_some());
    let link = json!({"vpc": "web", "classic": ["office"]});
    let other = json!({"vpc": "web", "classic": ["office"], "disabled": true});
    // What others change, or what is only rehearsed, is nothing of its.
    world.commit(&[put("classic/attic", json!({"prefixes": ["10.81.0.0/24"]}))]);
    world.inventory.check(&[put("links/l1", &other)]).unwrap();
    world.inventory.check(&[delete("links/l1")]).unwrap();
    assert_eq!(world.inventory.link_generation(&id), created);
    // The same value, written anew, is a change to who compares generations.
    for value in [&other, &other, &link] {
        let before = world.inventory.link_generation(&id);
        world.commit(&[put("links/l1", value)]);
        assert!(world.inventory.link_generation(&id) > before, "{value}");
    }
    let mut loaded = Inventory::default();
    loaded.load(world.store.all());
    assert_eq!(
        loaded.link_generation(&id),
        world.inventory.link_generation(&id)
    );
    world.commit(&[delete("links/l1")]);
    assert_eq!(world.inventory.link_generation(&id), None);
    loaded.load(world.store.all());
    assert_eq!(
        loaded.link_generation(&id),
        None,
        "gone while nobody looked"
    );
}

#[test]
fn good_records_are_accepted_and_found() {
    let world = World::new(&good());
    let inventory = &world.inventory;
    assert_eq!(world.faults(), []);
    let id = |id: &str| id.parse::<VpcId>().unwrap();
    let web = inventory.vpc(&id("web")).unwrap();
    let db = inventory.vpc(&id("db")).unwrap();
    assert_eq!(
        (web.scope.0.number(), db.scope.0.number()),
        (100, 100),
        "the lowest VNI"
    );
    assert_eq!(inventory.vpc(&id("alone")).unwrap().scope.0.number(), 90);
    assert_eq!((inventory.vm_count(), inventory.slb_count()), (3, 1));
    let addr = |text: &str| text.parse::<IpAddr>().unwrap();
    assert_eq!(
        inventory.neighbour(&id("web"), addr("10.1.1.9")).unwrap().1,
        id("db")
    );
    assert_eq!(
        inventory
            .neighbour(&id("alone"), addr("10.1.1.9"))
            .unwrap()
            .1,
        id("alone")
    );
    assert_eq!(
        inventory.linked_vpc(addr("10.1.0.9")).unwrap().1,
        &id("web")
    );
    assert_eq!(inventory.linked_vpc(addr("10.1.1.9")), None);
    let hops = inventory.hops(&id("web"), addr("10.1.0.100")).unwrap();
    let hops: Vec<String> = hops
        .iter()
        .map(|hop| format!("{} {} {}", hop.vtep, hop.mac, hop.weight))
        .collect();
    assert_eq!(
        hops,
        [
            "172.16.0.11 02:00:ac:10:00:0b 1",
            "172.16.0.12 02:00:ac:10:00:0c 2"
        ]
    );
    let link = inventory.link(&"l1".parse().unwrap()).unwrap();
    assert_eq!(link.classic.len(), 2);
}

/// Each rule: what is put beside the good records, what is said, and how it heals.
#[test]
fn every_rule_names_key_field_and_reason_and_heals() {
    let vm =
        |addr: &str| json!({"addrs": [addr], "mac": "02:00:00:00:00:02", "vtep": "172.16.0.12"});
    let link = |vpc: &str, classic: &str| json!({"vpc": vpc, "classic": [classic]});
    type Row = (
        Vec<Change>,
        (&'static str, &'static str, &'static str),
        Vec<Change>,
    );
    let table: Vec<Row> = vec![
        (
            vec![put("vpcs/new", "{junk")],
            ("vpcs/new", "value", "not-json"),
            vec![put("vpcs/new", json!({"vni": 7, "subnets": []}))],
        ),
        (
            vec![put("vpcs/a/b", "{}")],
            ("vpcs/a/b", "key", "bad-key"),
            vec![delete("vpcs/a/b")],
        ),
        (
            vec![put("nonsense", "{}")],
            ("nonsense", "key", "bad-key"),
            vec![delete("nonsense")],
        ),
        (
            vec![put("vpcs/new", json!({"vni": 100, "subnets": []}))],
            ("vpcs/new", "vni", "vni-taken"),
            vec![put("vpcs/new", json!({"vni": 102, "subnets": []}))],
        ),
        (
            vec![put(
                "vpcs/new",
                json!({"vni": 7, "subnets": ["10.1.0.0/24", "10.1.0.0/25"]}),
            )],
            ("vpcs/new", "subnets[1]", "subnets-overlap"),
            vec![delete("vpcs/new")],
        ),
        (
            vec![put("ccsis/new", json!({"vpcs": ["nobody"]}))],
            ("ccsis/new", "vpcs[0]", "unknown-vpc"),
            vec![put("vpcs/nobody", json!({"vni": 7, "subnets": []}))],
        ),
        (
            vec![put("ccsis/new", json!({"vpcs": ["alone", "db"]}))],
            ("ccsis/new", "vpcs[1]", "in-other-ccsi"),
            vec![delete("ccsis/new")],
        ),
        (
            vec![put("ccsis/prod", json!({"vpcs": ["alone", "db", "web"]}))],
            ("ccsis/prod", "vpcs[0]", "members-overlap"),
            vec![
                put("vpcs/alone", json!({"vni": 90, "subnets": ["10.9.0.0/24"]})),
                delete("vms/alone/a1"),
            ],
        ),
        (
            vec![put("vms/web/w2", vm("10.1.9.9"))],
            ("vms/web/w2", "addrs[0]", "outside-subnets"),
            vec![put("vms/web/w2", vm("10.1.0.12"))],
        ),
        (
            vec![put("vms/nobody/w2", vm("10.1.0.9"))],
            ("vms/nobody/w2", "vpc", "unknown-vpc"),
            vec![put(
                "vpcs/nobody",
                json!({"vni": 7, "subnets": ["10.1.0.0/24"]}),
            )],
        ),
        (
            vec![put(
                "slbs/nobody/l",
                json!({"vips": ["10.1.0.9"], "nodes": []}),
            )],
            ("slbs/nobody/l", "vpc", "unknown-vpc"),
            vec![delete("slbs/nobody/l")],
        ),
        (
            vec![put("vms/web/w0", vm("10.1.0.11"))],
            ("vms/web/w0", "addrs[0]", "address-taken"),
            vec![delete("vms/web/w1")],
        ),
        (
            vec![put(
                "slbs/web/w0",
                json!({"vips": ["10.1.0.99", "10.1.0.11"], "nodes": []}),
            )],
            ("slbs/web/w0", "vips[1]", "address-taken"),
            vec![delete("vms/web/w1")],
        ),
        (
            vec![put("classic/new", json!({"prefixes": ["10.80.1.1/24"]}))],
            ("classic/new", "prefixes[0]", "invalid"),
            vec![delete("classic/new")],
        ),
        (
            vec![put("links/new", link("nobody", "office"))],
            ("links/new", "vpc", "unknown-vpc"),
            vec![delete("links/new")],
        ),
        (
            vec![put("links/new", link("web", "lab"))],
            ("links/new", "classic[0]", "unknown-classic"),
            vec![put("classic/lab", json!({"prefixes": ["10.80.2.0/24"]}))],
        ),
        (
            vec![put("links/new", link("db", "fd80:2::/64"))],
            ("links/new", "classic", "nothing-joined"),
            vec![put(
                "vpcs/db",
                json!({"vni": 101, "subnets": ["10.1.1.0/24", "fd01:1::/64"]}),
            )],
        ),
        (
            vec![put("links/new", link("web", "10.80.1.0/24"))],
            ("links/new", "classic[0]", "linked-twice"),
            vec![delete("links/l1")],
        ),
        (
            vec![put("links/new", link("web", "10.1.0.0/25"))],
            ("links/new", "classic[0]", "classic-overlaps-subnet"),
            vec![delete("links/new")],
        ),
        (
            vec![put("links/new", link("web", "10.1.1.0/25"))],
            ("links/new", "classic[0]", "classic-overlaps-subnet"),
            vec![put("ccsis/prod", json!({"vpcs": ["web"]}))],
        ),
        (
            vec![put("links/new", link("db", "10.1.0.5"))],
            ("links/new", "classic[0]", "classic-overlaps-subnet"),
            vec![delete("links/l1"), put("ccsis/prod", json!({"vpcs": []}))],
        ),
        (
            vec![
                put("vpcs/new", json!({"vni": 7, "subnets": ["10.80.0.0/16"]})),
                put("links/new", link("new", "10.90.0.0/24")),
            ],
            ("links/new", "vpc", "subnet-overlaps-classic"),
            vec![delete("links/l1")],
        ),
        (
            vec![put("links/new", link("alone", "10.90.0.0/24"))],
            ("links/new", "vpc", "linked-subnets-overlap"),
            vec![delete("links/l1")],
        ),
    ];
    for (bad, fault, cure) in table {
        let mut world = World::new(&good());
        let before = world.inventory.clone();
        let refused = world.inventory.check(&bad).expect_err(&format!("{bad:?}"));
        assert_eq!(world.inventory, before, "{bad:?}: a check changes nothing");
        let said = (
            refused[0].key.as_str(),
            refused[0].field.as_str(),
            refused[0].reason.code(),
        );
        assert_eq!(said, fault, "{bad:?}: {}", refused[0]);

        world.commit(&bad);
        let expected = [(fault.0.to_owned(), fault.1.to_owned(), fault.2)];
        assert_eq!(world.faults(), expected, "{bad:?}");
        assert!(world.inventory.vm_count() >= 3, "the rest stands");
        assert_eq!(world.inventory.check(&cure), Ok(()), "{bad:?}");
        world.commit(&cure);
        assert_eq!(world.faults(), [], "{bad:?} heals by {cure:?}");
    }
}

/// Each rule of links beside one another: a standby waits instead of being wrong, says behind whom and why, and
/// takes over when that one goes. What it lacks by itself is wrong all the same.
#[test]
fn a_standby_waits_for_the_link_in_its_way() {
    let link = |vpc: &str, classic: &str| json!({"vpc": vpc, "classic": [classic]});
    let standby =
        |vpc: &str, classic: &str| json!({"vpc": vpc, "classic": [classic], "standby": true});
    let far = ("vpcs/far", json!({"vni": 7, "subnets": ["10.80.0.0/16"]}));
    let near = ("vpcs/near", json!({"vni": 8, "subnets": ["10.9.0.0/24"]}));
    type Row = (serde_json::Value, &'static str, Option<&'static str>);
    let table: Vec<Row> = vec![
        (
            standby("web", "10.80.1.0/24"),
            "classic[0]: 10.80.1.0/24 is already linked with VPC web by links/l1",
            None,
        ),
        (
            standby("near", "10.1.0.0/25"),
            "classic[0]: classic prefix 10.1.0.0/25 overlaps subnet 10.1.0.0/24 of VPC web, which is linked by links/l1",
            None,
        ),
        (
            standby("far", "10.90.0.0/24"),
            "vpc: subnet 10.80.0.0/16 of VPC far overlaps classic prefix 10.80.1.0/24 of links/l1 (VPC web), \
             and cannot be announced to it",
            None,
        ),
        (
            standby("alone", "10.90.0.0/24"),
            "vpc: subnet 10.1.0.0/16 of VPC alone overlaps 10.1.0.0/24 of VPC web, which is linked by links/l1, \
             and only one of them can be announced",
            None,
        ),
        (standby("nobody", "office"), "", Some("unknown-vpc")),
        (standby("web", "garden"), "", Some("unknown-classic")),
        (standby("db", "fd80:2::/64"), "", Some("nothing-joined")),
        // Its own CCSI is in the way too, and that does not go with the link.
        (
            standby("db", "10.1.0.5"),
            "",
            Some("classic-overlaps-subnet"),
        ),
    ];
    let new: crate::record::LinkId = "new".parse().unwrap();
    for (record, why, wrong) in table {
        let mut world = World::new(&good());
        world.commit(&[put(far.0, &far.1), put(near.0, &near.1)]);
        let order = [put("links/new", &record)];
        if let Some(code) = wrong {
            let refused = world.inventory.check(&order).expect_err(code);
            assert_eq!(refused[0].reason.code(), code, "{record}");
            continue;
        }
        assert_eq!(world.inventory.check(&order), Ok(()), "{record}");
        world.commit(&order);
        assert_eq!(world.faults(), [], "{record}");
        let stands_by = world.inventory.stands_by(&new).expect("it stands by");
        assert_eq!(
            (stands_by.to_string().as_str(), stands_by.behind().as_str()),
            (why, "l1")
        );
        assert_eq!(world.inventory.link(&new), None);
        // The same that is no standby is wrong, and the refusal says how it would not be.
        let mut plain = record.clone();
        plain["standby"] = json!(false);
        let refused = world.inventory.check(&[put("links/other", &plain)]);
        let refused = refused.expect_err("l1 is in the way").remove(0).to_string();
        assert!(refused.contains(why), "{refused}");
        assert!(refused.contains("links/l1") && refused.contains("--standby"));

        world.commit(&[delete("links/l1")]);
        assert!(world.inventory.link(&new).is_some(), "{record} takes over");
        assert_eq!(world.inventory.stands_by(&new), None);
        // Who comes and is no standby has the place, though it is younger.
        let again = [put("links/l1", link("web", "office"))];
        assert_eq!(world.inventory.check(&again), Ok(()), "{record}");
        world.commit(&again);
        assert_eq!((world.inventory.link(&new), world.faults()), (None, vec![]));
        assert_eq!(world.inventory.standing_by(), 1);
    }
}

#[test]
fn of_two_standbys_the_elder_takes_over_and_marks_can_be_changed() {
    let standby = |vpc: &str| json!({"vpc": vpc, "classic": ["10.90.0.0/24"], "standby": true});
    let plain = |vpc: &str| json!({"vpc": vpc, "classic": ["10.90.0.0/24"]});
    let mut world = World::new(&good());
    world.commit(&[put(
        "vpcs/twin",
        json!({"vni": 7, "subnets": ["10.1.0.0/24"]}),
    )]);
    world.commit(&[put("links/z", standby("alone"))]);
    world.commit(&[put("links/a", standby("twin"))]);
    let served = |world: &World| -> Vec<String> {
        world
            .inventory
            .links()
            .map(|(id, _)| id.to_string())
            .collect()
    };
    let behind = |world: &World, id: &str| -> Option<String> {
        let why = world.inventory.stands_by(&id.parse().unwrap())?;
        Some(why.behind().to_string())
    };
    assert_eq!(served(&world), ["l1"]);
    world.commit(&[delete("links/l1")]);
    assert_eq!(served(&world), ["z"]);
    assert_eq!(behind(&world, "a").as_deref(), Some("z"));
    // A standby that becomes none goes before those that are.
    world.commit(&[put("links/a", plain("twin"))]);
    assert_eq!(served(&world), ["a"]);
    assert_eq!(behind(&world, "z").as_deref(), Some("a"));
    // One that is out of service keeps its place also here.
    world.commit(&[put(
        "links/a",
        json!({"vpc": "twin", "classic": ["10.90.0.0/24"], "disabled": true}),
    )]);
    assert_eq!(behind(&world, "z").as_deref(), Some("a"));
    // A VPC that links name stays, though none of them is served.
    let refused = world.inventory.check(&[delete("vpcs/alone")]).unwrap_err();
    assert!(
        refused.iter().any(|error| error.key == "links/z"),
        "{refused:?}"
    );
    world.commit(&[delete("links/a")]);
    assert_eq!(served(&world), ["z"]);
}

#[test]
fn what_would_break_others_is_refused() {
    type Row = (Vec<Change>, Vec<(&'static str, &'static str, &'static str)>);
    let table: Vec<Row> = vec![
        (
            vec![delete("vpcs/web")],
            vec![
                ("ccsis/prod", "vpcs[0]", "unknown-vpc"),
                ("links/l1", "vpc", "unknown-vpc"),
                ("slbs/web/lb", "vpc", "unknown-vpc"),
                ("vms/web/w1", "vpc", "unknown-vpc"),
            ],
        ),
        (
            vec![delete("classic/office")],
            vec![("links/l1", "classic[0]", "unknown-classic")],
        ),
        (
            vec![put(
                "vpcs/db",
                json!({"vni": 101, "subnets": ["10.1.0.0/25", "10.1.1.0/24"]}),
            )],
            vec![("ccsis/prod", "vpcs[1]", "members-overlap")],
        ),
        (
            vec![put(
                "vpcs/db",
                json!({"vni": 101, "subnets": ["10.2.1.0/24"]}),
            )],
            vec![("vms/db/d1", "addrs[0]", "outside-subnets")],
        ),
        (
            vec![put(
                "vpcs/db",
                json!({"vni": 101, "subnets": ["10.80.1.0/25", "10.1.1.0/24"]}),
            )],
            vec![("links/l1", "classic[0]", "classic-overlaps-subnet")],
        ),
        (
            // It was there first, so the other one loses its VNI.
            vec![put(
                "vpcs/web",
                json!({"vni": 101, "subnets": ["10.1.0.0/24", "fd01::/64"]}),
            )],
            vec![
                ("ccsis/prod", "vpcs[1]", "unknown-vpc"),
                ("vms/db/d1", "vpc", "unknown-vpc"),
                ("vpcs/db", "vni", "vni-taken"),
            ],
        ),
    ];
    for (changes, expected) in table {
        let mut world = World::new(&good());
        let refused = world
            .inventory
            .check(&changes)
            .expect_err("it breaks others");
        let said: Vec<_> = refused
            .iter()
            .map(|error| {
                (
                    error.key.as_str(),
                    error.field.as_str(),
                    error.reason.code(),
                )
            })
            .collect();
        assert_eq!(said, expected, "{changes:?}");
    }
}

#[test]
fn a_check_refuses_only_what_is_new() {
    let mut world = World::new(&good());
    world.commit(&[
        put("ccsis/bad", json!({"vpcs": ["nobody"]})),
        put("vms/web/w0", "{"),
    ]);
    let fine = [put(
        "vms/web/w3",
        json!({"addrs": ["10.1.0.13"], "mac": "02:00:00:00:00:03", "vtep": "172.16.0.12"}),
    )];
    assert_eq!(world.inventory.check(&fine), Ok(()));
    assert_eq!(world.inventory.check(&[delete("vms/web/w0")]), Ok(()));
    assert_eq!(world.inventory.check(&[]), Ok(()));
    // A record that was bad already may be bad for another reason; a member of a CCSI may not.
    world.commit(&[put(
        "vms/later/x",
        json!({"addrs": ["10.7.0.1"], "mac": "02:00:00:00:00:03", "vtep": "172.16.0.12"}),
    )]);
    let later = [put(
        "vpcs/later",
        json!({"vni": 7, "subnets": ["10.8.0.0/24"]}),
    )];
    assert_eq!(world.inventory.check(&later), Ok(()));
    world.commit(&[put("ccsis/prod", json!({"vpcs": ["web", "db", "later"]}))]);
    let overlapping = [put(
        "vpcs/later",
        json!({"vni": 7, "subnets": ["10.1.0.0/24"]}),
    )];
    let refused = world
        .inventory
        .check(&overlapping)
        .expect_err("it overlaps web");
    assert_eq!(
        (refused[0].field.as_str(), refused[0].reason.code()),
        ("vpcs[2]", "members-overlap")
    );

    let mut both = fine.to_vec();
    both.push(put("vms/web/w4", "{"));
    assert_eq!(
        world.inventory.check(&both).unwrap_err().len(),
        1,
        "all or none"
    );
    let many: Vec<Change> = (0..500)
        .map(|n| put(&format!("vms/web/n{n}"), "{"))
        .collect();
    assert_eq!(
        world.inventory.check(&many).unwrap_err().len(),
        100,
        "bounded"
    );
}

#[test]
fn only_accepted_records_are_in_the_way() {
    let vm = |addrs: serde_json::Value| json!({"addrs": addrs, "mac": "02:00:00:00:00:01", "vtep": "172.16.0.11"});
    let mut world = World::new(&[
        ("vpcs/v", json!({"vni": 1, "subnets": ["10.0.0.0/24"]})),
        ("vms/v/first", vm(json!(["10.0.0.1"]))),
        ("vms/v/second", vm(json!(["10.0.0.1", "10.0.0.2"]))),
        ("vms/v/third", vm(json!(["10.0.0.2"]))),
    ]);
    let quarantined = |world: &World| -> Vec<String> {
        world.faults().into_iter().map(|(key, ..)| key).collect()
    };
    assert_eq!(
        quarantined(&world),
        ["vms/v/second"],
        "the second stops nobody"
    );
    world.commit(&[delete("vms/v/first")]);
    assert_eq!(
        quarantined(&world),
        ["vms/v/third"],
        "the second was there before the third"
    );
    assert_eq!(world.inventory.vm_count(), 1);
}

#[test]
fn loading_touches_only_what_differs() {
    let mut world = World::new(&good());
    assert_eq!(world.inventory.load(world.store.all()), Effects::default());
    world
        .store
        .commit(&[delete("links/l1"), delete("vms/db/d1")]);
    world
        .store
        .commit(&[put("vpcs/new", json!({"vni": 7, "subnets": []}))]);
    let effects = world.inventory.load(world.store.all());
    assert_eq!(
        effects.vpcs.keys().map(VpcId::as_str).collect::<Vec<_>>(),
        ["new"]
    );
    assert_eq!((effects.links.len(), effects.endpoints.len()), (1, 1));
    let mut anew = Inventory::default();
    anew.load(world.store.all());
    assert_eq!(world.inventory, anew);
}

/// The rules in their plainest form: kind by kind, the earliest first, each against all accepted.
mod plain {
    use super::*;

    #[derive(Debug, Default, PartialEq, Eq)]
    pub(super) struct Accepted {
        pub(super) vpcs: BTreeMap<VpcId, Vpc>,
        pub(super) members: BTreeSet<(String, VpcId)>,
        pub(super) addrs: BTreeMap<(VpcId, IpAddr), RecordKey>,
        pub(super) links: BTreeMap<String, (VpcId, BTreeSet<Prefix>)>,
        pub(super) standing_by: BTreeSet<String>,
        pub(super) bad: BTreeSet<String>,
    }

    fn overlap(ones: &[Prefix], others: &[Prefix]) -> bool {
        ones.iter()
            .any(|one| others.iter().any(|other| one.overlaps(other)))
    }

    pub(super) fn judge(records: &[Stored]) -> Accepted {
        let mut all = Accepted::default();
        let mut parsed = Vec::new();
        for stored in records {
            match parse(&stored.key, &stored.value) {
                Ok((key, record)) => parsed.push((key.kind(), stored.created, key, record)),
                Err(_) => drop(all.bad.insert(stored.key.clone())),
            }
        }
        // VMs and SLBs are one class.
        let class = |kind| {
            if kind == crate::record::Kind::Slb {
                crate::record::Kind::Vm
            } else {
                kind
            }
        };
        let is_standby = |record: &Record| matches!(record, Record::Link(link) if link.standby);
        parsed.sort_by_key(|(kind, created, key, record)| {
            (class(*kind), is_standby(record), *created, key.clone())
        });
        let created: BTreeMap<VpcId, u64> = parsed
            .iter()
            .filter_map(|(_, created, key, _)| match key {
                RecordKey::Vpc(id) => Some((id.clone(), *created)),
                _ => None,
            })
            .collect();
        let mut classics = BTreeMap::new();
        for (_, _, key, record) in &parsed {
            let good = match (key, record) {
                (RecordKey::Vpc(id), Record::Vpc(vpc)) => {
                    let free = all.vpcs.values().all(|other| other.vni != vpc.vni);
                    if free {
                        all.vpcs.insert(id.clone(), vpc.clone());
                    }
                    free
                }
                (RecordKey::Ccsi(id), Record::Ccsi(ccsi)) => {
                    members(&mut all, id.as_str(), ccsi, &created)
                }
                (RecordKey::Classic(name), Record::Classic(classic)) => {
                    classics.insert(name.clone(), classic.prefixes.clone());
                    true
                }
                (RecordKey::Vm(vpc, _), Record::Vm(vm)) => addrs(&mut all, key, vpc, &vm.addrs),
                (RecordKey::Slb(vpc, _), Record::Slb(slb)) => addrs(&mut all, key, vpc, &slb.vips),
                (RecordKey::Link(id), Record::Link(link)) => {
                    let resolved = resolve(link, &classics);
                    let resolved = resolved.filter(|classic| may(&all, link, classic));
                    let is_sound = resolved.is_some();
                    let free = resolved.filter(|classic| is_free(&all, link, classic));
                    let stands_by = link.standby && is_sound && free.is_none();
                    let good = free.is_some() || stands_by;
                    if stands_by {
                        all.standing_by.insert(id.to_string());
                    }
                    if let Some(classic) = free {
                        all.links
                            .insert(id.to_string(), (link.vpc.clone(), classic));
                    }
                    good
                }
                _ => unreachable!("the record is of the key's kind"),
            };
            if !good {
                all.bad.insert(key.to_string());
            }
        }
        all
    }

    fn members(all: &mut Accepted, id: &str, ccsi: &Ccsi, created: &BTreeMap<VpcId, u64>) -> bool {
        let mut named: Vec<&VpcId> = ccsi.vpcs.iter().collect();
        named.sort_by_key(|vpc| (created.get(*vpc), *vpc));
        let mut good = true;
        for vpc in named {
            let fits = all.vpcs.get(vpc).is_some_and(|record| {
                all.members.iter().all(|(other, member)| {
                    member != vpc
                        && (other != id || !overlap(&record.subnets, &all.vpcs[member].subnets))
                })
            });
            if fits {
                all.members.insert((id.to_owned(), vpc.clone()));
            }
            good &= fits;
        }
        good
    }

    fn addrs(all: &mut Accepted, key: &RecordKey, vpc: &VpcId, addrs: &[IpAddr]) -> bool {
        let good = all.vpcs.get(vpc).is_some_and(|record| {
            addrs.iter().all(|addr| {
                record
                    .subnets
                    .iter()
                    .any(|subnet| subnet.contains_addr(*addr))
                    && !all.addrs.contains_key(&(vpc.clone(), *addr))
            })
        });
        if good {
            all.addrs
                .extend(addrs.iter().map(|addr| ((vpc.clone(), *addr), key.clone())));
        }
        good
    }

    fn resolve(
        link: &Link,
        classics: &BTreeMap<ClassicName, Vec<Prefix>>,
    ) -> Option<BTreeSet<Prefix>> {
        let mut prefixes = BTreeSet::new();
        for item in &link.classic {
            match item {
                ClassicRef::Prefix(prefix) => drop(prefixes.insert(*prefix)),
                ClassicRef::Name(name) => prefixes.extend(classics.get(name)?),
            }
        }
        Some(prefixes)
    }

    fn may(all: &Accepted, link: &Link, classic: &BTreeSet<Prefix>) -> bool {
        let Some(vpc) = all.vpcs.get(&link.vpc) else {
            return false;
        };
        let classic: Vec<Prefix> = classic.iter().copied().collect();
        let ccsi = all
            .members
            .iter()
            .find(|(_, member)| *member == link.vpc)
            .map(|(ccsi, _)| ccsi);
        let mut table: Vec<Prefix> = vpc.subnets.clone();
        for (other, member) in &all.members {
            if Some(other) == ccsi {
                table.extend(&all.vpcs[member].subnets);
            }
        }
        vpc.subnets
            .iter()
            .any(|s| classic.iter().any(|c| c.family() == s.family()))
            && !overlap(&table, &classic)
    }

    /// Whether no link before it has what it asks for.
    fn is_free(all: &Accepted, link: &Link, classic: &BTreeSet<Prefix>) -> bool {
        let own = &all.vpcs[&link.vpc].subnets;
        let classic: Vec<Prefix> = classic.iter().copied().collect();
        all.links.values().all(|(other, theirs)| {
            let theirs: Vec<Prefix> = theirs.iter().copied().collect();
            let subnets = &all.vpcs[other].subnets;
            !overlap(subnets, &classic)
                && !overlap(own, &theirs)
                && (*other == link.vpc || !overlap(subnets, own))
                && (*other != link.vpc || !theirs.iter().any(|prefix| classic.contains(prefix)))
        })
    }

    /// What an inventory accepted, in the same form.
    pub(super) fn accepted(inventory: &Inventory) -> Accepted {
        let mut all = Accepted::default();
        for (id, state) in inventory.vpcs() {
            let Some(Record::Vpc(vpc)) = inventory.record(&RecordKey::Vpc(id.clone())) else {
                panic!("{id} has no record")
            };
            assert_eq!(vpc.subnets, state.subnets);
            for (addr, owner) in inventory.endpoints.owners(id) {
                all.addrs.insert((id.clone(), addr), owner.key(id));
            }
            all.vpcs.insert(id.clone(), vpc);
        }
        for (ccsi, members) in inventory.ccsis() {
            all.members
                .extend(members.iter().map(|vpc| (ccsi.to_string(), vpc.clone())));
        }
        for (id, link) in inventory.links() {
            let classic = link.classic.iter().copied().collect();
            all.links
                .insert(id.to_string(), (link.vpc.clone(), classic));
        }
        for (id, _) in inventory.link_records() {
            if let Some(why) = inventory.stands_by(id) {
                assert!(inventory.link(why.behind()).is_some(), "{id}: {why}");
                all.standing_by.insert(id.to_string());
            }
        }
        all.bad = inventory
            .quarantine()
            .map(|error| error.key.clone())
            .collect();
        all
    }
}

proptest! {
    /// However the records came, the inventory is that of the records alone, and obeys the rules.
    #[test]
    fn incremental_equals_from_scratch(history in history()) {
        let mut world = World::default();
        let mut loaded = Inventory::default();
        for changes in &history {
            world.commit(changes);
            let mut anew = Inventory::default();
            anew.load(world.store.all());
            prop_assert_eq!(&world.inventory, &anew, "after {:?}", changes);
            loaded.load(world.store.all());
            prop_assert_eq!(&loaded, &anew, "loaded in place of what was there, after {:?}", changes);
        }
        prop_assert_eq!(plain::accepted(&world.inventory), plain::judge(&world.store.all()));
        prop_assert!(world.faults().iter().all(|(_, field, _)| !field.is_empty()));
    }

    /// Records that are all there is are judged as changes of an empty inventory are.
    #[test]
    fn a_check_of_the_whole_is_that_of_changes_to_nothing(history in history()) {
        let mut world = World::default();
        for changes in &history {
            world.commit(changes);
        }
        let records: Vec<Change> = world
            .store
            .all()
            .into_iter()
            .map(|stored| Change::Put { key: stored.key, value: stored.value })
            .collect();
        let sorted = |checked: Result<(), Vec<RecordError>>| {
            let errors = checked.err().into_iter().flatten();
            errors.map(|error| error.to_string()).collect::<BTreeSet<_>>()
        };
        let whole = sorted(Inventory::check_whole(&records));
        prop_assert_eq!(whole, sorted(Inventory::default().check(&records)));
    }

    /// A check says beforehand what a commit would break, and leaves no trace.
    #[test]
    fn a_check_foretells_the_commit(history in history()) {
        let mut world = World::default();
        for changes in &history {
            let before = world.inventory.clone();
            let verdict = world.inventory.check(changes);
            prop_assert_eq!(&world.inventory, &before);
            let effects = world.commit(changes);
            let changed: BTreeSet<&str> = changes.iter().map(Change::key).collect();
            let broken = effects.quarantine.iter().any(|(key, before)| {
                let faults = world.inventory.quarantine.at(key).iter();
                !changed.contains(key.as_str())
                    && faults.clone().any(|fault| super::check::is_new(fault, before))
            });
            let wrong = changed.iter().any(|key| !world.inventory.quarantine.at(key).is_empty());
            prop_assert_eq!(verdict.is_err(), broken || wrong, "{:?}: {:?}", changes, verdict);
        }
    }
}

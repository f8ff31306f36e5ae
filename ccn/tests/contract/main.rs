//! The forwarding contract (DESIGN section 5) as a table of packets, held against the model and every
//! plane: where a packet comes in, its octets, the records, and what must come out where, octet by octet,
//! under which reason it is dropped, or which ICMP error its sender gets. Where somebody is documented
//! to do something else, the row says what and why.

mod judge;
#[path = "../netns/mod.rs"]
mod netns;
mod packet;
mod random;
mod region;
mod row;
mod rows;
mod seen;
mod wire;
mod world;

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use ccn::config::PlaneConfig;
use ccn::plane::ebpf::EbpfPlane;
use ccn::plane::routes::RoutesPlane;
use ccn::plane::traffic::TwoWays;
use judge::Mind;
use row::{By, Place, Row};
use rows::Theme;
use world::{Subject, World};

/// The least that the table has.
const LEAST_ROWS: usize = 120;
/// Addresses that the `ebpf` plane has room for at first.
const SLOTS: u32 = 1 << 14;
/// Flows to an SLB that loses a node.
const FLOWS: u16 = 300;
/// Random regions that are the same in each run.
const FIXED_SEEDS: u64 = 8;

/// The `ebpf` plane as it is where the underlay's interfaces are not its own: what else goes past the VXLAN
/// device has to come out the same.
const THROUGH_THE_DEVICE: Subject = Subject {
    by: By::Ebpf,
    make: |config| {
        let config = PlaneConfig {
            underlay_interfaces: Some(Vec::new()),
            ..config.clone()
        };
        Box::new(EbpfPlane::with_slots(&config, SLOTS))
    },
};

/// Every plane there is.
fn planes() -> Vec<Subject> {
    vec![
        Subject {
            by: By::Routes,
            make: |config| Box::new(RoutesPlane::new(config)),
        },
        Subject {
            by: By::Ebpf,
            make: |config| Box::new(EbpfPlane::with_slots(config, SLOTS)),
        },
    ]
}

fn plane(by: By) -> Subject {
    let found = planes().into_iter().find(|subject| subject.by == by);
    found.expect("it is in the list")
}

/// Prints what failed, and fails if anything did.
#[track_caller]
fn report(by: By, asked: usize, failures: &[String]) {
    let count = failures.len();
    assert!(
        failures.is_empty(),
        "{by:?}: {count} of {asked} rows:\n{}",
        failures.join("\n")
    );
}

fn asked(theme: &Theme, by: By) -> impl Iterator<Item = (&Row, &row::Expect)> {
    let rows = theme.rows.iter();
    rows.filter_map(move |row| Some((row, row.expected(by)?)))
}

fn named(theme: &Theme, row: &Row, error: &str) -> String {
    format!("- [{}] {}: {error}", theme.region.name, row.name)
}

/// Asks a plane all its rows, theme after theme.
fn ask(subject: &Subject) {
    let (mut held, mut count, mut failures) = (None::<World>, 0, Vec::new());
    for theme in rows::all() {
        if asked(&theme, subject.by).next().is_none() {
            continue;
        }
        let region = theme.region.clone();
        let world = match &mut held {
            Some(world) if world.takes(&region) => {
                world.hold(region);
                world
            }
            _ => held.insert(World::new(subject, region)),
        };
        for (row, expect) in asked(&theme, subject.by) {
            count += 1;
            if let Err(error) = judge::check(world, subject.by, row, expect) {
                failures.push(named(&theme, row, &error));
            }
        }
    }
    report(subject.by, count, &failures);
}

#[test]
fn the_model_keeps_the_contract() {
    let (mut count, mut failures) = (0, Vec::new());
    for theme in rows::all() {
        for (row, expect) in asked(&theme, By::Model) {
            count += 1;
            // Rows do not see one another's flows, but what they send before.
            if let Err(error) = Mind::new(&theme.region).check(row, expect) {
                failures.push(named(&theme, row, &error));
            }
        }
    }
    report(By::Model, count, &failures);
}

#[test]
fn the_routes_plane_keeps_the_contract() {
    ask(&plane(By::Routes));
}

#[test]
fn the_ebpf_plane_keeps_the_contract() {
    ask(&plane(By::Ebpf));
}

#[test]
fn the_ebpf_plane_keeps_the_contract_where_all_packets_pass_the_device() {
    ask(&THROUGH_THE_DEVICE);
}

/// What `CONTRACT_SEED` says, one or `FIRST..LAST`; else some that are always the same, and one that
/// never is.
fn seeds() -> Vec<u64> {
    let number = |text: &str| text.parse::<u64>().expect("CONTRACT_SEED is a number");
    match std::env::var("CONTRACT_SEED") {
        Ok(text) => match text.split_once("..") {
            Some((first, last)) => (number(first)..=number(last)).collect(),
            None => vec![number(&text)],
        },
        Err(_) => {
            let since = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("after 1970");
            (1..=FIXED_SEEDS)
                .chain([u64::from(since.subsec_nanos())])
                .collect()
        }
    }
}

/// Compares a plane with the model in random regions.
fn compare(subject: &Subject, marked: bool) {
    let mut worlds = [None, None];
    for seed in seeds() {
        if let Err(error) = random::compare(subject, &mut worlds, seed, marked) {
            panic!(
                "{:?} and the model differ, CONTRACT_SEED={seed}: {error}",
                subject.by
            );
        }
    }
}

#[test]
fn the_routes_plane_does_what_the_model_says() {
    compare(&plane(By::Routes), false);
}

#[test]
fn the_ebpf_plane_does_what_the_model_says() {
    compare(&plane(By::Ebpf), false);
}

#[test]
fn the_ebpf_plane_does_what_the_model_says_where_all_packets_pass_the_device() {
    compare(&THROUGH_THE_DEVICE, true);
}

#[test]
fn the_ebpf_plane_does_what_the_model_says_of_links_that_are_marked() {
    compare(&plane(By::Ebpf), true);
}

/// The `routes` plane leaves this to the kernel, which moves others as well.
#[test]
fn a_node_that_goes_moves_only_its_flows() {
    let theme = rows::all().remove(0);
    let (region, smaller) = (theme.region.clone(), rows::without_a_node());
    let mut world = World::new(&plane(By::Ebpf), region);
    let nodes = |hosts: &[u8]| -> Vec<(Place, u32)> {
        hosts
            .iter()
            .map(|host| (Place::Node(rows::DB, *host), 1))
            .collect()
    };
    let (all, rest) = (nodes(&[21, 22, 23]), nodes(&[21, 23]));
    let sent = row::idc(packet::tcp(rows::LAB, "10.1.1.100", packet::SYN));
    let before = judge::paths(&mut world, &sent, FLOWS, &all).expect("paths");
    world.hold(smaller);
    let after = judge::paths(&mut world, &sent, FLOWS, &rest).expect("paths");
    for (flow, (place, _)) in before {
        let (was, is) = (&all[place].0, &rest[after[&flow].0].0);
        assert!(
            was == is || *was == Place::Node(rows::DB, 22),
            "flow {flow}: {was:?}, then {is:?}"
        );
    }
}

/// What was sent, each packet so many times, is what is counted of every link and VPC, and of nobody else.
#[test]
fn the_ebpf_plane_counts_what_passes_of_each_link_and_vpc() {
    use packet::udp;
    use row::{idc, vxlan};
    use rows::{DB, DB1, LAB, OFFICE, OFFICE6, STRANGER, WEB, WEB1, WEB1_6};

    let mut world = World::new(&plane(By::Ebpf), rows::all().remove(0).region);
    let before = world.traffic();
    // Which counters of a link and of VPCs each moves: to the VPC, from it, dropped.
    let (to, from, dropped) = (0, 1, 2);
    let table = [
        (
            idc(udp(OFFICE, WEB1).length(200)),
            5,
            Some("web"),
            vec![(WEB, to)],
        ),
        (
            idc(udp(OFFICE6, WEB1_6).length(300)),
            2,
            Some("web"),
            vec![(WEB, to)],
        ),
        (
            vxlan(WEB, udp(WEB1, OFFICE).length(250)),
            4,
            Some("web"),
            vec![(WEB, from)],
        ),
        (
            vxlan(WEB, udp(WEB1_6, OFFICE6).length(1400)),
            1,
            Some("web"),
            vec![(WEB, from)],
        ),
        (
            vxlan(DB, udp(DB1, LAB).length(100)),
            3,
            Some("db"),
            vec![(DB, from)],
        ),
        (
            vxlan(WEB, udp(WEB1, DB1).length(500)),
            6,
            None,
            vec![(WEB, from), (DB, to)],
        ),
        (
            idc(udp(OFFICE, "10.1.0.77").length(120)),
            2,
            Some("web"),
            vec![(WEB, dropped)],
        ),
        (
            idc(udp(STRANGER, WEB1).length(130)),
            3,
            None,
            vec![(WEB, dropped)],
        ),
        (
            vxlan(WEB, udp(WEB1, STRANGER).length(140)),
            1,
            None,
            vec![(WEB, dropped)],
        ),
    ];
    let mut links = BTreeMap::<&str, [[u64; 2]; 3]>::new();
    let mut vpcs = BTreeMap::<u32, [[u64; 2]; 3]>::new();
    for (sent, times, link, of) in &table {
        let add = |counts: &mut [[u64; 2]; 3], way: usize| {
            counts[way][0] += times;
            counts[way][1] += times * sent.octets(0).1.len() as u64;
        };
        for _ in 0..*times {
            let marker = world.marker();
            world.exchange(sent, marker).expect("dealt with");
        }
        for (vni, way) in of {
            add(vpcs.entry(*vni).or_default(), *way);
        }
        if let Some(link) = link {
            add(links.entry(link).or_default(), of[0].1);
        }
    }
    let after = world.traffic();
    let grown = |before: Option<&TwoWays>, after: &TwoWays| {
        let before = before.copied().unwrap_or_default();
        [
            (after.to_vpc, before.to_vpc),
            (after.from_vpc, before.from_vpc),
            (after.dropped, before.dropped),
        ]
        .map(|(after, before)| [after.packets - before.packets, after.bytes - before.bytes])
    };
    for (link, counts) in &after.links {
        // The harness sends its own packets over that one.
        if link.to_string() != "probe" {
            let expected = links.remove(link.to_string().as_str()).unwrap_or_default();
            assert_eq!(
                grown(before.links.get(link), counts),
                expected,
                "link {link}"
            );
        }
    }
    for (vni, counts) in &after.vpcs {
        if vni.number() != region::PROBE_VNI {
            let expected = vpcs.remove(&vni.number()).unwrap_or_default();
            assert_eq!(grown(before.vpcs.get(vni), counts), expected, "VNI {vni}");
        }
    }
    assert!(links.is_empty() && vpcs.is_empty(), "{links:?} {vpcs:?}");
}

/// A generator that only makes packets nobody forwards would prove nothing.
#[test]
fn random_packets_meet_every_verdict() {
    let mut seen = BTreeMap::<String, usize>::new();
    for seed in 1..=FIXED_SEEDS {
        for name in [false, true]
            .into_iter()
            .flat_map(|marked| random::verdicts(seed, marked))
        {
            *seen.entry(name).or_default() += 1;
        }
    }
    for name in [
        "encapsulate",
        "encapsulate to one of several",
        "forward",
        "forward by ECMP",
        "answer ttl-exceeded",
        "answer too-big",
        "drop not-linked",
        "drop not-linked-source",
        "drop unknown-vni",
        "drop bad-source",
        "drop no-link",
        "drop no-such-endpoint",
        "drop no-idc-route",
        "drop not-a-reply",
    ] {
        assert!(
            seen.get(name).is_some_and(|count| *count >= 3),
            "{name}: {seen:#?}"
        );
    }
}

#[test]
fn the_table_is_whole() {
    let themes = rows::all();
    let names: Vec<&str> = themes
        .iter()
        .flat_map(|t| &t.rows)
        .map(|row| row.name.as_str())
        .collect();
    let mut unique = names.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), names.len(), "two rows have one name");
    assert!(names.len() >= LEAST_ROWS, "{} rows", names.len());
    for exception in themes
        .iter()
        .flat_map(|t| &t.rows)
        .flat_map(|row| &row.exceptions)
    {
        assert!(exception.why.len() > 20, "{exception:?} says too little");
    }
}

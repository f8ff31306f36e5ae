//! One seed gives one result; nobody misses a commit, whatever breaks; and the formulas say what is counted.

use std::time::Duration;

use super::count::run;
use super::*;

fn small(sharded: bool) -> Setup {
    Setup {
        region: FixtureSpec {
            vms: 320,
            vpcs: 32,
            hosts: 20,
            seed: 7,
        },
        groups: 2,
        gateways: 3,
        links: 4,
        sharded,
        changes: 10.0,
        orders: 1.0,
        seed: 7,
        faults: None,
    }
}

fn broken(seed: u64) -> Setup {
    Setup {
        // Every other seed with a store for each group.
        sharded: seed.is_multiple_of(2),
        seed,
        faults: Some(Duration::from_millis(700)),
        ..small(false)
    }
}

#[test]
fn one_seed_gives_one_result() {
    for setup in [small(false), small(true), broken(3)] {
        let (one, _) = run(&setup, 10).unwrap_or_else(|error| panic!("{setup:?}: {error}"));
        let (other, _) = run(&setup, 10).unwrap_or_else(|error| panic!("{setup:?}: {error}"));
        assert_eq!(one, other, "{setup:?}");
        let other_seed = Setup {
            seed: 8,
            ..setup.clone()
        };
        let (other, _) = run(&other_seed, 10).expect("a run");
        assert_ne!(one.digest, other.digest, "another seed, another course");
    }
}

/// Every commit is told once and in order to each gateway, or is in a whole reading; in the end each kernel, inventory
/// and announcement is what the store says, made anew. (`World` judges that; see there.)
#[test]
fn nobody_misses_anything_whatever_breaks() {
    let mut all = world::Faults::default();
    for seed in 1..=12 {
        let (counted, _) =
            run(&broken(seed), 45).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        let faults = counted.faults;
        all.lost_watches += faults.lost_watches;
        all.compactions += faults.compactions;
        all.restarts += faults.restarts;
        all.absences += faults.absences;
        all.storms += faults.storms;
        all.plane_failures += faults.plane_failures;
        all.wrong_records += faults.wrong_records;
        all.readings_again += faults.readings_again;
        all.snapshot_starts += faults.snapshot_starts;
    }
    // Each of them did happen.
    for (what, count) in [
        ("lost watches", all.lost_watches),
        ("compactions", all.compactions),
        ("restarts", all.restarts),
        ("absences", all.absences),
        ("storms", all.storms),
        ("failures of planes", all.plane_failures),
        ("wrong records", all.wrong_records),
        ("readings after a compaction", all.readings_again),
        ("starts from a snapshot", all.snapshot_starts),
    ] {
        assert!(count > 0, "no {what}: {all:?}");
    }
}

#[test]
fn the_formulas_say_what_is_counted() {
    let memory = memory::Octets {
        vm: 100.0,
        vpc: 1000.0,
        link: 500.0,
        own_link: 2000.0,
    };
    for (layout, sharded) in [(Layout::Flat, false), (Layout::Stores, true)] {
        for changes in [0.5, 10.0] {
            let setup = Setup {
                changes,
                ..small(sharded)
            };
            let (counted, meter) = run(&setup, 100).expect("a run");
            let units = Units::of(&counted, &meter, setup.gateways as f64, memory);
            let check = check(&units, layout, &setup, &counted);
            assert!(check.error() < 0.05, "{changes} changes/s: {check:#?}");
        }
    }
}

/// A store that forgets to tell somebody is found out.
#[test]
fn a_commit_that_is_not_told_is_seen() {
    let mut world = world::World::new(small(false)).expect("a world");
    world.settle().expect("rest");
    world.etcds[0].unwatch(0);
    world.begin();
    world.run(Duration::from_secs(5));
    assert!(world.settle().is_err(), "one of them never hears of it");
    assert!(world.judge().is_err());
}

//! Operators who change what is linked, or link and unlink without end.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use ccn::api::error::ErrorCode;
use ccn::cli::client::ClientError;
use interop::enter;
use interop::gateway::Gateway;
use interop::scene::{OFFICE, Scene, WEB};
use interop::steady::Traffic;
use interop::topology::{Instance, plan};
use netlink::Mac;
use serde_json::{Value, json};

use super::desk::Desk;
use super::probe::{self, Probe};
use super::{Failure, SOON, was_perfect};

/// A VM of VPC `web` in a subnet that comes and goes.
const NAME: &str = "web-3@web";
const MAC: [u8; 6] = [2, 0, 0, 1, 0, 0x13];
const HOST: [&str; 2] = ["10.80.1.10", "fd80:1::a"];

/// Has VPC `web` have these subnets beside its own and the VM these addresses, all in one generation; without addresses
/// there is none. Returns when gateway and router have it.
fn become_(scene: &Scene, subnets: &[&str], addrs: &[&str]) -> Result<(), Failure> {
    let all = [&WEB[..], subnets].concat();
    let vm = json!({ "addrs": addrs, "mac": Mac(MAC).to_string(), "vtep": plan::vtep(12) });
    Desk::at(&scene.gateway)?.change(&[
        ("vpcs/web", json!({ "vni": 1001, "subnets": all })),
        (
            "vms/web/web-3",
            if addrs.is_empty() { Value::Null } else { vm },
        ),
    ])?;
    scene.gateway.await_settled(SOON)?;
    println!("subnets: {all:?}");
    Ok(scene.await_exactly(&all)?)
}

/// Traffic to the VM and from it.
fn traffic(scene: &Scene, addrs: &[&str], port: u16) -> Result<Traffic, Failure> {
    let mut traffic = Traffic::default();
    for (host, addr) in HOST.iter().zip(addrs) {
        traffic.add_both_ways(scene, [("alice", host), (NAME, addr)], port, 500)?;
    }
    traffic.pass(100)?;
    Ok(traffic)
}

#[test]
fn subnets_of_a_linked_vpc_come_go_and_are_replaced_and_the_others_lose_nothing() {
    const FIRST: [&str; 2] = ["10.1.2.0/24", "fd00:1:2::/64"];
    const SECOND: [&str; 2] = ["10.1.4.0/24", "fd00:1:4::/64"];
    const WIDER: [&str; 2] = ["10.1.2.0/23", "fd00:1:2::/63"];
    const IN_FIRST: [&str; 2] = ["10.1.2.13", "fd00:1:2::13"];
    const IN_SECOND: [&str; 2] = ["10.1.4.13", "fd00:1:4::13"];
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        let addrs = [IN_FIRST, IN_SECOND];
        let addrs = addrs.as_flattened();
        scene.region.add_instance(Instance {
            name: NAME.to_owned(),
            vni: 1001,
            mac: Mac(MAC),
            addrs: addrs
                .iter()
                .map(|addr| addr.parse())
                .collect::<Result<_, _>>()?,
            vtep: plan::vtep(12).into(),
        })?;
        for addr in addrs {
            probe::lead(&mut scene, addr)?;
        }
        let before = scene.kernel()?;
        let untouched = Traffic::start(&scene)?;
        untouched.pass(100)?;

        // Each round: what there is now flows both ways, and what there was before is forwarded no longer.
        let mut old: Vec<Probe> = Vec::new();
        let mut port = 7100;
        for (subnets, addrs) in [
            (&FIRST[..], &IN_FIRST[..]),
            (&SECOND, &IN_SECOND),
            (&FIRST, &IN_FIRST),
            (&[], &[]),
        ] {
            become_(&scene, subnets, addrs)?;
            for probe in old.drain(..) {
                let removed = probe.next(100)?;
                let report = probe.stop();
                println!("removed: {report}");
                let forwarded = probe::arrived(&report, &removed);
                assert_eq!(forwarded, 0, "of {removed:?}: forwarded after the change");
            }
            if addrs.is_empty() {
                break;
            }
            port += 1;
            was_perfect(traffic(&scene, addrs, port)?)?;
            for addr in addrs {
                let probe = Probe::start(&scene, NAME, addr, port + 100)?;
                probe.await_arrivals()?;
                old.push(probe);
            }
        }

        // A subnet that makes way for a wider one, and back, is the same to its VMs.
        become_(&scene, &FIRST, &IN_FIRST)?;
        let stays = traffic(&scene, &IN_FIRST, 7150)?;
        for subnets in [WIDER, FIRST] {
            become_(&scene, &subnets, &IN_FIRST)?;
            stays.pass(100)?;
        }
        println!("in the wider subnet and back");
        was_perfect(stays)?;
        become_(&scene, &[], &[])?;

        untouched.pass(100)?;
        was_perfect(untouched)?;
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "nothing is left behind"
        );
        Ok(())
    });
}

/// How many times the VPC is linked and unlinked, and by how many clients at once.
const TIMES: u32 = 1000;
const CLIENTS: u32 = 8;
/// One in so many is looked at while the others hold still.
const LOOKED_AT: u32 = 50;

/// What clients of one VPC share.
struct Contest<'a> {
    gateway: &'a Gateway,
    probe: &'a Probe,
    /// How many are left to be done.
    left: AtomicU32,
    /// Held by whoever orders a link; alone by whoever wants to see the VPC unlinked for a while.
    ordering: RwLock<()>,
    refused: AtomicU64,
    /// Packets of the probe that must have arrived, or must not.
    looks: Mutex<Vec<(bool, std::ops::Range<u64>)>>,
}

/// What a client measured.
#[derive(Default)]
struct Took {
    link: Vec<Duration>,
    unlink: Vec<Duration>,
}

impl Contest<'_> {
    /// One client: links under its own name whenever nobody else has the VPC, and takes it back.
    fn take_part(&self, number: u32) -> Result<Took, Failure> {
        let (desk, name) = (Desk::at(self.gateway)?, format!("by-{number}"));
        let mut took = Took::default();
        while let Some(left) = self.next() {
            if left % LOOKED_AT == 0 {
                self.look(&desk, &name)?;
                continue;
            }
            let start = loop {
                let _one_of_many = self.ordering.read().unwrap_or_else(PoisonError::into_inner);
                let start = Instant::now();
                match desk.link(&name, "web", "office") {
                    Ok(_) => break start,
                    Err(error) => self.is_taken(error)?,
                }
            };
            took.link.push(start.elapsed());
            let start = Instant::now();
            desk.unlink(&name)?;
            took.unlink.push(start.elapsed());
        }
        Ok(took)
    }

    fn next(&self) -> Option<u32> {
        let take = |left: u32| left.checked_sub(1);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()
    }

    /// A link that is refused because another client was faster; anything else is a fault.
    fn is_taken(&self, error: ClientError) -> Result<(), Failure> {
        match error {
            ClientError::Api(error)
                if error.code == ErrorCode::Refused && error.message.contains("already linked") =>
            {
                self.refused.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            error => Err(error.into()),
        }
    }

    /// Links and unlinks while nobody else orders a link: once it is acknowledged all is forwarded, and nothing
    /// once its end is.
    fn look(&self, desk: &Desk, name: &str) -> Result<(), Failure> {
        let _alone = self
            .ordering
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Whoever has it is about to take it back.
        let until = Instant::now() + SOON;
        while let Err(error) = desk.link(name, "web", "office") {
            self.is_taken(error)?;
            if Instant::now() > until {
                return Err("nobody takes the link back".into());
            }
        }
        let linked = self.probe.next(40)?;
        desk.unlink(name)?;
        let unlinked = self.probe.next(40)?;
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.extend([(true, linked), (false, unlinked)]);
        Ok(())
    }
}

fn middle(mut took: Vec<Duration>) -> String {
    took.sort();
    let at = |share: usize| {
        took.get(took.len() * share / 100)
            .copied()
            .unwrap_or_default()
    };
    format!("{:.1?} / {:.1?}", at(50), at(99))
}

#[test]
fn one_vpc_is_linked_and_unlinked_a_thousand_times_by_eight_clients() {
    enter::test_within(Duration::from_secs(180), |lab| {
        let mut scene = Scene::start_with(lab, 1, |config| config.bgp.drain_ms = 50)?;
        let inside = "10.1.0.12";
        probe::lead(&mut scene, inside)?;
        let before = scene.kernel()?;
        let probe = Probe::start(&scene, "web-2@web", inside, 7200)?;
        // The router sends what it has a route for: each of these packets asks whether what is announced forwards.
        let mut asking = Traffic::default();
        for (host, vm) in HOST.iter().zip(["10.1.0.11", "fd00:1::11"]) {
            asking.add(&scene, [("alice", host), ("web-1@web", vm)], 7000, 500)?;
        }
        let mut back = Traffic::default();
        back.add(
            &scene,
            [("web-1@web", "10.1.0.11"), ("alice", HOST[0])],
            7001,
            250,
        )?;

        let contest = Contest {
            gateway: &scene.gateway,
            probe: &probe,
            left: AtomicU32::new(TIMES),
            ordering: RwLock::default(),
            refused: AtomicU64::new(0),
            looks: Mutex::default(),
        };
        let began = Instant::now();
        let outcomes: Vec<Result<Took, Failure>> = thread::scope(|scope| {
            let contest = &contest;
            let client = |number| scope.spawn(move || contest.take_part(number));
            let clients: Vec<_> = (0..CLIENTS).map(client).collect();
            let joined = clients
                .into_iter()
                .map(|client| client.join().expect("a client"));
            joined.collect()
        });
        let mut all = Took::default();
        for outcome in outcomes {
            let took = outcome?;
            all.link.extend(took.link);
            all.unlink.extend(took.unlink);
        }
        println!(
            "{} times in {:.1?}, {} refused; link p50 / p99 {}, unlink {}",
            all.unlink.len(),
            began.elapsed(),
            contest.refused.load(Ordering::Relaxed),
            middle(all.link),
            middle(all.unlink)
        );
        let looks = contest
            .looks
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);

        scene.await_exactly(&[])?;
        scene.gateway.await_settled(SOON)?;
        assert_eq!(scene.gateway.json(["links"])?, json!([]));
        assert_eq!(scene.gateway.json(["quarantine"])?, json!([]));
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "nothing is left behind"
        );

        let probed = probe.stop();
        println!("the probe: {probed}");
        assert_eq!(looks.len() as u32, 2 * TIMES / LOOKED_AT);
        for (is_linked, numbers) in looks {
            let expected = if is_linked {
                numbers.end - numbers.start
            } else {
                0
            };
            let forwarded = probe::arrived(&probed, &numbers);
            assert_eq!(forwarded, expected, "{numbers:?}, linked: {is_linked}");
        }
        for told in asking.stop().into_iter().chain(back.stop()) {
            println!("{told}");
            assert!(told.report.arrived > 0, "{told}");
        }
        // What the router sent was forwarded but for the probe, which it sends whatever is announced.
        let drops = scene.drops()?;
        println!("{drops:?}");
        let of_idc = ["not-linked", "not-linked-source", "no-such-endpoint"];
        let dropped: u64 = of_idc.iter().filter_map(|reason| drops.get(*reason)).sum();
        // On a busy machine a router may take longer than `drain_ms` to put a withdrawal into its kernel. Were links
        // announced a millisecond before they forward, it would be a packet for each of them.
        let late = dropped.checked_sub(probed.lost());
        let late = late.ok_or("the probe lost packets that nobody dropped")?;
        println!("{late} packets came after the withdrawal's time was over");
        assert!(
            late <= u64::from(TIMES / 100),
            "{late} announced and not forwarded"
        );
        Ok(())
    });
}

//! The order of change: forward before announcing, withdraw before removing, and nothing after an
//! acknowledged unlink. Also when many ask at once.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bgp::Family;
use interop::enter;
use interop::gateway::Gateway;
use interop::peer::Router;
use interop::scene::{Scene, WEB, nets};
use interop::topology::plan;
use interop::wait::eventually;
use ipnet::IpNet;

use super::{Failure, SOON, Traffic, addr};

/// Which of the two is looked at first: what is missing in the second look was there in between.
#[derive(Debug, Clone, Copy)]
enum While {
    /// While linking, the router first: what it has must already forward.
    Linking,
    /// While unlinking, the kernel first: what no longer forwards must already be withdrawn.
    Unlinking,
}

/// What a sampler has seen.
#[derive(Debug, Default)]
struct Seen {
    announced: AtomicU64,
    not_announced: AtomicU64,
}

/// Looks at router and kernel in turn until told to stop; fails at the first prefix that is
/// announced and does not forward.
fn sample(
    when: While,
    router: &dyn Router,
    gateway: &Gateway,
    seen: &Seen,
    ended: &AtomicBool,
) -> Result<(), Failure> {
    while !ended.load(Ordering::Relaxed) {
        for (index, family) in Family::ALL.into_iter().enumerate() {
            let subnet: IpNet = WEB[index].parse()?;
            let announced = || -> Result<bool, Failure> {
                Ok(router
                    .routes(family)?
                    .iter()
                    .any(|route| route.prefix == subnet))
            };
            let (announced, forwards) = match when {
                While::Linking => {
                    let announced = announced()?;
                    (announced, forwards(gateway, index)?)
                }
                While::Unlinking => {
                    let forwards = forwards(gateway, index)?;
                    (announced()?, forwards)
                }
            };
            if announced && !forwards {
                return Err(format!("{when:?}: {subnet} is announced and does not forward").into());
            }
            let count = if announced {
                &seen.announced
            } else {
                &seen.not_announced
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Two VMs and a VIP of each family, and a classic host that may reach them.
const REACHED: [(&str, [&str; 3]); 2] = [
    ("10.80.1.10", ["10.1.0.11", "10.1.0.12", "10.1.0.100"]),
    ("fd80:1::a", ["fd00:1::11", "fd00:1::12", "fd00:1::100"]),
];

/// Whether the kernel lets the classic network in to the subnet, and knows its VMs.
fn forwards(gateway: &Gateway, family: usize) -> Result<bool, Failure> {
    let (host, to) = REACHED[family];
    Ok(Scene::kernel_carries(gateway, addr(host), &to.map(addr))?)
}

/// Runs `order` with a sampler beside it, until the sampler has seen `enough` after the order.
fn sampled<T>(
    when: While,
    router: &mut Box<dyn Router>,
    gateway: &Gateway,
    order: impl FnOnce() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (seen, ended) = (Seen::default(), AtomicBool::new(false));
    thread::scope(|scope| {
        let (seen, ended) = (&seen, &ended);
        // The router may be in one thread at a time: it moves there.
        let sampler = scope.spawn(move || sample(when, router.as_ref(), gateway, seen, ended));
        let both =
            || seen.announced.load(Ordering::Relaxed) + seen.not_announced.load(Ordering::Relaxed);
        eventually("the sampler has begun", SOON, || match both() {
            samples if samples >= 2 || sampler.is_finished() => Ok(()),
            samples => Err(samples),
        })?;
        let done = order();
        let count = match when {
            While::Linking => &seen.announced,
            While::Unlinking => &seen.not_announced,
        };
        let start = count.load(Ordering::Relaxed);
        let enough = eventually("the sampler has seen the outcome", SOON, || {
            match count.load(Ordering::Relaxed) - start {
                samples if samples >= 6 => Ok(()),
                // It tells why itself.
                _ if sampler.is_finished() => Ok(()),
                samples => Err(samples),
            }
        });
        ended.store(true, Ordering::Relaxed);
        sampler.join().map_err(|_| "the sampler panicked")??;
        println!("{when:?}: {seen:?}");
        enough?;
        done
    })
}

#[test]
fn nothing_is_announced_that_does_not_forward_nor_forwards_after_unlink() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        // The router sends to the gateway whatever it learns, so it is the gateway that decides.
        for (net, via) in nets(&WEB)?
            .into_iter()
            .zip([plan::GATEWAY4.into(), plan::GATEWAY6.into()])
        {
            scene.region.router_node("bird-1")?.add_route(net, &[via])?;
        }
        let before = scene.kernel()?;
        let traffic = Traffic::start(&scene)?;
        traffic.go_on(50)?;
        let Scene {
            gateway, routers, ..
        } = &mut scene;
        let gateway = &*gateway;
        let link = || Ok(gateway.ccn(["link", "web", "--classic", "office"])?);
        sampled(While::Linking, &mut routers[0], gateway, link)?;
        let linked = traffic.sent();
        traffic.go_on(250)?;
        let unlink = || {
            gateway.ccn(["unlink", "web"])?;
            Ok(traffic.sent())
        };
        let acknowledged = sampled(While::Unlinking, &mut routers[0], gateway, unlink)?;
        traffic.go_on(250)?;
        for ((told, linked), acknowledged) in
            traffic.stop().into_iter().zip(linked).zip(acknowledged)
        {
            let report = told.report;
            // Lost are the packets before the link and those after the unlink, and no others.
            let [before, after] = report.missing.as_slice() else {
                return Err(format!("{report}: {:?}", report.missing).into());
            };
            println!(
                "linked by {linked}, unlinked by {acknowledged}: lost {before:?} and {after:?}"
            );
            assert_eq!(*before.start(), 0);
            assert!(
                *before.end() < linked,
                "packets lost after the acknowledged link"
            );
            assert!(
                *after.start() <= acknowledged,
                "packets forwarded after the acknowledged unlink"
            );
            assert_eq!(
                *after.end() + 1,
                report.sent,
                "packets forwarded after the unlink"
            );
        }
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "unlink leaves nothing behind"
        );
        Ok(())
    });
}

/// An order that may be refused because another client was faster; anything else is a fault.
fn try_order(gateway: &Gateway, args: &[&str]) -> Result<bool, Failure> {
    let finished = gateway.finish(args)?;
    match finished.status.code() {
        Some(0) => Ok(true),
        Some(1) if finished.stderr.contains("already linked") => Ok(false),
        code => Err(format!("{}: {code:?}: {}", finished.command, finished.stderr).into()),
    }
}

#[test]
fn fifty_links_and_unlinks_by_four_clients_end_consistent() {
    const ROUNDS: usize = 13;
    // Two that contend for one pair of VPC and network, two that share a VPC.
    const CLIENTS: [(&str, &str, &str); 4] = [
        ("one", "web", "office"),
        ("two", "web", "office"),
        ("three", "db", "office"),
        ("four", "db", "lab"),
    ];
    enter::test(|lab| {
        let mut scene = Scene::start_with(lab, 1, |config| config.bgp.drain_ms = 10)?;
        let before = scene.kernel()?;
        let gateway = &scene.gateway;
        let outcomes = thread::scope(|scope| {
            let clients = CLIENTS.map(|(name, vpc, classic)| {
                scope.spawn(move || -> Result<usize, Failure> {
                    let mut done = 0;
                    // Who is refused, because the other has it, comes again.
                    while done < ROUNDS {
                        let link = ["link", vpc, "--classic", classic, "--name", name];
                        if try_order(gateway, &link)? {
                            done += 1;
                            gateway.ccn(["unlink", name])?;
                        }
                    }
                    // Some end linked.
                    if vpc == "db" {
                        gateway.ccn(["link", vpc, "--classic", classic, "--name", name])?;
                    }
                    Ok(done)
                })
            });
            clients.map(|client| client.join().expect("a client"))
        });
        let mut done = Vec::new();
        for outcome in outcomes {
            done.push(outcome?);
        }
        assert_eq!(done, [ROUNDS; 4], "linked and unlinked by each client");

        let links = scene.gateway.json(["links"])?;
        let states: BTreeSet<_> = links
            .as_array()
            .into_iter()
            .flatten()
            .map(|link| (link["link"].as_str(), link["state"].as_str()))
            .collect();
        let announced = Some("announced");
        let expected = BTreeSet::from([(Some("three"), announced), (Some("four"), announced)]);
        assert_eq!(states, expected, "{links}");
        scene.await_exactly(&["10.1.1.0/24", "fd00:1:1::/64"])?;
        scene.await_path(&nets(&["10.1.1.0/24", "fd00:1:1::/64"])?, &[])?;
        let alice = scene.region.namespace("alice")?;
        let within = std::time::Duration::from_secs(2);
        let echo = interop::traffic::ping::ping(&alice, addr("10.1.1.21"), 1, within)?;
        assert!(echo.is_perfect(), "{}", echo.said);

        for name in ["three", "four"] {
            scene.gateway.ccn(["unlink", name])?;
        }
        scene.await_exactly(&[])?;
        assert_eq!(
            before.difference(&scene.kernel()?),
            "",
            "nothing is left behind"
        );
        assert_eq!(
            scene.gateway.json(["quarantine"])?.as_array().map(Vec::len),
            Some(0)
        );
        Ok(())
    });
}

//! What must not pass: nothing arrives anywhere, it is counted under its reason, and `ccn explain`
//! says the same.

use std::collections::BTreeMap;
use std::net::IpAddr;

use interop::enter;
use interop::scene::{OFFICE, Scene, WEB, nets};
use interop::topology::{Instance, plan};
use interop::traffic::numbered::{self, Origin, Receiver};
use interop::wait::eventually;
use netlink::Mac;

use super::{Failure, Others, SOON, addr, at, same_family};

const COUNT: u64 = 50;

/// Packets that are to be dropped: who sends them, and what becomes of them.
struct Case {
    what: &'static str,
    /// The node that sends.
    from: &'static str,
    /// Source addresses, one a family.
    src: [&'static str; 2],
    dst: [&'static str; 2],
    /// The VNI they come with; none from the IDC.
    vni: Option<u32>,
    reason: &'static str,
}

const ALICE: [&str; 2] = ["10.80.1.10", "fd80:1::a"];
const CAROL: [&str; 2] = ["10.80.2.10", "fd80:2::a"];
const WEB_1: [&str; 2] = ["10.1.0.11", "fd00:1::11"];
const DB_1: [&str; 2] = ["10.1.1.21", "fd00:1:1::21"];
const STRANGER: [&str; 2] = ["10.9.9.9", "fd99:9::9"];

/// Opens a port at every node that must not be reached, with all its addresses.
fn listeners(scene: &Scene) -> Result<Vec<(String, Receiver)>, Failure> {
    let mut all = Vec::new();
    for host in ["alice", "carol"] {
        let host_addrs = scene.region.host(host)?.addrs();
        for addr in host_addrs {
            let name = format!("{host} {addr}");
            all.push((
                name,
                Receiver::open(&*scene.region.namespace(host)?, at(*addr))?,
            ));
        }
    }
    for vm in [
        "web-1@web",
        "web-2@web",
        "db-1@db",
        "web-1@web-test",
        "db-1@db-test",
    ] {
        for addr in &scene.region.instance(vm)?.addrs {
            let name = format!("{vm} {addr}");
            all.push((
                name,
                Receiver::open(&*scene.region.namespace(vm)?, at(*addr))?,
            ));
        }
    }
    Ok(all)
}

/// Sends what the case is about, and holds the counters against it.
fn judge(scene: &Scene, listeners: &[(String, Receiver)], case: &Case) -> Result<(), Failure> {
    let namespace = scene.region.namespace(case.from)?;
    for (src, dst) in case.src.iter().zip(case.dst) {
        let (src, dst): (IpAddr, IpAddr) = (addr(src), addr(dst));
        let explained = scene.explain(src, dst, case.vni);
        let before = scene.drops()?;
        let refused = numbered::send_off(&Origin::new(&namespace).from(src), at(dst), COUNT)?;
        assert_eq!(refused, 0, "{}: the sender's own kernel refused", case.what);
        let mut expected = before.clone();
        *expected.entry(case.reason.to_owned()).or_default() += COUNT;
        let counted = |counters: &BTreeMap<String, u64>| {
            let changed = counters
                .iter()
                .filter(|(reason, count)| before.get(*reason) != Some(count));
            format!("{:?}", changed.collect::<Vec<_>>())
        };
        let what = format!(
            "{}: {src} > {dst}: {COUNT} drops as {}",
            case.what, case.reason
        );
        eventually(what, SOON, || match scene.drops() {
            Ok(now) if now == expected => Ok(()),
            Ok(now) => Err(counted(&now)),
            Err(error) => Err(error.to_string()),
        })?;
        let verdict = explained?["verdict"].clone();
        assert_eq!(verdict["action"], "drop", "{}: {verdict}", case.what);
        assert_eq!(verdict["reason"], case.reason, "{}: {verdict}", case.what);
        println!(
            "{}: {src} > {dst}: {COUNT} dropped as {}",
            case.what, case.reason
        );
    }
    for (name, receiver) in listeners {
        assert_eq!(receiver.total(), 0, "{}: {name} was reached", case.what);
    }
    Ok(())
}

#[test]
fn nothing_passes_while_nothing_is_linked() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        // The routers know no way to the VPCs: give them one, or nothing would reach the gateway.
        for (net, via) in WEB
            .iter()
            .zip([plan::GATEWAY4.into(), plan::GATEWAY6.into()])
        {
            scene
                .region
                .router_node("bird-1")?
                .add_route(net.parse()?, &[via])?;
        }
        let listeners = listeners(&scene)?;
        let others = Others::watch(&scene)?;
        let cases = [
            Case {
                what: "VPC to classic host",
                from: "web-1@web",
                src: WEB_1,
                dst: ALICE,
                vni: Some(1001),
                reason: "no-link",
            },
            Case {
                what: "classic host to VPC",
                from: "alice",
                src: ALICE,
                dst: WEB_1,
                vni: None,
                reason: "not-linked",
            },
        ];
        for case in &cases {
            judge(&scene, &listeners, case)?;
        }
        others.saw_nothing();
        Ok(())
    });
}

#[test]
fn beside_a_link_all_else_fails_closed() {
    enter::test(|lab| {
        let mut scene = Scene::start(lab, 1)?;
        scene.link("web", "office", &OFFICE)?;
        // A second link, with prefixes that no router announces.
        let silent = ["10.77.0.0/16", "fd77::/32"];
        scene.gateway.ccn([
            "link",
            "web",
            "--name",
            "silent",
            "--classic",
            silent[0],
            silent[1],
        ])?;
        // The router's way to the VPC that is not linked.
        for (net, via) in ["10.1.1.0/24", "fd00:1:1::/64"]
            .iter()
            .zip([plan::GATEWAY4.into(), plan::GATEWAY6.into()])
        {
            scene
                .region
                .router_node("bird-1")?
                .add_route(net.parse()?, &[via])?;
        }
        // A VM that sends with a source that is not its own, and one with a VNI nobody has.
        let spoofed: Vec<_> = STRANGER.iter().map(|s| addr(s).into()).collect();
        scene
            .region
            .instance_node("web-1@web")?
            .add_addresses("eth0", &spoofed)?;
        scene.region.add_instance(Instance {
            name: "ghost".to_owned(),
            vni: 4444,
            mac: Mac([2, 0, 0, 0, 0x44, 0x44]),
            addrs: WEB_1.map(addr).to_vec(),
            vtep: plan::vtep(11).into(),
        })?;
        let listeners = listeners(&scene)?;
        let others = Others::watch(&scene)?;
        let case = |what, from, src, dst, vni, reason| Case {
            what,
            from,
            src,
            dst,
            vni,
            reason,
        };
        let web = Some(1001);
        let cases = [
            case(
                "linked VPC to unlinked classic host",
                "web-1@web",
                WEB_1,
                CAROL,
                web,
                "no-link",
            ),
            case(
                "VPC of the same CCSI, not linked",
                "db-1@db",
                DB_1,
                ALICE,
                Some(1002),
                "no-link",
            ),
            case(
                "VPC of the other CCSI",
                "web-1@web-test",
                WEB_1,
                ALICE,
                Some(2001),
                "no-link",
            ),
            case(
                "unlinked classic host",
                "carol",
                CAROL,
                WEB_1,
                None,
                "not-linked-source",
            ),
            case(
                "linked host to a VPC not linked",
                "alice",
                ALICE,
                DB_1,
                None,
                "not-linked",
            ),
            case(
                "spoofed source, to the IDC",
                "web-1@web",
                STRANGER,
                ALICE,
                web,
                "bad-source",
            ),
            case(
                "spoofed source, to a VM",
                "web-1@web",
                STRANGER,
                DB_1,
                web,
                "bad-source",
            ),
            case(
                "unknown VNI, to a VM",
                "ghost",
                WEB_1,
                DB_1,
                Some(4444),
                "unknown-vni",
            ),
            case(
                "unknown VNI, to the IDC",
                "ghost",
                WEB_1,
                ALICE,
                Some(4444),
                "unknown-vni",
            ),
            case(
                "host to an address without a VM",
                "alice",
                ALICE,
                ["10.1.0.77", "fd00:1::77"],
                None,
                "no-such-endpoint",
            ),
            case(
                "VM to an address without a VM",
                "web-1@web",
                WEB_1,
                ["10.1.1.77", "fd00:1:1::77"],
                web,
                "no-such-endpoint",
            ),
            case(
                "linked prefix that no router announces",
                "web-1@web",
                WEB_1,
                ["10.77.0.1", "fd77::1"],
                web,
                "no-idc-route",
            ),
        ];
        for case in &cases {
            judge(&scene, &listeners, case)?;
        }
        others.saw_nothing();

        // Beside all that, what is linked still passes.
        let office = nets(&OFFICE)?;
        assert_eq!(office.len(), 2);
        for (name, receiver) in &listeners {
            let Some(to) = name.strip_prefix("web-1@web ") else {
                continue;
            };
            let host = same_family(scene.region.host("alice")?.addrs(), addr(to));
            let alice = scene.region.namespace("alice")?;
            let origin = Origin::new(&alice).from(host);
            let report = numbered::send(&origin, receiver.address(), receiver, 100)?;
            assert!(report.is_perfect(), "{report}");
        }
        Ok(())
    });
}

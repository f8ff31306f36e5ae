//! Agents that cannot start: beside another one, without a privilege, in a kernel or on a host that
//! is not as configured. Each says why, ends with 1 and leaves the kernel as it was.

use std::os::unix::fs::chown;

use interop::enter;
use interop::gateway::Gateway;
use interop::process::Finished;
use interop::scene::Scene;
use interop::topology::{KernelState, Region, RegionConfig};
use netlink::{LinkChange, NewLink, Request};

use super::{Failure, Refusal, SOON, World, linked};

/// A gateway's node without an agent, and what would start one.
fn idle(lab: &enter::Lab) -> Result<(Region, Gateway), Failure> {
    let mut region = Region::build(lab, RegionConfig::default())?;
    let namespace = region.gateway().namespace().clone();
    let mac = region.gateway_address().mac;
    let gateway = Gateway::new(lab, namespace, mac, [])?;
    // What a failed start leaves in the folder is there before, so that states compare.
    std::fs::create_dir_all(lab.run().join("gw"))?;
    Ok((region, gateway))
}

/// What somebody made; the kernel makes routes of its own in its own time.
fn made(state: KernelState) -> Vec<String> {
    let mut all = [state.links, state.routes, state.rules, state.neighbours].concat();
    all.retain(|line| !line.contains("protocol: 2,") && !line.contains("protocol: 2 }"));
    all
}

/// Starts an agent that must not come up, and gives back how it ended. The log goes to stderr too.
fn fail_to_start(gateway: &Gateway) -> Result<Finished, Failure> {
    Ok(gateway.launch_agent()?.finish(SOON)?)
}

#[test]
fn a_second_agent_gets_neither_socket_nor_store() {
    enter::test(|lab| {
        let mut scene = linked(lab)?;
        let before = World::of(&mut scene)?;
        let Scene { gateway, .. } = &mut scene;
        let (socket, store) = (
            gateway.config.admin_socket.clone(),
            gateway.config.store.path.clone(),
        );
        let holder = gateway.agent()?.id().to_string();

        gateway.config.store.path = lab.run().join("other.redb");
        let finished = fail_to_start(gateway)?;
        let names = &[
            "another agent listens on",
            socket.to_str().unwrap_or_default(),
        ];
        Refusal { code: 1, names }.is("on one socket", &finished);

        gateway.config.store.path = store.clone();
        gateway.config.admin_socket = lab.run().join("other.sock");
        let finished = fail_to_start(gateway)?;
        let names = &["in use by", &holder, store.to_str().unwrap_or_default()];
        Refusal { code: 1, names }.is("on one store", &finished);
        assert!(
            !lab.run().join("other.sock").exists(),
            "it leaves no socket behind"
        );

        gateway.config.admin_socket = socket;
        assert_eq!(World::of(&mut scene)?, before, "the first one is as it was");
        Ok(())
    });
}

#[test]
fn a_missing_privilege_is_named() {
    enter::test(|lab| {
        let (mut region, mut gateway) = idle(lab)?;
        let before = KernelState::read(region.gateway())?;
        let without = |gateway: &Gateway, capability: &str| -> Result<Finished, Failure> {
            let bounding = format!("--bounding-set=-{capability}");
            let inheritable = format!("--inh-caps=-{capability}");
            let launch = gateway
                .launch_agent()?
                .by("setpriv", [bounding, inheritable]);
            Ok(launch.finish(SOON)?)
        };
        let names = &[
            "missing privilege CAP_NET_ADMIN",
            "run as root or grant CAP_NET_ADMIN",
        ];
        Refusal { code: 1, names }.is("root without it", &without(&gateway, "net_admin")?);
        assert_eq!(before.difference(&KernelState::read(region.gateway())?), "");

        // An ordinary user, who may write where the agent keeps its things.
        let folder = lab.run().join("gw");
        for entry in std::fs::read_dir(&folder)? {
            chown(entry?.path(), Some(65_534), Some(65_534))?;
        }
        chown(&folder, Some(65_534), Some(65_534))?;
        let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        let finished = gateway.launch_agent()?.by("setpriv", user).finish(SOON)?;
        Refusal { code: 1, names }.is("an ordinary user", &finished);
        assert_eq!(before.difference(&KernelState::read(region.gateway())?), "");
        chown(&folder, Some(0), Some(0))?;

        // The port of BGP.
        let names = &[
            "bgp: ",
            "10.99.0.1:179",
            "need the capability CAP_NET_BIND_SERVICE",
        ];
        let finished = without(&gateway, "net_bind_service")?;
        Refusal { code: 1, names }.is("root without the right to low ports", &finished);

        // The same agent with all it needs.
        gateway.start()?;
        gateway.await_settled(SOON)?;
        Ok(())
    });
}

#[test]
fn a_kernel_without_a_feature_is_told_which() {
    enter::test(|lab| {
        let (mut region, gateway) = idle(lab)?;
        let before = KernelState::read(region.gateway())?;
        // As a kernel without IPv6 looks to the agent: its own view of /proc/sys, and nobody else's.
        let without = "mount -t tmpfs none /proc/sys/net/ipv6 && exec \"$@\"";
        let launch = gateway
            .launch_agent()?
            .by("unshare", ["--mount", "sh", "-c", without, "sh"]);
        let names = &["the kernel lacks IPv6", "/proc/sys/net/ipv6/conf"];
        Refusal { code: 1, names }.is("no IPv6", &launch.finish(SOON)?);
        let difference = before.difference(&KernelState::read(region.gateway())?);
        assert_eq!(difference, "", "a start that fails leaves nothing behind");
        Ok(())
    });
}

#[test]
fn what_is_not_as_configured_is_named_and_left_alone() {
    enter::test(|lab| {
        let (mut region, mut gateway) = idle(lab)?;
        let node = region.gateway();
        let before = KernelState::read(node)?;

        let config = gateway.config.clone();
        gateway.config.plane.idc_interfaces = vec!["idc9".to_owned()];
        let names = &["device idc9 named in plane.idc_interfaces does not exist"];
        Refusal { code: 1, names }.is("no such interface", &fail_to_start(&gateway)?);
        gateway.config = config.clone();
        gateway.config.plane.vtep = "172.16.0.77".parse()?;
        let names = &["plane.vtep", "172.16.0.77 is no address of this host"];
        Refusal { code: 1, names }.is("not our address", &fail_to_start(&gateway)?);
        gateway.config = config;
        node.set("net/ipv4/conf/all/rp_filter", "1")?;
        let names = &["net.ipv4.conf.all.rp_filter", "strict"];
        Refusal { code: 1, names }.is("strict reverse path filter", &fail_to_start(&gateway)?);
        node.set("net/ipv4/conf/all/rp_filter", "0")?;
        let difference = before.difference(&KernelState::read(node)?);
        assert_eq!(difference, "", "a start that fails leaves nothing behind");

        // Devices of others with our names: another kind, and one that could be ours but for its maker.
        for (what, link, names) in [
            (
                "a bridge",
                NewLink::bridge("ccn0"),
                [
                    "device ccn0 exists and is not ours",
                    "no external VXLAN device",
                ],
            ),
            (
                "an external VXLAN device",
                NewLink::vxlan_external("ccn0", 4789),
                ["device ccn0 exists and is not ours", "another owner"],
            ),
            (
                "a VXLAN device in the place of a counter",
                NewLink::vxlan("ccn-d-nolink", 7, "172.16.0.1".parse()?, 4790),
                ["device ccn-d-nolink exists and is not ours", "no bridge"],
            ),
        ] {
            let index = node.add_link(link)?.index;
            let owner = LinkChange::of(index).alias("somebody else's");
            node.batch("name its owner", &[Request::change_link(owner)])?;
            let with_it = KernelState::read(node)?;
            Refusal {
                code: 1,
                names: &names,
            }
            .is(what, &fail_to_start(&gateway)?);
            let state = KernelState::read(node)?;
            assert_eq!(made(state), made(with_it), "{what}: left as it was");
            node.batch("take it away", &[Request::delete_link(index)])?;
        }
        gateway.start()?;
        gateway.await_settled(SOON)?;
        Ok(())
    });
}

#[test]
fn a_port_or_a_store_that_cannot_be_had_is_named() {
    enter::test(|lab| {
        let (region, mut gateway) = idle(lab)?;
        let namespace = region.namespace("gw")?;
        let taken = namespace.enter(|| std::net::TcpListener::bind("10.99.0.1:179"))??;
        let names = &["bgp: ", "10.99.0.1:179", "in use"];
        Refusal { code: 1, names }.is("port taken", &fail_to_start(&gateway)?);
        drop(taken);

        let store = gateway.config.store.path.clone();
        std::fs::write(
            &store,
            "not a store at all, but a text of some length\n".repeat(200),
        )?;
        let names = &["store.redb"];
        Refusal { code: 1, names }.is("a store that is none", &fail_to_start(&gateway)?);
        let kept = std::fs::read_to_string(&store)?;
        assert!(
            kept.starts_with("not a store"),
            "a file that is no store is not written to"
        );
        std::fs::remove_file(&store)?;

        let socket = gateway.config.admin_socket.clone();
        std::fs::write(&socket, "somebody's file")?;
        let names = &["exists and is no socket"];
        Refusal { code: 1, names }.is("a file in the socket's place", &fail_to_start(&gateway)?);
        assert_eq!(std::fs::read_to_string(&socket)?, "somebody's file");
        std::fs::remove_file(&socket)?;
        gateway.start()?;
        Ok(())
    });
}

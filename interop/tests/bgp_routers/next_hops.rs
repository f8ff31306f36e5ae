//! Learned routes are used as long as their next hops can be reached.

use interop::enter;
use interop::peer::Daemon;
use interop::topology::{IDC, plan};
use ipnet::IpNet;

use super::encounter::{Encounter, FIRST, Failure, Terms, becomes, is_established, nets, on_idc};

/// What `ccn status` says of next hops that cannot be reached.
fn unreachable(here: &Encounter, expected: &[&str]) -> Result<(), Failure> {
    becomes(
        format!("`ccn status`: {expected:?} cannot be reached"),
        || {
            let status = here.gateway.json(["status"])?;
            let seen = &status["peers"]["unreachable_next_hops"];
            Ok((*seen != serde_json::json!(expected)).then(|| status.to_string()))
        },
    )?;
    Ok(())
}

/// The link to the IDC goes down under a session that has not noticed: the routes go at once, and
/// come back with the link, of the same session.
#[test]
fn the_link_goes_down_and_comes_back() {
    enter::test(|lab| {
        let terms = Terms {
            neighbour: |neighbour| neighbour.hold_time = 240,
            peer: |peer| peer.hold_time = 240,
            ..Terms::default()
        };
        let mut here = Encounter::begin(lab, &[Daemon::Bird], terms)?;
        here.await_sessions()?;
        here.expect_learned()?;
        unreachable(&here, &[])?;

        here.region.gateway().set_down(IDC)?;
        here.expect_forgotten()?;
        let hops = nets(FIRST).map(|net| on_idc(FIRST, net).to_string());
        unreachable(&here, &hops.each_ref().map(String::as_str))?;
        let said = here.gateway.ccn(["status"])?;
        assert!(said.contains("are not used: on no IDC interface"), "{said}");
        let peer = here.peer(0)?;
        assert!(is_established(&peer), "no session was lost: {peer}");
        assert_eq!(peer["prefixes"]["ipv4"]["accepted"], 1, "{peer}");

        let gateway = here.region.gateway();
        gateway.set_up(IDC)?;
        // IPv6 addresses go when a link goes down.
        let address = IpNet::new(plan::GATEWAY6.into(), plan::LENGTH6)?;
        gateway.add_addresses(IDC, &[address])?;
        here.expect_learned()?;
        unreachable(&here, &[])?;
        assert_eq!(here.peer(0)?["sessions"], 1);
        Ok(())
    });
}

/// A next hop beside the IDC's subnets is of no use, also not by way of another learned route, until
/// there is an address in its subnet.
#[test]
fn a_next_hop_elsewhere() {
    enter::test(|lab| {
        let mut here = Encounter::arrange(lab, &[Daemon::Bird], Terms::default())?;
        let [v4, v6] = nets(FIRST);
        let peer = &mut here.gateway.config.bgp.peer[0];
        peer.import.clear();
        peer.more = toml::from_str(
            r#"import = [
                { permit = "10.80.2.0/24", set = { next_hop = "10.98.0.9" } },
                { permit = "10.98.0.0/16", le = 24 },
                { permit = "fd80::/16", le = 64 },
            ]"#,
        )?;
        here.start()?;
        here.await_sessions()?;
        here.expect_route(v6, &[on_idc(FIRST, v6)])?;
        unreachable(&here, &["10.98.0.9"])?;
        here.expect_route(v4, &[])?;

        // A learned route to that next hop is programmed, and does not make it reachable.
        let around: IpNet = "10.98.0.0/24".parse()?;
        here.router().announce(around)?;
        here.expect_route(around, &[on_idc(FIRST, around)])?;
        unreachable(&here, &["10.98.0.9"])?;
        here.expect_route(v4, &[])?;
        here.router().withdraw(around)?;
        here.expect_route(around, &[])?;

        // An address of ours in its subnet does.
        let address: IpNet = "10.98.0.1/24".parse()?;
        here.region.gateway().add_addresses(IDC, &[address])?;
        here.expect_route(v4, &["10.98.0.9".parse()?])?;
        unreachable(&here, &[])
    });
}

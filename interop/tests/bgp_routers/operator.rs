//! What an operator orders of a peer, and of the agent as a speaker.

use interop::enter::{Lab, Outcome};
use interop::peer::Daemon;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::encounter::{Encounter, Failure, SOON, Terms, becomes, is_established, subnets};

with_each_router![peer_down_and_up, drain_and_undrain];

/// `ccn peer down` ends the session with a word for the router's operator, for good; `up` brings it
/// back with everything.
fn peer_down_and_up(lab: &Lab, daemon: Daemon) -> Outcome {
    let mut here = Encounter::linked(lab, &[daemon], Terms::default())?;
    let shown = here.gateway.ccn(["peer", "r2"])?;
    for expected in [
        "established",
        "CAPABILITY",
        "four-octet-as",
        "FAMILY",
        "ipv4",
    ] {
        assert!(shown.contains(expected), "no {expected} in {shown}");
    }
    let status = here.gateway.json(["peer", "r2"])?;
    let used = |name: &str| {
        let list = status["capabilities"].as_array().into_iter().flatten();
        list.into_iter()
            .find(|capability| capability["name"] == name)
            .is_some_and(|capability| capability["in_use"] == true)
    };
    assert!(
        used("route-refresh") && used("graceful-restart"),
        "{status}"
    );

    here.gateway
        .ccn(["peer", "down", "r2", "--text", "maintenance tonight"])?;
    here.await_session_down()?;
    here.expect_not_announced()?;
    let peer = here.await_peer(0, "is down", |peer| !is_established(peer))?;
    assert_eq!(peer["admin_up"], false, "{peer}");
    here.gateway.ccn(["peer", "up", "r2"])?;
    here.await_sessions()?;
    here.expect_announced()?;
    here.expect_learned()?;
    let refreshed = here.gateway.ccn(["peer", "refresh", "r2"])?;
    assert!(
        refreshed.contains("asked for all its routes"),
        "{refreshed}"
    );
    here.expect_learned()?;
    let unknown = here.gateway.finish(["peer", "nobody"])?;
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
    Ok(())
}

/// `ccn drain` marks every route with GRACEFUL_SHUTDOWN, and then withdraws it; `ccn undrain` announces it without.
fn drain_and_undrain(lab: &Lab, daemon: Daemon) -> Outcome {
    let mut here = Encounter::linked(lab, &[daemon], Terms::default())?;
    let net = subnets()[0];
    let marked = |here: &mut Encounter| -> Result<bool, Failure> {
        Ok(here.router().communities(net)?.contains(&(65535, 0)))
    };
    assert!(!marked(&mut here)?);
    let drain = here.gateway.command(["drain", "--settle", "3s"]);
    let draining = std::thread::spawn(|| drain.finish(SOON));
    becomes("the route is marked", || {
        Ok((!marked(&mut here)?).then(|| "it is not".to_owned()))
    })?;
    let said = draining.join().map_err(|_| "the drain panicked")??;
    let said = said.success()?;
    assert!(said.contains("safe to stop: 1 peer told"), "{said}");
    here.expect_not_announced()?;
    let said = here.gateway.ccn(["undrain"])?;
    assert!(said.contains("every peer has it"), "{said}");
    here.expect_announced()?;
    assert!(!marked(&mut here)?);
    assert_eq!(here.peer(0)?["sessions"], 1);
    Ok(())
}

/// A configuration that is read again changes what it changes: the other session does not notice.
#[test]
fn reload() {
    interop::enter::test(|lab| {
        let mut here = Encounter::linked(lab, &[Daemon::Bird, Daemon::Gobgp], Terms::default())?;
        let nothing = here.gateway.ccn(["reload"])?;
        assert!(nothing.contains("nothing has changed"), "{nothing}");

        // One peer goes, the other stays.
        let gone = here.gateway.config.bgp.peer.remove(1);
        here.gateway.launch_agent()?;
        let said = here.gateway.ccn(["reload"])?;
        assert!(said.contains("removed r3"), "{said}");
        let peers = here.gateway.json(["peers"])?;
        assert_eq!(peers.as_array().map(Vec::len), Some(1), "{peers}");

        // It comes back by SIGHUP.
        here.gateway.config.bgp.peer.push(gone);
        here.gateway.launch_agent()?;
        let agent = i32::try_from(here.gateway.agent()?.id())?;
        kill(Pid::from_raw(agent), Signal::SIGHUP)?;
        becomes("the peer is back", || {
            let peers = here.gateway.json(["peers"])?;
            let up = peers
                .as_array()
                .into_iter()
                .flatten()
                .filter(|p| is_established(p));
            Ok((up.count() != 2).then(|| peers.to_string()))
        })?;
        assert_eq!(
            here.peer(0)?["sessions"],
            1,
            "the first session never ended"
        );

        // What cannot change under way is said, and nothing is changed.
        here.gateway.config.plane.mtu = 1400;
        here.gateway.config.bgp.peer.clear();
        here.gateway.launch_agent()?;
        let refused = here.gateway.finish(["reload"])?;
        assert_eq!(refused.status.code(), Some(1));
        assert!(refused.stderr.contains("needs a restart"), "{refused:?}");
        let peers: Value = here.gateway.json(["peers"])?;
        assert_eq!(peers.as_array().map(Vec::len), Some(2), "{peers}");
        Ok(())
    });
}

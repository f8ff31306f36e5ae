//! Routers that the gateway knows by the prefix they connect from.

use interop::enter;
use interop::peer::Daemon;

use super::encounter::{Encounter, Failure, Terms, becomes, is_established};

/// The group, with room for so many.
fn group(limit: u32) -> Result<toml::Table, Failure> {
    let text = format!(
        "[[dynamic]]\nname = \"idc\"\nprefix = \"10.99.0.0/24\"\nlimit = {limit}\nasn = [65002, 65003]\n\
         import = \"all\"\nnext_hop_v4 = \"10.99.0.1\"\nnext_hop_v6 = \"fd99::1\"\nidle_hold = 1.0\n"
    );
    Ok(toml::from_str(&text)?)
}

/// A router that is configured nowhere comes, is told everything and heard; a second one finds no
/// room until the limit is raised, which the first does not notice.
#[test]
fn routers_come_from_a_prefix_as_long_as_there_is_room() {
    enter::test(|lab| {
        let daemons = [Daemon::Bird, Daemon::Bird];
        let mut here = Encounter::arrange(lab, &daemons, Terms::default())?;
        here.gateway.config.bgp.peer.clear();
        here.gateway.config.bgp.more = group(1)?;
        // One after the other: which of them finds room is no matter of chance.
        let second = here.routers.remove(1);
        here.start()?;
        becomes("the router has come", || {
            let peers = here.gateway.json(["peers"])?;
            let only = peers.as_array().filter(|all| all.len() == 1);
            let up = only
                .is_some_and(|all| all[0]["name"] == "idc-10.99.0.2" && is_established(&all[0]));
            Ok((!up).then(|| peers.to_string()))
        })?;
        here.link()?;
        here.expect_announced()?;
        here.expect_learned()?;
        let shown = here.gateway.ccn(["peer", "idc-10.99.0.2"])?;
        assert!(shown.contains("one of the dynamic peers idc"), "{shown}");
        assert!(shown.contains("AS 65002"), "{shown}");

        here.routers.push(second);
        here.routers[1].start()?;
        becomes("the second one is turned away", || {
            let status = here.gateway.json(["status"])?;
            let group = &status["peers"]["dynamic"][0];
            let full = group["full"].as_u64().unwrap_or_default() > 0;
            let one = group["established"] == 1 && group["limit"] == 1;
            Ok((!full || !one).then(|| status.to_string()))
        })?;
        let limits = here.gateway.ccn(["limits"])?;
        assert!(limits.contains("bgp.dynamic.idc"), "{limits}");
        let before = here.session()?;

        here.gateway.config.bgp.more = group(2)?;
        here.gateway.reload()?;
        becomes("both are there", || {
            let status = here.gateway.json(["status"])?;
            let both = status["peers"]["dynamic"][0]["established"] == 2;
            Ok((!both).then(|| status.to_string()))
        })?;
        assert_eq!(here.session()?, before, "the first one did not notice");
        let status = here.gateway.ccn(["status"])?;
        assert!(status.contains("2 of at most 2"), "{status}");

        // No longer welcome.
        here.gateway.config.bgp.more.clear();
        let said = here.gateway.reload()?;
        assert!(said.contains("removed idc-10.99.0.2"), "{said}");
        here.await_session_down()?;
        here.expect_not_announced()?;
        here.expect_forgotten()
    });
}

//! What the two sides are to each other (RFC 9234), with BIRD, which has roles.

use interop::enter::{self, Lab};
use interop::peer::Daemon;

use super::encounter::{Encounter, FIRST, Failure, Terms, becomes, nets, subnets};

/// An encounter of two roles: ours, the router's.
fn of_roles(
    lab: &Lab,
    ours: &str,
    neighbour: fn(&mut interop::peer::NeighbourConfig),
) -> Result<Encounter, Failure> {
    let terms = Terms {
        neighbour,
        ..Terms::default()
    };
    let mut here = Encounter::arrange(lab, &[Daemon::Bird], terms)?;
    let peer = &mut here.gateway.config.bgp.peer[0];
    peer.more.insert("role".to_owned(), ours.into());
    Ok(here)
}

fn role_in_use(here: &Encounter) -> Result<bool, Failure> {
    let peer = here.peer(0)?;
    let all = peer["capabilities"].as_array().into_iter().flatten();
    let mut roles = all.filter(|capability| capability["name"] == "role");
    Ok(roles.any(|capability| capability["in_use"] == true))
}

/// A provider marks what it tells its customer (OTC), and the customer sees by whom.
#[test]
fn what_a_provider_tells_is_marked() {
    enter::test(|lab| {
        let customer: fn(&mut interop::peer::NeighbourConfig) = |n| n.role = Some("customer");
        let mut here = of_roles(lab, "provider", customer)?;
        here.start()?;
        here.await_sessions()?;
        assert!(role_in_use(&here)?);
        here.link()?;
        here.expect_announced()?;
        for prefix in subnets() {
            let prefix = prefix.to_string();
            becomes(format!("BIRD shows who marked {prefix}"), || {
                let said = here.router().cli(&["show", "route", &prefix, "all"])?;
                Ok((!said.contains("BGP.otc: 65001")).then_some(said))
            })?;
        }
        here.expect_learned()
    });
}

/// A customer takes what its provider tells it, marked by the provider or by itself.
#[test]
fn what_a_customer_hears_is_taken() {
    enter::test(|lab| {
        let provider: fn(&mut interop::peer::NeighbourConfig) = |n| n.role = Some("provider");
        let mut here = of_roles(lab, "customer", provider)?;
        here.start()?;
        here.await_sessions()?;
        assert!(role_in_use(&here)?);
        here.expect_learned()?;
        // What a customer tells its provider is not marked.
        here.link()?;
        here.expect_announced()?;
        let prefix = subnets()[0].to_string();
        let said = here.router().cli(&["show", "route", &prefix, "all"])?;
        assert!(!said.contains("BGP.otc"), "{said}");
        Ok(())
    });
}

/// Two that both take themselves for the provider do not come together, and both say why.
#[test]
fn roles_that_do_not_fit() {
    enter::test(|lab| {
        let provider: fn(&mut interop::peer::NeighbourConfig) = |n| n.role = Some("provider");
        let mut here = of_roles(lab, "provider", provider)?;
        let capture = here.capture()?;
        here.start()?;
        becomes("`ccn peers` says why", || {
            let peer = here.peer(0)?;
            let why = peer["last_error"].as_str().unwrap_or_default().to_owned();
            Ok((!why.to_lowercase().contains("role")).then(|| peer.to_string()))
        })?;
        becomes("BIRD says why", || {
            let why = here.session()?.last_error.unwrap_or_default();
            Ok((!why.to_lowercase().contains("role")).then_some(why))
        })?;
        for prefix in nets(FIRST) {
            here.expect_route(prefix, &[])?;
        }
        // NOTIFICATION, OPEN Message Error, Role Mismatch, by whoever was first.
        let pcap = lab.scratch().join("roles.pcap");
        let frames = capture.stop();
        frames.write(&pcap)?;
        let fields = ["bgp.notify.major_error", "bgp.notify.minor_error_open"];
        let rows = interop::capture::tshark::fields(&pcap, "bgp.type == 3", &fields)?;
        assert!(
            rows.iter().any(|row| row[..] == ["2", "11"]),
            "no NOTIFICATION 2/11: {rows:?}"
        );

        // Once they fit, the session comes.
        here.gateway.config.bgp.peer[0]
            .more
            .insert("role".to_owned(), "customer".into());
        here.gateway.reload()?;
        here.await_sessions()?;
        here.expect_learned()
    });
}

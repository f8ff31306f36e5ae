//! What policies and aggregates of the agent's configuration do to the routes a router sees, and
//! that a reload applies them without ending the session.

use interop::enter;
use interop::peer::Daemon;
use ipnet::IpNet;

use super::encounter::{Encounter, FIRST, Failure, Terms, becomes, nets, on_idc, subnets};

/// Waits until `birdc show route PREFIX all` has a line for each of these, and none of those.
fn shows(here: &mut Encounter, prefix: IpNet, lines: &[&str], not: &[&str]) -> Result<(), Failure> {
    let prefix = prefix.to_string();
    becomes(
        format!("BIRD shows {lines:?} of {prefix}, not {not:?}"),
        || {
            let said = here.router().cli(&["show", "route", &prefix, "all"])?;
            let right = lines.iter().all(|line| said.contains(line));
            let wrong = not.iter().any(|line| said.contains(line));
            Ok((!right || wrong).then_some(said))
        },
    )?;
    Ok(())
}

/// Waits until BIRD has a route to exactly these of some prefixes.
fn has(here: &mut Encounter, expected: &[(&str, bool)]) -> Result<(), Failure> {
    for (prefix, there) in expected {
        let prefix: IpNet = prefix.parse()?;
        becomes(format!("BIRD has {prefix}: {there}"), || {
            let routes = here.at_router(prefix)?;
            Ok((routes.is_empty() == *there).then(|| format!("{routes:?}")))
        })?;
    }
    Ok(())
}

/// Sets what the file says of the first router beside the usual, and has it read.
fn set(here: &mut Encounter, text: &str) -> Result<(), Failure> {
    here.gateway.config.bgp.peer[0].more = toml::from_str(text)?;
    let said = here.gateway.reload()?;
    assert!(said.contains("changed r2"), "{said}");
    Ok(())
}

/// Every action of an export policy, seen by BIRD; changed and taken back by reload.
#[test]
fn what_goes_out() {
    enter::test(|lab| {
        let mut here = Encounter::linked(lab, &[Daemon::Bird], Terms::default())?;
        let before = here.session()?;
        let [v4, v6] = subnets();
        set(
            &mut here,
            r#"
                [export]
                local = [
                    { permit = "192.168.0.0/16", le = 24, prepend = 2, set = { med = 77 }, add = {
                      communities = ["65001:80"], large_communities = ["65001:7:4000000000"],
                      ext_communities = ["rt:65001:90"] } },
                    { permit = "fd10::/16", le = 64, set = { next_hop = "fd99::99" } },
                ]
            "#,
        )?;
        shows(
            &mut here,
            v4,
            &[
                "BGP.as_path: 65001 65001 65001",
                "BGP.med: 77",
                "BGP.community: (65001,80)",
                "BGP.large_community: (65001, 7, 4000000000)",
                "BGP.ext_community: (rt, 65001, 90)",
                "BGP.next_hop: 10.99.0.1",
            ],
            &[],
        )?;
        shows(
            &mut here,
            v6,
            &["BGP.as_path: 65001\n", "BGP.next_hop: fd99::99"],
            &["BGP.med", "community"],
        )?;

        // The first match decides: one subnet is not told any more, the other otherwise.
        set(
            &mut here,
            r#"
                [export]
                local = [
                    { deny = "192.168.10.0/24" },
                    { permit = "any", set = { med = 5 } },
                ]
            "#,
        )?;
        has(&mut here, &[("192.168.10.0/24", false)])?;
        shows(
            &mut here,
            v6,
            &["BGP.med: 5", "BGP.next_hop: fd99::1"],
            &["fd99::99"],
        )?;
        let links = here.gateway.json(["links"])?;
        assert_eq!(links[0]["advertised_to"][0], "r2", "{links}");

        set(&mut here, "export = \"none\"")?;
        here.expect_not_announced()?;
        let links = here.gateway.json(["links"])?;
        assert_eq!(links[0]["advertised_to"], serde_json::json!([]), "{links}");

        set(&mut here, "")?;
        here.expect_announced()?;
        shows(
            &mut here,
            v4,
            &["BGP.as_path: 65001\n"],
            &["BGP.med", "community"],
        )?;
        assert_eq!(here.session()?, before, "never reset");
        assert_eq!(here.peer(0)?["sessions"], 1);
        Ok(())
    });
}

/// An import list takes what it permits, changed as it says; another one is applied by refresh.
#[test]
fn what_comes_in() {
    enter::test(|lab| {
        let mut here = Encounter::linked(lab, &[Daemon::Bird], Terms::default())?;
        let before = here.session()?;
        let [v4, v6] = nets(FIRST);
        here.gateway.config.bgp.peer[0].import.clear();
        set(
            &mut here,
            r#"import = [{ permit = "10.80.0.0/16", le = 24, prepend = 1, set = { local_pref = 200 } }]"#,
        )?;
        here.expect_route(v4, &[on_idc(FIRST, v4)])?;
        here.expect_route(v6, &[])?;
        becomes("`ccn routes`: the path is longer by one", || {
            let routes = here.gateway.json(["routes"])?;
            let all = routes.as_array().into_iter().flatten();
            let mut paths = all.filter(|r| r["prefix"] == v4.to_string());
            let right = paths.any(|route| route["as_path"] == "65002 65002");
            Ok((!right).then(|| routes.to_string()))
        })?;

        // ge keeps the shorter one out.
        set(
            &mut here,
            r#"import = [{ permit = "10.80.0.0/16", ge = 25 }, { permit = "fd80::/16", le = 64 }]"#,
        )?;
        here.expect_route(v4, &[])?;
        here.expect_route(v6, &[on_idc(FIRST, v6)])?;
        let long: IpNet = "10.80.2.128/25".parse()?;
        here.router().announce(long)?;
        here.expect_route(long, &[on_idc(FIRST, long)])?;
        here.router().withdraw(long)?;

        here.gateway.config.bgp.peer[0].import = "all".to_owned();
        set(&mut here, "")?;
        here.expect_learned()?;
        assert_eq!(here.session()?, before, "never reset");
        Ok(())
    });
}

/// An aggregate is seen by BIRD as long as a link is inside it, alone or beside the subnets.
#[test]
fn aggregates() {
    enter::test(|lab| {
        let mut here = Encounter::linked(lab, &[Daemon::Bird], Terms::default())?;
        let before = here.session()?;
        let (subnet, outer) = ("192.168.10.0/24", "192.168.0.0/16");
        has(&mut here, &[(subnet, true), (outer, false)])?;
        let aggregate = |summary_only: bool| {
            let text = format!(
                "[[aggregate]]\nprefix = \"{outer}\"\nsummary_only = {summary_only}\n\
                 communities = [\"65001:16\"]\n"
            );
            toml::from_str::<toml::Table>(&text)
        };

        here.gateway.config.bgp.more = aggregate(false)?;
        here.gateway.reload()?;
        has(&mut here, &[(subnet, true), (outer, true)])?;
        shows(
            &mut here,
            outer.parse()?,
            &[
                "BGP.atomic_aggr",
                "BGP.aggregator: 10.99.0.1 AS65001",
                "BGP.community: (65001,16)",
                "BGP.next_hop: 10.99.0.1",
            ],
            &[],
        )?;
        let routes = here.gateway.json(["routes"])?;
        let all = routes.as_array().into_iter().flatten();
        let shown: Vec<_> = all.filter(|r| r["direction"] == "aggregate").collect();
        assert_eq!(shown.len(), 1, "{routes}");
        assert_eq!(shown[0]["prefix"], outer, "{routes}");
        assert_eq!(shown[0]["links"], serde_json::json!(["web"]), "{routes}");

        // Alone: the link counts as told all the same.
        here.gateway.config.bgp.more = aggregate(true)?;
        here.gateway.reload()?;
        has(
            &mut here,
            &[(subnet, false), (outer, true), ("fd10:10::/64", true)],
        )?;
        let links = here.gateway.json(["links"])?;
        assert_eq!(links[0]["advertised_to"][0], "r2", "{links}");

        // It goes with the link, comes with it, and goes from the file.
        here.unlink()?;
        has(&mut here, &[(subnet, false), (outer, false)])?;
        here.link()?;
        has(&mut here, &[(subnet, false), (outer, true)])?;
        here.gateway.config.bgp.more.clear();
        here.gateway.reload()?;
        has(&mut here, &[(subnet, true), (outer, false)])?;
        assert_eq!(here.session()?, before, "never reset");
        Ok(())
    });
}

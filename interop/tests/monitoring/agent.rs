//! The agent's own files about a real session with BIRD.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use interop::enter::{self, Lab, Outcome};
use interop::gateway::MrtSection;
use interop::scene::{LAB, OFFICE, Scene};
use interop::wait::eventually;

use super::mrt::bgpdump;

const SOON: Duration = Duration::from_secs(20);

#[test]
fn bgpdump_reads_what_a_router_told_the_agent() {
    enter::test(|lab| routes_of_a_router(lab, &lab.scratch().join("updates.mrt")));
}

/// Peer, its AS, prefix and path of each announcement or table entry in a file.
fn routes(lines: &[String]) -> BTreeSet<String> {
    let fields = |line: &String| {
        let fields: Vec<&str> = line.split('|').collect();
        match fields[..] {
            ["TABLE_DUMP2", _, "B", peer, asn, prefix, path, ..]
            | ["BGP4MP_ET", _, "A", peer, asn, prefix, path, ..] => {
                Some(format!("{prefix} from {peer} of {asn}: {path}"))
            }
            _ => None,
        }
    };
    lines.iter().filter_map(fields).collect()
}

fn routes_of_a_router(lab: &Lab, log: &Path) -> Outcome {
    let scene = Scene::start_with(lab, 1, |config| {
        config.bgp.mrt = Some(MrtSection {
            updates: log.to_owned(),
        });
    })?;
    let told = OFFICE.into_iter().chain(LAB);
    let told = told.map(|prefix| format!("{prefix} from 10.99.0.2 of 65002: 65002"));
    let told: BTreeSet<String> = told.collect();

    let table = lab.scratch().join("table.mrt");
    let place = table.display().to_string();
    let dumped = scene.gateway.json(["mrt", "dump", place.as_str()])?;
    assert_eq!(dumped["prefixes"], told.len(), "{dumped}");
    assert_eq!(dumped["routes"], told.len(), "{dumped}");
    let lines = bgpdump(&table)?;
    assert_eq!(routes(&lines), told, "{lines:#?}");

    // For people, and a place that is none.
    let said = scene.gateway.ccn(["mrt", "dump", place.as_str()])?;
    assert_eq!(said.trim(), format!("{place}: 4 routes to 4 prefixes"));
    let nowhere = lab.scratch().join("none/table.mrt").display().to_string();
    let refused = scene.gateway.finish(["mrt", "dump", nowhere.as_str()])?;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("none/table.mrt"), "{refused:?}");

    let logged = eventually("the log has all of it", SOON, || {
        let lines = bgpdump(log).map_err(|error| error.to_string())?;
        match routes(&lines) == told {
            true => Ok(lines),
            false => Err(format!("{lines:#?}")),
        }
    })?;
    let up = |line: &String| line.ends_with("|STATE|10.99.0.2|65002|5|6");
    assert!(logged.iter().any(up), "{logged:#?}");
    Ok(())
}

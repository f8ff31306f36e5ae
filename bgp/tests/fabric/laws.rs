//! Laws that hold in any fabric of speakers once it is quiet, whatever happened before.

use std::collections::BTreeMap;
use std::time::Instant;

use bgp::config::AddPath;
use bgp::core::Core;
use bgp::{PeerStatus, SessionState};

use crate::shape::Shape;
use crate::simulation::{Fabric, address, name};

/// # Errors
/// The first law that does not hold, with what was seen.
pub(crate) fn check(shape: &Shape, fabric: &Fabric) -> Result<(), String> {
    if let Some(wrong) = fabric.wrong() {
        return Err(wrong.to_owned());
    }
    sessions_are_up(shape, fabric)?;
    one_connection_each(shape, fabric)?;
    what_is_told_is_what_is_heard(shape, fabric)?;
    for (node, state) in fabric.nodes.iter().enumerate() {
        let follows = state.follower.check(&state.core);
        follows.map_err(|wrong| format!("{node}: {wrong}"))?;
    }
    if shape.everything_everywhere {
        everything_is_known_everywhere(fabric)?;
    }
    Ok(())
}

fn sessions_are_up(shape: &Shape, fabric: &Fabric) -> Result<(), String> {
    for &(a, b) in &shape.peerings {
        for (here, there) in [(a, b), (b, a)] {
            if fabric.state(here, there) != Some(SessionState::Established) {
                let (mine, theirs) = (&fabric.nodes[here].core, &fabric.nodes[there].core);
                let (mine, theirs) = (states(mine), states(theirs));
                return Err(format!("no session {here}-{there}: {mine:#?} {theirs:#?}"));
            }
        }
    }
    Ok(())
}

fn states(core: &Core) -> Vec<String> {
    let peers = core.peers(Instant::now()).into_iter();
    let state = |peer: PeerStatus| {
        let (name, state, error) = (peer.name, peer.state, peer.last_error);
        format!(
            "{name} {state} {error:?} {:?} {:?}",
            peer.prefixes, peer.notes
        )
    };
    peers.map(state).collect()
}

fn one_connection_each(shape: &Shape, fabric: &Fabric) -> Result<(), String> {
    let mut counts: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for [(a, a_open), (b, b_open)] in fabric.connections() {
        if !(a_open && b_open) {
            return Err(format!("a connection between {a} and {b} is half open"));
        }
        *counts.entry((a.min(b), a.max(b))).or_default() += 1;
    }
    let expected = shape.peerings.iter().map(|pair| (*pair, 1)).collect();
    match counts == expected {
        true => Ok(()),
        false => Err(format!("connections by pair: {counts:?}")),
    }
}

fn what_is_told_is_what_is_heard(shape: &Shape, fabric: &Fabric) -> Result<(), String> {
    let advertised: Vec<_> = fabric
        .nodes
        .iter()
        .map(|node| node.core.advertised())
        .collect();
    for (here, there) in shape.peerings.iter().flat_map(|&(a, b)| [(a, b), (b, a)]) {
        let told = advertised[here].get(name(there).as_str());
        let told = told.ok_or_else(|| format!("{here} has no session with {there}"))?;
        let heard = fabric.nodes[there].core.received_from(&name(here));
        // Where there are several paths to a prefix, it stands there once for each.
        let mut prefixes: Vec<_> = heard.iter().map(|(prefix, _)| prefix).collect();
        prefixes.dedup();
        if !told.keys().eq(prefixes.iter().copied()) {
            let told: Vec<_> = told.keys().map(|prefix| prefix.to_string()).collect();
            let heard: Vec<_> = prefixes.iter().map(|prefix| prefix.to_string()).collect();
            return Err(format!(
                "{here} told {there} {told:?}, which heard {heard:?}"
            ));
        }
        if several_paths(shape, here, there) {
            continue;
        }
        for (prefix, attributes) in &heard {
            if let Some(attributes) = attributes
                && *attributes != *told[prefix]
            {
                return Err(format!(
                    "{here} told {there} of {prefix} {:?}, which heard {attributes:?}",
                    told[prefix]
                ));
            }
        }
    }
    for (here, node) in fabric.nodes.iter().enumerate() {
        for peer in node.core.peers(Instant::now()) {
            for (family, counts) in peer.prefixes {
                let told = &advertised[here][&peer.name];
                let told = told.keys().filter(|prefix| prefix.family() == family);
                // Of several paths to a prefix, each counts.
                if counts.pending != 0 || counts.advertised < told.count() {
                    let name = peer.name;
                    return Err(format!("{here} counts {counts:?} of {family} to {name}"));
                }
            }
        }
    }
    Ok(())
}

/// Whether one may tell the other more than its best path.
fn several_paths(shape: &Shape, here: usize, there: usize) -> bool {
    let add_path = |here: usize, there: usize| {
        let mut peers = shape.configs[here].peers.iter();
        let peer = peers.find(|peer| peer.address == address(there));
        peer.map_or(AddPath::Off, |peer| peer.capabilities.add_path)
    };
    add_path(here, there).sends() && add_path(there, here).receives()
}

fn everything_is_known_everywhere(fabric: &Fabric) -> Result<(), String> {
    let nodes = &fabric.nodes;
    let tables = nodes.iter().map(|node| {
        let routes = node.core.routes().into_iter();
        routes.map(|route| route.prefix).collect::<Vec<_>>()
    });
    let tables: Vec<_> = tables.collect();
    for (here, known) in tables.iter().enumerate() {
        for (origin, node) in nodes.iter().enumerate() {
            for prefix in node.announced.keys() {
                if !nodes[here].announced.contains_key(prefix) && !known.contains(prefix) {
                    return Err(format!("{here} does not know {prefix} of {origin}"));
                }
            }
        }
        for prefix in known {
            if !nodes.iter().any(|node| node.announced.contains_key(prefix)) {
                return Err(format!("{here} knows {prefix}, which is gone"));
            }
        }
    }
    Ok(())
}

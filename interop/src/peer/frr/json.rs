//! The reading of what `vtysh` prints as JSON.

use std::net::IpAddr;

use bgp::bfd;
use ipnet::IpNet;
use serde::Deserialize;

use super::super::{LearnedRoute, Session, SessionState};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NeighborJson {
    bgp_state: String,
    #[serde(default)]
    connections_established: u64,
    last_reset_due_to: Option<String>,
    last_notification_reason: Option<String>,
}

pub(super) fn parse_session(text: &str, neighbour: IpAddr) -> Result<Session, String> {
    let mut all: std::collections::BTreeMap<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| error.to_string())?;
    let said = all
        .remove(&neighbour.to_string())
        .ok_or("no such neighbour in the answer")?;
    let said: NeighborJson = serde_json::from_value(said).map_err(|error| error.to_string())?;
    let state = match said.bgp_state.as_str() {
        "Clearing" | "Deleted" => SessionState::Idle,
        other => SessionState::named(other).ok_or(format!("session state {other:?}"))?,
    };
    Ok(Session {
        state,
        since: format!("connection {}", said.connections_established),
        last_error: said.last_notification_reason.or(said.last_reset_due_to),
    })
}

#[derive(Deserialize)]
struct BfdPeerJson {
    peer: IpAddr,
    status: String,
}

pub(super) fn parse_bfd(text: &str, neighbour: IpAddr) -> Result<bfd::State, String> {
    let peers: Vec<BfdPeerJson> =
        serde_json::from_str(text).map_err(|error| format!("{error}: {text:?}"))?;
    let peer = peers.iter().find(|peer| peer.peer == neighbour);
    match peer.map(|peer| peer.status.as_str()) {
        Some("shutdown") => Ok(bfd::State::AdminDown),
        Some("down") => Ok(bfd::State::Down),
        Some("init") => Ok(bfd::State::Init),
        Some("up") => Ok(bfd::State::Up),
        other => Err(format!("BFD state {other:?} of {neighbour} in {text:?}")),
    }
}

#[derive(Deserialize)]
struct TableJson {
    #[serde(default)]
    routes: std::collections::BTreeMap<IpNet, Vec<PathJson>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PathJson {
    #[serde(default)]
    bestpath: bool,
    #[serde(default)]
    stale: bool,
    path: String,
    metric: Option<u32>,
    /// `(unspec)` for what the router originates itself.
    peer_id: String,
    nexthops: Vec<NextHopJson>,
}

#[derive(Deserialize)]
struct NextHopJson {
    ip: IpAddr,
    scope: Option<String>,
}

fn global_next_hop(next_hops: &[NextHopJson]) -> Option<IpAddr> {
    let global = |hop: &&NextHopJson| hop.scope.as_deref() != Some("link-local");
    next_hops
        .iter()
        .find(global)
        .or(next_hops.first())
        .map(|hop| hop.ip)
}

pub(super) fn parse_routes(text: &str) -> Result<Vec<LearnedRoute>, serde_json::Error> {
    let table: TableJson = serde_json::from_str(text)?;
    let mut routes = Vec::new();
    for (prefix, paths) in table.routes {
        for path in paths.into_iter().filter(|path| path.peer_id != "(unspec)") {
            let bad = |what: &str| {
                serde::de::Error::custom(format!("{what} of a path to {prefix}: {}", path.path))
            };
            let asns = path
                .path
                .split(|c: char| !c.is_ascii_digit())
                .filter(|s| !s.is_empty());
            routes.push(LearnedRoute {
                prefix,
                next_hop: global_next_hop(&path.nexthops).ok_or_else(|| bad("next hop"))?,
                as_path: asns
                    .map(|asn| asn.parse().map_err(|_| bad("AS path")))
                    .collect::<Result<_, _>>()?,
                med: path.metric,
                best: path.bestpath,
                stale: path.stale,
            });
        }
    }
    Ok(routes)
}

#[derive(Deserialize)]
struct PrefixJson {
    #[serde(default)]
    paths: Vec<PrefixPathJson>,
}

#[derive(Deserialize)]
pub(super) struct PrefixPathJson {
    bestpath: Option<BestPathJson>,
    pub(super) community: Option<CommunityJson>,
    #[serde(rename = "largeCommunity")]
    pub(super) large_community: Option<CommunityJson>,
}

#[derive(Deserialize)]
struct BestPathJson {
    #[serde(default)]
    overall: bool,
}

#[derive(Deserialize)]
pub(super) struct CommunityJson {
    pub(super) list: Vec<String>,
}

pub(super) fn parse_best(text: &str) -> Result<Option<PrefixPathJson>, serde_json::Error> {
    let said: PrefixJson = serde_json::from_str(text)?;
    let best = |path: &PrefixPathJson| path.bestpath.as_ref().is_some_and(|best| best.overall);
    Ok(said.paths.into_iter().find(best))
}

/// FRR prints well-known communities by name.
pub(super) fn community(name: &str) -> Result<(u16, u16), String> {
    match name {
        "gracefulShutdown" => Ok((65535, 0)),
        "blackhole" => Ok((65535, 666)),
        "noExport" => Ok((65535, 65281)),
        "noAdvertise" => Ok((65535, 65282)),
        "localAs" => Ok((65535, 65283)),
        pair => pair
            .split_once(':')
            .and_then(|(high, low)| Some((high.parse().ok()?, low.parse().ok()?)))
            .ok_or_else(|| format!("community {pair:?}")),
    }
}

pub(super) fn large_community(text: &str) -> Result<(u32, u32, u32), String> {
    let numbers: Result<Vec<u32>, _> = text.split(':').map(str::parse).collect();
    match numbers.as_deref() {
        Ok([global, first, second]) => Ok((*global, *first, *second)),
        _ => Err(format!("large community {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bfd_is_read_as_vtysh_prints_it() {
        let text = r#"[{"multihop":false,"peer":"10.99.0.1","local":"10.99.0.2","vrf":"default",
            "interface":"idc0","id":1,"remote-id":2,"status":"up","uptime":3},
            {"peer":"10.99.0.3","status":"shutdown"}]"#;
        let of = |address: &str| parse_bfd(text, address.parse().expect("an address"));
        assert_eq!(of("10.99.0.1"), Ok(bfd::State::Up));
        assert_eq!(of("10.99.0.3"), Ok(bfd::State::AdminDown));
        assert!(of("10.99.0.2").is_err());
    }

    #[test]
    fn routes_are_read_as_vtysh_prints_them() {
        let text = r#"{"vrfId":0,"routes":{"fd80:1::/48":[{"stale":true,"valid":true,
            "bestpath":true,"pathFrom":"external","prefix":"fd80:1::","prefixLen":48,"metric":7,
            "peerId":"10.99.0.2","path":"65002 4200000003","origin":"IGP","nexthops":[
              {"ip":"fe80::1","afi":"ipv6","scope":"link-local","used":true},
              {"ip":"fd99::2","afi":"ipv6","scope":"global"}]}],
            "fd84:1::/48":[{"valid":true,"bestpath":true,"peerId":"(unspec)","path":"",
              "nexthops":[{"ip":"::","afi":"ipv6","scope":"global","used":true}]}]}}"#;
        let learned = LearnedRoute {
            prefix: "fd80:1::/48".parse().expect("a prefix"),
            next_hop: "fd99::2".parse().expect("an address"),
            as_path: vec![65002, 4_200_000_003],
            med: Some(7),
            best: true,
            stale: true,
        };
        assert_eq!(parse_routes(text).expect("readable"), [learned]);
    }

    #[test]
    fn communities_are_read_as_vtysh_prints_them() {
        let text = r#"{"paths":[{"community":{"list":["1:1"]}},
            {"bestpath":{"overall":true,"selectionReason":"Older Path"},
             "community":{"string":"65003:1 graceful-shutdown",
                          "list":["65003:1","gracefulShutdown"]},
             "largeCommunity":{"string":"65003:1:4200000000","list":["65003:1:4200000000"]}}]}"#;
        let best = parse_best(text).expect("readable").expect("a best path");
        let all = best.community.expect("communities").list;
        let all: Vec<_> = all.iter().map(|name| community(name)).collect();
        assert_eq!(all, [Ok((65003, 1)), Ok((65535, 0))]);
        let all = best.large_community.expect("large communities").list;
        let all: Vec<_> = all.iter().map(|text| large_community(text)).collect();
        assert_eq!(all, [Ok((65003, 1, 4_200_000_000))]);
        assert!(parse_best("{}").expect("readable").is_none());
    }

    #[test]
    fn sessions_are_read_as_vtysh_prints_them() {
        let text = r#"{"10.99.0.2":{"bgpState":"Established","connectionsEstablished":2,
            "lastResetDueTo":"No AFI\/SAFI activated for peer"}}"#;
        let session = parse_session(text, "10.99.0.2".parse().expect("an address"));
        let session = session.expect("readable");
        assert_eq!(session.state, SessionState::Established);
        assert_eq!(session.since, "connection 2");
    }
}

//! What a fabric looks like: who peers with whom, in which ASes, under what terms. Drawn from the
//! seed, so that every combination of options comes up in some fabric.

use std::net::Ipv4Addr;
use std::time::Duration;

use bgp::config::{AddPath, Capabilities, LimitAction, MaxPrefixes, PrefixLimit};
use bgp::core::Backlog;
use bgp::wire::Role;
use bgp::{
    ExportPolicy, Family, GracefulRestart, ImportPolicy, Multipath, PeerConfig, SpeakerConfig,
};

use crate::chance::Chance;
use crate::simulation::{address, name};

/// Policies beside "all", as a user writes them (in JSON).
const EXPORTS: [&str; 4] = [
    r#""local""#,
    r#"{"all":[{"deny":"10.0.0.0/13","le":32},{"permit":"any","set":{"med":7}}]}"#,
    r#"{"all":[{"permit":"any","from":"local"},{"permit":"fd00::/16","le":64,"prepend":2}]}"#,
    r#"{"all":[{"permit":"any","add":{"communities":"65000:1"}}]}"#,
];
const IMPORTS: [&str; 2] = [
    r#"[{"deny":"10.0.0.0/12","le":32},{"permit":"any"}]"#,
    r#"[{"permit":"10.0.0.0/8","le":24}]"#,
];

/// Who fits whom (RFC 9234 section 4.2).
const ROLES: [[Role; 2]; 4] = [
    [Role::Provider, Role::Customer],
    [Role::Customer, Role::Provider],
    [Role::Peer, Role::Peer],
    [Role::RouteServer, Role::RouteServerClient],
];

/// What a fabric looks like.
#[derive(Debug)]
pub(crate) struct Shape {
    /// Who peers with whom.
    pub(crate) peerings: Vec<(usize, usize)>,
    pub(crate) configs: Vec<SpeakerConfig>,
    pub(crate) backlogs: Vec<Backlog>,
    /// Silence is noticed on every session.
    pub(crate) noticed: bool,
    /// Everybody is external to everybody, and policies let everything through.
    pub(crate) everything_everywhere: bool,
}

pub(crate) fn shape(seed: u64) -> Shape {
    let mut chance = Chance::new(seed ^ 0x5eed);
    let count = 2 + chance.below(7) as usize;
    let asns = asns(count, &mut chance);
    let peerings = peerings(count, &mut chance);
    let mut configs: Vec<SpeakerConfig> = (0..count)
        .map(|node| speaker(node, &asns, &mut chance))
        .collect();
    // Small backlogs make slow readers of everybody who does not read at once.
    let backlogs = (0..count).map(|_| backlog(&mut chance)).collect();
    let noticed = !chance.one_in(4);
    let plain = chance.one_in(2);
    for &(a, b) in &peerings {
        let families = families(&mut chance, plain);
        // One side at most is passive.
        let passive = chance.below(3);
        let external = asns[a] != asns[b];
        let roles = match !plain && external && chance.one_in(4) {
            true => chance.pick(&ROLES).map(Some),
            false => [None; 2],
        };
        let ends = [
            (a, b, passive == 0, roles[0]),
            (b, a, passive == 1, roles[1]),
        ];
        for (here, there, passive, role) in ends {
            let next_hop = Ipv4Addr::new(192, 0, 2, here as u8 + 1);
            let hold_times: &[u16] = if noticed { &[3, 9, 30] } else { &[0, 3, 9, 30] };
            let peer = PeerConfig {
                passive,
                hold_time: chance.pick(hold_times),
                delay_open: chance.one_in(8).then(|| Duration::from_secs(1)),
                families: families.clone(),
                capabilities: capabilities(&mut chance),
                role,
                max_prefixes: limits(&mut chance, plain),
                import: match !plain && chance.one_in(6) {
                    true => serde_json::from_str(chance.pick(&IMPORTS)).unwrap(),
                    false => ImportPolicy::All,
                },
                export: match !plain && chance.one_in(4) {
                    true => serde_json::from_str(chance.pick(&EXPORTS)).unwrap(),
                    false => ExportPolicy::All,
                },
                next_hop_v4: Some(next_hop),
                next_hop_v6: Some(next_hop.to_ipv6_compatible()),
                ..PeerConfig::new(name(there).parse().unwrap(), address(there), asns[there])
            };
            configs[here].peers.push(peer);
        }
    }
    let mut distinct = asns.clone();
    distinct.sort_unstable();
    distinct.dedup();
    Shape {
        peerings,
        configs,
        backlogs,
        noticed,
        everything_everywhere: plain && distinct.len() == count,
    }
}

/// Some share an AS and so are internal to each other.
fn asns(count: usize, chance: &mut Chance) -> Vec<u32> {
    let shared = chance.one_in(2);
    let asn = |node| match chance.below(4) {
        0 if shared => 65100,
        1 => 4_200_000_000 + node as u32,
        _ => 65001 + node as u32,
    };
    (0..count).map(asn).collect()
}

fn peerings(count: usize, chance: &mut Chance) -> Vec<(usize, usize)> {
    let star = chance.one_in(3);
    let mut peerings = Vec::new();
    for a in 0..count {
        for b in a + 1..count {
            // A star, whose peers are told the same, or a line; so the fabric is connected.
            let needed = if star { a == 0 } else { b == a + 1 };
            if needed || chance.one_in(count as u64) {
                peerings.push((a, b));
            }
        }
    }
    peerings
}

fn speaker(node: usize, asns: &[u32], chance: &mut Chance) -> SpeakerConfig {
    // Identifiers must differ within an AS only.
    let alone = asns.iter().filter(|asn| **asn == asns[node]).count() == 1;
    let id = match alone && chance.one_in(3) {
        true => 77,
        false => node as u8 + 1,
    };
    let restart = GracefulRestart {
        restart_time: Duration::from_secs(5 + chance.below(60)),
        forwarding_preserved: chance.one_in(2),
        restarting: false,
    };
    SpeakerConfig {
        multipath: Multipath {
            max_paths: 4,
            relax: chance.one_in(2),
        },
        graceful_restart: chance.one_in(3).then_some(restart),
        ..SpeakerConfig::new(asns[node], Ipv4Addr::new(10, 0, 0, id))
    }
}

fn backlog(chance: &mut Chance) -> Backlog {
    if chance.one_in(2) {
        return Backlog::default();
    }
    let high_water = 50 + chance.below(2000);
    Backlog {
        high_water,
        far_behind: high_water * (1 + chance.below(6)),
    }
}

fn capabilities(chance: &mut Chance) -> Capabilities {
    let mut on = || !chance.one_in(8);
    let switches = Capabilities {
        route_refresh: on(),
        enhanced_refresh: on(),
        four_octet_as: true,
        extended_messages: on(),
        ipv4_next_hop_v6: on(),
        graceful_restart: on(),
        ..Capabilities::default()
    };
    let long_lived = chance.one_in(4);
    Capabilities {
        long_lived_stale_time: Duration::from_secs(u64::from(long_lived) * chance.below(60)),
        add_path: match chance.one_in(3) {
            true => chance.pick(&[AddPath::Send, AddPath::Receive, AddPath::Both]),
            false => AddPath::Off,
        },
        ..switches
    }
}

fn limits(chance: &mut Chance, plain: bool) -> MaxPrefixes {
    if plain || !chance.one_in(6) {
        return MaxPrefixes::default();
    }
    let limit = PrefixLimit {
        limit: 3 + chance.below(10) as usize,
        warning: 80,
        action: LimitAction::Refuse,
        restart: None,
    };
    MaxPrefixes {
        ipv4: Some(limit),
        ipv6: None,
    }
}

fn families(chance: &mut Chance, plain: bool) -> Vec<Family> {
    match chance.below(6) {
        0 if !plain => vec![Family::Ipv4Unicast],
        1 if !plain => vec![Family::Ipv6Unicast],
        _ => Family::ALL.to_vec(),
    }
}

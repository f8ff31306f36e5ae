//! A whole core with three peers, fed with connections, messages right and wrong, octets, time and
//! orders in any order. The [driver](fuzz::driver) says what may never happen.

#![no_main]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use bgp::bfd::Lost;
use bgp::config::{AddPath, Capabilities, LimitAction, MaxPrefixes, PrefixLimit};
use bgp::core::{ConnectionId, Stop};
use bgp::wire::{Community, Family, Role};
use bgp::{Announcement, ExportPolicy, GracefulRestart, ImportPolicy, PeerConfig, SpeakerConfig};
use fuzz::driver::{Driver, Phase};
use fuzz::input;
use libfuzzer_sys::fuzz_target;

/// Our AS number and those of the peers: external, internal, external with 4 octets.
const ASN: u32 = 65001;
const ASNS: [u32; 3] = [65002, ASN, 4_200_000_003];

/// Prefixes announced at once, when it is many.
const MANY: u32 = 3000;

fuzz_target!(|data: &[u8]| {
    let mut input = Unstructured::new(data);
    let Ok(config) = config(&mut input) else {
        return;
    };
    let mut driver = Driver::start(config);
    let mut flush = driver.core.flush();
    while !input.is_empty() {
        if step(&mut driver, &mut input).is_err() {
            break;
        }
        // Whoever waits for it gets an answer or a dead session, never something else.
        driver.core.advance_flush(&mut flush, |_| 0);
        if flush.is_done() {
            flush = driver.core.flush();
        }
    }
    let how = match data.len() % 2 {
        0 => Stop::Cease(Some("fuzzed".to_owned())),
        _ => Stop::KeepForwarding,
    };
    driver.stop(&how);
});

fn config(input: &mut Unstructured<'_>) -> Result<SpeakerConfig> {
    let peers = ASNS.iter().zip(1..).map(|(asn, index)| {
        let name = format!("n{index}").parse().expect("a name");
        let address = Ipv4Addr::new(10, 99, 0, 1 + index).into();
        let shape: u8 = input.arbitrary()?;
        let bit = |bit: u8| shape & (1 << bit) != 0;
        Ok(PeerConfig {
            passive: bit(0),
            hold_time: [9, 3, 0, 180][usize::from(shape >> 1 & 3)],
            delay_open: bit(3).then(|| Duration::from_secs(1)),
            families: match shape >> 4 & 3 {
                1 => vec![Family::Ipv4Unicast],
                2 => vec![Family::Ipv6Unicast],
                _ => Family::ALL.to_vec(),
            },
            import: match bit(6) {
                true => ImportPolicy::None,
                false => ImportPolicy::All,
            },
            export: match bit(7) {
                true => ExportPolicy::Local,
                false => ExportPolicy::All,
            },
            next_hop_v6: Some("fd99::1".parse().expect("an address")),
            ..terms(input, PeerConfig::new(name, address, *asn))?
        })
    });
    let peers = peers.collect::<Result<Vec<_>>>()?;
    let shape: u8 = input.arbitrary()?;
    let restart = GracefulRestart {
        restart_time: Duration::from_secs(120),
        forwarding_preserved: shape & 2 != 0,
        restarting: shape & 4 != 0,
    };
    Ok(SpeakerConfig {
        peers,
        graceful_restart: (shape & 1 != 0).then_some(restart),
        ..SpeakerConfig::new(ASN, Ipv4Addr::new(10, 0, 0, 1))
    })
}

/// Capabilities, limits and the role.
fn terms(input: &mut Unstructured<'_>, peer: PeerConfig) -> Result<PeerConfig> {
    let shape: u8 = input.arbitrary()?;
    let bit = |bit: u8| shape & (1 << bit) != 0;
    let limit = PrefixLimit {
        limit: 2,
        warning: 80,
        action: match bit(5) {
            true => LimitAction::Teardown,
            false => LimitAction::Refuse,
        },
        restart: bit(5).then(|| Duration::from_secs(30)),
    };
    Ok(PeerConfig {
        capabilities: Capabilities {
            extended_messages: bit(0),
            enhanced_refresh: !bit(1),
            four_octet_as: !(bit(0) && bit(1)),
            long_lived_stale_time: Duration::from_secs(u64::from(bit(2)) * 60),
            add_path: match bit(3) {
                true => AddPath::Both,
                false => AddPath::Off,
            },
            ..Capabilities::default()
        },
        max_prefixes: MaxPrefixes {
            ipv4: bit(4).then(|| limit.clone()),
            ipv6: bit(4).then_some(limit),
        },
        // Roles are for external peers.
        role: (bit(6) && peer.asn != ASN).then_some(Role::Provider),
        role_strict: bit(7) && bit(6) && peer.asn != ASN,
        ..peer
    })
}

/// A connection, open or not, or one of those that were.
fn connection(driver: &Driver, input: &mut Unstructured<'_>) -> Result<Option<ConnectionId>> {
    let known = driver.lines.keys().chain(&driver.closed);
    let known: Vec<ConnectionId> = known.copied().collect();
    match known.is_empty() {
        true => Ok(None),
        false => input.choose(&known).copied().map(Some),
    }
}

fn asn_on(driver: &Driver, connection: ConnectionId) -> u32 {
    let name = driver
        .core
        .peer_name(connection)
        .map(|name| name.to_string());
    match name.as_deref() {
        Some("n1") => ASNS[0],
        Some("n2") => ASNS[1],
        _ => ASNS[2],
    }
}

fn step(driver: &mut Driver, input: &mut Unstructured<'_>) -> Result<()> {
    let local = SocketAddr::new(Ipv4Addr::new(10, 99, 0, 1).into(), 179);
    let kind = input.int_in_range(0..=23u8)?;
    match kind {
        0..=1 => {
            let time = Duration::from_millis(u64::from(input.arbitrary::<u16>()?));
            driver.wait(time, input.arbitrary()?);
        }
        2..=3 => {
            // The fourth is nobody's.
            let last = 2 + input.int_in_range(0..=3)?;
            let remote = SocketAddr::new(Ipv4Addr::new(10, 99, 0, last).into(), 40000);
            driver.accept(remote, local);
        }
        4 => orders(driver, input)?,
        5..=6 => {
            let families: Vec<Family> = vec![input::family(input)?; input.int_in_range(1..=4)?];
            let mut routes = Vec::new();
            for family in families {
                routes.push(Announcement {
                    communities: vec![Community(u32::from(input.arbitrary::<u8>()?))],
                    ..Announcement::new(input::prefix(input, family)?)
                });
            }
            driver.core.announce(routes);
            driver.drain();
        }
        7 => {
            let family = input::family(input)?;
            let prefix = input::prefix(input, family)?;
            driver.core.withdraw(&[prefix]);
            driver.drain();
        }
        _ => {
            let Some(connection) = connection(driver, input)? else {
                return Ok(());
            };
            on_connection(driver, connection, kind, local, input)?;
        }
    }
    Ok(())
}

fn orders(driver: &mut Driver, input: &mut Unstructured<'_>) -> Result<()> {
    let now = driver.now;
    let name = input.choose(&["n1", "n2", "n3"])?;
    match input.int_in_range(0..=9u8)? {
        0 => driver.core.initial_routes_complete(),
        1 => {
            // With an attribute of its own each, so that no two share a message.
            let routes = (0..MANY).map(|index| Announcement {
                med: Some(index),
                ..Announcement::new(many(index))
            });
            driver.core.announce(routes.collect());
        }
        2 => {
            let prefixes: Vec<_> = (0..MANY).map(many).collect();
            driver.core.withdraw(&prefixes);
        }
        3 => {
            // Without a session there is nothing to ask.
            let _ = driver.core.refresh_peer(name, now);
        }
        4 => driver.core.set_graceful_shutdown(input.arbitrary()?),
        5 => {
            let silence = Lost::Silence(Duration::from_millis(150));
            let done = driver.core.path_lost(name, silence, now);
            assert_eq!(done, Ok(()));
        }
        6 => {
            let config = config(input)?;
            assert!(driver.core.reconfigure(config, now).is_ok());
        }
        _ => {
            let up = input.arbitrary()?;
            let done = driver.core.set_peer_admin(name, up, None, now);
            assert_eq!(done, Ok(()));
        }
    }
    driver.drain();
    Ok(())
}

fn many(index: u32) -> bgp::Prefix {
    let address = Ipv4Addr::from_bits(0xac10_0000 + (index << 8));
    bgp::Prefix::containing(address.into(), 24).expect("fits")
}

fn on_connection(
    driver: &mut Driver,
    connection: ConnectionId,
    kind: u8,
    local: SocketAddr,
    input: &mut Unstructured<'_>,
) -> Result<()> {
    match kind {
        8 => driver.answer(connection, local, input.ratio(3, 4)?),
        9 => driver.lose(connection),
        10..=11 => driver.write(connection, input.arbitrary::<u32>()?.into()),
        12 => {
            let count = usize::from(input.arbitrary::<u8>()?);
            driver.arrive(connection, count);
        }
        13 => {
            // Octets as they are.
            let length = usize::from(input.arbitrary::<u8>()?).min(input.len());
            let octets = input.bytes(length)?.to_vec();
            if let Some(line) = driver.lines.get_mut(&connection) {
                line.under_way.extend(octets);
            }
            driver.arrive(connection, usize::MAX);
        }
        _ => {
            // A connection that is asked for is there first.
            let opening = |driver: &Driver| {
                driver
                    .lines
                    .get(&connection)
                    .is_some_and(|line| line.phase == Phase::Opening)
            };
            if opening(driver) {
                driver.answer(connection, local, true);
            }
            let message = input::message(input, asn_on(driver, connection))?;
            if let Some(line) = driver.lines.get_mut(&connection) {
                line.under_way.extend(message);
            }
            let cut = kind == 14;
            driver.arrive(connection, if cut { 20 } else { usize::MAX });
        }
    }
    Ok(())
}

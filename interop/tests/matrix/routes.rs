//! Cells about what the sessions carry.

use std::collections::BTreeSet;

use bgp::{AddPath, Announcement, ExportPolicy, Family, MaxPrefixes, PrefixLimit, Rule};
use interop::capture::Frames;
use interop::peer::Extra;
use interop::topology::plan;
use ipnet::IpNet;

use super::meeting::{Failure, Meeting, Terms, becomes, beside_as, is_established, ours};
use super::table::{Cell, Verdict};

/// IPv4 routes over an IPv4 session, both ways, and withdrawn again.
pub(super) fn v4(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    both_ways(cell, Family::Ipv4Unicast)
}

/// The same with IPv6.
pub(super) fn v6(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    both_ways(cell, Family::Ipv6Unicast)
}

fn both_ways(cell: &Cell<'_>, family: Family) -> Result<Verdict, Failure> {
    let mut meeting = cell.established(&Terms {
        family,
        ..Terms::default()
    })?;
    meeting.await_told()?;
    let path = meeting.await_learned()?;
    assert_eq!(path.attributes.communities.len(), 0, "{path:?}");
    meeting.router.withdraw(super::meeting::theirs(family))?;
    meeting.await_forgotten()?;
    let prefix = ours(family).to_string().parse()?;
    let speaker = meeting.speaker()?;
    speaker.ask(speaker.speaker.withdraw(vec![prefix]))?;
    meeting
        .router
        .await_no_route(ours(family), super::meeting::SOON)?;
    assert_eq!(meeting.peer()?.sessions, 1);
    Ok(Verdict::Ok)
}

/// Large communities that our policy adds, as the router shows them.
const LARGE: [(u32, u32, u32); 2] = [(65001, 0, 1), (4_200_000_001, 7, 4_000_000_000)];
/// That policy, as an operator writes it.
const ADD_LARGE: &str = r#"
    permit = "any"
    add = { large_communities = ["65001:0:1", "4200000001:7:4000000000"] }
"#;

/// What the router originates comes with its large communities, and what we tell it with ours.
pub(super) fn large_communities(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    let meeting = cell.established(&Terms {
        router: |router| {
            router.communities = vec![(65002, 80)];
            router.large_communities = vec![(4_200_000_002, 7, 4_000_000_000), (65002, 0, 1)];
        },
        peer: |peer, _| {
            let rule = toml::from_str::<Rule>(ADD_LARGE).expect("a rule");
            peer.export = [rule].into_iter().collect();
        },
        ..Terms::default()
    })?;
    let attributes = meeting.await_learned()?.attributes;
    let texts = |all: &dyn Fn() -> Vec<String>| {
        let mut texts = all();
        texts.sort();
        texts
    };
    let large = || {
        let all = attributes.rare.large_communities.iter();
        all.map(ToString::to_string).collect()
    };
    assert_eq!(
        texts(&large),
        ["4200000002:7:4000000000", "65002:0:1"],
        "{attributes:?}"
    );
    let plain = || {
        attributes
            .communities
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(texts(&plain), ["65002:80"], "{attributes:?}");
    meeting.await_told()?;
    let mut seen = meeting.router.large_communities(ours(meeting.family))?;
    seen.sort();
    assert_eq!(seen, LARGE);
    Ok(Verdict::Ok)
}

/// IPv4 routes over an IPv6 session, with IPv6 next hops, both ways.
pub(super) fn v4_over_v6(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    if let Some(reason) = cell.lacks(Extra::ExtendedNextHop) {
        return Ok(Verdict::Lacks(reason));
    }
    let meeting = cell.established(&Terms {
        transport: Some(Family::Ipv6Unicast),
        neighbour: |neighbour| neighbour.extended_next_hop = true,
        ..Terms::default()
    })?;
    assert!(meeting.uses("extended-next-hop")?);
    meeting.await_learned()?;
    meeting.await_told()?;
    Ok(Verdict::Ok)
}

/// Paths with identifiers, both ways; and two of ours to one prefix, of which one goes.
pub(super) fn add_path(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    let mut meeting = cell.established(&Terms {
        neighbour: |neighbour| neighbour.add_path = true,
        peer: |peer, _| {
            peer.capabilities.add_path = AddPath::Both;
            peer.export = ExportPolicy::All;
        },
        ..Terms::default()
    })?;
    assert!(meeting.uses("add-path")?);
    meeting.await_learned()?;
    meeting.await_told()?;
    // A withdrawal has to name the path as the announcement did.
    meeting
        .router
        .withdraw(super::meeting::theirs(meeting.family))?;
    meeting.await_forgotten()?;
    withdraw_ours(&meeting)?;

    let shared = "172.30.0.0/24".parse()?;
    let [one, other] = [11, 12];
    let first = meeting.accompany(one, shared)?;
    let _second = meeting.accompany(other, shared)?;
    await_paths(&meeting, shared, &[one, other])?;
    first.ask(first.speaker.withdraw(vec![shared.to_string().parse()?]))?;
    await_paths(&meeting, shared, &[other])?;
    assert_eq!(meeting.peer()?.sessions, 1);
    Ok(Verdict::Ok)
}

/// Waits until the router has a path to the prefix by each of the speakers beside ours, and no other.
fn await_paths(meeting: &Meeting, prefix: IpNet, beside: &[u8]) -> Result<(), Failure> {
    let by = |number: &u8| vec![plan::GATEWAY_AS, beside_as(*number)];
    let expected: BTreeSet<Vec<u32>> = beside.iter().map(by).collect();
    becomes(format!("the router has {prefix} by {expected:?}"), || {
        let routes = meeting.router.routes(meeting.family)?;
        let seen: Vec<_> = routes.into_iter().filter(|r| r.prefix == prefix).collect();
        let paths: BTreeSet<Vec<u32>> = seen.iter().map(|r| r.as_path.clone()).collect();
        let right = paths == expected && seen.len() == expected.len();
        Ok((!right).then(|| format!("{seen:?}")))
    })?;
    Ok(())
}

fn withdraw_ours(meeting: &Meeting) -> Result<(), Failure> {
    let prefix = ours(meeting.family);
    let speaker = meeting.speaker()?;
    speaker.ask(speaker.speaker.withdraw(vec![prefix.to_string().parse()?]))?;
    Ok(meeting
        .router
        .await_no_route(prefix, super::meeting::SOON)?)
}

/// More than 4,096 octets in one message of ours, and the router has all of it.
pub(super) fn extended_message(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    const ROUTES: u16 = 3000;
    if let Some(reason) = cell.lacks(Extra::ExtendedMessages) {
        return Ok(Verdict::Lacks(reason));
    }
    let meeting = cell.established(&Terms {
        neighbour: |neighbour| neighbour.extended_messages = true,
        ..Terms::default()
    })?;
    assert!(meeting.uses("extended-messages")?);
    meeting.await_told()?;
    let capture = meeting.capture()?;
    let routes = (0..ROUTES).map(|number| {
        let [high, low] = number.to_be_bytes();
        format!("172.20.{high}.{low}/32").parse()
    });
    let routes: Vec<_> = routes.collect::<Result<_, _>>()?;
    let routes = routes.into_iter().map(Announcement::new).collect();
    let speaker = meeting.speaker()?;
    speaker.ask(speaker.speaker.announce(routes))?;
    becomes("the router has all routes", || {
        let count = meeting.router.routes(meeting.family)?.len();
        Ok((count != usize::from(ROUTES) + 1).then(|| format!("{count}")))
    })?;
    let longest = longest_message(&capture.stop());
    assert!(longest > 4096, "the longest message has {longest} octets");
    assert_eq!(meeting.peer()?.sessions, 1);
    Ok(Verdict::Ok)
}

/// The length of the longest message that begins in a frame, by its header.
fn longest_message(frames: &Frames) -> usize {
    let headers = frames.raw.iter().flat_map(|frame| frame.bytes.windows(19));
    let headers = headers.filter(|header| header[..16] == [0xff; 16]);
    let lengths = headers.map(|header| usize::from(u16::from_be_bytes([header[16], header[17]])));
    lengths.max().unwrap_or_default()
}

/// Our limit: what was there stays, the surplus is refused and named, the session goes on.
pub(super) fn our_limit(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    let mut meeting = cell.established(&Terms {
        peer: |peer, _| {
            peer.max_prefixes = MaxPrefixes {
                ipv4: Some(PrefixLimit {
                    limit: 1,
                    warning: 100,
                    action: bgp::LimitAction::Refuse,
                    restart: None,
                }),
                ipv6: None,
            };
        },
        ..Terms::default()
    })?;
    meeting.await_learned()?;
    let surplus = "10.81.0.0/16".parse()?;
    meeting.router.announce(surplus)?;
    let peer = meeting.await_peer("the surplus is counted", |peer| {
        let counts = peer.prefixes.get(&Family::Ipv4Unicast);
        counts.is_some_and(|counts| (counts.received, counts.accepted) == (2, 1))
    })?;
    assert!(
        peer.notes
            .iter()
            .any(|note| note.contains("max_prefixes.ipv4.limit")),
        "{peer:?}"
    );
    assert!(meeting.learned(surplus)?.is_empty());
    meeting.await_learned()?;
    assert!(is_established(&peer) && peer.sessions == 1, "{peer:?}");
    Ok(Verdict::Ok)
}

/// Its limit: it ends the session, and we say what to do.
pub(super) fn its_limit(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    if let Some(reason) = cell.lacks(Extra::MaxPrefix) {
        return Ok(Verdict::Lacks(reason));
    }
    let meeting = cell.established(&Terms {
        neighbour: |neighbour| neighbour.max_prefix = Some(1),
        ..Terms::default()
    })?;
    meeting.await_told()?;
    let routes = ["10.82.0.0/16", "10.83.0.0/16"].map(|net| net.parse().map(Announcement::new));
    let routes = routes.into_iter().collect::<Result<_, _>>()?;
    let speaker = meeting.speaker()?;
    speaker.ask(speaker.speaker.announce(routes))?;
    meeting.await_peer("told to raise the limit there", |peer| {
        let why = peer.last_error.as_deref().unwrap_or_default();
        why.contains("we announce more routes than it allows")
    })?;
    Ok(Verdict::Ok)
}

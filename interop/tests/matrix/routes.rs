//! Cells about what the sessions carry.

use bgp::Family;

use super::meeting::{Failure, Terms, ours};
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

/// What the router originates comes with its large communities.
pub(super) fn large_communities(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    let meeting = cell.established(&Terms {
        router: |router| {
            router.communities = vec![(65002, 80)];
            router.large_communities = vec![(4_200_000_002, 7, 4_000_000_000), (65002, 0, 1)];
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
    Ok(Verdict::Ok)
}

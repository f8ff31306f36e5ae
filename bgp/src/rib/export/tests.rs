use super::*;
use crate::config::Multipath;
use crate::rib::select::PeerRank;
use crate::wire::{AsPath, AttributeCode, AttributeFlags, Attributes, UnknownAttribute, frame};

const EXTERNAL: PeerIndex = PeerIndex(0);
const INTERNAL: PeerIndex = PeerIndex(1);
const OTHER_EXTERNAL: PeerIndex = PeerIndex(2);
const OTHER_INTERNAL: PeerIndex = PeerIndex(3);

struct Bench {
    table: Table,
    interner: Interner,
    rib: AdjRibOut,
    context: ExportContext,
    number: u64,
}

fn options() -> WireOptions {
    WireOptions {
        four_octet_as: true,
        ..WireOptions::default()
    }
}

impl Bench {
    /// Tells the peer of this number.
    fn new(peer: PeerIndex) -> Bench {
        let internal = |peer| matches!(peer, INTERNAL | OTHER_INTERNAL);
        let ranks = (0..4).map(|index| PeerRank {
            internal: internal(PeerIndex(index)),
            router_id: Ipv4Addr::from_bits(index),
            address: Ipv4Addr::from_bits(index).into(),
        });
        Bench {
            table: Table::new(ranks.collect(), Multipath::default()),
            interner: Interner::default(),
            rib: AdjRibOut::default(),
            context: ExportContext {
                peer,
                asn: 65001,
                internal: internal(peer),
                policy: ExportPolicy::All,
                families: Family::ALL.to_vec(),
                next_hop_v4: Some(Ipv4Addr::new(10, 99, 0, 1)),
                next_hop_v6: Some("fd99::1".parse().unwrap()),
                options: WireOptions {
                    internal: internal(peer),
                    ..options()
                },
            },
            number: 0,
        }
    }

    fn set(&mut self, prefix: Prefix, source: Source, attributes: RouteAttributes) {
        let attributes = self.interner.intern(attributes);
        let change = self.table.announce(prefix, source, attributes);
        self.note(prefix, change.best);
    }

    fn unset(&mut self, prefix: Prefix, source: Source) {
        let change = self.table.withdraw(prefix, source);
        self.note(prefix, change.best);
    }

    fn note(&mut self, prefix: Prefix, changed: bool) {
        self.number += 1;
        if changed {
            self.rib
                .changed(&self.context, &self.table, prefix, self.number);
        }
    }

    /// Writes everything and reads it back.
    fn told(&mut self) -> Vec<Update> {
        let mut out = BytesMut::new();
        let mut count = 0;
        while self.rib.has_work() {
            count += self
                .rib
                .write(&self.context, &self.table, &mut self.interner, &mut out);
        }
        let mut updates = Vec::new();
        while let Some(octets) = frame::split(&mut out, &self.context.options).unwrap() {
            assert!(octets.len() <= 4096);
            let decoded = Message::decode(&octets, &self.context.options).unwrap();
            assert_eq!(decoded.findings, []);
            let Message::Update(update) = decoded.message else {
                panic!("{decoded:?}")
            };
            updates.push(update);
        }
        assert_eq!(updates.len(), count, "the count of messages");
        updates
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn learned(path: &[u32]) -> RouteAttributes {
    RouteAttributes {
        as_path: AsPath::sequence(path.iter().copied()),
        med: Some(50),
        ..RouteAttributes::originated(NextHop::V4(Ipv4Addr::new(10, 99, 0, 2)))
    }
}

fn ours() -> RouteAttributes {
    RouteAttributes {
        med: Some(7),
        communities: [Community::NO_EXPORT].into(),
        ..RouteAttributes::originated(NextHop::V4(Ipv4Addr::UNSPECIFIED))
    }
}

#[test]
fn attributes_are_reworded_for_each_kind_of_peer() {
    let told_to = |peer, source, attributes: RouteAttributes| {
        let mut bench = Bench::new(peer);
        bench.set(prefix("10.0.0.0/8"), source, attributes);
        let updates = bench.told();
        assert!(updates.len() <= 1);
        updates.into_iter().next().map(|update| {
            assert_eq!(update.nlri, [Nlri::from(prefix("10.0.0.0/8"))]);
            let Attributes {
                as_path,
                next_hop,
                med,
                local_pref,
                ..
            } = update.attributes;
            (
                as_path.unwrap().to_string(),
                next_hop.unwrap().to_string(),
                med,
                local_pref,
            )
        })
    };
    let told = |path: &str, next_hop: &str, med, local_pref| {
        Some((path.to_owned(), next_hop.to_owned(), med, local_pref))
    };
    let from = Source::Peer;
    let with = |community| RouteAttributes {
        communities: [community].into(),
        ..learned(&[65002])
    };
    let preferred = RouteAttributes {
        local_pref: Some(300),
        ..learned(&[65002])
    };
    let rows = [
        // Ours, whatever its communities say: they are for the peer.
        (
            EXTERNAL,
            Source::Local,
            ours(),
            told("65001", "10.99.0.1", Some(7), None),
        ),
        (
            INTERNAL,
            Source::Local,
            ours(),
            told("", "10.99.0.1", Some(7), Some(100)),
        ),
        // Learned.
        (
            EXTERNAL,
            from(OTHER_EXTERNAL),
            learned(&[65002, 9]),
            told("65001 65002 9", "10.99.0.1", None, None),
        ),
        (
            EXTERNAL,
            from(INTERNAL),
            preferred.clone(),
            told("65001 65002", "10.99.0.1", None, None),
        ),
        (
            INTERNAL,
            from(EXTERNAL),
            learned(&[65002]),
            told("65002", "10.99.0.2", Some(50), Some(100)),
        ),
        (INTERNAL, from(OTHER_INTERNAL), preferred, None),
        (EXTERNAL, from(EXTERNAL), learned(&[65002]), None),
        (INTERNAL, from(INTERNAL), learned(&[65002]), None),
        // Well-known communities.
        (
            EXTERNAL,
            from(OTHER_EXTERNAL),
            with(Community::NO_EXPORT),
            None,
        ),
        (
            EXTERNAL,
            from(OTHER_EXTERNAL),
            with(Community::NO_EXPORT_SUBCONFED),
            None,
        ),
        (
            EXTERNAL,
            from(OTHER_EXTERNAL),
            with(Community::NO_ADVERTISE),
            None,
        ),
        (
            INTERNAL,
            from(EXTERNAL),
            with(Community::NO_ADVERTISE),
            None,
        ),
        (
            INTERNAL,
            from(EXTERNAL),
            with(Community::NO_EXPORT),
            told("65002", "10.99.0.2", Some(50), Some(100)),
        ),
    ];
    for (peer, source, attributes, expected) in rows {
        let seen = told_to(peer, source, attributes.clone());
        assert_eq!(
            seen, expected,
            "to {peer:?} from {source:?}: {attributes:?}"
        );
    }
}

#[test]
fn unknown_attributes_are_passed_on_if_transitive() {
    let unknown = |code, flags| UnknownAttribute {
        code: AttributeCode(code),
        flags: AttributeFlags(flags),
        value: [1, 2, 3].into(),
    };
    let mut bench = Bench::new(EXTERNAL);
    let mut attributes = learned(&[65002]);
    attributes.rare.change(|rare| {
        rare.unknown = vec![unknown(200, 0xc0), unknown(201, 0x80)];
    });
    bench.set(
        prefix("10.0.0.0/8"),
        Source::Peer(OTHER_EXTERNAL),
        attributes,
    );
    assert_eq!(bench.told()[0].attributes.unknown, [unknown(200, 0xe0)]);
}

#[test]
fn families_without_a_next_hop_of_ours_are_not_told() {
    let mut bench = Bench::new(EXTERNAL);
    bench.context.next_hop_v6 = None;
    bench.set(prefix("fd00::/8"), Source::Local, ours());
    bench.set(prefix("10.0.0.0/8"), Source::Local, ours());
    let updates = bench.told();
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].nlri, [Nlri::from(prefix("10.0.0.0/8"))]);
    assert!(bench.rib.told(Family::Ipv6Unicast).is_empty());
}

#[test]
fn ipv6_goes_with_its_own_next_hop() {
    let mut bench = Bench::new(EXTERNAL);
    bench.set(prefix("fd00::/8"), Source::Local, ours());
    let updates = bench.told();
    let reach: Vec<_> = updates[0].reachable().collect();
    assert_eq!(reach[0].next_hop, NextHop::V6("fd99::1".parse().unwrap()));
    assert_eq!(reach[0].nlri, [Nlri::from(prefix("fd00::/8"))]);
    bench.unset(prefix("fd00::/8"), Source::Local);
    let updates = bench.told();
    assert_eq!(
        updates[0].unreachable().collect::<Vec<_>>(),
        [Nlri::from(prefix("fd00::/8"))]
    );
}

#[test]
fn only_what_changes_is_told() {
    let mut bench = Bench::new(EXTERNAL);
    let net = prefix("10.0.0.0/8");
    bench.set(net, Source::Local, ours());
    assert_eq!(bench.told().len(), 1);
    bench.set(net, Source::Local, ours());
    bench.set(net, Source::Peer(OTHER_EXTERNAL), learned(&[65002]));
    assert_eq!(bench.told(), [], "the best path is the same");
    bench.set(
        net,
        Source::Local,
        RouteAttributes {
            med: None,
            ..ours()
        },
    );
    bench.set(net, Source::Local, ours());
    assert_eq!(bench.told(), [], "it changed there and back");
    bench.set(
        net,
        Source::Local,
        RouteAttributes {
            med: None,
            ..ours()
        },
    );
    assert_eq!(bench.told().len(), 1);
    bench.unset(net, Source::Local);
    let updates = bench.told();
    assert_eq!(
        updates[0].attributes.as_path.as_ref().unwrap().to_string(),
        "65001 65002"
    );
    bench.unset(net, Source::Peer(OTHER_EXTERNAL));
    let updates = bench.told();
    assert_eq!(
        (updates.len(), &updates[0].withdrawn[..]),
        (1, &[Nlri::from(net)][..])
    );
    bench.set(net, Source::Local, ours());
    bench.unset(net, Source::Local);
    assert_eq!(bench.told(), [], "it came and went unheard");
    assert_eq!(bench.rib.pending(), 0);
}

#[test]
fn a_route_that_turns_out_to_be_the_peers_own_is_withdrawn() {
    let mut bench = Bench::new(EXTERNAL);
    let net = prefix("10.0.0.0/8");
    bench.set(net, Source::Peer(OTHER_EXTERNAL), learned(&[65002, 9]));
    assert_eq!(bench.told().len(), 1);
    bench.set(net, Source::Peer(EXTERNAL), learned(&[65002]));
    assert_eq!(bench.told()[0].withdrawn, [Nlri::from(net)]);
}

#[test]
fn routes_are_packed_by_attributes_into_full_messages() {
    let mut bench = Bench::new(EXTERNAL);
    for index in 0..20_000u32 {
        let net = Prefix::containing(Ipv4Addr::from_bits(index << 12).into(), 24).unwrap();
        // Two sets of attributes, alternating.
        let attributes = RouteAttributes {
            med: Some(index % 2),
            ..ours()
        };
        bench.set(net, Source::Local, attributes);
    }
    let updates = bench.told();
    let count: usize = updates.iter().map(|update| update.nlri.len()).sum();
    assert_eq!(count, 20_000);
    // 4 octets a /24, a little over 1,000 a message; three windows, each with two remainders.
    assert!(updates.len() <= 20 + 6, "{} messages", updates.len());
    for update in &updates {
        assert!(update.attributes.med.is_some());
    }
}

#[test]
fn end_of_rib_follows_the_initial_table_and_comes_once() {
    let mut bench = Bench::new(EXTERNAL);
    bench.context.policy = ExportPolicy::None;
    for net in ["10.0.0.0/8", "11.0.0.0/8", "fd00::/8"] {
        bench.set(prefix(net), Source::Local, ours());
    }
    bench.context.policy = ExportPolicy::Local;
    let number = bench.number;
    bench.rib.tell_all(&bench.context, &bench.table, number);
    // A change while the table is on its way does not put the marker off for good.
    bench.set(prefix("12.0.0.0/8"), Source::Local, ours());
    let updates = bench.told();
    let marker = |family| {
        updates
            .iter()
            .position(|update| update.end_of_rib_family() == Some(family))
            .unwrap()
    };
    let last_route = updates
        .iter()
        .rposition(|update| update.reachable().count() > 0)
        .unwrap();
    let (v4, v6) = (
        marker(Family::Ipv4Unicast.into()),
        marker(Family::Ipv6Unicast.into()),
    );
    assert!(v4 > last_route && v6 > last_route, "{updates:?}");
    bench.set(prefix("13.0.0.0/8"), Source::Local, ours());
    assert_eq!(bench.told().len(), 1, "no second marker");
}

#[test]
fn a_refresh_tells_everything_again() {
    let mut bench = Bench::new(EXTERNAL);
    for net in ["10.0.0.0/8", "11.0.0.0/8", "fd00::/8"] {
        bench.set(prefix(net), Source::Local, ours());
    }
    bench.told();
    bench.unset(prefix("11.0.0.0/8"), Source::Local);
    bench.number += 1;
    bench.rib.refresh(
        &bench.context,
        &bench.table,
        Family::Ipv4Unicast,
        bench.number,
    );
    let updates = bench.told();
    let told: Vec<_> = updates
        .iter()
        .flat_map(|update| update.nlri.clone())
        .collect();
    let gone: Vec<_> = updates
        .iter()
        .flat_map(|update| update.withdrawn.clone())
        .collect();
    assert_eq!(
        (told, gone),
        (
            vec![Nlri::from(prefix("10.0.0.0/8"))],
            vec![Nlri::from(prefix("11.0.0.0/8"))]
        )
    );
}

#[test]
fn attributes_beyond_any_message_are_not_told_and_what_was_known_goes() {
    let mut bench = Bench::new(EXTERNAL);
    let net = prefix("10.0.0.0/8");
    bench.set(net, Source::Local, ours());
    bench.told();
    let communities = (0..1100).map(Community).collect();
    bench.set(
        net,
        Source::Local,
        RouteAttributes {
            communities,
            ..ours()
        },
    );
    assert_eq!(bench.told()[0].withdrawn, [Nlri::from(net)]);
    assert_eq!(bench.rib.oversized(), 1);
    assert!(bench.rib.told(Family::Ipv4Unicast).is_empty());
}

#[test]
fn a_peer_that_does_not_read_costs_no_more_than_the_table() {
    let mut bench = Bench::new(EXTERNAL);
    for index in 0..100_000u32 {
        let host = Prefix::host(Ipv4Addr::from_bits(index).into());
        bench.set(host, Source::Local, ours());
        bench.unset(host, Source::Local);
    }
    assert_eq!(bench.rib.pending(), 0);
    assert!(
        bench.rib.queue.len() <= 1000,
        "{} entries",
        bench.rib.queue.len()
    );
}

#[test]
fn what_was_told_can_be_waited_for() {
    let mut bench = Bench::new(EXTERNAL);
    assert!(bench.rib.has_told(0));
    bench.set(prefix("10.0.0.0/8"), Source::Local, ours());
    let mark = bench.number;
    assert!(!bench.rib.has_told(mark) && bench.rib.has_told(mark - 1));
    bench.told();
    bench.set(prefix("11.0.0.0/8"), Source::Local, ours());
    assert!(bench.rib.has_told(mark), "later changes do not matter");
    // A second change of the same prefix goes along with the first.
    bench.unset(prefix("11.0.0.0/8"), Source::Local);
    assert!(bench.rib.has_told(bench.number));
}

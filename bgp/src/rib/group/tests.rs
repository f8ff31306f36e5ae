use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::*;
use crate::config::Multipath;
use crate::policy::ExportPolicy;
use crate::rib::attributes::RareAttributes;
use crate::rib::select::PeerRank;
use crate::rib::table::Changed;
use crate::wire::{
    AsPath, AttributeCode, AttributeFlags, Attributes, Community, FamilySet, NextHop, Nlri,
    UnknownAttribute, WireOptions, frame,
};

const EXTERNAL: PeerIndex = PeerIndex(0);
const INTERNAL: PeerIndex = PeerIndex(1);
const OTHER_EXTERNAL: PeerIndex = PeerIndex(2);
const OTHER_INTERNAL: PeerIndex = PeerIndex(3);

struct Bench {
    table: Table,
    group: Group,
    peer: PeerIndex,
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
        let context = ExportContext {
            remove_private_as: false,
            asn: 65001,
            internal: internal(peer),
            policy: ExportPolicy::All,
            families: Family::ALL.to_vec(),
            next_hop_v4: Some(Ipv4Addr::new(10, 99, 0, 1)),
            next_hop_v6: Some(NextHop::V6("fd99::1".parse().unwrap())),
            role: None,
            long_lived: false,
            graceful_shutdown: false,
            options: WireOptions {
                internal: internal(peer),
                ..options()
            },
        };
        let mut bench = Bench {
            table: Table::new(ranks.collect(), Multipath::default()),
            group: Group::new(context),
            peer,
        };
        // What a session starts with is not what is tested.
        bench.group.join(peer, &bench.table, false);
        bench
    }

    fn set(&mut self, prefix: Prefix, source: Source, attributes: RouteAttributes) {
        let id = self.table.interner.intern(attributes);
        let changed = self.table.announce(prefix.into(), source, id);
        self.table.interner.release(id);
        self.note(changed);
    }

    fn unset(&mut self, prefix: Prefix, source: Source) {
        if let Some(changed) = self.table.withdraw(prefix.into(), source) {
            self.note(changed);
        }
    }

    fn note(&mut self, changed: Changed) {
        if changed.change.any {
            self.group
                .changed(changed.family, changed.id, changed.change.best);
        }
        let group = &self.group;
        for family in Family::ALL {
            self.table.sweep(family, |id| group.keeps(family, id));
        }
    }

    /// Writes as much as members with such pressure are given, and reads back what each gets.
    fn written(
        &mut self,
        pressure: impl Fn(PeerIndex) -> Pressure,
    ) -> HashMap<PeerIndex, Vec<Message>> {
        let mut made = Vec::new();
        while self.group.write(&mut self.table, &pressure, &mut made) {}
        let mut all: HashMap<PeerIndex, Vec<Message>> = HashMap::new();
        for Dispatch {
            peer,
            octets,
            messages,
        } in made
        {
            let mut octets = BytesMut::from(octets);
            let read = all.entry(peer).or_default();
            let before = read.len();
            while let Some(octets) = frame::split(&mut octets, &self.group.context.options).unwrap()
            {
                assert!(octets.len() <= 4096);
                let decoded = Message::decode(&octets, &self.group.context.options).unwrap();
                assert_eq!(decoded.findings, []);
                read.push(decoded.message);
            }
            assert_eq!(read.len() - before, messages, "the count of messages");
        }
        all
    }

    /// Writes everything and reads it back.
    fn told(&mut self) -> Vec<Update> {
        let messages = self.written(|_| Pressure::Room).remove(&self.peer);
        let update = |message| match message {
            Message::Update(update) => update,
            other => panic!("{other:?}"),
        };
        messages
            .unwrap_or_default()
            .into_iter()
            .map(update)
            .collect()
    }

    fn pending(&self) -> usize {
        Family::ALL
            .iter()
            .map(|family| self.group.pending(self.peer, *family))
            .sum()
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
    let attributes = RouteAttributes {
        rare: RareAttributes {
            unknown: vec![unknown(200, 0xc0), unknown(201, 0x80)],
            ..RareAttributes::default()
        }
        .into(),
        ..learned(&[65002])
    };
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
    bench.group.context.next_hop_v6 = None;
    bench.set(prefix("fd00::/8"), Source::Local, ours());
    bench.set(prefix("10.0.0.0/8"), Source::Local, ours());
    let updates = bench.told();
    assert_eq!(updates.len(), 1);
    assert_eq!(updates[0].nlri, [Nlri::from(prefix("10.0.0.0/8"))]);
    assert!(bench.group.count(EXTERNAL, Family::Ipv6Unicast) == 0);
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
    assert_eq!(bench.pending(), 0);
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
    for net in ["10.0.0.0/8", "11.0.0.0/8", "fd00::/8"] {
        bench.set(prefix(net), Source::Local, ours());
    }
    bench.group.leave(EXTERNAL, &mut bench.table);
    bench.group.join(EXTERNAL, &bench.table, true);
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
    bench.group.refresh(EXTERNAL, Family::Ipv4Unicast, false);
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

/// What comes before the begin counts as old, and goes with the end (RFC 7313 section 4).
#[test]
fn the_marks_of_a_refresh_stand_around_its_routes() {
    for several in [false, true] {
        let mut bench = Bench::new(EXTERNAL);
        if several {
            let options = &mut bench.group.context.options;
            options.add_path_send = FamilySet::all();
            options.add_path_receive = FamilySet::all();
        }
        bench.set(prefix("10.0.0.0/8"), Source::Local, ours());
        bench.told();
        bench.group.refresh(EXTERNAL, Family::Ipv4Unicast, true);
        let messages = bench.written(|_| Pressure::Room).remove(&EXTERNAL);
        let mark = |message: Message| match message {
            Message::RouteRefresh(refresh) => refresh.subtype,
            _ => RouteRefresh::REQUEST,
        };
        let marks: Vec<u8> = messages.unwrap().into_iter().map(mark).collect();
        let expected = [
            RouteRefresh::BEGIN,
            RouteRefresh::REQUEST,
            RouteRefresh::END,
        ];
        assert_eq!(marks, expected, "several paths: {several}");
    }
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
    assert_eq!(bench.group.oversized(), 1);
    assert!(bench.group.count(EXTERNAL, Family::Ipv4Unicast) == 0);
}

#[test]
fn a_peer_that_does_not_read_costs_no_more_than_the_table() {
    let mut bench = Bench::new(EXTERNAL);
    for index in 0..100_000u32 {
        let host = Prefix::host(Ipv4Addr::from_bits(index).into());
        bench.set(host, Source::Local, ours());
        bench.unset(host, Source::Local);
    }
    // Whoever comes and goes unheard is looked at once more, each of them once.
    assert!(bench.pending() <= 100_000);
    assert_eq!(bench.told(), []);
    assert_eq!(bench.pending(), 0);
}

#[test]
fn what_was_told_can_be_waited_for() {
    let mut bench = Bench::new(EXTERNAL);
    let reached =
        |bench: &Bench, place: &Place| bench.group.has_reached(EXTERNAL, &mut place.clone());
    assert!(reached(&bench, &bench.group.place()));
    let before = bench.group.place();
    bench.set(prefix("10.0.0.0/8"), Source::Local, ours());
    let mark = bench.group.place();
    assert!(!reached(&bench, &mark) && reached(&bench, &before));
    bench.told();
    bench.set(prefix("11.0.0.0/8"), Source::Local, ours());
    assert!(reached(&bench, &mark), "later changes do not matter");
}

const MEMBERS: [PeerIndex; 2] = [EXTERNAL, OTHER_EXTERNAL];

fn reachable(messages: &[Message]) -> Vec<Nlri> {
    let mut all: Vec<Nlri> = messages
        .iter()
        .filter_map(|message| match message {
            Message::Update(update) => Some(update),
            _ => None,
        })
        .flat_map(|update| update.reachable().flat_map(|reach| reach.nlri.to_vec()))
        .collect();
    all.sort_unstable();
    all
}

fn unreachable(messages: &[Message]) -> Vec<Nlri> {
    let mut all: Vec<Nlri> = messages
        .iter()
        .filter_map(|message| match message {
            Message::Update(update) => Some(update),
            _ => None,
        })
        .flat_map(|update| update.unreachable().collect::<Vec<_>>())
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn members_are_told_the_same_save_their_own_routes() {
    let mut bench = Bench::new(EXTERNAL);
    bench.group.join(OTHER_EXTERNAL, &bench.table, false);
    let nets = ["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"].map(prefix);
    let [a, b, c] = nets.map(Nlri::from);
    bench.set(nets[0], Source::Peer(EXTERNAL), learned(&[65002]));
    bench.set(nets[1], Source::Peer(OTHER_EXTERNAL), learned(&[65003]));
    bench.set(nets[2], Source::Local, ours());
    let mut told = bench.written(|_| Pressure::Room);
    assert_eq!(reachable(&told.remove(&EXTERNAL).unwrap()), [b, c]);
    assert_eq!(reachable(&told.remove(&OTHER_EXTERNAL).unwrap()), [a, c]);
    assert_eq!(
        MEMBERS.map(|peer| bench.group.count(peer, Family::Ipv4Unicast)),
        [2, 2]
    );

    // A better route of the other one: its source forgets ours, the first hears of it.
    bench.set(
        nets[0],
        Source::Peer(OTHER_EXTERNAL),
        RouteAttributes {
            local_pref: Some(200),
            ..learned(&[65003])
        },
    );
    let mut told = bench.written(|_| Pressure::Room);
    assert_eq!(reachable(&told[&EXTERNAL]), [a]);
    let other = told.remove(&OTHER_EXTERNAL).unwrap();
    assert_eq!((reachable(&other), unreachable(&other)), (vec![], vec![a]));

    // It goes, and the first one's is the best again.
    bench.unset(nets[0], Source::Peer(OTHER_EXTERNAL));
    let mut told = bench.written(|_| Pressure::Room);
    assert_eq!(reachable(&told.remove(&OTHER_EXTERNAL).unwrap()), [a]);
    let first = told.remove(&EXTERNAL).unwrap();
    assert_eq!((reachable(&first), unreachable(&first)), (vec![], vec![a]));

    // What goes altogether is not withdrawn from whoever told us.
    bench.unset(nets[0], Source::Peer(EXTERNAL));
    let mut told = bench.written(|_| Pressure::Room);
    assert_eq!(unreachable(&told.remove(&OTHER_EXTERNAL).unwrap()), [a]);
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn one_encoding_serves_all_members() {
    let mut bench = Bench::new(EXTERNAL);
    bench.group.join(OTHER_EXTERNAL, &bench.table, false);
    bench.set(prefix("10.0.0.0/8"), Source::Local, ours());
    let mut made = Vec::new();
    bench
        .group
        .write(&mut bench.table, |_| Pressure::Room, &mut made);
    let [a, b] = made.as_slice() else {
        panic!("{made:?}")
    };
    assert_eq!(a.octets.as_ptr(), b.octets.as_ptr(), "the very same octets");
}

#[test]
fn a_member_that_does_not_read_leaves_the_pace_and_is_told_the_latest_later() {
    let mut bench = Bench::new(EXTERNAL);
    bench.group.join(OTHER_EXTERNAL, &bench.table, false);
    let stuck = |peer| match peer {
        EXTERNAL => Pressure::Room,
        _ => Pressure::Behind,
    };
    let [kept, gone, new] = ["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"].map(prefix);
    bench.set(kept, Source::Local, ours());
    bench.set(gone, Source::Local, ours());
    bench.written(|_| Pressure::Room);
    for med in 0..100 {
        let attributes = RouteAttributes {
            med: Some(med),
            ..ours()
        };
        bench.set(kept, Source::Local, attributes);
        bench.unset(gone, Source::Local);
        bench.set(new, Source::Local, ours());
        let told = bench.written(stuck);
        assert!(!told.contains_key(&OTHER_EXTERNAL));
        if med < 99 {
            bench.set(gone, Source::Local, ours());
            bench.unset(new, Source::Local);
        }
    }
    assert_eq!(bench.group.pending(OTHER_EXTERNAL, Family::Ipv4Unicast), 3);
    let mut place = bench.group.place();
    assert!(!bench.group.has_reached(OTHER_EXTERNAL, &mut place));
    let mut told = bench.written(|_| Pressure::Room);
    let messages = told.remove(&OTHER_EXTERNAL).unwrap();
    assert!(told.is_empty(), "the other one knows: {told:?}");
    assert_eq!(unreachable(&messages), [gone.into()]);
    assert_eq!(reachable(&messages), [kept.into(), new.into()]);
    let meds = messages.iter().filter_map(|message| match message {
        Message::Update(update) => update.attributes.med,
        _ => None,
    });
    assert_eq!(meds.max(), Some(99), "the latest, not what was missed");
    assert!(bench.group.has_reached(OTHER_EXTERNAL, &mut place));
    // Back in pace: what is made once goes to both.
    bench.unset(new, Source::Local);
    assert_eq!(bench.written(|_| Pressure::Room).len(), 2);
}

#[test]
fn a_late_joiner_gets_the_table_in_as_few_messages_as_can_be() {
    let mut bench = Bench::new(EXTERNAL);
    for index in 0..40_000u32 {
        let net = Prefix::containing(Ipv4Addr::from_bits(index << 12).into(), 24).unwrap();
        let attributes = RouteAttributes {
            med: Some(index % 7),
            ..ours()
        };
        bench.set(net, Source::Local, attributes);
    }
    bench.told();
    bench.group.join(OTHER_EXTERNAL, &bench.table, true);
    assert_eq!(bench.group.count(OTHER_EXTERNAL, Family::Ipv4Unicast), 0);
    let mut told = bench.written(|_| Pressure::Room);
    let messages = told.remove(&OTHER_EXTERNAL).unwrap();
    assert!(told.is_empty());
    let routes = reachable(&messages);
    assert_eq!(routes.len(), 40_000);
    assert!(
        routes.windows(2).all(|pair| pair[0] != pair[1]),
        "no duplicate"
    );
    // A little over 1,000 a message, 5,715 a set: six messages each, and two End-of-RIBs.
    assert_eq!(messages.len(), 7 * 6 + 2);
    assert_eq!(
        bench.group.count(OTHER_EXTERNAL, Family::Ipv4Unicast),
        40_000
    );
}

#[test]
fn nothing_is_kept_when_the_last_member_leaves() {
    let mut bench = Bench::new(EXTERNAL);
    for index in 0..100 {
        bench.set(
            Prefix::host(Ipv4Addr::from_bits(index).into()),
            Source::Local,
            ours(),
        );
    }
    bench.told();
    bench.group.leave(EXTERNAL, &mut bench.table);
    for index in 0..100 {
        bench.unset(
            Prefix::host(Ipv4Addr::from_bits(index).into()),
            Source::Local,
        );
    }
    assert_eq!(bench.table.interner.len(), 0);
}

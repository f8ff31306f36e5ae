//! Policies at work: on the way in and out, and when they change under sessions that are up.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::core::PolicyChange;
use crate::rib::attributes::RouteAttributes;
use crate::rib::select::Source;
use crate::wire::{AttributeCode, LargeCommunity};

const C: [u8; 4] = [10, 99, 0, 4];

/// Policies as an operator writes them.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    import: ImportPolicy,
    #[serde(default)]
    export: ExportPolicy,
}

fn import(text: &str) -> ImportPolicy {
    let written: Written = toml::from_str(&format!("import = {text}")).unwrap();
    written.import
}

fn export(text: &str) -> ExportPolicy {
    let written: Written = toml::from_str(&format!("export = {text}")).unwrap();
    written.export
}

/// What a peer was told of a route, as far as policies change it.
fn words(update: &Attributes, next_hop: IpAddr) -> String {
    let path = update.as_path.as_ref().unwrap();
    let communities: Vec<_> = update.communities.iter().map(ToString::to_string).collect();
    let mut words = format!("{next_hop} path {path}");
    if let Some(med) = update.med {
        words += &format!(" med {med}");
    }
    if !communities.is_empty() {
        words += &format!(" {}", communities.join(","));
    }
    words
}

/// What a peer knows, made from what it was sent. Panics when it is told what it knows already.
#[derive(Default)]
struct Knows(BTreeMap<Prefix, String>);

impl Knows {
    fn hear(&mut self, updates: &[Update]) -> usize {
        for update in updates {
            for nlri in update.unreachable() {
                let known = self.0.remove(&nlri.prefix);
                assert!(known.is_some(), "{} is not known", nlri.prefix);
            }
            for reach in update.reachable() {
                let words = words(&update.attributes, reach.next_hop.addr());
                for nlri in reach.nlri {
                    let known = self.0.insert(nlri.prefix, words.clone());
                    assert_ne!(known.as_ref(), Some(&words), "{} again", nlri.prefix);
                }
            }
        }
        updates.len()
    }

    fn rows(&self) -> Vec<String> {
        let rows = self
            .0
            .iter()
            .map(|(prefix, words)| format!("{prefix} via {words}"));
        rows.collect()
    }
}

#[test]
fn an_import_policy_changes_what_it_takes() {
    let mut config = config(vec![peer("a", A, 65002)]);
    config.peers[0].import = import(
        r#"[{ deny = "10.9.0.0/16" }, { permit = "10.0.0.0/8", le = 16, set = { local_pref = 200 }, add = { communities = "65001:1" } }, { permit = "11.0.0.0/8", community = "65002:7" }, { permit = "any", community = "65002:8", delete = { communities = "65002:*" } }]"#,
    );
    let mut bench = Bench::new(config);
    let id = bench.establish(A, 65002);
    let networks = ["10.1.0.0/16", "10.9.0.0/16", "11.0.0.0/8", "12.0.0.0/8"];
    // communities, what is taken of each network and how
    let rows: [(&[&str], [Option<&str>; 4]); 3] = [
        (&[], [Some("200 65001:1"), None, None, None]),
        (
            &["65002:7"],
            [Some("200 65002:7 65001:1"), None, Some("100 65002:7"), None],
        ),
        (
            &["65002:8"],
            [Some("200 65002:8 65001:1"), None, Some("100"), Some("100")],
        ),
    ];
    for (communities, expected) in rows {
        let mut update = update(&[65002], "10.99.0.2", &networks);
        update.attributes.communities = communities
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        bench.feed(id, update);
        let taken = bench.core.received_from("a").into_iter().map(|(_, route)| {
            let route = route?;
            let mut words = vec![route.preference().to_string()];
            words.extend(route.communities.iter().map(ToString::to_string));
            Some(words.join(" "))
        });
        let taken: Vec<_> = taken.collect();
        let taken: Vec<_> = taken.iter().map(Option::as_deref).collect();
        assert_eq!(taken, expected, "{communities:?}");
    }
}

#[test]
fn an_export_policy_changes_what_it_tells() {
    let mut config = config(vec![
        peer("a", A, 65002),
        peer("b", B, 65001),
        peer("c", C, 65003),
    ]);
    config.peers[1].export = export(
        r#"{ all = [{ permit = "10.1.0.0/16", set = { med = 7, communities = ["65001:1"] } }, { permit = "10.2.0.0/16", set = { next_hop = "self" } }, { permit = "any" }] }"#,
    );
    config.peers[2].export = export(
        r#"{ ipv4 = { all = [{ permit = "10.1.0.0/16", prepend = 2, add = { med = 9 } }, { permit = "10.2.0.0/16", set = { next_hop = "unchanged" } }, { permit = "10.3.0.0/16", set = { next_hop = "192.0.2.9" } }, { deny = "any", from = "local" }, { permit = "any" }] } }"#,
    );
    let mut bench = Bench::new(config);
    let [a, b, c] = [(A, 65002), (B, 65001), (C, 65003)].map(|(at, asn)| bench.establish(at, asn));
    bench.core.announce(vec![
        announcement("10.1.0.0/16"),
        announcement("10.4.0.0/16"),
    ]);
    bench.feed(
        a,
        update(
            &[65002],
            "10.99.0.2",
            &["10.2.0.0/16", "10.3.0.0/16", "10.5.0.0/16"],
        ),
    );
    let mut known = Knows::default();
    known.hear(&bench.updates(b));
    assert_eq!(
        known.rows(),
        [
            "10.1.0.0/16 via 10.99.0.1 path  med 7 65001:1",
            "10.2.0.0/16 via 10.99.0.1 path 65002",
            "10.3.0.0/16 via 10.99.0.2 path 65002",
            "10.4.0.0/16 via 10.99.0.1 path ",
            "10.5.0.0/16 via 10.99.0.2 path 65002",
        ]
    );
    let mut known = Knows::default();
    known.hear(&bench.updates(c));
    assert_eq!(
        known.rows(),
        [
            "10.1.0.0/16 via 10.99.0.1 path 65001 65001 65001 med 9",
            "10.2.0.0/16 via 10.99.0.2 path 65001 65002",
            "10.3.0.0/16 via 192.0.2.9 path 65001 65002",
            "10.5.0.0/16 via 10.99.0.1 path 65001 65002",
        ]
    );
}

#[test]
fn an_export_policy_changes_without_a_reset() {
    let peers = vec![peer("a", A, 65002), peer("b", B, 65003)];
    let mut bench = Bench::new(config(peers));
    bench.core.announce(
        ["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]
            .map(announcement)
            .into(),
    );
    let (a, b) = (bench.accept(A).unwrap(), bench.accept(B).unwrap());
    for (id, asn, at) in [(a, 65002, A), (b, 65003, B)] {
        bench.feed(id, open(asn, at));
        bench.feed(id, Message::Keepalive);
    }
    let (mut at_a, mut at_b) = (Knows::default(), Knows::default());
    at_a.hear(&bench.updates(a));
    at_b.hear(&bench.updates(b));
    assert_eq!((at_a.0.len(), at_b.0.len()), (3, 3));

    let change = |bench: &mut Bench, names: &[&str], text: &str| {
        let changes = names
            .iter()
            .map(|name| (name.to_string(), ImportPolicy::All, export(text)));
        let done = bench
            .core
            .set_policies(changes.collect(), bench.now)
            .unwrap();
        bench.drain();
        done
    };
    let tagged = r#"{ all = [{ deny = "10.1.0.0/16" }, { permit = "10.2.0.0/16", set = { med = 5 } }, { permit = "any" }] }"#;
    assert_eq!(change(&mut bench, &["b"], tagged), [PolicyChange::Applied]);
    assert_eq!(
        at_a.hear(&bench.updates(a)),
        0,
        "the other one of the group hears nothing"
    );
    assert_eq!(
        at_b.hear(&bench.updates(b)),
        2,
        "one withdrawal, one change"
    );
    assert_eq!(
        at_b.rows(),
        [
            "10.2.0.0/16 via 10.99.0.1 path 65001 med 5",
            "10.3.0.0/16 via 10.99.0.1 path 65001"
        ]
    );
    let told = bench.core.advertised();
    assert_eq!(told["b"].len(), 2);
    assert_eq!(told["a"].len(), 3);

    assert_eq!(change(&mut bench, &["b"], tagged), [PolicyChange::None]);
    let other = tagged.replace("10.1.0.0/16", "10.3.0.0/16");
    assert_eq!(
        change(&mut bench, &["a", "b"], &other),
        [PolicyChange::Applied; 2]
    );
    at_a.hear(&bench.updates(a));
    at_b.hear(&bench.updates(b));
    assert_eq!(at_a.rows(), at_b.rows());
    assert_eq!(at_a.0.len(), 2);
    bench
        .core
        .withdraw(&[prefix("10.1.0.0/16"), prefix("10.2.0.0/16")]);
    bench.drain();
    at_a.hear(&bench.updates(a));
    assert_eq!(at_a.rows(), Vec::<String>::new());
    change(&mut bench, &["a"], "\"none\"");
    assert!(bench.updates(a).is_empty());
    for status in bench.core.peers(bench.now) {
        assert_eq!((status.state, status.sessions), (State::Established, 1));
    }
    let nobody = vec![("x".to_owned(), ImportPolicy::All, ExportPolicy::All)];
    assert_eq!(
        bench.core.set_policies(nobody, bench.now),
        Err(UnknownPeer("x".to_owned()))
    );
}

#[test]
fn an_import_policy_changes_without_a_reset() {
    let routes = ["10.1.0.0/16", "10.2.0.0/16", "11.0.0.0/8"];
    // before, after, what is used at once, what became of it
    let rows = [
        (
            "\"all\"",
            r#"[{ permit = "10.0.0.0/8", le = 32 }]"#,
            "10.1.0.0/16 10.2.0.0/16",
            PolicyChange::Applied,
        ),
        ("\"all\"", "\"none\"", "", PolicyChange::Applied),
        (
            r#"[{ permit = "10.1.0.0/16" }]"#,
            "\"all\"",
            "10.1.0.0/16",
            PolicyChange::RefreshRequested,
        ),
        (
            r#"[{ permit = "any", set = { local_pref = 7 } }]"#,
            r#"[{ permit = "10.1.0.0/16" }]"#,
            "10.1.0.0/16",
            PolicyChange::RefreshRequested,
        ),
    ];
    for (before, after, used_at_once, expected) in rows {
        for can_refresh in [true, false] {
            let mut peers = vec![peer("a", A, 65002)];
            peers[0].import = import(before);
            let mut bench = Bench::new(config(peers));
            let id = bench.accept(A).unwrap();
            let Message::Open(mut theirs) = open(65002, A) else {
                unreachable!()
            };
            theirs
                .capabilities
                .retain(|c| can_refresh || *c != Capability::RouteRefresh);
            bench.feed(id, Message::Open(theirs));
            bench.feed(id, Message::Keepalive);
            bench.feed(id, update(&[65002], "10.99.0.2", &routes));
            bench.sent(id);
            let change = ("a".to_owned(), import(after), ExportPolicy::All);
            let done = bench.core.set_policies(vec![change], bench.now).unwrap();
            bench.drain();
            let prefixes = |bench: &Bench| {
                let routes = bench.core.routes().into_iter();
                let prefixes = routes.map(|route| route.prefix.to_string());
                prefixes.collect::<Vec<_>>().join(" ")
            };
            assert_eq!(prefixes(&bench), used_at_once, "{before} -> {after}");
            let asked = bench.sent(id).into_iter().filter(|message| {
                matches!(message, Message::RouteRefresh(refresh) if refresh.subtype == RouteRefresh::REQUEST)
            });
            let asked = asked.count();
            let note = bench.core.peers(bench.now)[0]
                .notes
                .iter()
                .any(|note| note.contains("reset the session to apply it"));
            match (expected, can_refresh) {
                (PolicyChange::RefreshRequested, false) => {
                    assert_eq!((done[0], asked, note), (PolicyChange::ResetNeeded, 0, true));
                }
                (PolicyChange::RefreshRequested, true) => {
                    assert_eq!(
                        (done[0], asked, note),
                        (expected, 2, false),
                        "{before} -> {after}"
                    );
                    // It answers.
                    bench.feed(id, update(&[65002], "10.99.0.2", &routes));
                    let policy = import(after);
                    let plain =
                        RouteAttributes::originated("10.99.0.2".parse::<IpAddr>().unwrap().into());
                    let permitted = routes
                        .iter()
                        .filter(|route| policy.decide(&prefix(route), &plain).permits());
                    let permitted: Vec<_> = permitted.copied().collect();
                    assert_eq!(prefixes(&bench), permitted.join(" "));
                }
                _ => assert_eq!((done[0], asked, note), (expected, 0, false)),
            }
            assert_eq!(bench.core.state("a"), Some(State::Established));
        }
    }
}

#[test]
fn equally_good_paths_are_as_the_policies_make_them() {
    let mut bench = Bench::new(SpeakerConfig {
        multipath: crate::config::Multipath {
            max_paths: 4,
            relax: true,
        },
        ..config(vec![peer("a", A, 65002), peer("b", B, 65003)])
    });
    let (a, b) = (bench.establish(A, 65002), bench.establish(B, 65003));
    bench.feed(a, update(&[65002], "10.99.0.2", &["10.1.0.0/16"]));
    bench.feed(b, update(&[65003], "10.99.0.3", &["10.1.0.0/16"]));
    assert_eq!(used(&bench.core), ["10.1.0.0/16 a+b"]);
    // import policy of b, what is used then
    let rows = [
        (r#"[{ permit = "any", prepend = 1 }]"#, "10.1.0.0/16 a"),
        (
            r#"[{ permit = "any", set = { local_pref = 200 } }]"#,
            "10.1.0.0/16 b",
        ),
        (
            r#"[{ permit = "any", set = { med = 5 } }]"#,
            "10.1.0.0/16 a",
        ),
        (
            r#"[{ permit = "any", add = { communities = "65001:1" } }]"#,
            "10.1.0.0/16 a+b",
        ),
        ("\"none\"", "10.1.0.0/16 a"),
        ("\"all\"", "10.1.0.0/16 a+b"),
    ];
    for (policy, expected) in rows {
        let change = ("b".to_owned(), import(policy), ExportPolicy::All);
        bench.core.set_policies(vec![change], bench.now).unwrap();
        bench.drain();
        bench.feed(b, update(&[65003], "10.99.0.3", &["10.1.0.0/16"]));
        assert_eq!(used(&bench.core), [expected], "{policy}");
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Some peers, and the policy that they get.
    Policies(Vec<usize>, usize),
    Announce(u8, u32),
    Withdraw(u8),
    Learn(u8, u32),
    Lose(u8),
    Reset(usize),
}

const POLICIES: [&str; 7] = [
    "\"none\"",
    "\"local\"",
    "\"all\"",
    r#"{ all = [{ deny = "10.0.0.0/14", le = 32 }, { permit = "any" }] }"#,
    r#"{ all = [{ permit = "10.0.0.0/13", le = 32, set = { med = 1 } }, { permit = "any" }] }"#,
    r#"{ all = [{ permit = "10.0.0.0/14", le = 32, set = { med = 1 } }, { permit = "any", med = 1, set = { communities = ["65001:1"] } }] }"#,
    r#"{ local = [{ permit = "any", prepend = 1 }] }"#,
];

fn network(number: u8) -> Prefix {
    Prefix::new(Ipv4Addr::new(10, number % 8, 0, 0).into(), 16).unwrap()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (
            proptest::sample::subsequence(vec![0, 1, 2], 1..=3),
            0..POLICIES.len()
        )
            .prop_map(|(peers, policy)| Step::Policies(peers, policy)),
        (0u8..8, 0u32..2).prop_map(|(number, med)| Step::Announce(number, med)),
        (0u8..8).prop_map(Step::Withdraw),
        (0u8..8, 0u32..2).prop_map(|(number, med)| Step::Learn(number, med)),
        (0u8..8).prop_map(Step::Lose),
        (1usize..3).prop_map(Step::Reset),
    ]
}

/// LOCAL_PREF does not leave the AS, whatever a policy sets (RFC 4271 section 5.1.5).
#[test]
fn local_pref_set_on_the_way_out_is_for_internal_peers() {
    let mut peers = vec![peer("external", A, 65002), peer("internal", B, 65001)];
    for peer in &mut peers {
        peer.export = export(r#"{ all = [{ permit = "any", set = { local_pref = 200 } }] }"#);
    }
    let mut bench = Bench::new(config(peers));
    let (external, internal) = (bench.establish(A, 65002), bench.establish(B, 65001));
    // Whoever reads as an external peer would not see it.
    bench.options.internal = true;
    bench.core.announce(vec![announcement("10.1.0.0/16")]);
    bench.drain();
    for (id, name, expected) in [
        (external, "external", None),
        (internal, "internal", Some(200)),
    ] {
        let updates = bench.updates(id);
        assert_eq!(updates[0].attributes.local_pref, expected, "{name}");
        let told = &bench.core.advertised()[name];
        assert_eq!(told[&prefix("10.1.0.0/16")].local_pref, expected, "{name}");
    }
}

/// Whoever passes an attribute on leaves its Partial flag as it was (RFC 4271 section 5).
#[test]
fn what_somebody_did_not_know_stays_marked() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002), peer("b", B, 65003)]));
    let (a, b) = (bench.establish(A, 65002), bench.establish(B, 65003));
    bench.sent(b);
    let mut learned = update(&[65002], "10.99.0.2", &["10.1.0.0/16"]);
    learned.attributes.communities = vec![Community(1)];
    learned.attributes.large_communities = vec![LargeCommunity::new(1, 2, 3)];
    learned
        .attributes
        .partial
        .insert(AttributeCode::COMMUNITIES);
    bench.feed(a, learned);
    let told = &bench.updates(b)[0].attributes;
    assert!(told.partial.contains(AttributeCode::COMMUNITIES));
    assert!(!told.partial.contains(AttributeCode::LARGE_COMMUNITIES));
}

proptest! {
    /// Whatever changes, each peer knows in the end what its policy says of what there is, and was
    /// never told what it knew.
    #[test]
    fn policies_that_change_end_as_if_they_had_been_so_always(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let all = [(A, 65002u32), (B, 65003), (C, 65004)];
        let names = ["a", "b", "c"];
        let peers = names.iter().zip(all).map(|(name, (at, asn))| PeerConfig {
            hold_time: 0,
            idle_hold_max: Duration::from_secs(1),
            ..peer(name, at, asn)
        });
        let mut bench = Bench::new(config(peers.collect()));
        let mut ids = all.map(|(at, asn)| bench.establish(at, asn));
        let mut known = [(); 3].map(|()| Knows::default());
        let mut policies = [2usize; 3];
        for step in steps {
            match step {
                Step::Policies(peers, policy) => {
                    // What changes twice before anything is written may be told once more than
                    // it needs to be.
                    bench.drain();
                    let changes = peers.iter().map(|peer| {
                        policies[*peer] = policy;
                        (names[*peer].to_owned(), ImportPolicy::All, export(POLICIES[policy]))
                    });
                    let changes = changes.collect();
                    bench.core.set_policies(changes, bench.now).unwrap();
                    bench.drain();
                }
                Step::Announce(number, med) => {
                    let route = Announcement { med: Some(med), ..Announcement::new(network(number)) };
                    bench.core.announce(vec![route]);
                }
                Step::Withdraw(number) => bench.core.withdraw(&[network(number)]),
                Step::Learn(number, med) => {
                    let mut update = update(&[65002], "10.99.0.2", &[&network(number).to_string()]);
                    update.attributes.med = Some(med);
                    bench.feed(ids[0], update);
                }
                Step::Lose(number) => {
                    let withdrawn = vec![network(number).into()];
                    bench.feed(ids[0], Update { withdrawn, ..Update::default() });
                }
                Step::Reset(peer) => {
                    bench.drain();
                    bench.feed(ids[peer], Notification::cease(Cease::AdministrativeReset));
                    bench.sent(ids[peer]);
                    bench.pass(Duration::from_secs(2));
                    let (at, asn) = all[peer];
                    known[peer] = Knows::default();
                    ids[peer] = bench.accept(at).unwrap();
                    bench.feed(ids[peer], open(asn, at));
                    bench.feed(ids[peer], Message::Keepalive);
                }
            }
        }
        bench.drain();
        for (peer, id) in ids.into_iter().enumerate() {
            known[peer].hear(&bench.updates(id));
        }
        // The same from the start: a speaker that always had the last policies.
        let peers = names.iter().zip(all).enumerate().map(|(index, (name, (at, asn)))| {
            PeerConfig {
                export: export(POLICIES[policies[index]]),
                ..self::peer(name, at, asn)
            }
        });
        let mut fresh = Bench::new(config(peers.collect()));
        let ids = all.map(|(at, asn)| {
            let id = fresh.accept(at).unwrap();
            fresh.feed(id, open(asn, at));
            fresh.feed(id, Message::Keepalive);
            id
        });
        let learned = bench.core.received_from("a");
        for (prefix, route) in learned {
            let mut update = update(&[65002], "10.99.0.2", &[&prefix.to_string()]);
            update.attributes.med = route.unwrap().med;
            fresh.feed(ids[0], update);
        }
        let ours = Source::Local;
        for (nlri, path) in bench.core.rib.table.paths_from(Family::Ipv4Unicast, ours) {
            let med = bench.core.rib.table.attributes(path.attributes).med;
            let route = Announcement { med, ..Announcement::new(nlri.prefix) };
            fresh.core.announce(vec![route]);
        }
        fresh.drain();
        for (peer, id) in ids.into_iter().enumerate() {
            let mut expected = BTreeMap::new();
            for update in fresh.updates(id) {
                for nlri in update.unreachable() {
                    expected.remove(&nlri.prefix);
                }
                for reach in update.reachable() {
                    for nlri in reach.nlri {
                        expected.insert(nlri.prefix, words(&update.attributes, reach.next_hop.addr()));
                    }
                }
            }
            prop_assert_eq!(&known[peer].0, &expected, "{}", names[peer]);
            let told = &bench.core.advertised()[names[peer]];
            prop_assert!(told.keys().eq(expected.keys()), "{} is told to have it", names[peer]);
        }
    }
}

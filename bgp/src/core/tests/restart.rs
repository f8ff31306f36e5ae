//! What is kept of a peer that restarts, and what is not.

use super::roster::{dynamic, group};
use super::*;
use crate::DynamicAsn;
use crate::wire::{GracefulRestart as Offer, GracefulRestartFamily, LongLivedFamily};

/// Offered by a peer that restarts within 120 s.
pub(super) fn offer(notification: bool, preserved: bool) -> Capability {
    Capability::GracefulRestart(Offer {
        restarting: false,
        notification,
        restart_time: 120,
        families: Family::ALL
            .map(|family| GracefulRestartFamily {
                family: family.into(),
                forwarding_preserved: preserved,
            })
            .into(),
    })
}

fn open_with(asn: u32, id: [u8; 4], more: Vec<Capability>) -> Message {
    let mut capabilities: Vec<_> = Family::ALL.map(Capability::multiprotocol).into();
    capabilities.push(Capability::RouteRefresh);
    capabilities.push(Capability::EnhancedRouteRefresh);
    capabilities.extend(more);
    Message::Open(Open::new(asn, 90, id.into(), capabilities))
}

impl Bench {
    pub(super) fn establish_with(
        &mut self,
        from: [u8; 4],
        asn: u32,
        more: Vec<Capability>,
    ) -> ConnectionId {
        let id = self.accept(from).expect("refused");
        self.feed(id, open_with(asn, from, more));
        self.feed(id, Message::Keepalive);
        self.sent(id);
        id
    }

    fn stale(&self) -> usize {
        self.core.peers(self.now)[0].prefixes[&Family::Ipv4Unicast].stale
    }
}

pub(super) const ROUTES: [&str; 2] = ["10.2.0.0/16", "10.3.0.0/16"];

pub(super) fn two_routes() -> Update {
    update(&[65002], "10.99.0.2", &ROUTES)
}

#[test]
fn how_a_session_ends_decides_what_is_kept() {
    let lost = |bench: &mut Bench, id| bench.core.closed(id, "reset".into(), bench.now);
    let notified = |subcode: u8| {
        move |bench: &mut Bench, id| {
            bench.feed(
                id,
                Notification::new(crate::wire::notification::code::CEASE, subcode),
            );
        }
    };
    let silent = |bench: &mut Bench, _| bench.pass(Duration::from_secs(10));
    let down = |bench: &mut Bench, _| {
        bench
            .core
            .set_peer_admin("a", false, None, bench.now)
            .unwrap();
    };
    type End = Box<dyn Fn(&mut Bench, ConnectionId)>;
    // how, what the peer offers, routes that stay
    let rows: Vec<(&str, End, Vec<Capability>, usize)> = vec![
        ("lost", Box::new(lost), vec![offer(false, true)], 2),
        ("lost, no offer", Box::new(lost), vec![], 0),
        (
            "shutdown",
            Box::new(notified(2)),
            vec![offer(false, true)],
            0,
        ),
        (
            "shutdown, N",
            Box::new(notified(2)),
            vec![offer(true, true)],
            2,
        ),
        (
            "hard reset, N",
            Box::new(notified(9)),
            vec![offer(true, true)],
            0,
        ),
        ("silence", Box::new(silent), vec![offer(false, true)], 0),
        ("silence, N", Box::new(silent), vec![offer(true, true)], 2),
        (
            "by our operator, N",
            Box::new(down),
            vec![offer(true, true)],
            0,
        ),
    ];
    for (how, end, offered, expected) in rows {
        let mut bench = Bench::new(config(vec![peer("a", A, 65002), peer("b", B, 65003)]));
        let b = bench.establish(B, 65003);
        let a = bench.establish_with(A, 65002, offered);
        bench.feed(a, two_routes());
        bench.sent(b);
        // B keeps its session alive.
        bench.feed(b, Message::Keepalive);
        end(&mut bench, a);
        bench.drain();
        assert_eq!(used(&bench.core).len(), expected, "{how}");
        assert_eq!(bench.stale(), expected, "{how}");
        let withdrawn: usize = bench
            .updates(b)
            .iter()
            .map(|update| update.withdrawn.len())
            .sum();
        if how != "silence" && how != "silence, N" {
            assert_eq!(withdrawn, 2 - expected, "{how}: what B was told");
        }
    }
}

#[test]
fn a_peer_that_is_back_tells_what_stays() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002), peer("b", B, 65003)]));
    let b = bench.establish(B, 65003);
    let a = bench.establish_with(A, 65002, vec![offer(false, true)]);
    bench.feed(a, two_routes());
    bench.core.closed(a, "reset".into(), bench.now);
    bench.sent(b);
    bench.pass(Duration::from_secs(1));
    let a = bench.establish_with(A, 65002, vec![offer(false, true)]);
    assert_eq!(bench.stale(), 2);
    bench.feed(a, update(&[65002], "10.99.0.2", &ROUTES[..1]));
    assert_eq!(bench.stale(), 1);
    assert_eq!(bench.updates(b), [], "nothing has changed for others");
    bench.feed(a, Update::end_of_rib(Family::Ipv4Unicast));
    assert_eq!((used(&bench.core).len(), bench.stale()), (1, 0));
    assert_eq!(
        bench.updates(b)[0].withdrawn,
        [Nlri::from(prefix(ROUTES[1]))]
    );
}

#[test]
fn a_peer_that_has_not_gone_on_forwarding_loses_its_routes_when_it_is_back() {
    for offered in [vec![offer(false, false)], vec![]] {
        let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
        let a = bench.establish_with(A, 65002, vec![offer(false, true)]);
        bench.feed(a, two_routes());
        bench.core.closed(a, "reset".into(), bench.now);
        bench.pass(Duration::from_secs(1));
        assert_eq!(used(&bench.core).len(), 2);
        bench.establish_with(A, 65002, offered);
        assert_eq!(used(&bench.core).len(), 0);
    }
}

#[test]
fn stale_routes_go_when_the_restart_time_is_over() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let a = bench.establish_with(A, 65002, vec![offer(false, true)]);
    bench.feed(a, two_routes());
    bench.core.closed(a, "reset".into(), bench.now);
    bench.pass(Duration::from_secs(119));
    assert_eq!(used(&bench.core).len(), 2);
    bench.pass(Duration::from_secs(2));
    assert_eq!(used(&bench.core).len(), 0);
}

/// A neighbour known by its prefix only is not forgotten while its routes are kept for its return, and
/// nobody else gets its place.
#[test]
fn stale_routes_of_a_dynamic_peer_last_as_long_as_those_of_another() {
    let tor = || group("tor", "10.50.0.0/16", 1, DynamicAsn::External);
    let (one, two) = ([10, 50, 0, 1], [10, 50, 0, 2]);
    let routes = || update(&[65010], "10.50.0.1", &ROUTES);
    let lost = || {
        let mut bench = Bench::new(dynamic(vec![tor()]));
        let id = bench.establish_with(one, 65010, vec![offer(false, true)]);
        bench.feed(id, routes());
        bench.core.closed(id, "reset".into(), bench.now);
        bench.pass(Duration::from_secs(119));
        assert_eq!(used(&bench.core).len(), 2);
        assert!(bench.accept(two).is_none(), "the place is taken");
        bench
    };
    // It comes back: the same peer, and nothing was ever withdrawn.
    let mut bench = lost();
    let id = bench.establish_with(one, 65010, vec![offer(false, true)]);
    bench.feed(id, routes());
    for family in Family::ALL {
        bench.feed(id, Update::end_of_rib(family));
    }
    bench.pass(Duration::from_secs(80));
    assert_eq!(used(&bench.core).len(), 2);
    assert_eq!(bench.core.peer_name(id).unwrap().as_str(), "tor-10.50.0.1");

    // It does not: its routes go when its time is over, and then somebody else may come.
    let mut bench = lost();
    bench.pass(Duration::from_secs(2));
    assert_eq!(used(&bench.core).len(), 0);
    assert!(bench.accept(two).is_some());
}

#[test]
fn a_second_loss_ends_what_was_stale() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let a = bench.establish_with(A, 65002, vec![offer(false, true)]);
    bench.feed(a, two_routes());
    bench.core.closed(a, "reset".into(), bench.now);
    bench.pass(Duration::from_secs(1));
    let a = bench.establish_with(A, 65002, vec![offer(false, true)]);
    bench.feed(a, update(&[65002], "10.99.0.2", &ROUTES[..1]));
    bench.core.closed(a, "reset".into(), bench.now);
    assert_eq!((used(&bench.core).len(), bench.stale()), (1, 1));
}

#[test]
fn a_new_connection_of_a_peer_that_restarts_takes_over() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let old = bench.establish_with(A, 65002, vec![offer(false, true)]);
    bench.feed(old, two_routes());
    // Right after the session is up it has lost a collision.
    let early = bench.accept(A).unwrap();
    assert_eq!(bench.refusal(early), (6, 7));
    bench.pass(Duration::from_secs(5));
    let new = bench.accept(A).unwrap();
    assert!(bench.closed.contains(&old) && !bench.closed.contains(&new));
    assert_eq!((used(&bench.core).len(), bench.stale()), (2, 2));
    bench.feed(new, open_with(65002, A, vec![offer(false, true)]));
    bench.feed(new, Message::Keepalive);
    assert_eq!(bench.core.state("a"), Some(State::Established));
    bench.feed(new, two_routes());
    assert_eq!(bench.stale(), 0);

    // Without graceful restart the established session stays (RFC 4271 section 6.8).
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let old = bench.establish_with(A, 65002, vec![]);
    let new = bench.accept(A).unwrap();
    assert_eq!(bench.refusal(new), (6, 7));
    assert!(!bench.closed.contains(&old));
}

#[test]
fn our_operators_word_is_a_hard_reset_for_those_that_keep_routes() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let a = bench.establish_with(A, 65002, vec![offer(true, true)]);
    bench
        .core
        .set_peer_admin("a", false, None, bench.now)
        .unwrap();
    bench.drain();
    let Some(Message::Notification(notification)) = bench.sent(a).pop() else {
        panic!("no NOTIFICATION")
    };
    assert_eq!((notification.code, notification.subcode), (6, 9));
    assert_eq!(&notification.data[..2], [6, 2]);
    let reason = notification.reason();
    assert_eq!((reason.code, reason.subcode), (6, 2));
}

#[test]
fn long_lived_stale_routes_are_a_last_resort_and_marked() {
    let long_lived = |seconds| {
        Capability::LongLivedGracefulRestart(
            Family::ALL
                .map(|family| LongLivedFamily {
                    family: family.into(),
                    forwarding_preserved: true,
                    stale_time: seconds,
                })
                .into(),
        )
    };
    let mut a = peer("a", A, 65002);
    a.capabilities.long_lived_stale_time = Duration::from_secs(1000);
    let mut b = peer("b", B, 65003);
    b.hold_time = 0;
    let mut bench = Bench::new(config(vec![a, b]));
    let a = bench.establish_with(A, 65002, vec![offer(false, true), long_lived(3600)]);
    let b = bench.establish(B, 65003);
    let mut routes = two_routes();
    routes.attributes.communities = vec![];
    bench.feed(a, routes);
    let mut fleeting = update(&[65002], "10.99.0.2", &["10.4.0.0/16"]);
    fleeting.attributes.communities = vec![Community::NO_LLGR];
    bench.feed(a, fleeting);
    // B has a worse path to one of them.
    bench.feed(b, update(&[65003, 7, 8], "10.99.0.3", &ROUTES[..1]));
    bench.core.closed(a, "reset".into(), bench.now);
    bench.sent(b);
    assert_eq!(
        used(&bench.core),
        ["10.2.0.0/16 a", "10.3.0.0/16 a", "10.4.0.0/16 a"]
    );
    bench.pass(Duration::from_secs(121));
    assert_eq!(used(&bench.core), ["10.2.0.0/16 b", "10.3.0.0/16 a"]);
    let marked = bench.core.routes()[1].paths[0].attributes.clone();
    assert!(marked.communities.contains(&Community::LLGR_STALE));
    // B does not know what that means: it is not told (RFC 9494 section 4.3).
    let gone: Vec<_> = bench
        .updates(b)
        .into_iter()
        .flat_map(|u| u.withdrawn)
        .collect();
    assert_eq!(gone.len(), 3);
    // Ours is the shorter time.
    bench.pass(Duration::from_secs(1000));
    assert_eq!(used(&bench.core), ["10.2.0.0/16 b"]);
}

#[test]
fn a_refresh_is_marked_and_sweeps() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    bench.core.announce(vec![announcement("10.1.0.0/16")]);
    let a = bench.establish_with(A, 65002, vec![]);
    let refresh = |subtype| {
        Message::RouteRefresh(RouteRefresh {
            family: Family::Ipv4Unicast.into(),
            subtype,
        })
    };
    // It asks, and knows where the answer begins and ends.
    bench.feed(a, refresh(RouteRefresh::REQUEST));
    let answer = bench.sent(a);
    let [
        Message::RouteRefresh(begin),
        Message::Update(route),
        Message::RouteRefresh(end),
    ] = &answer[..]
    else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (begin.subtype, end.subtype),
        (RouteRefresh::BEGIN, RouteRefresh::END)
    );
    assert_eq!(route.nlri, [Nlri::from(prefix("10.1.0.0/16"))]);
    // It tells us again, and leaves one out.
    bench.feed(a, two_routes());
    bench.feed(a, refresh(RouteRefresh::BEGIN));
    assert_eq!(bench.stale(), 2);
    bench.feed(a, update(&[65002], "10.99.0.2", &ROUTES[..1]));
    bench.feed(a, refresh(RouteRefresh::END));
    assert_eq!(used(&bench.core), ["10.2.0.0/16 a"]);

    // A peer that does not know the marks gets none, and its own mean nothing.
    let mut bench = Bench::new(config(vec![peer("b", B, 65003)]));
    bench.core.announce(vec![announcement("10.1.0.0/16")]);
    let b = bench.establish(B, 65003);
    bench.sent(b);
    bench.feed(b, refresh(RouteRefresh::REQUEST));
    assert!(matches!(bench.sent(b)[..], [Message::Update(_)]));
}

/// Whoever only reads events knows which routes are stale, with one path or several.
#[test]
fn events_tell_what_turns_stale_and_what_is_fresh_again() {
    for several in [false, true] {
        let mut bench = Bench::new(config(vec![peer("a", A, 65002), peer("b", B, 65003)]));
        bench.core.observe(true);
        let b = bench.establish(B, 65003);
        if several {
            bench.feed(b, update(&[65003], "10.99.0.3", &ROUTES));
        }
        let a = bench.establish_with(A, 65002, vec![offer(false, true)]);
        bench.feed(a, two_routes());
        bench.core.take_events();
        let stale = |bench: &mut Bench| {
            let events = bench.core.take_events().into_iter();
            let paths = events.filter_map(|event| match event {
                Event::Route(route) => Some(route.paths),
                _ => None,
            });
            let paths = paths.flatten().filter(|path| path.peer == *"a");
            paths.map(|path| path.stale).collect::<Vec<_>>()
        };
        bench.core.closed(a, "reset".into(), bench.now);
        assert_eq!(stale(&mut bench), [true, true], "several: {several}");
        bench.pass(Duration::from_secs(2));
        let a = bench.establish_with(A, 65002, vec![offer(false, true)]);
        bench.feed(a, two_routes());
        assert_eq!(stale(&mut bench), [false, false], "several: {several}");
    }
}

#[test]
fn nothing_is_kept_once_we_stop() {
    let mut bench = Bench::new(config(vec![peer("a", A, 65002)]));
    let a = bench.establish_with(A, 65002, vec![offer(false, true)]);
    bench.feed(a, two_routes());
    bench.core.closed(a, "reset".into(), bench.now);
    assert_eq!(bench.stale(), 2);
    bench.core.stop(&Stop::Cease(None), bench.now);
    assert_eq!(bench.stale(), 0);
    assert_eq!(bench.core.next_timeout(), None);
}

#[test]
fn a_peer_that_says_no_end_has_told_everything_once_it_is_quiet() {
    let restarting = |offer: Capability| match offer {
        Capability::GracefulRestart(restart) => Capability::GracefulRestart(Offer {
            restarting: true,
            ..restart
        }),
        other => other,
    };
    let ends = |bench: &mut Bench| {
        let events = bench.core.take_events().into_iter();
        events
            .filter(|event| matches!(event, crate::event::Event::EndOfRib { .. }))
            .count()
    };
    // what the peer offers, whether silence is an end
    for (what, offers, expected) in [
        ("nothing", vec![], true),
        ("to restart", vec![offer(true, true)], false),
        (
            "that it restarts",
            vec![restarting(offer(true, true))],
            true,
        ),
    ] {
        let mut bench = Bench::new(config(vec![PeerConfig {
            hold_time: 90,
            ..peer("a", A, 65002)
        }]));
        bench.core.observe(true);
        let id = bench.establish_with(A, 65002, offers);
        for _ in 0..3 {
            bench.pass(Duration::from_secs(4));
            bench.feed(id, two_routes());
            assert_eq!(ends(&mut bench), 0, "{what}: still telling");
        }
        // A KEEPALIVE is no route.
        bench.pass(Duration::from_secs(4));
        bench.feed(id, Message::Keepalive);
        assert_eq!(ends(&mut bench), 0, "{what}");
        bench.pass(Duration::from_secs(1));
        let found = ends(&mut bench);
        assert_eq!(found, if expected { 2 } else { 0 }, "{what}: both families");
        let told = bench.core.current_state().into_iter();
        let told = told.filter(|event| matches!(event, crate::event::Event::EndOfRib { .. }));
        assert_eq!(told.count(), found, "{what}: also to who comes later");

        // Once is enough, and a true end says nothing new.
        bench.feed(id, two_routes());
        bench.pass(Duration::from_secs(10));
        assert_eq!(ends(&mut bench), 0, "{what}");
        for family in Family::ALL {
            bench.feed(id, Update::end_of_rib(family));
        }
        assert_eq!(ends(&mut bench), if expected { 0 } else { 2 }, "{what}");
    }
}

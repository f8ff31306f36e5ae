//! Nothing is lost in silence: overruns and dumps that change, provoked for real.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use netlink::{
    Address, BatchError, Change, Error, Event, Family, Group, Journal, LinkChange, Monitor,
    Namespace, Neighbour, NewLink, NextHop, Request, Route, RouteFilter, Rule, Socket,
};

fn fresh() -> (Namespace, Socket) {
    let namespace = Namespace::anonymous().expect("these tests need CAP_SYS_ADMIN");
    let socket = Socket::open_in(&namespace).expect("a socket");
    (namespace, socket)
}

fn bridge(socket: &mut Socket, name: &str) -> u32 {
    let index = socket
        .create_link(NewLink::bridge(name))
        .expect("a bridge")
        .index;
    socket
        .request(Request::change_link(LinkChange::of(index).up(true)))
        .expect("up");
    index
}

fn route(ifindex: u32, n: u16) -> Route {
    let [high, low] = n.to_be_bytes();
    let net = format!("10.{high}.{low}.0/24").parse().expect("a net");
    Route {
        protocol: 77,
        ..Route::new(net, NextHop::dev(ifindex))
    }
}

async fn next(monitor: &mut Monitor) -> Event {
    tokio::time::timeout(Duration::from_secs(5), monitor.next())
        .await
        .expect("an event in time")
        .expect("a working socket")
}

#[tokio::test]
async fn the_monitor_tells_of_everything_that_comes_and_goes() {
    let (namespace, mut socket) = fresh();
    let all = [
        Group::Link,
        Group::Address,
        Group::Route,
        Group::Rule,
        Group::Neighbour,
    ];
    let index = bridge(&mut socket, "br");
    let mut monitor = Monitor::open_in(&namespace, &all, None).expect("a monitor");
    let address = Address::new(index, "192.0.2.1/24".parse().expect("a net"));
    let mac = netlink::Mac([2, 0, 0, 0, 0, 1]);
    let neighbour = Neighbour::permanent(index, "192.0.2.9".parse().expect("an address"), mac);
    let rule = Rule {
        protocol: 77,
        ..Rule::lookup(Family::V6, 100, 77)
    };
    let route = route(index, 7);
    let requests = [
        Request::add_address(address),
        Request::add_route(route.clone()),
        Request::add_rule(rule.clone()),
        Request::replace_neighbour(neighbour),
        Request::delete_neighbour(neighbour),
        Request::delete_rule(rule.clone()),
        Request::delete_route(route.clone()),
        Request::delete_address(address),
        Request::delete_link(index),
    ];
    socket.batch(&requests).expect("all");
    let mut seen = Vec::new();
    loop {
        let event = next(&mut monitor).await;
        let last = matches!(&event, Event::Link(change)
            if matches!(change.as_ref(), Change::Gone(link) if link.name == "br"));
        seen.push(event);
        if last {
            break;
        }
    }
    let at = |wanted: Event| {
        seen.iter()
            .position(|event| *event == wanted)
            .unwrap_or_else(|| panic!("{wanted:?} is not in {seen:#?}"))
    };
    assert!(
        at(Event::Address(Change::Present(address))) < at(Event::Address(Change::Gone(address)))
    );
    assert!(
        at(Event::Route(Change::Present(route.clone()))) < at(Event::Route(Change::Gone(route)))
    );
    assert!(at(Event::Rule(Change::Present(rule.clone()))) < at(Event::Rule(Change::Gone(rule))));
    at(Event::Neighbour(Change::Present(neighbour)));
    assert!(
        !seen.iter().any(|event| matches!(event, Event::Resync(_))),
        "{seen:#?}"
    );
}

#[tokio::test]
async fn an_overrun_of_the_monitor_is_told_as_resync() {
    let (namespace, mut socket) = fresh();
    let index = bridge(&mut socket, "br");
    let mut monitor = Monitor::open_in(&namespace, &[Group::Route], Some(4096)).expect("a monitor");
    let requests: Vec<_> = (0..500)
        .map(|n| Request::add_route(route(index, n)))
        .collect();
    socket.batch(&requests).expect("all");
    let mut told = 0;
    let reason = loop {
        match next(&mut monitor).await {
            Event::Route(Change::Present(_)) => told += 1,
            Event::Resync(reason) => break reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(
        told < 500 && reason.contains("overrun"),
        "{told} told, then {reason}"
    );
    // What was told before is read on, and the stream goes on after the loss. The loss may be told
    // first, since the kernel reports it out of turn.
    socket
        .request(Request::delete_route(route(index, 3)))
        .expect("deleted");
    while next(&mut monitor).await != Event::Route(Change::Gone(route(index, 3))) {}
}

#[test]
fn the_journal_has_each_change_when_its_request_is_acknowledged() {
    let (namespace, mut socket) = fresh();
    let index = bridge(&mut socket, "br");
    let mut journal = Journal::open_in(&namespace, &[Group::Route], None).expect("a journal");
    assert_eq!(journal.take().expect("nothing yet"), []);
    for n in 0..200 {
        let added = Request::add_route(route(index, n));
        socket.request(added).expect("added");
        let present = Event::Route(Change::Present(route(index, n)));
        assert_eq!(journal.take().expect("reports"), [present]);
        let deleted = Request::delete_route(route(index, n));
        socket.request(deleted).expect("deleted");
        let gone = Event::Route(Change::Gone(route(index, n)));
        assert_eq!(journal.take().expect("reports"), [gone]);
    }
}

#[test]
fn an_overrun_of_the_journal_is_told_last() {
    let (namespace, mut socket) = fresh();
    let index = bridge(&mut socket, "br");
    let groups = [Group::Route];
    let mut journal = Journal::open_in(&namespace, &groups, Some(4096)).expect("a journal");
    let requests: Vec<_> = (0..500)
        .map(|n| Request::add_route(route(index, n)))
        .collect();
    socket.batch(&requests).expect("all");
    let events = journal.take().expect("reports");
    let (last, told) = events.split_last().expect("some");
    assert!(
        matches!(last, Event::Resync(reason) if reason.contains("overrun")) && told.len() < 500,
        "{} told, then {last:?}",
        told.len()
    );
    // It goes on after the loss.
    let deleted = Request::delete_route(route(index, 3));
    socket.request(deleted).expect("deleted");
    let gone = Event::Route(Change::Gone(route(index, 3)));
    assert_eq!(journal.take().expect("reports"), [gone]);
}

#[test]
fn an_overrun_of_a_batch_is_told_and_the_socket_goes_on() {
    let (_namespace, mut socket) = fresh();
    let index = bridge(&mut socket, "br");
    socket
        .request(Request::add_route(route(index, 0)))
        .expect("a route");
    // Every request is refused, and the refusals do not fit the buffer.
    socket.set_receive_buffer(4096).expect("small");
    let requests: Vec<_> = (0..128)
        .map(|_| Request::add_route(route(index, 0)))
        .collect();
    let outcome = socket.batch(&requests).expect_err("refused");
    assert!(
        matches!(&outcome, BatchError::Unknown(Error::Overrun)),
        "{outcome}"
    );
    // Answers that are left over are not taken for those of later requests.
    socket.set_receive_buffer(1 << 20).expect("large");
    socket
        .request(Request::add_route(route(index, 1)))
        .expect("a route");
    let filter = RouteFilter {
        protocol: Some(77),
        ..RouteFilter::default()
    };
    assert_eq!(
        socket.routes(&filter).expect("routes"),
        [route(index, 0), route(index, 1)]
    );
    let refused = socket
        .request(Request::add_route(route(index, 1)))
        .expect_err("there already");
    assert!(refused.to_string().contains("10.0.1.0/24"), "{refused}");
}

#[test]
fn a_dump_under_change_is_whole_or_an_error() {
    let (namespace, mut socket) = fresh();
    let stable: BTreeSet<String> = (0..60).map(|n| format!("stable{n}")).collect();
    let requests: Vec<_> = stable
        .iter()
        .map(|name| Request::add_link(NewLink::bridge(name)))
        .collect();
    socket.batch(&requests).expect("bridges");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut socket = Socket::open_in(&namespace).expect("a socket");
            while !done.load(Ordering::Relaxed) {
                let index = socket
                    .create_link(NewLink::veth("flap", "flop"))
                    .expect("a pair")
                    .index;
                socket
                    .request(Request::delete_link(index))
                    .expect("deleted");
            }
        });
        for _ in 0..30 {
            match socket.links() {
                Ok(links) => {
                    let names: BTreeSet<_> = links.into_iter().map(|link| link.name).collect();
                    assert!(
                        names.is_superset(&stable),
                        "{:?} missing",
                        stable.difference(&names)
                    );
                }
                Err(Error::Inconsistent { tries, .. }) => assert!(tries > 1),
                Err(error) => panic!("{error}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

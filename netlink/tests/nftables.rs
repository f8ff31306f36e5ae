//! The input filter against the real kernel, each test in a network namespace of its own.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use netlink::{
    Address, Errno, Error, InputFilter, InputFilterState, LinkChange, Namespace, Netfilter,
    NewLink, Request, Socket,
};

const PATIENCE: Duration = Duration::from_secs(5);

fn filter(table: &str, interface: &str) -> InputFilter {
    InputFilter {
        table: table.to_owned(),
        interface: interface.to_owned(),
    }
}

fn fresh() -> (Namespace, Netfilter) {
    let namespace = Namespace::anonymous().expect("these tests need CAP_SYS_ADMIN");
    let netfilter = Netfilter::open_in(&namespace).expect("a socket");
    (namespace, netfilter)
}

#[test]
fn a_filter_is_made_once_corrected_and_deleted_and_others_stay() {
    let (_namespace, mut netfilter) = fresh();
    let (ours, foreign) = (filter("ccn0", "ccn0"), filter("ccn", "other0"));
    let none = Some(InputFilterState::default());
    assert_eq!(netfilter.input_filter(&ours).expect("asked"), None);
    assert!(!netfilter.delete("ccn0").expect("nothing to delete"));
    assert!(netfilter.ensure(&foreign).expect("made"));
    for changed in [true, false, false] {
        assert_eq!(netfilter.ensure(&ours).expect("there"), changed);
        assert_eq!(netfilter.input_filter(&ours).expect("asked"), none);
    }
    // The same table with another rule in it is not the filter; it is made anew.
    let wrong = filter("ccn0", "ccn1");
    assert_eq!(netfilter.input_filter(&wrong).expect("asked"), None);
    assert!(netfilter.ensure(&wrong).expect("corrected"));
    assert_eq!(netfilter.input_filter(&ours).expect("asked"), None);
    assert!(netfilter.ensure(&ours).expect("corrected"));
    assert!(!netfilter.ensure(&ours).expect("right"));

    assert!(netfilter.delete("ccn0").expect("deleted"));
    assert_eq!(netfilter.input_filter(&ours).expect("asked"), None);
    assert_eq!(netfilter.input_filter(&foreign).expect("asked"), none);
    assert!(!netfilter.ensure(&foreign).expect("still there"));
}

#[test]
fn a_name_that_no_link_can_have_is_refused() {
    let (_namespace, mut netfilter) = fresh();
    for (table, interface) in [
        ("", "a"),
        ("a", ""),
        ("a", "sixteen-letters!"),
        ("a/b", "a"),
    ] {
        let error = netfilter
            .ensure(&filter(table, interface))
            .expect_err("no name");
        assert!(matches!(error, Error::LinkName(_)), "{error}");
    }
}

#[test]
fn without_the_capability_the_error_names_it() {
    let (namespace, _) = fresh();
    let error = namespace
        .enter(|| {
            // This thread alone loses its capabilities.
            // SAFETY: a system call without pointers; the libc wrapper would change all threads.
            let dropped = unsafe { nix::libc::syscall(nix::libc::SYS_setresuid, -1, 65534, -1) };
            assert_eq!(dropped, 0);
            Netfilter::open()
                .expect("no privilege needed")
                .ensure(&filter("ccn0", "ccn0"))
        })
        .expect("enter")
        .expect_err("refused");
    assert_eq!(error.errno(), Some(Errno::EPERM));
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

#[test]
fn what_comes_in_by_the_interface_is_counted_and_kept_from_this_host() {
    let (here, mut netfilter) = fresh();
    let (there, _) = fresh();
    let mut socket = Socket::open_in(&here).expect("a socket");
    let mut far = Socket::open_in(&there).expect("a socket");
    for (name, peer, net) in [("in0", "out0", 1), ("in1", "out1", 2)] {
        let link = NewLink::veth_to(name, peer, &there);
        socket.create_link(link).expect("a pair");
        for (socket, name, host) in [(&mut socket, name, 1), (&mut far, peer, 2)] {
            let index = socket.link(name).expect("asked").expect("there").index;
            let up = LinkChange::of(index).link_local(false).up(true);
            socket.request(Request::change_link(up)).expect("up");
            let addr = format!("10.0.{net}.{host}/24").parse().expect("a net");
            socket
                .request(Request::add_address(Address::new(index, addr)))
                .expect("an address");
        }
    }
    let filter = filter("mine", "in0");
    netfilter.ensure(&filter).expect("made");
    let bind = |namespace: &Namespace, at: &str| {
        let socket = namespace
            .enter(|| UdpSocket::bind(at).expect("bound"))
            .expect("enter");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    };
    let server = bind(&here, "0.0.0.0:7000");
    let client = bind(&there, "0.0.0.0:7000");
    let count = |netfilter: &mut Netfilter| {
        netfilter
            .input_filter(&filter)
            .expect("asked")
            .expect("there")
    };
    client.send_to(b"lost", "10.0.1.1:7000").expect("sent");
    let deadline = Instant::now() + PATIENCE;
    let expected = InputFilterState {
        packets: 1,
        bytes: 32,
    };
    loop {
        let seen = count(&mut netfilter);
        if seen == expected {
            break;
        }
        assert!(Instant::now() < deadline, "want {expected:?}: {seen:?}");
        std::thread::yield_now();
    }
    // The first that comes through is the one by the other interface.
    client.send_to(b"kept", "10.0.2.1:7000").expect("sent");
    let mut buffer = [0; 16];
    let (length, from) = server.recv_from(&mut buffer).expect("received");
    assert_eq!(
        (&buffer[..length], from.ip().to_string().as_str()),
        (&b"kept"[..], "10.0.2.2")
    );
    assert!(!netfilter.ensure(&filter).expect("right"));
    assert_eq!(count(&mut netfilter), expected);
}

//! Filters on clsact against the real kernel, each test in network namespaces of its own. Loading a
//! program takes `CAP_BPF` outside of user namespaces.

use std::fs;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netlink::{
    Address, BpfFilter, Change, Errno, Error, Event, Filter, FilterPlace, Group, Hook, Journal,
    Mac, Namespace, Neighbour, NewLink, Qdisc, Request, Socket,
};
use nix::libc;

const PATIENCE: Duration = Duration::from_secs(10);
/// What a program answers: the packet goes on, or is dropped.
const PASS: i32 = 0;
const DROP: i32 = 2;

/// Loads a program for filters that answers this, and nothing else.
fn program(verdict: i32) -> OwnedFd {
    const PROG_LOAD: libc::c_int = 5;
    const SCHED_CLS: u32 = 3;
    // mov r0, verdict; exit
    let mut instructions = [0xb7, 0, 0, 0, 0, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
    instructions[4..8].copy_from_slice(&verdict.to_ne_bytes());
    let license = c"GPL";
    let mut order = [0u8; 48];
    order[0..4].copy_from_slice(&SCHED_CLS.to_ne_bytes());
    order[4..8].copy_from_slice(&2u32.to_ne_bytes());
    order[8..16].copy_from_slice(&(instructions.as_ptr() as u64).to_ne_bytes());
    order[16..24].copy_from_slice(&(license.as_ptr() as u64).to_ne_bytes());
    // SAFETY: the order is as long as said, and what it points at lives until the call returns.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, order.as_ptr(), order.len()) };
    let fd = i32::try_from(fd).expect("a descriptor");
    assert!(
        fd >= 0,
        "cannot load a program: {}",
        io::Error::last_os_error()
    );
    // SAFETY: the kernel has just given it to us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The kernel's number of a program.
fn id(program: &OwnedFd) -> u32 {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let text = fs::read_to_string(path).expect("fdinfo");
    let line = text.lines().find_map(|line| line.strip_prefix("prog_id:"));
    line.and_then(|it| it.trim().parse().ok()).expect("an id")
}

fn fresh() -> (Namespace, Socket) {
    let namespace = Namespace::anonymous().expect("these tests need CAP_SYS_ADMIN");
    let socket = Socket::open_in(&namespace).expect("a socket");
    (namespace, socket)
}

fn bridge(socket: &mut Socket, name: &str) -> u32 {
    socket
        .create_link(NewLink::bridge(name))
        .expect("a bridge")
        .index
}

fn place(ifindex: u32, priority: u16, handle: u32) -> FilterPlace {
    FilterPlace {
        ifindex,
        hook: Hook::Ingress,
        priority,
        handle,
    }
}

fn put(place: FilterPlace, program: &OwnedFd, name: &str) -> Request {
    Request::replace_filter(BpfFilter {
        place,
        program: program.as_raw_fd(),
        name: name.to_owned(),
    })
}

#[test]
fn clsact_comes_once_and_goes_with_its_filters() {
    let (_namespace, mut socket) = fresh();
    let (index, other) = (bridge(&mut socket, "br"), bridge(&mut socket, "other"));
    assert!(!socket.has_clsact(index).expect("asked"));
    assert_eq!(socket.filters(index, Hook::Ingress).expect("asked"), []);
    let refused = socket.request(put(place(index, 1, 1), &program(PASS), "x"));
    assert!(refused.is_err(), "there is nothing to put it on");

    socket.request(Request::add_clsact(index)).expect("made");
    assert!(socket.has_clsact(index).expect("asked"));
    assert!(!socket.has_clsact(other).expect("asked"));
    let again = socket
        .request(Request::add_clsact(index))
        .expect_err("there");
    assert_eq!(again.errno(), Some(Errno::EEXIST));
    assert!(
        again
            .to_string()
            .contains(&format!("clsact qdisc of link {index}")),
        "{again}"
    );

    socket
        .request(put(place(index, 1, 1), &program(PASS), "x"))
        .expect("put");
    socket
        .request(Request::delete_clsact(index))
        .expect("deleted");
    assert!(!socket.has_clsact(index).expect("asked"));
    socket.request(Request::add_clsact(index)).expect("made");
    assert_eq!(socket.filters(index, Hook::Ingress).expect("asked"), []);
}

#[test]
fn filters_are_put_replaced_shown_and_deleted_each_by_its_place() {
    let (_namespace, mut socket) = fresh();
    let index = bridge(&mut socket, "br");
    socket.request(Request::add_clsact(index)).expect("made");
    let (ours, foreign) = (place(index, 100, 0xcc), place(index, 7, 1));
    let out = FilterPlace {
        hook: Hook::Egress,
        ..ours
    };
    let (pass, drop) = (program(PASS), program(DROP));
    for (place, program, name) in [
        (ours, &pass, "first"),
        (foreign, &drop, "foreign"),
        (out, &drop, "out"),
        (ours, &drop, "second"),
        (ours, &drop, "second"),
    ] {
        socket.request(put(place, program, name)).expect("put");
    }
    let shown = socket.filters(index, Hook::Ingress).expect("filters");
    let seen: Vec<_> = shown.iter().map(|filter| filter.place).collect();
    assert_eq!(seen, [foreign, ours], "in order of priority");
    for (filter, name) in shown.iter().zip(["foreign", "second"]) {
        assert_eq!(
            (filter.kind.as_str(), filter.protocol, filter.chain),
            ("bpf", None, 0)
        );
        let run = filter.program.as_ref().expect("a program");
        assert_eq!((run.name.as_str(), run.id), (name, id(&drop)));
        assert!(run.direct_action && run.tag != [0; 8]);
    }
    let beyond = socket.filters(index, Hook::Egress).expect("filters");
    assert_eq!(beyond.iter().map(|it| it.place).collect::<Vec<_>>(), [out]);

    socket
        .request(Request::delete_filter(ours))
        .expect("deleted");
    let shown = socket.filters(index, Hook::Ingress).expect("filters");
    assert_eq!(
        shown.iter().map(|it| it.place).collect::<Vec<_>>(),
        [foreign]
    );
    let gone = socket
        .request(Request::delete_filter(ours))
        .expect_err("gone");
    assert_eq!(gone.errno(), Some(Errno::ENOENT));
    let nowhere = socket
        .request(put(place(index, 0, 1), &pass, "x"))
        .expect_err("no priority");
    assert!(nowhere.to_string().contains("priority"), "{nowhere}");
}

#[test]
fn who_takes_our_filter_or_its_qdisc_is_noticed() {
    let (namespace, mut socket) = fresh();
    let index = bridge(&mut socket, "br");
    let mut journal = Journal::open_in(&namespace, &[Group::Traffic], None).expect("a journal");
    let ours = place(index, 1, 1);
    let program = program(PASS);
    let qdisc = Qdisc {
        ifindex: index,
        kind: "clsact".to_owned(),
    };
    let told = |journal: &mut Journal| -> Vec<Event> { journal.take().expect("events") };
    let removed = |events: &[Event], place: FilterPlace| {
        let gone =
            |event: &Event| matches!(event, Event::Filter(Change::Gone(it)) if it.place == place);
        events.iter().any(gone)
    };

    socket.request(Request::add_clsact(index)).expect("made");
    assert_eq!(
        told(&mut journal),
        [Event::Qdisc(Change::Present(qdisc.clone()))]
    );
    socket.request(put(ours, &program, "ours")).expect("put");
    let events = told(&mut journal);
    let [
        Event::Filter(Change::Present(Filter {
            place,
            program: Some(run),
            ..
        })),
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((*place, run.id), (ours, id(&program)));

    socket
        .request(Request::delete_filter(ours))
        .expect("deleted");
    let events = told(&mut journal);
    assert!(removed(&events, ours), "{events:?}");
    socket.request(put(ours, &program, "ours")).expect("put");
    told(&mut journal);
    socket
        .request(Request::delete_clsact(index))
        .expect("deleted");
    let events = told(&mut journal);
    assert!(
        events.contains(&Event::Qdisc(Change::Gone(qdisc))),
        "{events:?}"
    );
}

/// Two namespaces joined by a veth pair: a socket here, and one there that sends to it.
struct Wire {
    _namespaces: [Namespace; 2],
    kernel: Socket,
    index: u32,
    here: UdpSocket,
    there: UdpSocket,
}

/// Packets that have come to the link `here`, whatever became of them.
fn arrivals(kernel: &mut Socket) -> Result<u64, Error> {
    Ok(kernel.link("here")?.expect("there").stats.rx_packets)
}

impl Wire {
    fn new() -> Wire {
        let ((left, mut kernel), (right, mut other)) = (fresh(), fresh());
        let macs = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];
        let pair = NewLink::veth_to("here", "there", &right)
            .mac(macs[0])
            .peer_mac(macs[1]);
        let index = kernel.create_link(pair.up()).expect("a pair").index;
        let peer = other
            .link("there")
            .expect("asked")
            .expect("the other end")
            .index;
        let up = netlink::LinkChange::of(peer).up(true);
        other.request(Request::change_link(up)).expect("up");
        let addresses: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        for (socket, index, own, far) in [(&mut kernel, index, 0, 1), (&mut other, peer, 1, 0)] {
            let net = netlink::IpNet::new(addresses[own], 24).expect("a prefix");
            let neighbour = Neighbour {
                ifindex: index,
                addr: addresses[far],
                mac: Some(macs[far]),
                permanent: true,
                protocol: 0,
            };
            let requests = [
                Request::add_address(Address::new(index, net)),
                Request::replace_neighbour(neighbour),
            ];
            socket.batch(&requests).expect("an address");
        }
        let open = |namespace: &Namespace, own: IpAddr, far: IpAddr| {
            let socket = namespace
                .enter(|| UdpSocket::bind((own, 7)))
                .expect("entered");
            let socket = socket.expect("a socket");
            socket.set_nonblocking(true).expect("non-blocking");
            socket.connect((far, 7)).expect("connected");
            socket
        };
        Wire {
            here: open(&left, addresses[0], addresses[1]),
            there: open(&right, addresses[1], addresses[0]),
            _namespaces: [left, right],
            kernel,
            index,
        }
    }

    fn received(&self) -> usize {
        std::iter::from_fn(|| self.here.recv(&mut [0; 8]).ok()).count()
    }

    /// Sends until something has come, and waits until nothing is on its way any more: packets keep
    /// their order, so the last one says so.
    fn await_packets(&self) {
        let deadline = Instant::now() + PATIENCE;
        let await_one = |sent: &[u8], again: bool| {
            let mut came = [0; 8];
            let mut outcome = self.there.send(sent);
            while self.here.recv(&mut came).ok() != Some(sent.len()) {
                assert!(
                    Instant::now() < deadline,
                    "nothing comes; sending: {outcome:?}"
                );
                if again {
                    outcome = self.there.send(sent);
                }
            }
        };
        await_one(b"x", true);
        await_one(b"last", false);
    }
}

/// Replaces a filter a thousand times at least, and until a thousand packets have come. Answers how
/// many have.
fn replace_amid_packets(
    kernel: &mut Socket,
    place: FilterPlace,
    programs: &[OwnedFd; 2],
) -> Result<u64, Error> {
    let before = arrivals(kernel)?;
    let deadline = Instant::now() + PATIENCE;
    for round in 0.. {
        let which = round % 2;
        kernel.request(put(place, &programs[which], &which.to_string()))?;
        let came = arrivals(kernel)? - before;
        if (round >= 1_000 && came >= 1_000) || Instant::now() > deadline {
            return Ok(came);
        }
    }
    Ok(0)
}

#[test]
fn no_packet_passes_while_a_dropping_filter_is_replaced() {
    let mut wire = Wire::new();
    wire.await_packets();
    let ours = place(wire.index, 1, 1);
    let programs = [program(DROP), program(DROP)];
    wire.kernel
        .request(Request::add_clsact(wire.index))
        .expect("made");
    wire.kernel
        .request(put(ours, &programs[0], "0"))
        .expect("put");
    let over = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        let (there, over) = (&wire.there, &over);
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                // A full queue is no failure of this test.
                let _ = there.send(b"x");
            }
        });
        let outcome = replace_amid_packets(&mut wire.kernel, ours, &programs);
        over.store(true, Ordering::Relaxed);
        outcome
    });
    let came = outcome.expect("replaced");
    assert!(came >= 1_000, "only {came} packets came");
    assert_eq!(wire.received(), 0, "of {came} packets");
    wire.kernel
        .request(Request::delete_filter(ours))
        .expect("deleted");
    wire.await_packets();
}

#[test]
fn a_name_is_at_most_255_bytes() {
    let (_namespace, mut socket) = fresh();
    let index = bridge(&mut socket, "br");
    socket.request(Request::add_clsact(index)).expect("made");
    let (ours, program) = (place(index, 1, 1), program(PASS));
    let longest = "x".repeat(255);
    socket.request(put(ours, &program, &longest)).expect("put");
    let shown = socket.filters(index, Hook::Ingress).expect("filters");
    let names: Vec<_> = shown.iter().filter_map(|it| it.program.as_ref()).collect();
    assert_eq!(names[0].name, longest);
    let refused = socket.request(put(ours, &program, &format!("{longest}x")));
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
}

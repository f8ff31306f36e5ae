//! Network namespaces for tests that send packets: made, joined, addressed. It never sends one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use netlink::{Address, LinkChange, Namespace, NewLink, Request, Socket};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text} is no address"))
}

/// A namespace with a socket into it.
pub(crate) struct Node {
    pub(crate) namespace: Namespace,
    pub(crate) netlink: Socket,
}

impl Node {
    pub(crate) fn new() -> Node {
        let namespace = Namespace::anonymous().expect("these tests need CAP_SYS_ADMIN");
        // An address that is still probed for duplicates answers no neighbour: packets would be lost.
        namespace
            .enter(|| {
                for scope in ["all", "default"] {
                    let path = format!("/proc/sys/net/ipv6/conf/{scope}/accept_dad");
                    std::fs::write(path, "0").expect("a sysctl");
                }
            })
            .expect("enter");
        let netlink = Socket::open_in(&namespace).expect("a socket");
        let mut node = Node { namespace, netlink };
        node.up("lo");
        node
    }

    pub(crate) fn index(&mut self, name: &str) -> u32 {
        self.netlink.link(name).expect("ask").expect("a link").index
    }

    pub(crate) fn up(&mut self, name: &str) {
        let index = self.index(name);
        self.netlink
            .request(Request::change_link(LinkChange::of(index).up(true)))
            .expect("up");
    }

    pub(crate) fn address(&mut self, name: &str, net: &str) {
        let address = Address::new(self.index(name), net.parse().expect("a net"));
        self.netlink
            .request(Request::add_address(address))
            .expect("an address");
    }

    pub(crate) fn join(&mut self, name: &str, other: &mut Node, peer: &str) {
        let link = NewLink::veth_to(name, peer, &other.namespace);
        self.netlink.create_link(link).expect("a pair");
        self.up(name);
        other.up(peer);
        self.await_operational(name);
        other.await_operational(peer);
    }

    /// Until then the kernel drops what is sent, though the carrier is there.
    fn await_operational(&mut self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let link = self.netlink.link(name).expect("ask").expect("a link");
            if link.operational {
                return;
            }
            assert!(Instant::now() < deadline, "still {link:?}");
            std::thread::yield_now();
        }
    }
}

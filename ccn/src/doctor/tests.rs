use std::path::PathBuf;

use super::host::Interface;
use super::networkd::Networkd;
use super::*;
use crate::api::{LinksView, PeersView, PlaneView, RecordsView, StoreView};
use crate::config::PlaneKind;
use crate::plane::Counters;
use crate::plane::routes::sysctl::Setting;
use crate::record::{GroupName, Mac, Mode};

fn interface(name: &str, mtu: u32) -> Interface {
    Interface {
        name: name.to_owned(),
        mtu,
        carries: true,
    }
}

fn setting(name: &str, found: &str, wanted: &'static str) -> Setting {
    Setting {
        name: name.to_owned(),
        found: Some(found.to_owned()),
        wanted,
    }
}

/// A gateway on which all is well.
fn well() -> Facts {
    let config = PlaneConfig {
        kind: PlaneKind::Auto,
        vtep: "172.16.0.1".parse().expect("an address"),
        idc_interfaces: vec!["idc0".to_owned()],
        device: "ccn0".to_owned(),
        mac: Mac::GATEWAY,
        port: 4789,
        mtu: 1450,
        protocol: 77,
        audit_interval: 60,
        underlay_interfaces: None,
        max_flows: 65_536,
        bpffs: PathBuf::from("/sys/fs/bpf/ccn"),
    };
    let status = Status {
        gateway: "gw".to_owned(),
        group: GroupName::default(),
        version: "1",
        uptime_s: 60,
        start: Default::default(),
        generation: 7,
        store: StoreView::default(),
        acknowledged: 7,
        settled: true,
        drain: Default::default(),
        plane: PlaneView {
            name: "ebpf",
            state: "healthy",
            ..PlaneView::default()
        },
        peers: PeersView::default(),
        links: LinksView {
            total: 1,
            announced: 1,
            standby: 0,
        },
        records: RecordsView::default(),
        counters: Counters::default(),
    };
    let host = Host {
        kernel: "6.18.5-1-amd64".to_owned(),
        settings: vec![
            setting("net.ipv4.conf.all.rp_filter", "0", "0"),
            setting("net.ipv4.conf.ccn0.forwarding", "1", "1"),
        ],
        networkd: Networkd::default(),
        device: Some(interface("ccn0", 1450)),
        underlay: Some(interface("u0", 1500)),
        idc: vec![interface("idc0", 1500)],
        clock_is_kept: Some(true),
    };
    Facts {
        config,
        choice: Choice {
            auto: true,
            refused: None,
        },
        status,
        parts: Ok(vec![Part {
            name: "program on idc0".to_owned(),
            present: true,
        }]),
        host: Ok(host),
        peers: vec![peer()],
        links: Vec::new(),
        quarantine: Vec::new(),
        limits: vec![limit(10)],
        asked: Asked {
            agreed: 100,
            ..Asked::default()
        },
    }
}

fn peer() -> PeerStatus {
    PeerStatus {
        name: "bird".parse().expect("a name"),
        address: "10.99.0.2".parse().expect("an address"),
        asn: 65002,
        dynamic: None,
        internal: false,
        passive: false,
        admin_up: true,
        state: SessionState::Established,
        since_seconds: 5,
        sessions: 1,
        last_error: None,
        notes: Vec::new(),
        local_address: None,
        router_id: None,
        families: Vec::new(),
        hold_time: None,
        four_octet_as: true,
        peer_restart_time: None,
        capabilities: Vec::new(),
        messages_in: 0,
        messages_out: 0,
        prefixes: Default::default(),
        bfd: None,
    }
}

fn limit(used: u64) -> LimitView {
    LimitView {
        name: "vpcs".to_owned(),
        used,
        max: 100,
        refused: None,
    }
}

fn link(state: &str) -> LinkView {
    LinkView {
        generation: None,
        link: "web".parse().expect("a link"),
        vpc: "web".parse().expect("a VPC"),
        classic: Vec::new(),
        mode: Mode::Both,
        group: GroupName::default(),
        dscp: None,
        standby: false,
        subnets: Vec::new(),
        state: state.to_owned(),
        reason: Some("limits: full".to_owned()),
        behind: None,
        announced: Vec::new(),
        advertised_to: Vec::new(),
        gateways: Vec::new(),
        undone_in_s: None,
    }
}

#[test]
fn where_all_is_well_each_check_says_so() {
    let report = examine(&well());
    assert!(report.well);
    let checks: Vec<_> = report
        .findings
        .iter()
        .map(|finding| finding.check)
        .collect();
    assert_eq!(
        checks,
        [
            "store",
            "plane",
            "parts",
            "kernel",
            "sysctl",
            "networkd",
            "interfaces",
            "clock",
            "peers",
            "links",
            "quarantine",
            "limits",
            "packets"
        ]
    );
    for finding in report.findings {
        assert_eq!(
            (finding.level, &finding.why, &finding.todo),
            (Level::Fine, &None, &None),
            "{finding:?}"
        );
    }
}

/// One thing that is not as it should be: the check that finds it, how bad it is, and words of what is
/// found and of what is to be done.
type Row = (
    fn(&mut Facts),
    &'static str,
    Level,
    &'static str,
    &'static str,
);

fn host(facts: &mut Facts) -> &mut Host {
    facts.host.as_mut().expect("looked at")
}

const TABLE: &[Row] = &[
    (
        |facts| facts.status.drain.state = State::Drained,
        "links",
        Level::Note,
        "drained",
        "ccn undrain",
    ),
    (
        |facts| {
            facts.status.store = StoreView {
                state: "away",
                stale_s: Some(40),
                reason: Some("connection refused".to_owned()),
            }
        },
        "store",
        Level::Wrong,
        "away (40 s ago): connection refused",
        "tries again by itself",
    ),
    (
        |facts| {
            facts.status.store = StoreView {
                state: "restored",
                stale_s: Some(4),
                reason: None,
            }
        },
        "store",
        Level::Wrong,
        "restored (4 s ago)",
        "ccn store follow",
    ),
    (
        |facts| facts.status.plane.last_error = Some("missing privilege CAP_BPF".to_owned()),
        "plane",
        Level::Wrong,
        "ebpf: missing privilege CAP_BPF",
        "mend",
    ),
    (
        |facts| facts.status.plane.state = "degraded: some entries were refused",
        "plane",
        Level::Wrong,
        "degraded",
        "ccn limits",
    ),
    (
        |facts| (facts.status.settled, facts.status.acknowledged) = (false, 6),
        "plane",
        Level::Note,
        "generation 6 of 7",
        "in a moment",
    ),
    (
        |facts| {
            facts.status.plane.name = "routes";
            facts.choice.refused = Some("the kernel lacks clsact".to_owned());
        },
        "plane",
        Level::Note,
        "routes, since ebpf does not work here: the kernel lacks clsact",
        "restart it",
    ),
    (
        |facts| facts.parts.as_mut().expect("looked at")[0].present = false,
        "parts",
        Level::Wrong,
        "missing: program on idc0",
        "within 60 s",
    ),
    (
        |facts| facts.parts = Err("netlink: gone".to_owned()),
        "parts",
        Level::Wrong,
        "netlink: gone",
        "see the error",
    ),
    (
        |facts| facts.host = Err("netlink: gone".to_owned()),
        "host",
        Level::Wrong,
        "netlink: gone",
        "see the error",
    ),
    (
        |facts| host(facts).kernel = "5.15.0-91".to_owned(),
        "kernel",
        Level::Note,
        "Linux 5.15.0-91",
        "6.1 or later",
    ),
    (
        |facts| host(facts).settings[1].found = Some("0".to_owned()),
        "sysctl",
        Level::Wrong,
        "net.ipv4.conf.ccn0.forwarding is 0",
        "sysctl -w net.ipv4.conf.ccn0.forwarding=1",
    ),
    (
        |facts| host(facts).settings[1].found = None,
        "sysctl",
        Level::Wrong,
        "there is no net.ipv4.conf.ccn0.forwarding",
        "sysctl.d",
    ),
    (
        |facts| host(facts).settings[0].found = Some("1".to_owned()),
        "sysctl",
        Level::Wrong,
        "rp_filter is 1",
        "rp_filter=0",
    ),
    (
        |facts| host(facts).settings[0].found = Some("2".to_owned()),
        "sysctl",
        Level::Note,
        "rp_filter is 2",
        "rp_filter=0",
    ),
    (
        |facts| {
            host(facts).networkd = Networkd {
                runs: true,
                takes_routes: true,
                takes_rules: true,
            };
        },
        "networkd",
        Level::Wrong,
        "routes and rules",
        "ManageForeignRoutes=no",
    ),
    (
        |facts| {
            host(facts).networkd = Networkd {
                runs: true,
                takes_routes: false,
                takes_rules: true,
            };
        },
        "networkd",
        Level::Wrong,
        "deletes rules",
        "ManageForeignRoutingPolicyRules=no",
    ),
    (
        |facts| host(facts).idc.clear(),
        "interfaces",
        Level::Wrong,
        "there is no interface idc0",
        "plane.idc_interfaces",
    ),
    (
        |facts| host(facts).underlay = None,
        "interfaces",
        Level::Wrong,
        "no interface has the VTEP 172.16.0.1",
        "plane.vtep",
    ),
    (
        |facts| host(facts).device = None,
        "interfaces",
        Level::Wrong,
        "there is no VXLAN device ccn0",
        "who deletes it",
    ),
    (
        |facts| host(facts).idc[0].carries = false,
        "interfaces",
        Level::Wrong,
        "idc0 is down or has no carrier",
        "bring it up",
    ),
    (
        |facts| host(facts).underlay = Some(interface("u0", 1499)),
        "mtu",
        Level::Wrong,
        "ccn0 takes packets of 1450 bytes, u0 carries 1449",
        "plane.mtu = 1449, or an MTU of 1500 for u0",
    ),
    (
        |facts| facts.config.vtep = "fd16::1".parse().expect("an address"),
        "mtu",
        Level::Wrong,
        "u0 carries 1430",
        "an MTU of 1520 for u0",
    ),
    (
        |facts| host(facts).idc[0].mtu = 1400,
        "mtu",
        Level::Note,
        "idc0 carries 1400 bytes, ccn0 takes 1450",
        "an MTU of at least 1450 for idc0",
    ),
    (
        |facts| host(facts).clock_is_kept = Some(false),
        "clock",
        Level::Note,
        "nobody keeps the clock right",
        "chrony",
    ),
    (
        |facts| facts.peers.clear(),
        "peers",
        Level::Note,
        "there is none",
        "[[bgp.peer]]",
    ),
    (
        |facts| facts.peers[0].admin_up = false,
        "peers",
        Level::Note,
        "bird was taken down",
        "ccn peer up bird",
    ),
    (
        |facts| {
            facts.peers[0].state = SessionState::Active;
            facts.peers[0].last_error = Some("connection refused".to_owned());
        },
        "peers",
        Level::Wrong,
        "for 5 s: connection refused",
        "ping 10.99.0.2",
    ),
    (
        |facts| facts.peers[0].notes = vec!["it has no import".to_owned()],
        "peers",
        Level::Note,
        "bird: it has no import",
        "ccn peer bird",
    ),
    (
        |facts| {
            let hop = "10.98.0.2".parse().expect("an address");
            facts.status.peers.unreachable_next_hops = vec![hop];
        },
        "peers",
        Level::Wrong,
        "routes by way of 10.98.0.2",
        "another next hop",
    ),
    (
        |facts| facts.links = vec![link("failed")],
        "links",
        Level::Wrong,
        "web failed: limits: full",
        "ccn links",
    ),
    (
        |facts| {
            facts.quarantine = vec![
                Fault {
                    key: "vms/web/vm".to_owned(),
                    field: "addrs[0]".to_owned(),
                    code: "outside".to_owned(),
                    reason: "is in no subnet".to_owned(),
                };
                7
            ];
        },
        "quarantine",
        Level::Wrong,
        "and 2 more",
        "ccn quarantine",
    ),
    (
        |facts| facts.limits[0].used = 80,
        "limits",
        Level::Note,
        "vpcs: 80 of 100",
        "another group",
    ),
    (
        |facts| facts.limits[0].used = 100,
        "limits",
        Level::Wrong,
        "vpcs: 100 of 100",
        "another group",
    ),
    (
        |facts| facts.asked.unasked = 5,
        "packets",
        Level::Note,
        "agree on 100 of 105",
        "ebpf",
    ),
    (
        |facts| facts.asked.differences = vec!["1 > 2: forward; the kernel drop".to_owned(); 7],
        "packets",
        Level::Wrong,
        "1 > 2: forward; the kernel drop",
        "ccn explain",
    ),
];

#[test]
fn each_thing_that_is_wrong_is_found_and_said_with_what_to_do() {
    for (spoil, check, level, what, todo) in TABLE {
        let mut facts = well();
        spoil(&mut facts);
        let report = examine(&facts);
        let mut found = report
            .findings
            .iter()
            .filter(|finding| finding.level > Level::Fine);
        let finding = found.next().expect(what);
        assert_eq!(
            (finding.check, finding.level),
            (*check, *level),
            "{finding:?}"
        );
        assert!(finding.what.contains(what), "{finding:?}: {what:?}");
        let said = finding.todo.as_deref().unwrap_or_default();
        assert!(said.contains(todo), "{finding:?}: {todo:?}");
        assert!(finding.why.is_some(), "{finding:?}");
        assert!(found.all(|other| other.check == *check), "{report:?}");
        assert_eq!(report.well, *level < Level::Wrong, "{what}");
        let fine = report
            .findings
            .iter()
            .filter(|finding| finding.level == Level::Fine);
        let fine: Vec<_> = fine.map(|finding| finding.check).collect();
        assert!(!fine.contains(check), "{check} is not fine: {report:?}");
    }
}

#[test]
fn the_routes_plane_needs_no_new_kernel_and_limits_without_room_are_none() {
    let mut facts = well();
    facts.status.plane.name = "routes";
    facts.choice = Choice {
        auto: false,
        refused: None,
    };
    host(&mut facts).kernel = "5.10.0".to_owned();
    (facts.limits[0].used, facts.limits[0].max) = (0, 0);
    let report = examine(&facts);
    assert!(
        report
            .findings
            .iter()
            .all(|finding| finding.level == Level::Fine),
        "{report:?}"
    );
    let mut findings = report.findings.iter();
    let plane = findings.find(|finding| finding.check == "plane");
    let said = plane.map(|finding| finding.what.as_str());
    assert_eq!(said, Some("routes: as configured"));
}

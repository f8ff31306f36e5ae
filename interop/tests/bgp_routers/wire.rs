//! Everything that we say in the life of a session, as Wireshark's dissector reads it.

use interop::capture::bgp::{Message, UPDATE, messages};
use interop::capture::{Capture, tshark};
use interop::enter::{Lab, Outcome};
use interop::peer::{Daemon, Extra};
use interop::topology::plan;

use super::encounter::{Encounter, Failure, Terms, becomes, is_established};

with_each_router![dissected];

/// A session with all we can say: OPEN, KEEPALIVE, End-of-RIB, announcements, the answer to a
/// ROUTE-REFRESH, withdrawals, NOTIFICATION.
fn dissected(lab: &Lab, daemon: Daemon) -> Outcome {
    let terms = Terms {
        peer: |peer| peer.hold_time = 3,
        ..Terms::default()
    };
    let mut here = Encounter::arrange(lab, &[daemon], terms)?;
    let capture = here.capture()?;
    here.start()?;
    here.await_sessions()?;
    here.link()?;
    here.expect_announced()?;

    let gateway = here.gateway_address();
    let refreshed = daemon.lacks(Extra::AskForRefresh).is_none();
    if refreshed {
        await_updates(&capture, 4)?;
        here.router().ask_for_refresh(gateway)?;
        await_updates(&capture, 6)?;
    }
    here.unlink()?;
    here.expect_not_announced()?;
    here.router().freeze()?;
    here.await_peer(0, "is given up", |peer| !is_established(peer))?;

    let frames = capture.stop();
    assert_eq!(frames.missed, 0);
    let pcap = lab.scratch().join("session.pcap");
    frames.write(&pcap)?;
    let ours = format!("bgp && ip.src == {}", plan::GATEWAY4);
    assert_eq!(tshark::complaints(&pcap, &ours)?, []);
    let told = if refreshed { 2 } else { 1 };
    let expected: [(&str, Vec<&str>); _] = [
        ("bgp.open.version", vec!["4"]),
        ("bgp.open.myas", vec!["65001"]),
        ("bgp.open.holdtime", vec!["3"]),
        ("bgp.open.identifier", vec!["10.99.0.1"]),
        // Multiprotocol twice, route refresh and its marks, extended messages and next hops,
        // graceful restart, 4-octet AS.
        (
            "bgp.cap.type",
            vec!["1", "1", "2", "70", "6", "5", "64", "65"],
        ),
        ("bgp.cap.mp.afi", vec!["1", "2"]),
        ("bgp.cap.mp.safi", vec!["1", "1"]),
        ("bgp.cap.4as", vec!["65001"]),
        ("bgp.cap.gr.timers.restart_time", vec!["120"]),
        // This is no restart, and no state of an earlier run was found.
        ("bgp.cap.gr.timers.restart_flag", vec!["0"]),
        ("bgp.cap.gr.flag.pfs", vec!["0"; 2]),
        ("bgp.nlri_prefix", vec!["192.168.10.0"; told]),
        ("bgp.mp_reach_nlri_ipv6_prefix", vec!["fd10:10::"; told]),
        ("bgp.withdrawn_prefix", vec!["192.168.10.0"]),
        ("bgp.mp_unreach_nlri_ipv6_prefix", vec!["fd10:10::"]),
        ("bgp.update.path_attribute.origin", vec!["0"; 2 * told]),
        (
            "bgp.update.path_attribute.as_path_segment.type",
            vec!["2"; 2 * told],
        ),
        (
            "bgp.update.path_attribute.as_path_segment.as4",
            vec!["65001"; 2 * told],
        ),
        (
            "bgp.update.path_attribute.next_hop",
            vec!["10.99.0.1"; told],
        ),
        (
            "bgp.update.path_attribute.mp_reach_nlri.afi",
            vec!["2"; told],
        ),
        (
            "bgp.update.path_attribute.mp_reach_nlri.next_hop.ipv6",
            vec!["fd99::1"; told],
        ),
        // One of them is End-of-RIB.
        (
            "bgp.update.path_attribute.mp_unreach_nlri.afi",
            vec!["2"; 2],
        ),
        ("bgp.notify.major_error", vec!["4"]),
    ];
    let names: Vec<&str> = expected
        .iter()
        .map(|(name, _)| *name)
        .chain(["bgp.type"])
        .collect();
    let rows = tshark::fields(&pcap, &ours, &names)?;
    let values = |column: usize| -> Vec<&str> {
        let of_frames = rows.iter().map(|row| row[column].as_str());
        of_frames
            .flat_map(|values| values.split(','))
            .filter(|value| !value.is_empty())
            .collect()
    };
    for (column, (name, expected)) in expected.iter().enumerate() {
        assert_eq!(values(column), *expected, "{name} in {rows:#?}");
    }
    // End-of-RIB and withdrawals are two each, like each telling.
    let mut types = values(names.len() - 1);
    // KEEPALIVEs, and the marks of an enhanced refresh where the router knows them.
    types.retain(|kind| !["4", "5"].contains(kind));
    let updates = vec!["2"; 4 + 2 * told];
    assert_eq!(types, [&["1"], &updates[..], &["3"]].concat());
    Ok(())
}

/// Waits until this many UPDATEs of ours were seen.
fn await_updates(capture: &Capture, count: usize) -> Result<(), Failure> {
    Ok(becomes(format!("{count} UPDATEs of ours"), || {
        let messages = messages(&capture.so_far());
        let ours = |message: &&Message| message.kind == UPDATE && message.from == plan::GATEWAY4;
        let seen = messages.iter().filter(ours).count();
        Ok((seen < count).then(|| format!("{seen}: {messages:?}")))
    })?)
}

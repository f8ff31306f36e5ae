//! Everything that we say in the life of a session, as Wireshark's dissector reads it.

use std::collections::BTreeMap;

use interop::capture::tshark;
use interop::enter::{Lab, Outcome};
use interop::peer::Daemon;
use interop::topology::plan;

use super::encounter::{Encounter, Terms, becomes, is_established};

with_each_router![dissected];

/// What is read of our frames.
const FIELDS: [&str; 22] = [
    "bgp.type",
    "bgp.open.version",
    "bgp.open.myas",
    "bgp.open.holdtime",
    "bgp.open.identifier",
    "bgp.cap.type",
    "bgp.cap.mp.afi",
    "bgp.cap.mp.safi",
    "bgp.cap.4as",
    "bgp.cap.gr.timers.restart_time",
    "bgp.update.path_attribute.type_code",
    "bgp.update.path_attribute.origin",
    "bgp.update.path_attribute.as_path_segment.as4",
    "bgp.update.path_attribute.next_hop",
    "bgp.update.path_attribute.mp_reach_nlri.afi",
    "bgp.update.path_attribute.mp_reach_nlri.next_hop.ipv6",
    "bgp.update.path_attribute.mp_unreach_nlri.afi",
    "bgp.nlri_prefix",
    "bgp.withdrawn_prefix",
    "bgp.mp_reach_nlri_ipv6_prefix",
    "bgp.mp_unreach_nlri_ipv6_prefix",
    "bgp.notify.major_error",
];

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
    if std::env::var("DBG").is_ok() {
        here.expect_learned()?;
        capture.stop().write(std::path::Path::new("/tmp/h7.pcap"))?;
        return Ok(());
    }

    let told = |here: &Encounter| {
        Ok::<_, super::encounter::Failure>(here.peer(0)?["messages_out"].as_u64())
    };
    let before = told(&here)?;
    let gateway = here.gateway_address().to_string();
    let refresh: &[&str] = match daemon {
        Daemon::Bird => &["reload", "in", "peer_gw"],
        Daemon::Gobgp => &["neighbor", &gateway, "softresetin"],
        Daemon::Frr => &["clear", "bgp", &gateway, "soft", "in"],
    };
    here.router().cli(refresh)?;
    becomes("we have said more", || {
        let now = told(&here)?;
        Ok((now < before.map(|count| count + 2)).then(|| format!("{now:?} messages")))
    })?;
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
    let rows = tshark::fields(&pcap, &ours, &FIELDS)?;
    let mut seen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in &rows {
        for (name, values) in FIELDS.iter().zip(row) {
            let values = values.split(',').filter(|value| !value.is_empty());
            seen.entry(name).or_default().extend(values);
        }
    }
    eprintln!("{seen:#?}");
    Ok(())
}

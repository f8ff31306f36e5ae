//! Our packets, as Wireshark's dissector reads them.

use std::collections::BTreeSet;

use interop::capture::tshark;
use interop::enter;
use interop::peer::Daemon;
use interop::topology::plan;

use super::meeting::becomes;
use super::terms;

#[test]
fn dissected() {
    enter::test(|lab| {
        let mut meeting = super::meeting::Meeting::arrange(lab, Daemon::Bird, "r", &terms())?;
        let capture = meeting.capture()?;
        meeting.start()?;
        meeting.await_established()?;
        let agreed = |peer: &bgp::PeerStatus| {
            let bfd = peer.bfd.as_ref();
            bfd.is_some_and(|bfd| bfd.packets_in > 40 && bfd.packets_out > 40)
        };
        meeting.await_peer("40 packets each way", agreed)?;
        meeting.stop_ours(bgp::Stop::Cease(None));
        becomes("our last packet", || {
            let farewell = capture.so_far().raw.iter().any(|frame| {
                // Version 1, diagnostic 7, then state 0: administratively down.
                frame.bytes.windows(2).any(|pair| pair == [0x27, 0x00])
            });
            Ok((!farewell).then(|| "none".to_owned()))
        })?;
        let pcap = lab.scratch().join("bfd.pcap");
        capture.stop().write(&pcap)?;
        // What BIRD sends before we are there comes back within our kernel's ICMP errors.
        let ours = format!("bfd && !icmp && ip.src == {}", plan::GATEWAY4);
        assert_eq!(tshark::complaints(&pcap, &ours)?, []);
        let names = [
            "bfd.version",
            "bfd.sta",
            "bfd.detect_time_multiplier",
            "bfd.message_length",
            "bfd.desired_min_tx_interval",
            "bfd.required_min_rx_interval",
            "bfd.flags.p",
            "bfd.flags.f",
            "bfd.my_discriminator",
            "ip.ttl",
            "ip.dsfield.dscp",
            "udp.dstport",
            "udp.srcport",
        ];
        let rows = tshark::fields(&pcap, &ours, &names)?;
        let column = |name: &str| -> BTreeSet<&str> {
            let at = names
                .iter()
                .position(|other| *other == name)
                .expect("a column");
            rows.iter().map(|row| row[at].as_str()).collect()
        };
        for (name, values) in [
            ("bfd.version", &["1"][..]),
            ("bfd.detect_time_multiplier", &["3"]),
            ("bfd.message_length", &["24"]),
            ("bfd.desired_min_tx_interval", &["50000", "1000000"]),
            ("bfd.required_min_rx_interval", &["50000"]),
            ("ip.ttl", &["255"]),
            ("ip.dsfield.dscp", &["48"]),
            ("udp.dstport", &["3784"]),
        ] {
            assert_eq!(column(name), values.iter().copied().collect(), "{name}");
        }
        // One session, one name and one source port, in the range of RFC 5881.
        assert_eq!(column("bfd.my_discriminator").len(), 1);
        let ports: Vec<u32> = column("udp.srcport")
            .iter()
            .flat_map(|p| p.parse())
            .collect();
        assert!(matches!(ports[..], [49152..=65535]), "{ports:?}");
        // A poll of ours was asked and ended, and one of BIRD's answered.
        for (flag, rare) in [("bfd.flags.p", true), ("bfd.flags.f", true)] {
            let at = names
                .iter()
                .position(|name| *name == flag)
                .expect("a column");
            let set = rows
                .iter()
                .filter(|row| matches!(row[at].as_str(), "1" | "True"))
                .count();
            assert_eq!(
                (1..10).contains(&set),
                rare,
                "{flag}: {set} of {}",
                rows.len()
            );
        }
        // From down to up, and at the end taken down by us.
        let states = column("bfd.sta");
        assert!(states.len() >= 3, "{states:?}");
        Ok(())
    });
}

//! MRT files as `bgpdump` reads them.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use bgp::mrt::{
    Body, PeerEntry, PeerIndexTable, Record, Rib, RibEntry, Session, SessionMessage, StateChange,
    Timestamp, attributes_of,
};
use bgp::wire::{
    Aggregator, AsPath, Attributes, Community, Message, MpReach, NextHop, Origin, SegmentKind,
    Update, WireOptions,
};
use bgp::{Prefix, SessionState};
use interop::process::{Launch, ProcessError};

const DEADLINE: Duration = Duration::from_secs(20);

/// What `bgpdump` makes of a file: a line a route, without the empty fields at its end.
pub(crate) fn bgpdump(file: &Path) -> Result<Vec<String>, ProcessError> {
    let printed = Launch::new("bgpdump")
        .arg("-m")
        .arg(file)
        .output(DEADLINE)?;
    Ok(printed
        .lines()
        .map(|line| line.trim_end_matches('|').to_owned())
        .collect())
}

fn written(records: &[Record]) -> Result<tempfile::NamedTempFile, Box<dyn Error>> {
    let mut octets = Vec::new();
    for record in records {
        octets.extend(record.to_bytes()?);
    }
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), octets)?;
    Ok(file)
}

fn attributes() -> Attributes {
    Attributes {
        origin: Some(Origin::Igp),
        as_path: Some(AsPath::from_segments([
            (SegmentKind::Sequence, &[4_200_000_000, 65003][..]),
            (SegmentKind::Set, &[65004, 65005]),
        ])),
        med: Some(7),
        local_pref: Some(200),
        atomic_aggregate: true,
        aggregator: Some(Aggregator {
            asn: 4_200_000_000,
            router_id: "10.0.0.9".parse().expect("an address"),
        }),
        communities: vec![Community::new(65001, 1), Community::new(65001, 2)],
        ..Attributes::default()
    }
}

#[test]
fn bgpdump_reads_a_table() -> Result<(), Box<dyn Error>> {
    let at = Timestamp::seconds(1_700_000_000);
    let mut records = vec![Record {
        time: at,
        body: Body::PeerIndexTable(PeerIndexTable {
            collector: "10.0.0.1".parse()?,
            view: "ccn".to_owned(),
            peers: vec![
                PeerEntry {
                    router_id: "10.0.0.2".parse()?,
                    address: "10.99.0.2".parse()?,
                    asn: 65002,
                },
                PeerEntry {
                    router_id: "10.0.0.3".parse()?,
                    address: "fd99::3".parse()?,
                    asn: 4_200_000_000,
                },
            ],
        }),
    }];
    let routes: [(&str, NextHop); 3] = [
        ("10.1.0.0/24", NextHop::V4("10.99.0.2".parse()?)),
        ("2001:db8:1::/48", NextHop::V6("fd99::3".parse()?)),
        (
            "::/0",
            NextHop::V6WithLinkLocal {
                global: "fd99::3".parse()?,
                link_local: "fe80::3".parse()?,
            },
        ),
    ];
    for (sequence, (prefix, next_hop)) in (0..).zip(routes) {
        let prefix: Prefix = prefix.parse()?;
        let entry = |peer| -> Result<RibEntry, Box<dyn Error>> {
            Ok(RibEntry {
                peer,
                originated: 1_600_000_000,
                path_id: 0,
                attributes: attributes_of(&prefix, &attributes(), next_hop)?,
            })
        };
        records.push(Record {
            time: at,
            body: Body::Rib(Rib {
                sequence,
                prefix,
                add_path: false,
                entries: vec![entry(0)?, entry(1)?],
            }),
        });
    }
    let file = written(&records)?;
    let seen = bgpdump(file.path())?;
    let line = |peer: &str, route: &str, next_hop: &str| {
        format!(
            "TABLE_DUMP2|1700000000|B|{peer}|{route}|4200000000 65003 {{65004,65005}}|IGP|{next_hop}|\
             200|7|65001:1 65001:2|AG|4200000000 10.0.0.9"
        )
    };
    let mut expected = Vec::new();
    for (route, next_hop) in [
        ("10.1.0.0/24", "10.99.0.2"),
        ("2001:db8:1::/48", "fd99::3"),
        ("::/0", "fd99::3"),
    ] {
        expected.push(line("10.99.0.2|65002", route, next_hop));
        expected.push(line("fd99::3|4200000000", route, next_hop));
    }
    assert_eq!(seen, expected);
    Ok(())
}

#[test]
fn bgpdump_reads_the_life_of_a_session() -> Result<(), Box<dyn Error>> {
    let session = Session {
        peer_as: 65002,
        local_as: 4_200_000_001,
        interface: 0,
        peer: "10.99.0.2".parse()?,
        local: "10.99.0.1".parse()?,
    };
    let options = WireOptions {
        four_octet_as: true,
        ..WireOptions::default()
    };
    let path = Attributes {
        origin: Some(Origin::Incomplete),
        as_path: Some(AsPath::sequence([65002])),
        ..Attributes::default()
    };
    let announced = Message::Update(Update {
        attributes: Attributes {
            next_hop: Some("10.99.0.2".parse()?),
            ..path.clone()
        },
        nlri: vec!["10.1.0.0/24".parse::<Prefix>()?.into()],
        mp_reach: Some(MpReach::Unicast {
            family: bgp::Family::Ipv6Unicast,
            next_hop: NextHop::V6("fd99::2".parse()?),
            nlri: vec!["2001:db8::/32".parse::<Prefix>()?.into()],
        }),
        ..Update::default()
    });
    let withdrawn = Message::Update(Update {
        withdrawn: vec!["10.1.0.0/24".parse::<Prefix>()?.into()],
        ..Update::default()
    });
    let change = |old, new| {
        Body::StateChange(StateChange {
            session,
            four_octet_as: true,
            old,
            new,
        })
    };
    let message = |message: &Message| -> Result<Body, Box<dyn Error>> {
        Ok(Body::Message(SessionMessage {
            session,
            four_octet_as: true,
            sent: false,
            add_path: false,
            octets: message.to_bytes(&options)?,
        }))
    };
    let bodies = [
        change(SessionState::OpenConfirm, SessionState::Established),
        message(&announced)?,
        message(&withdrawn)?,
        change(SessionState::Established, SessionState::Idle),
    ];
    for microseconds in [None, Some(250_000)] {
        let time = Timestamp {
            seconds: 1_700_000_000,
            microseconds,
        };
        let records = bodies.clone().map(|body| Record { time, body });
        let file = written(&records)?;
        let seen = bgpdump(file.path())?;
        let kind = match microseconds {
            None => "BGP4MP|1700000000",
            Some(_) => "BGP4MP_ET|1700000000.250000",
        };
        let expected = [
            "STATE|10.99.0.2|65002|5|6",
            "A|10.99.0.2|65002|10.1.0.0/24|65002|INCOMPLETE|10.99.0.2|0|0||NAG",
            "A|10.99.0.2|65002|2001:db8::/32|65002|INCOMPLETE|fd99::2|0|0||NAG",
            "W|10.99.0.2|65002|10.1.0.0/24",
            "STATE|10.99.0.2|65002|6|1",
        ];
        assert_eq!(seen, expected.map(|line| format!("{kind}|{line}")));
    }
    Ok(())
}

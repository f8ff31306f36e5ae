//! What a running speaker tells those who watch it: BMP stations, the MRT log, table dumps.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bgp::bmp::{DownReason, Information, Message, Statistic, Termination};
use bgp::mrt::{Body, Reader};
use bgp::wire::{self, WireOptions};
use bgp::{
    Announcement, BmpCollector, ExportPolicy, ImportPolicy, MrtConfig, PeerConfig, SessionState,
    Speaker, SpeakerConfig, StartError, Stop,
};
use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

mod waiting;

use waiting::{PATIENCE, until};

const PORT: u16 = 17901;

/// An address that no other test and no other run of this test uses.
fn address(test: u8, host: u8) -> IpAddr {
    let pid = std::process::id();
    Ipv4Addr::new(127, 96 + test, (pid >> 6) as u8, (pid << 2) as u8 | host).into()
}

/// The configuration of the speaker at `host` (1 or 2) with the other one as peer. The first one
/// listens, the second one connects.
fn config(test: u8, host: u8) -> SpeakerConfig {
    let (own, other) = (address(test, host), address(test, 3 - host));
    let asn = 65000 + u32::from(host);
    let IpAddr::V4(router_id) = own else {
        panic!("{own}")
    };
    let peer = PeerConfig {
        port: PORT,
        passive: host == 1,
        local_address: Some(own),
        connect_retry: Duration::from_millis(200),
        idle_hold: Duration::from_millis(200),
        import: ImportPolicy::All,
        export: ExportPolicy::Local,
        // Loopback addresses are no next hops.
        next_hop_v4: Some(Ipv4Addr::new(192, 0, 2, host)),
        next_hop_v6: Some(format!("fd99::{host}").parse().unwrap()),
        ..PeerConfig::new("other".parse().unwrap(), other, 65003 - u32::from(host))
    };
    SpeakerConfig {
        listen: vec![SocketAddr::new(own, PORT)],
        peers: vec![peer],
        ..SpeakerConfig::new(asn, router_id)
    }
}

async fn knows(speaker: &Speaker, count: usize) {
    let look = || async { (speaker.routes().await.len(), speaker.peers().await) };
    until("routes", look, |(seen, _)| *seen == count).await;
}

async fn announce(speaker: &Speaker, prefixes: &[&str]) {
    let routes = prefixes
        .iter()
        .map(|text| Announcement::new(text.parse().unwrap()));
    speaker.announce(routes.collect()).await.unwrap();
}

/// The other end of a BMP session, and what it has read, in short.
struct Station {
    stream: TcpStream,
    buffer: BytesMut,
    heard: Vec<String>,
}

impl Station {
    async fn accept(listener: &TcpListener) -> Station {
        let (stream, _) = tokio::time::timeout(PATIENCE, listener.accept())
            .await
            .expect("a connection")
            .unwrap();
        Station {
            stream,
            buffer: BytesMut::new(),
            heard: Vec::new(),
        }
    }

    /// Reads until a line starts with this; the lines since the last time.
    async fn hear(&mut self, last: &str) -> Vec<String> {
        loop {
            while let Some(octets) = Message::split(&mut self.buffer).unwrap() {
                let line = short(&Message::decode(octets).unwrap());
                let found = line.starts_with(last);
                self.heard.push(line);
                if found {
                    return std::mem::take(&mut self.heard);
                }
            }
            let read = self.stream.read_buf(&mut self.buffer);
            match tokio::time::timeout(PATIENCE, read).await {
                Ok(Ok(0)) if last == "the end" => return std::mem::take(&mut self.heard),
                Ok(Ok(octets)) if octets > 0 => {}
                other => panic!("{last:?}: {other:?} after {:#?}", self.heard),
            }
        }
    }
}

fn short(message: &Message) -> String {
    match message {
        Message::Initiation(information) => {
            let named =
                |item: &Information| matches!(item, Information::SysName(name) if !name.is_empty());
            format!("initiation, named: {}", information.iter().any(named))
        }
        Message::PeerUp(up) => {
            let asn = |octets| match wire::Message::decode(octets, &WireOptions::default()) {
                Ok(decoded) => match decoded.message {
                    wire::Message::Open(open) => open.asn(),
                    other => panic!("{other:?}"),
                },
                Err(error) => panic!("{error}"),
            };
            format!(
                "up {}: {} with {}",
                up.peer.asn,
                asn(&up.sent_open),
                asn(&up.received_open)
            )
        }
        Message::PeerDown { peer, reason } => {
            let reason = match reason {
                DownReason::NotifiedByPeer(octets) => format!("they said {}", octets[19]),
                DownReason::Notified(octets) => format!("we said {}", octets[19]),
                other => format!("{other:?}"),
            };
            format!("down {}: {reason}", peer.asn)
        }
        Message::RouteMonitoring { peer, update } => {
            let view = if peer.post_policy { "post" } else { "pre" };
            let options = WireOptions {
                four_octet_as: !peer.two_octet_as,
                ..WireOptions::default()
            };
            let decoded = wire::Message::decode(update, &options).unwrap();
            assert_eq!(decoded.findings, []);
            let wire::Message::Update(update) = decoded.message else {
                panic!("{decoded:?}")
            };
            let mut said = Vec::new();
            if update.end_of_rib_family().is_some() {
                said.push("end".to_owned());
            }
            for reach in update.reachable() {
                said.extend(reach.nlri.iter().map(|nlri| format!("+{nlri}")));
            }
            said.extend(update.unreachable().map(|nlri| format!("-{nlri}")));
            said.sort();
            format!("{view} {}: {}", peer.asn, said.join(" "))
        }
        Message::Statistics { statistics, .. } => {
            let count = statistics.iter().find_map(|statistic| match statistic {
                Statistic::AdjRibIn(count) => Some(*count),
                _ => None,
            });
            format!("statistics {count:?}")
        }
        Message::Termination(items) => {
            assert!(matches!(items[..], [Termination::Reason(0)]), "{items:?}");
            "termination".to_owned()
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_station_is_told_the_table_and_what_happens_then() {
    let listener = TcpListener::bind((address(1, 3), 0)).await.unwrap();
    let where_to = listener.local_addr().unwrap();
    drop(listener);
    let mut first = config(1, 1);
    first.bmp.push(BmpCollector {
        port: where_to.port(),
        pre_policy: true,
        stats_interval_s: 1,
        ..BmpCollector::new(where_to.ip())
    });
    let first = Speaker::start(first).unwrap();
    let second = Speaker::start(config(1, 2)).unwrap();
    announce(&second, &["10.1.0.0/24", "10.2.0.0/24", "fd01::/48"]).await;
    knows(&first, 3).await;

    // The station comes when everything is there already.
    let listener = TcpListener::bind(where_to).await.unwrap();
    let mut station = Station::accept(&listener).await;
    let mut heard = station.hear("post 65002: end").await;
    heard.extend(station.hear("post 65002: end").await);
    let pre = |line: &&String| line.starts_with("pre");
    let mut before_policy: Vec<String> = heard.iter().filter(pre).cloned().collect();
    heard.retain(|line| !line.starts_with("statistics") && !line.starts_with("pre"));
    assert_eq!(
        heard,
        [
            "initiation, named: true",
            "up 65002: 65001 with 65002",
            "post 65002: +10.1.0.0/24 +10.2.0.0/24",
            "post 65002: +fd01::/48",
            "post 65002: end",
            "post 65002: end",
        ]
    );

    // The peer was asked for its routes again, which is how they are known as they were told.
    for prefix in ["+10.1.0.0/24", "+10.2.0.0/24", "+fd01::/48"] {
        let told = |line: &String| line.starts_with("pre") && line.contains(prefix);
        while !before_policy.iter().any(told) {
            before_policy.extend(station.hear("pre 65002").await);
        }
    }

    announce(&second, &["10.3.0.0/24"]).await;
    let heard = station.hear("post 65002: +10.3.0.0/24").await;
    assert!(
        heard.contains(&"pre 65002: +10.3.0.0/24".to_owned()),
        "{heard:?}"
    );
    second
        .withdraw(vec!["10.1.0.0/24".parse().unwrap()])
        .await
        .unwrap();
    station.hear("post 65002: -10.1.0.0/24").await;
    station.hear("statistics Some(3)").await;

    second.stop(Stop::Cease(None)).await;
    station.hear("down 65002: they said 6").await;
    first.stop(Stop::Cease(None)).await;
    station.hear("termination").await;
    assert_eq!(station.hear("the end").await, [""; 0]);
}

#[tokio::test]
async fn a_station_that_comes_back_is_told_everything_again() {
    let listener = TcpListener::bind((address(2, 3), 0)).await.unwrap();
    let where_to = listener.local_addr().unwrap();
    let mut first = config(2, 1);
    first.bmp.push(BmpCollector {
        port: where_to.port(),
        stats_interval_s: 0,
        ..BmpCollector::new(where_to.ip())
    });
    let _first = Speaker::start(first).unwrap();
    let mut station = Station::accept(&listener).await;
    // There is no session yet.
    assert_eq!(station.hear("initiation").await.len(), 1);
    let second = Speaker::start(config(2, 2)).unwrap();
    station.hear("up 65002").await;
    announce(&second, &["10.1.0.0/24"]).await;
    station.hear("post 65002: +10.1.0.0/24").await;
    drop(station);
    let mut station = Station::accept(&listener).await;
    let mut heard = station.hear("post 65002: end").await;
    heard.extend(station.hear("post 65002: end").await);
    assert_eq!(
        heard,
        [
            "initiation, named: true",
            "up 65002: 65001 with 65002",
            "post 65002: +10.1.0.0/24",
            "post 65002: end",
            "post 65002: end",
        ]
    );
}

#[tokio::test]
async fn the_log_holds_what_the_peer_said() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("updates.mrt");
    let mut first = config(3, 1);
    first.mrt = Some(MrtConfig::new(path.clone()));
    let first = Speaker::start(first).unwrap();
    let second = Speaker::start(config(3, 2)).unwrap();
    announce(&second, &["10.1.0.0/24"]).await;
    knows(&first, 1).await;
    second.stop(Stop::Cease(None)).await;
    let end = "established > idle";
    let look = || async {
        let file = std::fs::read(&path).unwrap();
        let lines = Reader::new(&file[..]).map(|record| {
            let record = record.unwrap();
            assert!(record.time.seconds > 1_600_000_000 && record.time.microseconds.is_some());
            match record.body {
                Body::StateChange(change) => format!("{} > {}", change.old, change.new),
                Body::Message(message) => {
                    let session = message.session;
                    let ends = (
                        session.peer,
                        session.local,
                        session.peer_as,
                        session.local_as,
                    );
                    assert_eq!(ends, (address(3, 2), address(3, 1), 65002, 65001));
                    let decoded = message.decode().unwrap();
                    assert_eq!(decoded.findings, []);
                    format!("type {}", decoded.message.kind())
                }
                other => panic!("{other:?}"),
            }
        });
        lines.collect::<Vec<_>>()
    };
    let lines = until("the log", look, |lines| {
        lines.iter().any(|line| line == end)
    })
    .await;
    let at = |line: &str| lines.iter().position(|seen| seen == line);
    assert!(
        at("type 1") < at("open-confirm > established"),
        "{lines:#?}"
    );
    assert!(at("type 2") < at("type 3"), "{lines:#?}");
    for line in ["type 1", "type 2", "type 3"] {
        assert!(at(line).is_some(), "no {line} in {lines:#?}");
    }
    assert_eq!(at("type 4"), None, "KEEPALIVEs are not kept");
}

#[tokio::test]
async fn a_dump_holds_every_accepted_route() {
    let first = Speaker::start(config(4, 1)).unwrap();
    let second = Speaker::start(config(4, 2)).unwrap();
    let texts: Vec<String> = (0..5000)
        .map(|n| format!("10.{}.{}.0/24", n / 250, n % 250))
        .chain(["fd01::/48".to_owned()])
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    announce(&second, &texts).await;
    announce(&first, &["192.0.2.0/24"]).await;
    knows(&first, texts.len()).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table.mrt");
    let dumped = first.dump_mrt(&path).await.unwrap();
    let file = std::fs::read(&path).unwrap();
    assert_eq!(
        (dumped.prefixes as usize, dumped.routes, dumped.octets),
        (texts.len(), texts.len() as u64, file.len() as u64)
    );
    let mut records = Reader::new(&file[..]).map(|record| record.unwrap().body);
    let Some(Body::PeerIndexTable(table)) = records.next() else {
        panic!("no peers")
    };
    assert_eq!(IpAddr::from(table.collector), address(4, 1));
    let [peer] = table.peers[..] else {
        panic!("{table:?}")
    };
    assert_eq!((peer.address, peer.asn), (address(4, 2), 65002));
    assert_eq!(IpAddr::from(peer.router_id), address(4, 2));
    let mut seen: Vec<String> = records
        .map(|body| match body {
            Body::Rib(rib) => {
                let [entry] = &rib.entries[..] else {
                    panic!("{rib:?}")
                };
                let decoded = entry.decode(&rib.prefix).unwrap();
                assert_eq!(decoded.findings, []);
                rib.prefix.to_string()
            }
            other => panic!("{other:?}"),
        })
        .collect();
    seen.sort();
    let mut expected = texts;
    expected.sort_unstable();
    assert_eq!(seen, expected);

    let nowhere = directory.path().join("none/table.mrt");
    let error = first.dump_mrt(&nowhere).await.unwrap_err().to_string();
    assert!(error.contains("none/table.mrt"), "{error}");
    assert_eq!(first.peers().await[0].state, SessionState::Established);
    first.stop(Stop::Cease(None)).await;
    let error = first.dump_mrt(&path).await.unwrap_err().to_string();
    assert!(error.contains("has stopped"), "{error}");
}

#[tokio::test]
async fn a_log_that_cannot_be_opened_is_an_error_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = config(5, 1);
    first.mrt = Some(MrtConfig::new(directory.path().join("none/updates.mrt")));
    let error = Speaker::start(first).unwrap_err();
    assert!(matches!(error, StartError::Mrt { .. }), "{error}");
    assert!(error.to_string().contains("none/updates.mrt"), "{error}");
}

#[tokio::test]
async fn another_configuration_brings_stations_and_takes_them_away() {
    let listener = TcpListener::bind((address(6, 3), 0)).await.unwrap();
    let where_to = listener.local_addr().unwrap();
    let first = Speaker::start(config(6, 1)).unwrap();
    let second = Speaker::start(config(6, 2)).unwrap();
    announce(&second, &["10.1.0.0/24"]).await;
    knows(&first, 1).await;
    let mut watched = config(6, 1);
    watched.bmp.push(BmpCollector {
        port: where_to.port(),
        ..BmpCollector::new(where_to.ip())
    });
    first.reconfigure(watched.clone()).await.unwrap();
    let mut station = Station::accept(&listener).await;
    station.hear("post 65002: +10.1.0.0/24").await;
    // Nothing has changed: the connection stays.
    first.reconfigure(watched).await.unwrap();
    announce(&second, &["10.2.0.0/24"]).await;
    station.hear("post 65002: +10.2.0.0/24").await;
    first.reconfigure(config(6, 1)).await.unwrap();
    station.hear("termination").await;
    assert_eq!(station.hear("the end").await, [""; 0]);
}

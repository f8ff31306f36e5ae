//! BMP as Wireshark's dissector reads it.

use std::io::{self, Read};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use interop::capture::{Capture, Direction, Frames};
use interop::enter::{self, Lab, Outcome};
use interop::gateway::BmpSection;
use interop::process::{Launch, ProcessError};
use interop::scene::{LAB, OFFICE, Scene};
use interop::wait::eventually;

const SOON: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(60);
const PORT: u16 = 11019;

#[test]
fn the_dissector_reads_what_a_station_is_told() {
    enter::test(|lab| told_to_a_station(lab, &lab.scratch().join("bmp.pcap")));
}

/// A station in the gateway's own namespace: reads everything, keeps nothing.
fn station(listener: &TcpListener) -> io::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut waste = [0; 4096];
    while stream.read(&mut waste)? > 0 {}
    Ok(())
}

/// Fields of all BMP messages in a capture that match the filter, a line each.
fn fields(pcap: &Path, filter: &str, names: &[&str]) -> Result<Vec<String>, ProcessError> {
    let decode = format!("tcp.port=={PORT},bmp");
    let filter = format!("bmp && ({filter})");
    let mut launch = Launch::new("tshark")
        .args([
            "-n",
            "-d",
            &decode,
            "-T",
            "fields",
            "-E",
            "separator=|",
            "-Y",
            &filter,
            "-r",
        ])
        .arg(pcap);
    for name in names {
        launch = launch.args(["-e", name]);
    }
    Ok(launch
        .output(DEADLINE)?
        .lines()
        .map(str::to_owned)
        .collect())
}

fn told_to_a_station(lab: &Lab, pcap: &Path) -> Outcome {
    let mut scene = Scene::start_with(lab, 1, |config| {
        config.bgp.bmp.push(BmpSection {
            address: "127.0.0.1".parse().expect("an address"),
            port: PORT,
            stats_interval_s: 1,
            pre_policy: true,
            post_policy: true,
        });
    })?;
    let gateway = scene.region.namespace("gw")?;
    let capture = Capture::start(&gateway, "lo")?;
    let listener = gateway.enter(|| TcpListener::bind(("127.0.0.1", PORT)))??;
    let reader = std::thread::spawn(move || station(&listener));
    // The loopback shows each frame twice.
    let save = |frames: Frames| -> io::Result<()> {
        assert_eq!(frames.missed, 0);
        let once = frames
            .raw
            .into_iter()
            .filter(|frame| frame.direction == Direction::In);
        Frames {
            raw: once.collect(),
            missed: 0,
        }
        .write(pcap)
    };
    let types = |frames: Frames| -> Result<Vec<String>, String> {
        save(frames).map_err(|error| error.to_string())?;
        let lines = fields(pcap, "bmp.type", &["bmp.type"]).map_err(|error| error.to_string())?;
        let all = lines.iter().flat_map(|line| line.split(','));
        Ok(all.map(str::to_owned).collect())
    };
    // Initiation, peer up, routes in one or more UPDATEs, two ends, and counters.
    eventually("a station hears everything", SOON, || {
        let seen = types(capture.so_far())?;
        let has = |kind: &str, count| seen.iter().filter(|seen| *seen == kind).count() >= count;
        match has("4", 1) && has("3", 1) && has("0", 4) && has("1", 1) {
            true => Ok(()),
            false => Err(format!("{seen:?}")),
        }
    })?;
    scene.gateway.stop()?;
    let seen = eventually("the end is told", SOON, || {
        let seen = types(capture.so_far())?;
        match seen.last().is_some_and(|last| last == "5") {
            true => Ok(seen),
            false => Err(format!("{seen:?}")),
        }
    })?;
    reader.join().map_err(|_| "the station panicked")??;
    assert_eq!(seen[..2], ["4", "3"], "{seen:?}");
    assert!(
        seen.contains(&"2".to_owned()),
        "the session ends first: {seen:?}"
    );

    let wrong = "_ws.malformed || _ws.expert.severity >= \"Warning\"";
    assert_eq!(fields(pcap, wrong, &["_ws.expert.message"])?, [""; 0]);
    let up = fields(
        pcap,
        "bmp.type == 3",
        &[
            "bmp.peer.ip.addr",
            "bmp.peer.asn",
            "bmp.peer.up.ip.addr",
            "bgp.open.identifier",
        ],
    )?;
    assert_eq!(up, ["10.99.0.2|65002|10.99.0.1|10.99.0.1,10.99.0.2"]);
    let routes = fields(
        pcap,
        "bmp.type == 0",
        &[
            "bgp.nlri_prefix",
            "bgp.mp_reach_nlri_ipv6_prefix",
            "bmp.peer.flags.post_policy",
        ],
    )?;
    let routes = routes.join(" ");
    for net in OFFICE.into_iter().chain(LAB) {
        let (address, _) = net.split_once('/').expect("a prefix");
        assert!(routes.contains(address), "{net} in {routes}");
    }
    Ok(())
}

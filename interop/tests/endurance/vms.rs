//! A VM that is never where it was.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use interop::bench::store::floor::Minimal;
use interop::enter::{self, Lab, Outcome};
use interop::etcd::ROOT;
use interop::gateway::may_load_bpf;
use interop::scene::{OFFICE, Scene};
use interop::topology::{Instance, plan};
use interop::traffic::numbered::{Flow, Origin, Receiver};
use interop::wait::eventually;
use serde_json::json;

use super::SOON;

const MOVES: usize = 10_000;
/// Packets a second to the VM.
const RATE: u32 = 1_000;
const PORT: u16 = 7000;
/// Where the VM is in turn.
const HOSTS: [u8; 2] = [11, 12];

#[test]
fn a_vm_that_moves_ten_thousand_times_gets_every_packet_on_the_routes_plane() {
    enter::test_within(Duration::from_secs(150), |lab| moves(lab, "routes"));
}

#[test]
fn a_vm_that_moves_ten_thousand_times_gets_every_packet_on_the_ebpf_plane() {
    if may_load_bpf().expect("whether BPF may be loaded") {
        enter::test_within(Duration::from_secs(150), |lab| moves(lab, "ebpf"));
    }
}

fn moves(lab: &Lab, plane: &str) -> Outcome {
    let (mut scene, etcd) = Scene::start_on_etcd_with(lab, 1, |gateway| {
        gateway.config.plane.kind = plane.to_owned();
    })?;
    scene.link("web", "office", &OFFICE)?;
    // On each host there is one with its addresses: wherever a packet is sent, it is taken.
    let here = scene.region.instance("web-1@web")?.clone();
    let twin = Instance {
        name: "twin@web".to_owned(),
        vtep: plan::vtep(HOSTS[1]).into(),
        ..here.clone()
    };
    scene.region.add_instance(twin)?;
    let address = SocketAddr::new(here.addrs[0], PORT);
    let receivers = ["web-1@web", "twin@web"].map(|name| {
        let instance = scene.region.namespace(name)?;
        Ok::<_, super::Failure>(Receiver::open(&instance, address)?)
    });
    let [one, other] = receivers;
    let (one, other) = (one?, other?);
    let alice = scene.region.namespace("alice")?;
    let flow = Flow::start(&Origin::new(&alice), address, RATE)?;

    let record = |turn: usize| {
        let vtep = plan::vtep(HOSTS[turn % 2]);
        let record = json!({ "addrs": here.addrs, "mac": here.mac.to_string(), "vtep": vtep });
        (format!("{ROOT}/vms/web/web-1"), record.to_string())
    };
    let namespace = scene.region.gateway_namespace();
    let began = Instant::now();
    namespace.enter(|| -> Result<(), super::Failure> {
        let mut minimal = Minimal::connect(&etcd)?;
        // The first one moves it away from where it is.
        (1..=MOVES).try_for_each(|turn| minimal.put(&record(turn)))
    })??;
    println!("{plane}: {MOVES} moves in {:?}", began.elapsed());
    // It is back where it was, and packets go nowhere else.
    let at_twin = || other.total();
    eventually("the last move is done", SOON, || {
        let (before, sent) = (at_twin(), flow.sent());
        eventually("packets go on", SOON, || match flow.sent() - sent {
            0..200 => Err("they do not".to_owned()),
            _ => Ok(()),
        })
        .map_err(|error| error.to_string())?;
        match at_twin() - before {
            0 => Ok(()),
            more => Err(format!("{more} more of 200 went where it was")),
        }
    })?;
    let elsewhere = at_twin();
    let report = flow.stop(&one);
    let sent = report.sent;
    println!(
        "{plane}: {sent} sent, {} arrived on one host and {elsewhere} on the other",
        report.arrived
    );
    assert!(elsewhere > 0, "it was never seen on the other host");
    assert_eq!(report.duplicates, 0);
    assert_eq!(report.overruns, 0, "the machine was too slow for this test");
    assert_eq!(report.arrived + other.total(), sent, "packets were lost");
    let status = scene.gateway.await_settled(SOON)?;
    assert_eq!(status["records"]["quarantined"], 0, "{status}");
    Ok(())
}

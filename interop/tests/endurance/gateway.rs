//! A gateway whose machine has no room left.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use interop::enter;
use interop::process::Launch;
use interop::scene::{OFFICE, Scene, WEB};
use interop::steady::Traffic;
use interop::wait::eventually;
use serde_json::json;

use super::desk::Desk;
use super::{Failure, SOON, was_perfect};

/// What the disk of the store takes.
const DISK: &str = "size=8m";
/// The most orders until it must be full.
const ORDERS: usize = 2_000;

/// Fills the disk up; what is to be deleted for room.
fn fill(disk: &Path) -> Result<PathBuf, Failure> {
    let path = disk.join("in-the-way");
    let mut file = File::create(&path)?;
    let block = [0_u8; 4096];
    while file.write_all(&block).is_ok() {}
    Ok(path)
}

#[test]
fn a_disk_that_is_full_costs_orders_and_no_packet_and_is_used_again_when_there_is_room() {
    enter::test(|lab| {
        let disk = lab.run().join("disk");
        fs::create_dir_all(&disk)?;
        let mount = Launch::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]);
        mount.arg(&disk).output(SOON)?;
        let mut scene = Scene::start_with(lab, 1, |config| {
            config.store.path = disk.join("store.redb");
        })?;
        scene.link("web", "office", &OFFICE)?;
        let traffic = Traffic::start(&scene)?;
        traffic.pass(100)?;

        let in_the_way = fill(&disk)?;
        let desk = Desk::at(&scene.gateway)?;
        // The file has some room of its own.
        let long = "x".repeat(4_000);
        let refusal = (0..ORDERS).find_map(|number| {
            let key = format!("classic/more-{number}");
            let network = json!({ "prefixes": [format!("10.{}.{}.0/24", 100 + number / 250, number % 250)], "note": long });
            desk.change(&[(&key, network)]).err()
        });
        let refusal = refusal.ok_or("the disk is never full")?.to_string();
        println!("refused: {refusal}");
        assert!(refusal.contains("store.redb"), "{refusal}");
        assert!(refusal.contains("No space left"), "{refusal}");
        traffic.pass(100)?;
        scene.await_exactly(&WEB)?;
        scene.gateway.agent()?.check()?;

        fs::remove_file(in_the_way)?;
        eventually("an order is carried out again", SOON, || {
            let network = json!({ "prefixes": ["10.99.99.0/24"] });
            let changed = desk.change(&[("classic/again", network)]);
            changed.map_err(|error| error.to_string())
        })?;
        scene.gateway.await_settled(SOON)?;
        // Also what it holds now is whole.
        scene.gateway.stop()?;
        scene.gateway.start()?;
        scene.gateway.await_settled(SOON)?;
        let records = scene.gateway.ccn(["export"])?;
        assert!(records.contains("classic/again"), "{records}");
        traffic.pass(100)?;
        was_perfect(traffic)
    });
}

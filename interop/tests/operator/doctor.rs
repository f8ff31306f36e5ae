//! `ccn doctor`: a gateway that is well, and things that are not.

use interop::enter::{self, Lab, Outcome};
use interop::gateway::may_load_bpf;
use interop::process::Launch;
use interop::scene::{OFFICE, Scene, change_store, nets};
use interop::topology::plan;
use interop::wait::eventually;
use serde_json::{Value, json};

use super::{Failure, SOON};

/// What it says: its exit code, and what it says of each check that is not fine.
fn ask(scene: &Scene) -> Result<(Option<i32>, Vec<Value>), Failure> {
    let said = scene
        .gateway
        .finish(["doctor", "--sample", "40", "--json"])?;
    let report: Value = serde_json::from_str(&said.stdout)?;
    let findings = report["findings"].as_array().cloned().unwrap_or_default();
    assert!(findings.len() > 8, "{report}");
    let code = said.status.code();
    assert_eq!(report["well"], code == Some(0), "{report}");
    let bad = findings
        .into_iter()
        .filter(|finding| finding["level"] != "fine");
    Ok((code, bad.collect()))
}

/// Waits until all is well but for what is only worth knowing.
fn await_well(scene: &Scene) -> Result<(), Failure> {
    eventually("all is well", SOON, || match ask(scene) {
        Ok((Some(0), notes)) if notes.iter().all(|note| note["level"] == "note") => Ok(()),
        Ok(said) => Err(format!("{said:?}")),
        Err(error) => Err(error.to_string()),
    })?;
    Ok(())
}

/// Waits until this check finds something wrong, with these words, and nothing else does.
fn await_wrong(scene: &Scene, check: &str, words: &str) -> Result<(), Failure> {
    await_wrong_after(scene, || Ok(()), check, words)
}

/// The same where `meddle` makes it wrong: before each look, since the agent puts right what it comes across.
fn await_wrong_after(
    scene: &Scene,
    meddle: impl Fn() -> Result<(), Failure>,
    check: &str,
    words: &str,
) -> Result<(), Failure> {
    let what = format!("{check} finds {words:?}");
    eventually(what, SOON, || {
        meddle().map_err(|error| error.to_string())?;
        let (code, findings) = ask(scene).map_err(|error| error.to_string())?;
        let mut wrong = findings
            .iter()
            .filter(|finding| finding["level"] == "wrong");
        let is_it = |finding: &Value| {
            finding["check"] == check
                && finding["what"]
                    .as_str()
                    .is_some_and(|what| what.contains(words))
                && finding["why"].is_string()
                && finding["todo"].is_string()
        };
        match code == Some(1) && wrong.clone().count() > 0 && wrong.all(is_it) {
            true => Ok(()),
            false => Err(format!("{findings:?}")),
        }
    })?;
    Ok(())
}

#[test]
fn it_finds_what_is_wrong_on_the_routes_plane() {
    enter::test(|lab| finds(lab, "routes"));
}

#[test]
fn it_finds_what_is_wrong_on_the_ebpf_plane() {
    enter::test(|lab| match may_load_bpf()? {
        true => finds(lab, "ebpf"),
        false => Ok(()),
    });
}

fn finds(lab: &Lab, plane: &str) -> Outcome {
    let mut scene = Scene::start_with(lab, 1, |config| config.plane.kind = plane.to_owned())?;
    scene.link("web", "office", &OFFICE)?;
    await_well(&scene)?;
    let text = scene.gateway.ccn(["doctor"])?;
    println!("{text}");
    assert!(text.contains(&format!("{plane}: as configured")), "{text}");
    let asked = text
        .lines()
        .find(|line| line.contains("kernel and records agree"));
    let asked = asked.ok_or("it asked nothing")?;
    assert!(!asked.contains(" 0 of "), "{asked}");
    if plane == "ebpf" {
        assert!(asked.starts_with("fine"), "{asked}");
        assert!(
            text.contains("program on idc0, program on ccn0, program on u0"),
            "{text}"
        );
    }

    let gateway = scene.region.namespace("gw")?;
    let sysctl = |value: &str| {
        Launch::new("sysctl")
            .args(["-w", &format!("net.ipv4.conf.ccn0.rp_filter={value}")])
            .in_namespace(gateway.fd())
            .output(SOON)
    };
    let meddle = || Ok(sysctl("1").map(drop)?);
    let words = "net.ipv4.conf.ccn0.rp_filter is 1";
    await_wrong_after(&scene, meddle, "sysctl", words)?;
    sysctl("0")?;
    await_well(&scene)?;

    scene.gateway.ccn(["peer", "down", "bird-1"])?;
    let noted = |check: &str| -> Result<bool, Failure> {
        Ok(ask(&scene)?
            .1
            .iter()
            .any(|finding| finding["check"] == check))
    };
    assert!(noted("peers")?, "a peer that was taken down is no fault");
    scene.gateway.ccn(["peer", "up", "bird-1"])?;
    scene.routers[0].await_established(plan::GATEWAY4.into(), SOON)?;
    scene.await_path(&[], &nets(&OFFICE)?)?;
    await_well(&scene)?;

    // A second VPC with the same VNI, which comes into the store behind the agent's back.
    scene.gateway.stop()?;
    let value = json!({ "vni": 1001, "subnets": ["10.7.0.0/24"] }).to_string();
    let store = scene.gateway.config.store.path.clone();
    change_store(&store, &[("vpcs/copy", Some(&value))])?;
    scene.gateway.start()?;
    await_wrong(&scene, "quarantine", "vpcs/copy")?;
    scene.gateway.stop()?;
    change_store(&store, &[("vpcs/copy", None)])?;
    scene.gateway.start()?;
    scene.routers[0].await_established(plan::GATEWAY4.into(), SOON)?;
    await_well(&scene)?;
    Ok(())
}

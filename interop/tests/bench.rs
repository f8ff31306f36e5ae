//! The benchmarks run: every subject goes through every case, small. No figure is judged.

use std::process::Command;

use serde_json::Value;

/// Runs `interop bench ...` and gives back its JSON lines.
fn bench(arguments: &[&str]) -> Vec<Value> {
    interop(&[&["bench"], arguments].concat())
}

/// Runs `interop ...` and gives back its JSON lines.
fn interop(arguments: &[&str]) -> Vec<Value> {
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("lines.json");
    let output = Command::new(env!("CARGO_BIN_EXE_interop"))
        .args(arguments)
        .arg("--json")
        .arg(&json)
        .output()
        .expect("the program");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    let text = std::fs::read_to_string(&json).expect("lines");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    lines.collect()
}

/// Whether the `ebpf` plane can be measured here: root who may not has a fault to find.
fn may_load_bpf() -> bool {
    interop::gateway::may_load_bpf().unwrap_or_else(|error| panic!("BPF cannot be loaded: {error}"))
}

/// The lines of a subject's case that was measured.
fn measured<'a>(lines: &'a [Value], case: &str, subject: &str) -> Option<&'a Value> {
    lines.iter().find(|line| {
        line["case"] == case
            && line["subject"] == subject
            && line["runs"].as_array().is_some_and(|runs| !runs.is_empty())
            && line["median"].is_f64()
    })
}

#[test]
fn bgp_puts_every_subject_through_every_case() {
    let lines = bench(&["bgp", "--quick"]);
    let cases = [
        "learn",
        "memory",
        "late-joiner",
        "pass-on-1",
        "pass-on-1/cpu",
        "pass-on-8",
        "pass-on-8/cpu",
        "withdraw",
        "originate",
        "slow-reader/during-p99",
    ];
    for subject in ["ours", "bird", "gobgp", "frr", "openbgpd"] {
        for case in cases {
            let line = measured(&lines, case, subject);
            assert!(
                line.is_some(),
                "{subject} {case}: not measured in {lines:#?}"
            );
        }
    }
    assert!(
        measured(&lines, "pass-on-8", "floor").is_some(),
        "{lines:#?}"
    );
}

#[test]
fn link_latency_is_told_for_every_subject() {
    let lines = bench(&["link-latency", "--quick"]);
    for subject in ["ours", "gobgp", "bird", "frr"] {
        for case in ["p50", "p99"] {
            let line = measured(&lines, case, subject);
            assert!(
                line.is_some(),
                "{subject} {case}: not measured in {lines:#?}"
            );
        }
    }
}

#[test]
fn forward_brings_every_packet_through_every_subject() {
    let lines = bench(&["forward", "--quick"]);
    let plain = ["encapsulate", "decapsulate", "vpc-to-vpc"];
    let ways = |suffix: &str, ways: &[&str]| -> Vec<String> {
        ways.iter().map(|way| format!("{way}{suffix}")).collect()
    };
    let of_a_plane = [
        ways("/ccsis=1", &plain),
        ways("/ccsis=8", &plain),
        ways("/links=1", &plain[..2]),
        ways("/links=8", &plain[..2]),
        ways("/untracked", &plain[..2]),
        ways("", &["tcp/to-vpc", "tcp/from-vpc"]),
    ]
    .concat();
    for (subject, cases) in [
        ("generator", ways("", &plain)),
        ("plain-ip", ways("", &plain[..2])),
        (
            "plain-vxlan",
            [ways("", &plain), of_a_plane.clone()].concat(),
        ),
        ("routes", [ways("", &plain), of_a_plane.clone()].concat()),
        (
            "ebpf",
            [ways("", &plain), ways("/tracked", &plain[..2]), of_a_plane].concat(),
        ),
    ] {
        for case in &cases {
            let line = measured(&lines, case, subject);
            assert!(
                line.is_some(),
                "{subject} {case}: not measured in {lines:#?}"
            );
        }
    }
}

#[test]
fn a_start_and_what_a_vm_costs_are_told() {
    let lines = bench(&["start", "--quick"]);
    for case in [
        "cold-start",
        "cold-start/open",
        "cold-start/read",
        "cold-start/plan",
        "cold-start/program",
        "cold-start/announce",
        "warm-start",
        "agent-bytes-per-vm",
    ] {
        let line = measured(&lines, case, "ours");
        assert!(line.is_some(), "{case}: not measured in {lines:#?}");
    }
}

#[test]
fn program_is_told_for_both_planes() {
    let lines = bench(&["program", "--quick"]);
    let both = ["program", "dump", "one-change-p50", "one-change-p99"];
    let of_maps = [&both[..], &["kernel-bytes-per-vm"]].concat();
    for (subject, cases) in [("routes", &both[..]), ("ebpf", &of_maps[..])] {
        for case in cases {
            let line = measured(&lines, case, subject);
            assert!(
                line.is_some(),
                "{subject} {case}: not measured in {lines:#?}"
            );
        }
    }
}

#[test]
fn restart_loses_no_packet_however_the_agent_ends_and_changes() {
    if !may_load_bpf() {
        return;
    }
    let lines = bench(&["restart", "--quick"]);
    for case in ["stop", "kill", "upgrade", "reload"] {
        let line = measured(&lines, case, "ours").unwrap_or_else(|| panic!("{case}: {lines:#?}"));
        let lost = line["runs"].as_array().into_iter().flatten();
        let lost: Vec<_> = lost.map(|run| run.as_f64()).collect();
        assert_eq!(lost, vec![Some(0.0); 5], "{line:#}");
    }
}

#[test]
fn failover_counts_what_a_gateway_that_is_gone_costs_with_bfd_and_without() {
    let lines = bench(&["failover", "--quick", "--plane", "routes"]);
    let lost = |case: &str, subject: &str| {
        let line = measured(&lines, case, subject);
        let line = line.unwrap_or_else(|| panic!("{case} {subject}: {lines:#?}"));
        line["median"].as_f64().unwrap_or(f64::NAN)
    };
    let (with, without) = (
        lost("gateway-power-off", "bfd"),
        lost("gateway-power-off", "no-bfd"),
    );
    assert!(with < without, "{with} with BFD, {without} without");
    for subject in ["bfd", "no-bfd"] {
        assert!(lost("router-restart", subject) >= 0.0);
    }
}

#[test]
fn a_store_is_told_beside_its_floor() {
    if !may_load_bpf() {
        return;
    }
    let lines = bench(&["store", "--quick"]);
    let both = [
        "import",
        "cold-start",
        "resync",
        "change-1-p50",
        "change-1-p99",
        "change-8-p50",
        "change-8-p99",
        "storm",
        "storm-lag",
    ];
    let ours = ["link-p50", "link-p99", "memory-agent", "memory-apiserver"];
    for (subject, cases) in [("floor", &both[..]), ("ours", &[&both[..], &ours].concat())] {
        for case in cases {
            let line = measured(&lines, case, subject);
            assert!(
                line.is_some(),
                "{subject} {case}: not measured in {lines:#?}"
            );
        }
    }
}

#[test]
fn a_thousand_gateways_are_modelled() {
    let lines = interop(&["simulate", "--quick"]);
    for layout in ["flat", "prefixes", "stores"] {
        for case in [
            "etcd/database",
            "etcd/writes",
            "etcd/watch-events",
            "etcd/watch-octets",
            "etcd/renewals",
            "api-server/memory",
            "api-server/orders",
            "gateway/memory",
            "gateway/kernel",
            "gateway/events",
            "gateway/cpu",
            "gateway/start",
            "gateway/start-octets",
            "limit/groups",
        ] {
            let line = measured(&lines, case, layout);
            assert!(line.is_some(), "{layout} {case}: not told in {lines:#?}");
        }
    }
}

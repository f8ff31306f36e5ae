//! Bad configuration: `--check` and the agent itself say line and field, end with 2, and touch
//! nothing.

use interop::enter;
use interop::gateway::Gateway;
use interop::process::Finished;
use interop::topology::{KernelState, Region, RegionConfig};

use super::{Failure, Refusal};

const GOOD: &str = r#"name = "gw"
admin_socket = "SOCKET"

[store]
path = "/run/lab/store.redb"

[plane]
vtep = "172.16.0.1"
idc_interfaces = ["idc0"]

[bgp]
asn = 65001
router_id = "10.99.0.1"
listen = ["10.99.0.1:179"]

[[bgp.peer]]
name = "bird"
address = "10.99.0.2"
asn = 65002
next_hop_v6 = "fd99::1"
import = "all"
"#;

/// What stands in the good one, what stands there instead, and what the error names.
const CASES: [(&str, &str, &[&str]); 14] = [
    ("[plane]", "[plane", &["line 7"]),
    ("asn = 65001", "asn = \"many\"", &["line 12", "asn"]),
    ("asn = 65001", "asn = 0", &["asn"]),
    (
        "asn = 65001",
        "as = 65001",
        &["line 12", "unknown field `as`"],
    ),
    (
        "router_id = \"10.99.0.1\"\n",
        "",
        &["missing field `router_id`"],
    ),
    (
        "vtep = \"172.16.0.1\"",
        "vtep = \"172.16.0.256\"",
        &["line 8", "vtep"],
    ),
    (
        "vtep = \"172.16.0.1\"",
        "vtep = \"0.0.0.0\"",
        &["plane.vtep", "0.0.0.0"],
    ),
    ("[\"idc0\"]", "[]", &["plane.idc_interfaces"]),
    (
        "[plane]",
        "[plane]\nmtu = 100",
        &["plane.mtu", "100", "1280..=9000"],
    ),
    (
        "[plane]",
        "[plane]\nkind = \"xdp\"",
        &["line 8", "kind", "xdp"],
    ),
    (
        "asn = 65002",
        "asn = 65002\nhold_time = 2",
        &["line 20", "hold_time"],
    ),
    (
        "import = \"all\"",
        "import = [{ permit = \"10.80.0.1/16\" }]",
        &["line 21", "10.80.0.1/16"],
    ),
    (
        "name = \"bird\"",
        "name = \"bird\"\ncolour = \"red\"",
        &["line 18", "colour"],
    ),
    (
        "[bgp]",
        "[bgp]\nrestart_time_s = 5000",
        &["bgp.restart_time_s", "4095"],
    ),
];

#[test]
fn bad_configuration_is_refused_with_line_and_field() {
    enter::test(|lab| {
        let mut region = Region::build(lab, RegionConfig::default())?;
        let namespace = region.gateway().namespace().clone();
        let mac = region.gateway_address().mac;
        let gateway = Gateway::new(lab, namespace, mac, [])?;
        let before = KernelState::read(region.gateway())?;
        let socket = lab.run().join("agent.sock");
        let good = GOOD.replace("SOCKET", &socket.display().to_string());
        let file = lab.run().join("agent.toml");
        let path = file.display().to_string();
        let run = |check: bool| -> Result<Finished, Failure> {
            let flags: &[&str] = if check { &["--check"] } else { &[] };
            let args = ["agent", "--config", &path];
            Ok(gateway.finish(args.iter().chain(flags))?)
        };
        for (stands, instead, names) in CASES {
            let text = good.replacen(stands, instead, 1);
            assert_ne!(text, good, "{stands} stands in the good one");
            std::fs::write(&file, text)?;
            let names: Vec<&str> = names.iter().copied().chain([path.as_str()]).collect();
            for check in [true, false] {
                Refusal {
                    code: 2,
                    names: &names,
                }
                .is(instead, &run(check)?);
            }
        }
        std::fs::remove_file(&file)?;
        let names = &[path.as_str(), "No such file"];
        Refusal { code: 2, names }.is("no file", &run(true)?);

        std::fs::write(&file, &good)?;
        let finished = run(true)?;
        assert!(finished.status.success(), "{finished:?}");
        assert_eq!(finished.stdout.trim(), format!("{path}: fine"));
        assert_eq!(before.difference(&KernelState::read(region.gateway())?), "");
        assert!(!socket.exists() && !lab.run().join("store.redb").exists());
        Ok(())
    });
}

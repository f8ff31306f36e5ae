use std::fs;

use super::*;
use crate::inventory::Inventory;

fn small() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/region-small")
}

fn stored(entry: &RegionEntry) -> Stored {
    let value = entry.record.to_json().into();
    Stored {
        key: entry.key.to_string(),
        created: 1,
        modified: 1,
        value,
    }
}

#[test]
fn the_small_region_is_good_and_in_order() {
    let entries = read(&small()).expect("the fixture is good");
    let keys: Vec<String> = entries.iter().map(|entry| entry.key.to_string()).collect();
    assert_eq!(
        keys,
        [
            "vpcs/db",
            "vpcs/db-test",
            "vpcs/web",
            "vpcs/web-test",
            "ccsis/prod",
            "ccsis/test",
            "classic/lab",
            "classic/office",
            "vms/db/db-1",
            "vms/db-test/db-1",
            "vms/web/web-1",
            "vms/web/web-2",
            "vms/web-test/web-1",
            "vms/web-test/web-2",
            "slbs/web/front",
        ]
    );
    let mut inventory = Inventory::default();
    inventory.load(entries.iter().map(stored).collect());
    assert_eq!(inventory.quarantine().next(), None);
}

#[test]
fn what_is_written_reads_as_the_same() {
    let entries = read(&small()).unwrap();
    let mut records: Vec<Stored> = entries.iter().map(stored).collect();
    records.reverse();
    let mut first = Vec::new();
    write(&mut first, &records).unwrap();
    records.rotate_left(3);
    let mut second = Vec::new();
    write(&mut second, &records).unwrap();
    assert_eq!(first, second, "the order in the store does not matter");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("region.jsonl");
    fs::write(&file, &first).unwrap();
    assert_eq!(read(&file).unwrap(), entries);
    let lines: Vec<String> = entries.iter().map(RegionEntry::line).collect();
    assert_eq!(
        String::from_utf8(first)
            .unwrap()
            .lines()
            .collect::<Vec<_>>(),
        lines
    );
}

#[test]
fn an_export_leaves_nothing_out() {
    let bad = |key: &str, value: &'static [u8]| Stored {
        key: key.to_owned(),
        created: 1,
        modified: 1,
        value: value.into(),
    };
    let records = [
        bad("vpcs/zero", b"{\"vni\":0}"),
        bad("nonsense", b"{}"),
        bad("vpcs/junk", b"{\"vni"),
        bad("vpcs/good", b"{\"subnets\":[], \"vni\":1}"),
    ];
    let mut out = Vec::new();
    write(&mut out, &records).unwrap();
    let expected = r#"{"key":"vpcs/good","value":{"vni":1,"subnets":[]}}
{"key":"vpcs/junk","value":"{\"vni"}
{"key":"vpcs/zero","value":{"vni":0}}
{"key":"nonsense","value":{}}
"#;
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn errors_name_file_line_field_and_reason() {
    let good = r#"{"key":"vpcs/a","value":{"vni":1,"subnets":[]}}"#;
    let long = format!(r#"{{"key":"vpcs/a","value":"{}"}}"#, "x".repeat(MAX_LINE));
    for (text, says) in [
        (
            format!("{good}\n\nnonsense\n"),
            vec!["r.jsonl:3: ", "expected"],
        ),
        (
            format!("{good}\n{{\"key\":\"vpcs/b\"}}"),
            vec!["r.jsonl:2: ", "missing field `value`"],
        ),
        (
            r#"{"key":"vpcs/b","value":{},"x":1}"#.into(),
            vec!["r.jsonl:1: ", "unknown field `x`"],
        ),
        (
            r#"{"key":"vpcs/b","value":{"vni":0,"subnets":[]}}"#.into(),
            vec!["r.jsonl:1: vpcs/b: vni: 0 is no VNI"],
        ),
        (
            r#"{"key":"vpcs/b","value":{"vni":1,"subnets":["10.0.0.1/8"]}}"#.into(),
            vec!["r.jsonl:1: vpcs/b: subnets[0]: ", "host bits"],
        ),
        (
            r#"{"key":"vms/b","value":{}}"#.into(),
            vec!["r.jsonl:1: vms/b: key: ", "vms/<vpc>/<vm>"],
        ),
        (
            format!("{good}\n{good}\n"),
            vec!["r.jsonl:2: vpcs/a stands in ", "r.jsonl:1 already"],
        ),
        (
            format!("\n{long}\n{good}"),
            vec!["r.jsonl:2: the line has over"],
        ),
        ("\u{0}\u{1}".into(), vec!["r.jsonl:1: "]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("r.jsonl"), text).unwrap();
        for path in [dir.path().to_owned(), dir.path().join("r.jsonl")] {
            let error = read(&path).expect_err("it is bad").to_string();
            assert!(
                says.iter().all(|part| error.contains(part)),
                "{says:?}: {error}"
            );
        }
    }
}

#[test]
fn paths_that_are_no_region() {
    let dir = tempfile::tempdir().unwrap();
    let error = read(dir.path()).expect_err("it is empty").to_string();
    assert!(error.contains("no *.jsonl file"), "{error}");
    let error = read(&dir.path().join("none"))
        .expect_err("not there")
        .to_string();
    assert!(error.contains("none: No such file"), "{error}");
    fs::write(dir.path().join("empty.jsonl"), "").unwrap();
    assert_eq!(read(dir.path()).unwrap(), []);
    fs::create_dir(dir.path().join("folder.jsonl")).unwrap();
    let error = read(dir.path())
        .expect_err("a folder is no file")
        .to_string();
    assert!(error.contains("folder.jsonl: "), "{error}");
}

#[test]
fn a_reader_goes_on_after_a_bad_line() {
    let dir = tempfile::tempdir().unwrap();
    let good = r#"{"key":"vpcs/a","value":{"vni":1,"subnets":[]}}"#;
    fs::write(dir.path().join("a.jsonl"), format!("{good}\n{{\n{good}\n")).unwrap();
    fs::write(dir.path().join("b.jsonl"), good).unwrap();
    let found: Vec<Option<String>> = entries(dir.path())
        .unwrap()
        .map(|item| item.ok().map(|(at, _)| at.to_string()))
        .collect();
    let at = |place: &str| Some(dir.path().join(place).display().to_string());
    assert_eq!(
        found,
        [at("a.jsonl:1"), None, at("a.jsonl:3"), at("b.jsonl:1")]
    );
}

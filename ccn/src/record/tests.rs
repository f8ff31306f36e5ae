use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(key: &str, json: &str) -> Result<Record, RecordError> {
    Record::parse(&key.parse().expect("a good key"), json.as_bytes())
}

#[test]
fn a_good_record_of_each_kind() {
    for (key, json) in [
        ("vpcs/red", r#"{"vni":1,"subnets":[]}"#),
        (
            "vpcs/red",
            r#"{"vni":16777215,"subnets":["10.0.0.0/24","10.0.1.0/24","fd00::/64"]}"#,
        ),
        (
            "vms/red/a",
            r#"{"addrs":["10.0.0.5","fd00::5"],"mac":"02:00:00:00:00:05","vtep":"172.16.0.11"}"#,
        ),
        (
            "vms/red/a",
            r#"{"addrs":["10.0.0.5"],"mac":"52:54:00:aa:bb:cc","vtep":"fd16::11"}"#,
        ),
        ("slbs/red/l", r#"{"vips":["10.0.0.9"],"nodes":[]}"#),
        (
            "slbs/red/l",
            r#"{"vips":["10.0.0.9"],"nodes":[{"vtep":"172.16.0.11","weight":256,"mac":"02:00:00:00:00:01"},{"vtep":"172.16.0.12","weight":1}]}"#,
        ),
        ("ccsis/prod", r#"{"vpcs":["red","blue"]}"#),
        (
            "classic/office",
            r#"{"prefixes":["10.80.1.0/24","fd80:1::/64"]}"#,
        ),
        (
            "links/l1",
            r#"{"vpc":"red","classic":["10.80.1.0/24","lab"],"group":"default","mode":"both"}"#,
        ),
        (
            "links/l1",
            r#"{"vpc":"red","classic":["lab"],"group":"west","mode":"classic-to-vpc","dscp":46}"#,
        ),
        (
            "links/l1",
            r#"{"vpc":"red","classic":["lab"],"group":"west","mode":"both","disabled":true,"standby":true}"#,
        ),
    ] {
        let record = parse(key, json).unwrap_or_else(|error| panic!("{json}: {error}"));
        assert_eq!(
            String::from_utf8(record.to_json()).unwrap(),
            json,
            "canonical form is kept"
        );
    }
}

#[test]
fn what_a_link_leaves_out_has_a_default() {
    let Ok(Record::Link(link)) = parse("links/l", r#"{"vpc":"red","classic":["10.80.1.5"]}"#)
    else {
        panic!("a good link");
    };
    assert_eq!(
        (link.mode, link.group.as_str(), link.dscp),
        (Mode::Both, "default", None)
    );
    assert_eq!(
        link.classic[0].to_string(),
        "10.80.1.5/32",
        "a single host is a /32"
    );
}

#[test]
fn unknown_fields_are_kept() {
    let json = r#"{"vni":7,"subnets":[],"owner":{"team":"net"},"zeta":[1,2]}"#;
    assert_eq!(parse("vpcs/red", json).unwrap().to_json(), json.as_bytes());
    let json = r#"{"vips":["10.0.0.9"],"nodes":[{"vtep":"172.16.0.1","weight":1,"rack":"r7"}]}"#;
    assert_eq!(
        parse("slbs/red/l", json).unwrap().to_json(),
        json.as_bytes()
    );
}

#[test]
fn bad_records_name_field_and_reason() {
    let vm = |addrs: &str, mac: &str, vtep: &str| {
        format!(r#"{{"addrs":{addrs},"mac":"{mac}","vtep":"{vtep}"}}"#)
    };
    let good_mac = "02:00:00:00:00:05";
    let table: Vec<(&str, String, &str, &str)> = vec![
        ("vpcs/r", "{".into(), "value", "no JSON"),
        ("vpcs/r", "\u{0}\u{1}".into(), "value", "no JSON"),
        ("vpcs/r", "[]".into(), "value", "no JSON object"),
        ("vpcs/r", "{}".into(), "vni", "is missing"),
        ("vpcs/r", r#"{"vni":null,"subnets":[]}"#.into(), "vni", "is missing"),
        ("vpcs/r", r#"{"vni":0,"subnets":[]}"#.into(), "vni", "1 to 16777215"),
        ("vpcs/r", r#"{"vni":16777216,"subnets":[]}"#.into(), "vni", "1 to 16777215"),
        ("vpcs/r", r#"{"vni":"7","subnets":[]}"#.into(), "vni", "invalid type"),
        ("vpcs/r", r#"{"vni":-7,"subnets":[]}"#.into(), "vni", "invalid value"),
        ("vpcs/r", r#"{"vni":7.5,"subnets":[]}"#.into(), "vni", "invalid type"),
        ("vpcs/r", r#"{"vni":7}"#.into(), "subnets", "is missing"),
        ("vpcs/r", r#"{"vni":7,"subnets":"10.0.0.0/8"}"#.into(), "subnets", "a list is expected"),
        ("vpcs/r", r#"{"vni":7,"subnets":[7]}"#.into(), "subnets[0]", "a text is expected"),
        ("vpcs/r", r#"{"vni":7,"subnets":["10.0.0.1/24"]}"#.into(), "subnets[0]", "host bits"),
        ("vpcs/r", r#"{"vni":7,"subnets":["10.0.0.0"]}"#.into(), "subnets[0]", "prefix length"),
        ("vpcs/r", r#"{"vni":7,"subnets":["10.0.0.0/33"]}"#.into(), "subnets[0]", "exceeds 32"),
        ("vpcs/r", r#"{"vni":7,"subnets":["10.0.0.0/24","10.0.0.0/24"]}"#.into(), "subnets[1]", "overlaps 10.0.0.0/24"),
        ("vpcs/r", r#"{"vni":7,"subnets":["10.0.0.0/24","fd00::/64","10.0.0.0/8"]}"#.into(), "subnets[2]", "10.0.0.0/8 overlaps 10.0.0.0/24"),
        ("vpcs/r", r#"{"vni":7,"subnets":["0.0.0.0/0"]}"#.into(), "subnets[0]", "touches 0.0.0.0/8"),
        ("vpcs/r", r#"{"vni":7,"subnets":["224.1.0.0/16"]}"#.into(), "subnets[0]", "multicast"),
        ("vpcs/r", r#"{"vni":7,"subnets":["fe80::/64"]}"#.into(), "subnets[0]", "link-local"),
        ("vpcs/r", r#"{"vni":7,"subnets":["::ffff:10.0.0.0/120"]}"#.into(), "subnets[0]", "IPv4-mapped"),
        ("vms/r/a", vm("[]", good_mac, "172.16.0.1"), "addrs", "is empty"),
        ("vms/r/a", vm(r#"["10.0.0.5","10.0.0.5"]"#, good_mac, "172.16.0.1"), "addrs[1]", "twice"),
        ("vms/r/a", vm(r#"["10.0.0.500"]"#, good_mac, "172.16.0.1"), "addrs[0]", "no IP address"),
        ("vms/r/a", vm(r#"["10.0.0.5/24"]"#, good_mac, "172.16.0.1"), "addrs[0]", "no IP address"),
        ("vms/r/a", vm(r#"["10.0.0.5"]"#, "01:00:5e:00:00:05", "172.16.0.1"), "mac", "multicast"),
        ("vms/r/a", vm(r#"["10.0.0.5"]"#, "00:00:00:00:00:00", "172.16.0.1"), "mac", "is no MAC"),
        ("vms/r/a", vm(r#"["10.0.0.5"]"#, "02:00:00:00:05", "172.16.0.1"), "mac", "is no MAC"),
        ("vms/r/a", vm(r#"["10.0.0.5"]"#, "02:00:00:00:00:+5", "172.16.0.1"), "mac", "is no MAC"),
        ("vms/r/a", vm(r#"["10.0.0.5"]"#, good_mac, "127.0.0.1"), "vtep", "loopback"),
        ("vms/r/a", vm(r#"["10.0.0.5"]"#, good_mac, "0.0.0.0"), "vtep", "no VTEP"),
        ("vms/r/a", vm(r#"["10.0.0.5"]"#, good_mac, "host-7"), "vtep", "no IP address"),
        ("slbs/r/l", r#"{"vips":["10.0.0.9"]}"#.into(), "nodes", "is missing"),
        ("slbs/r/l", r#"{"vips":["10.0.0.9"],"nodes":[5]}"#.into(), "nodes[0]", "no JSON object"),
        ("slbs/r/l", r#"{"vips":["10.0.0.9"],"nodes":[{"vtep":"172.16.0.1"}]}"#.into(), "nodes[0].weight", "missing"),
        ("slbs/r/l", r#"{"vips":["10.0.0.9"],"nodes":[{"vtep":"172.16.0.1","weight":0}]}"#.into(), "nodes[0].weight", "1 to 256"),
        ("slbs/r/l", r#"{"vips":["10.0.0.9"],"nodes":[{"vtep":"172.16.0.1","weight":1},{"vtep":"172.16.0.1","weight":1}]}"#.into(), "nodes[1].vtep", "twice"),
        ("ccsis/c", r#"{"vpcs":["a","a"]}"#.into(), "vpcs[1]", "twice"),
        ("ccsis/c", r#"{"vpcs":["a/b"]}"#.into(), "vpcs[0]", "character '/'"),
        ("classic/c", r#"{"prefixes":[]}"#.into(), "prefixes", "is empty"),
        ("classic/c", r#"{"prefixes":["10.80.1.1/24"]}"#.into(), "prefixes[0]", "host bits"),
        ("links/l", r#"{"vpc":"r","classic":[]}"#.into(), "classic", "is empty"),
        ("links/l", r#"{"vpc":"r","classic":["10.80.1.1/24"]}"#.into(), "classic[0]", "host bits"),
        ("links/l", r#"{"vpc":"r","classic":["10.80.1.5","10.80.1.5/32"]}"#.into(), "classic[1]", "twice"),
        ("links/l", r#"{"vpc":"r","classic":["x"],"mode":"vpc-to-classic"}"#.into(), "mode", "unknown variant"),
        ("links/l", r#"{"vpc":"r","classic":["x"],"dscp":64}"#.into(), "dscp", "0 to 63"),
        ("links/l", r#"{"vpc":"","classic":["x"]}"#.into(), "vpc", "is empty"),
    ];
    for (key, json, field, reason) in table {
        let error = parse(key, &json).expect_err(&json);
        assert_eq!(
            (error.key.as_str(), error.field.as_str()),
            (key, field),
            "{json}: {error}"
        );
        assert!(error.reason.to_string().contains(reason), "{json}: {error}");
        assert!(!error.reason.code().is_empty());
    }
    let huge = format!(
        r#"{{"vni":1,"subnets":[],"x":"{}"}}"#,
        "y".repeat(MAX_VALUE_BYTES)
    );
    assert_eq!(
        parse("vpcs/r", &huge).unwrap_err().reason.code(),
        "too-long"
    );
    let many = json!({"vni": 1, "subnets": vec!["10.0.0.0/24"; MAX_SUBNETS + 1]}).to_string();
    assert_eq!(
        parse("vpcs/r", &many).unwrap_err().reason.code(),
        "too-many"
    );
    let deep = "[".repeat(100_000);
    assert_eq!(
        parse("vpcs/r", &deep).unwrap_err().reason.code(),
        "not-json"
    );
}

#[test]
fn bad_keys() {
    for (key, part) in [
        ("", "no known kind"),
        ("vpc/red", "no known kind"),
        ("vpcs", "vpcs/<vpc>"),
        ("vpcs/", "is empty"),
        ("vpcs/a/b", "vpcs/<vpc>"),
        ("vms/a", "vms/<vpc>/<vm>"),
        ("vms/a/b/c", "vms/<vpc>/<vm>"),
        ("vms//b", "is empty"),
        ("vpcs/a b", "' '"),
        ("vpcs/ä", "'ä'"),
        ("vpcs/-rf", "begin with a letter"),
        ("vpcs/..", "begin with a letter"),
        ("classic/10.80.1.5", "is an address"),
    ] {
        let error = key.parse::<RecordKey>().expect_err(key).to_string();
        assert!(error.contains(part), "{key}: {error}");
    }
    assert!(
        format!("vpcs/{}", "a".repeat(63))
            .parse::<RecordKey>()
            .is_ok()
    );
    assert!(
        format!("vpcs/{}", "a".repeat(64))
            .parse::<RecordKey>()
            .is_err()
    );
}

#[test]
fn keys_sort_by_what_must_be_there_first() {
    let mut keys: Vec<RecordKey> = [
        "links/a",
        "slbs/a/a",
        "vms/a/a",
        "classic/a",
        "ccsis/a",
        "vpcs/z",
    ]
    .map(|key| key.parse().unwrap())
    .to_vec();
    keys.sort();
    let sorted: Vec<String> = keys.iter().map(ToString::to_string).collect();
    assert_eq!(
        sorted,
        [
            "vpcs/z",
            "ccsis/a",
            "classic/a",
            "vms/a/a",
            "slbs/a/a",
            "links/a"
        ]
    );
}

#[test]
fn the_mac_of_a_node_without_one_comes_from_its_vtep() {
    let vtep: Vtep = "172.16.0.11".parse().unwrap();
    assert_eq!(Mac::of_node(vtep).to_string(), "02:00:ac:10:00:0b");
    let (one, two): (Vtep, Vtep) = ("fd16::11".parse().unwrap(), "fd16::12".parse().unwrap());
    assert_ne!(Mac::of_node(one), Mac::of_node(two));
    assert_eq!(Mac::of_node(one).bytes()[..2], [2, 0]);
}

#[test]
fn an_error_in_json_has_a_code() {
    let error = parse("vpcs/r", "{}").unwrap_err();
    let json = serde_json::to_value(&error).unwrap();
    assert_eq!(
        json,
        json!({"key": "vpcs/r", "field": "vni", "code": "missing", "reason": "is missing"})
    );
}

proptest! {
    /// The short way for one address is the way of all prefixes.
    #[test]
    fn an_address_is_as_ordinary_as_its_host_prefix(v4 in any::<[u8; 4]>(), v6 in any::<[u16; 8]>(), cut in 0usize..8) {
        let mut low = v6;
        low[..cut].fill(0);
        for addr in [IpAddr::from(v4), IpAddr::from(v6), IpAddr::from(low)] {
            let by_prefix = value::ordinary(&Prefix::host(addr));
            prop_assert_eq!(value::ordinary_host(addr), by_prefix);
        }
    }
}

proptest! {
    /// Whatever the bytes, there is an answer, and what is accepted reads back as itself.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..6) {
        let keys = ["vpcs/a", "ccsis/a", "classic/a", "vms/a/b", "slbs/a/b", "links/a"];
        let _ = Record::parse(&keys[kind].parse().unwrap(), &bytes);
    }

    #[test]
    fn any_mac(bytes in any::<[u8; 6]>()) {
        match Mac::new(bytes) {
            Ok(mac) => prop_assert_eq!(mac.to_string().parse::<Mac>().unwrap(), mac),
            Err(_) => prop_assert!(bytes[0] & 1 == 1 || bytes == [0; 6]),
        }
    }

    #[test]
    fn any_key_text(text in "\\PC{0,40}") {
        if let Ok(key) = text.parse::<RecordKey>() {
            prop_assert_eq!(key.to_string(), text);
        }
    }

    #[test]
    fn the_first_overlap_is_found_if_there_is_one(
        list in proptest::collection::vec((0u32..16, 24u8..=32), 0..8)
    ) {
        let prefixes: Vec<Prefix> = list
            .iter()
            .map(|(host, len)| {
                let addr = std::net::Ipv4Addr::from(0x0a00_0000 + (host << 4));
                Prefix::containing(addr.into(), *len).unwrap()
            })
            .collect();
        let any = (0..prefixes.len())
            .any(|one| (0..one).any(|two| prefixes[one].overlaps(&prefixes[two])));
        match first_overlap(&prefixes) {
            None => prop_assert!(!any),
            Some((later, earlier)) => {
                prop_assert!(later > earlier && prefixes[later].overlaps(&prefixes[earlier]));
            }
        }
    }
}

use super::*;

fn prefix(text: &str) -> Prefix {
    text.parse().expect("prefix")
}

#[test]
fn texts_that_are_no_prefix_are_refused_by_name() {
    let host_bits = |address: &str, len, network: &str| PrefixError::HostBits {
        address: address.parse().expect("address"),
        len,
        network: prefix(network),
    };
    let too_long = |address: &str, len, max| PrefixError::TooLong {
        address: address.parse().expect("address"),
        len,
        max,
    };
    let address = |text: &str| PrefixError::Address(text.to_owned());
    let length = |text: &str| PrefixError::Length(text.to_owned());
    let rows = [
        ("", PrefixError::MissingLength(String::new())),
        (
            "10.0.0.1",
            PrefixError::MissingLength("10.0.0.1".to_owned()),
        ),
        ("/8", address("/8")),
        ("10.0.0/8", address("10.0.0/8")),
        ("10.0.0.256/8", address("10.0.0.256/8")),
        ("2001:db8/32", address("2001:db8/32")),
        (" 10.0.0.0/8", address(" 10.0.0.0/8")),
        ("fe80::1%eth0/64", address("fe80::1%eth0/64")),
        ("10.0.0.0/", length("10.0.0.0/")),
        ("10.0.0.0/-1", length("10.0.0.0/-1")),
        ("10.0.0.0/+8", length("10.0.0.0/+8")),
        ("10.0.0.0/08", length("10.0.0.0/08")),
        ("10.0.0.0/8 ", length("10.0.0.0/8 ")),
        ("10.0.0.0/8/8", length("10.0.0.0/8/8")),
        ("10.0.0.0/256", length("10.0.0.0/256")),
        ("10.0.0.0/33", too_long("10.0.0.0", 33, 32)),
        ("2001:db8::/129", too_long("2001:db8::", 129, 128)),
        ("10.0.0.1/31", host_bits("10.0.0.1", 31, "10.0.0.0/31")),
        ("0.0.0.1/0", host_bits("0.0.0.1", 0, "0.0.0.0/0")),
        (
            "2001:db8::1/127",
            host_bits("2001:db8::1", 127, "2001:db8::/127"),
        ),
    ];
    for (text, error) in rows {
        assert_eq!(text.parse::<Prefix>(), Err(error), "{text:?}");
    }
}

#[test]
fn errors_name_the_input() {
    let error = "10.1.2.3/16".parse::<Prefix>().expect_err("host bits");
    assert_eq!(
        error.to_string(),
        "10.1.2.3/16 has host bits set, the network is 10.1.0.0/16"
    );
    let error = serde_json::from_str::<Prefix>("\"10.0.0.1\"").expect_err("no length");
    assert!(
        error
            .to_string()
            .contains("\"10.0.0.1\" has no prefix length"),
        "{error}"
    );
    let error = serde_json::from_str::<Family>("\"ipx\"").expect_err("unknown");
    assert!(error.to_string().contains("\"ipx\""), "{error}");
}

#[test]
fn containment() {
    // outer, inner, contains, overlaps
    let rows = [
        ("10.0.0.0/8", "10.0.0.0/8", true, true),
        ("10.0.0.0/8", "10.255.255.255/32", true, true),
        ("10.0.0.0/8", "11.0.0.0/32", false, false),
        ("10.0.0.0/9", "10.0.0.0/8", false, true),
        ("0.0.0.0/0", "255.255.255.255/32", true, true),
        ("::/0", "ffff::/16", true, true),
        ("2001:db8::/32", "2001:db8:ffff::/48", true, true),
        ("2001:db8::/32", "2001:db9::/48", false, false),
        ("0.0.0.0/0", "::/0", false, false),
        ("::/0", "10.0.0.0/8", false, false),
    ];
    for (outer, inner, contains, overlaps) in rows {
        let (outer, inner) = (prefix(outer), prefix(inner));
        assert_eq!(outer.contains(&inner), contains, "{outer} contains {inner}");
        assert_eq!(outer.overlaps(&inner), overlaps, "{outer} overlaps {inner}");
        assert_eq!(inner.overlaps(&outer), overlaps, "{inner} overlaps {outer}");
    }
    assert!(prefix("10.0.0.0/8").contains_addr([10, 1, 2, 3].into()));
    assert!(!prefix("10.0.0.0/8").contains_addr([11, 1, 2, 3].into()));
    assert!(!prefix("::/0").contains_addr([11, 1, 2, 3].into()));
}

#[test]
fn order_is_family_address_length() {
    let ordered = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/9",
        "10.1.0.0/16",
        "::/0",
        "2001:db8::/32",
    ];
    let mut sorted: Vec<Prefix> = ordered.iter().rev().map(|text| prefix(text)).collect();
    sorted.sort();
    assert_eq!(sorted, ordered.map(prefix));
}

#[test]
fn a_prefix_is_small() {
    // A million of them stand in the RIB.
    assert_eq!(size_of::<Prefix>(), 18);
}

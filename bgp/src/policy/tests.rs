//! Policies as they are written, in TOML as an operator has it.

use std::net::Ipv4Addr;

use super::*;
use crate::rib::attributes::RouteAttributes;
use crate::wire::{AsPath, Family, NextHop, Prefix};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peer {
    #[serde(default)]
    import: ImportPolicy,
    #[serde(default)]
    export: ExportPolicy,
}

#[derive(Debug, Deserialize)]
struct Peers {
    peer: Vec<Peer>,
}

fn peer(text: &str) -> Result<Peer, String> {
    toml::from_str::<Peer>(text).map_err(|error| error.to_string())
}

fn import(text: &str) -> ImportPolicy {
    peer(&format!("import = {text}")).expect(text).import
}

fn export(text: &str) -> ExportPolicy {
    peer(&format!("export = {text}")).expect(text).export
}

fn takes(policy: &ImportPolicy, text: &str) -> bool {
    policy.decide(&prefix(text), &route("-")).permits()
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// A route as a row says it: `PATH [COMMUNITY]... [med=N]`, the path with commas or `-`,
/// communities of any kind.
fn route(text: &str) -> RouteAttributes {
    let mut words = text.split_whitespace();
    let mut route = RouteAttributes::originated(NextHop::V4(Ipv4Addr::new(10, 0, 0, 1)));
    let path = words.next().unwrap();
    if path != "-" {
        route.as_path = AsPath::sequence(path.split(',').map(|asn| asn.parse().unwrap()));
    }
    let mut communities = Vec::new();
    for word in words {
        if let Some(med) = word.strip_prefix("med=") {
            route.med = Some(med.parse().unwrap());
        } else if let Ok(community) = word.parse() {
            communities.push(community);
        } else if let Ok(community) = word.parse() {
            route
                .rare
                .change(|rare| rare.large_communities.push(community));
        } else {
            let community = word.parse().unwrap();
            route
                .rare
                .change(|rare| rare.ext_communities.push(community));
        }
    }
    route.communities = communities.into();
    route
}

#[test]
fn short_forms() {
    assert_eq!(peer("").unwrap().import, ImportPolicy::None);
    assert_eq!(peer("").unwrap().export, ExportPolicy::None);
    assert_eq!(import("\"none\""), ImportPolicy::None);
    assert_eq!(import("\"all\""), ImportPolicy::All);
    assert_eq!(export("\"none\""), ExportPolicy::None);
    assert_eq!(export("\"local\""), ExportPolicy::Local);
    assert_eq!(export("\"all\""), ExportPolicy::All);
    let list = import(
        r#"[{ deny = "10.9.0.0/16", le = 32 }, { permit = "10.0.0.0/8", ge = 16, le = 24 }]"#,
    );
    for (tried, expected) in [
        ("10.9.0.0/16", false),
        ("10.9.1.0/24", false),
        ("10.8.0.0/16", true),
        ("10.0.0.0/8", false),
        ("11.0.0.0/8", false),
        ("fd00::/8", false),
    ] {
        let decision = list.decide(&prefix(tried), &route("-"));
        assert_eq!(decision, Decision::plain(expected), "{tried}");
    }
    assert!(!takes(&import("[]"), "10.0.0.0/8"));
}

#[test]
fn export_tells_learned_routes_only_when_asked_to() {
    // policy, (local inside, local outside, learned inside, learned outside)
    let rows = [
        ("\"none\"", [false; 4]),
        ("\"local\"", [true, true, false, false]),
        (
            r#"{ local = [{ permit = "10.0.0.0/8", le = 32 }] }"#,
            [true, false, false, false],
        ),
        ("\"all\"", [true; 4]),
        (
            r#"{ all = [{ permit = "10.0.0.0/8", le = 32 }] }"#,
            [true, false, true, false],
        ),
        (
            r#"{ all = [{ permit = "10.0.0.0/8", le = 32, from = "learned" }, { permit = "any", from = "local" }] }"#,
            [true, true, true, false],
        ),
        (
            r#"{ ipv4 = "local", ipv6 = "all" }"#,
            [true, true, false, false],
        ),
        (r#"{ ipv6 = "all" }"#, [false; 4]),
    ];
    for (text, expected) in rows {
        let policy = export(text);
        let seen = [
            ("10.1.0.0/16", Provenance::Local),
            ("11.0.0.0/8", Provenance::Local),
            ("10.1.0.0/16", Provenance::Learned),
            ("11.0.0.0/8", Provenance::Learned),
        ]
        .map(|(tried, from)| policy.decide(&prefix(tried), &route("-"), from).permits());
        assert_eq!(seen, expected, "{text}");
    }
}

#[test]
fn whether_learned_routes_can_pass_is_known() {
    for (text, expected) in [
        ("\"none\"", false),
        ("\"local\"", false),
        ("\"all\"", true),
        ("{ local = [{ permit = \"any\" }] }", false),
        ("{ all = [{ deny = \"any\" }] }", false),
        ("{ all = [{ permit = \"any\", from = \"local\" }] }", false),
        ("{ all = [{ permit = \"any\", from = \"learned\" }] }", true),
        ("{ all = [{ permit = \"10.0.0.0/8\", med = 5 }] }", true),
        ("{ ipv4 = \"local\", ipv6 = \"all\" }", true),
        ("{ ipv4 = \"local\" }", false),
    ] {
        assert_eq!(export(text).passes_on(), expected, "{text}");
    }
}

#[test]
fn policies_of_one_family_leave_the_other_alone() {
    let policy = import(r#"{ ipv4 = [{ permit = "10.0.0.0/8" }], ipv6 = "all" }"#);
    assert!(takes(&policy, "10.0.0.0/8"));
    assert!(!takes(&policy, "11.0.0.0/8"));
    assert!(takes(&policy, "fd00::/8"));
    let policy = import(r#"{ ipv6 = [{ permit = "any" }] }"#);
    assert!(!takes(&policy, "10.0.0.0/8"));
    assert!(takes(&policy, "fd00::/8"));
}

#[test]
fn equal_policies_are_known_to_be_equal() {
    assert_eq!(
        import(r#"{ ipv4 = "all", ipv6 = "all" }"#),
        ImportPolicy::All
    );
    assert_eq!(import(r#"{ ipv4 = "none" }"#), ImportPolicy::None);
    assert_eq!(
        export(r#"{ ipv6 = "local", ipv4 = "local" }"#),
        ExportPolicy::Local
    );
    let rules = r#"[{ permit = "10.0.0.0/8", community = ["65001:*"], set = { med = 5 } }]"#;
    let same = r#"[{permit="10.0.0.0/8",set={med=5},community="65001:*"}]"#;
    assert_eq!(import(rules), import(same));
    for other in [
        r#"[{ permit = "10.0.0.0/8", community = ["65001:*"], set = { med = 6 } }]"#,
        r#"[{ permit = "10.0.0.0/8", community = ["65001:1"], set = { med = 5 } }]"#,
        r#"[{ permit = "10.0.0.0/8", le = 9, community = ["65001:*"], set = { med = 5 } }]"#,
        r#"[{ permit = "10.0.0.0/8", set = { med = 5 } }]"#,
        "[]",
    ] {
        assert_ne!(import(rules), import(other), "{other}");
    }
}

#[test]
fn rules_ask_for_attributes() {
    // condition, routes that match, routes that do not
    let rows: [(&str, &[&str], &[&str]); 12] = [
        (
            "community = \"65001:1\"",
            &["1 65001:1", "1 65009:9 65001:1"],
            &["1", "1 65001:2"],
        ),
        (
            "large_community = \"65001:*:2\"",
            &["1 65001:1:2"],
            &["1", "1 65001:1:3", "1 65001:2"],
        ),
        (
            "ext_community = [\"rt:65001:*\", \"ro:*\"]",
            &["1 rt:65001:1", "1 ro:192.0.2.1:7"],
            &["1", "1 rt:65002:1"],
        ),
        (
            "community = [\"65001:*\", \"no-export\"]",
            &["1 65001:7", "1 no-export"],
            &["1 65002:7"],
        ),
        ("as_path = { origin = 3 }", &["1,2,3", "3"], &["3,2,1", "-"]),
        ("as_path = { origin = [3, 4] }", &["3", "1,4"], &["4,1"]),
        ("as_path = { neighbour = 1 }", &["1,2"], &["2,1", "-"]),
        (
            "as_path = { contains = 2, max_length = 3 }",
            &["2", "1,2,3"],
            &["1,2,3,4", "1,3"],
        ),
        (
            "as_path = { min_length = 2 }",
            &["1,2", "1,1,1"],
            &["1", "-"],
        ),
        ("med = 5", &["1 med=5"], &["1", "1 med=6"]),
        (
            "med = { min = 5, max = 7 }",
            &["1 med=5", "1 med=7"],
            &["1 med=4", "1 med=8", "1"],
        ),
        (
            "community = \"65001:1\", med = 5",
            &["1 65001:1 med=5"],
            &["1 65001:1", "1 med=5"],
        ),
    ];
    for (condition, matching, others) in rows {
        let policy = import(&format!("[{{ permit = \"any\", {condition} }}]"));
        for (text, expected) in matching
            .iter()
            .map(|text| (text, true))
            .chain(others.iter().map(|text| (text, false)))
        {
            let decision = policy.decide(&prefix("10.0.0.0/8"), &route(text));
            assert_eq!(decision.permits(), expected, "{condition}: {text}");
        }
    }
}

#[test]
fn rules_change_what_they_permit() {
    let policy = import(
        r#"[
            { permit = "10.0.0.0/8", set = { local_pref = 200, med = 7, communities = ["65001:1"] } },
            { permit = "11.0.0.0/8", delete = { communities = "65001:*", med = true }, add = { communities = "65002:2" } },
            { permit = "12.0.0.0/8", prepend = 2, set = { next_hop = "192.0.2.1" } },
            { permit = "13.0.0.0/8", subtract = { med = 1 } },
        ]"#
        .replace('\n', " ")
        .as_str(),
    );
    let changed = |text: &str| {
        let before = route("65002,65003 65001:5 65009:9 med=3");
        match policy.decide(&prefix(text), &before) {
            Decision::Deny => panic!("{text} is denied"),
            Decision::Permit(id) => policy.apply(id, &before),
        }
    };
    let first = changed("10.0.0.0/8");
    assert_eq!((first.local_pref, first.med), (Some(200), Some(7)));
    assert_eq!(first.communities, route("- 65001:1").communities);
    let second = changed("11.0.0.0/8");
    assert_eq!((second.local_pref, second.med), (None, None));
    assert_eq!(second.communities, route("- 65009:9 65002:2").communities);
    let third = changed("12.0.0.0/8");
    assert_eq!(third.as_path.to_string(), "65002 65002 65002 65003");
    assert_eq!(third.next_hop, NextHop::V4(Ipv4Addr::new(192, 0, 2, 1)));
    assert_eq!(changed("13.0.0.0/8").med, Some(2));
}

#[test]
fn the_next_hop_on_the_way_out_is_chosen() {
    let policy = export(
        r#"{ all = [{ permit = "10.0.0.0/8", set = { next_hop = "unchanged" }, prepend = 1 }, { permit = "11.0.0.0/8", set = { next_hop = "self" } }, { permit = "any" }] }"#,
    );
    let hop = |last| Some(NextHop::V4(Ipv4Addr::new(10, 0, 0, last)));
    let hops = NextHops {
        usual: hop(1),
        own: hop(2),
        received: hop(3),
    };
    for (tried, expected) in [
        ("10.0.0.0/8", hop(3)),
        ("11.0.0.0/8", hop(2)),
        ("12.0.0.0/8", hop(1)),
    ] {
        let Decision::Permit(id) = policy.decide(&prefix(tried), &route("-"), Provenance::Learned)
        else {
            panic!("{tried}");
        };
        assert_eq!(policy.next_hop(id, &hops), expected, "{tried}");
        let told = policy.apply(id, route("65001"), 65001);
        assert_eq!(
            told.as_path.hops(),
            if tried == "10.0.0.0/8" { 2 } else { 1 }
        );
    }
}

#[test]
fn rules_may_be_tables_of_their_own() {
    let written = r#"
[[import]]
permit = "10.80.0.0/16"
le = 24
set = { local_pref = 200 }

[[import]]
permit = "fd80::/16"
le = 64

[import.add]
communities = ["65001:1", "no-export"]
"#;
    let inline = r#"[{ permit = "10.80.0.0/16", le = 24, set = { local_pref = 200 } }, { permit = "fd80::/16", le = 64, add = { communities = ["65001:1", "no-export"] } }]"#;
    assert_eq!(peer(written).unwrap().import, import(inline));
}

#[test]
fn an_error_shows_the_line_at_fault() {
    // The import policy of the second peer: what it says in line 10, and the words of the error.
    let rows = [
        (r#"{ permit = "10.0.0.1/8" }"#, "host bits"),
        (r#"{ permit = "10.0.0.0" }"#, "10.0.0.0"),
        (
            r#"{ permit = "10.0.0.0/8", deny = "10.0.0.0/8" }"#,
            "either `permit` or `deny`",
        ),
        ("{ ge = 8 }", "either `permit` or `deny`"),
        (
            r#"{ permit = "10.0.0.0/8", ge = 4 }"#,
            "shorter than the network",
        ),
        (
            r#"{ permit = "10.0.0.0/8", le = 33 }"#,
            "length 33 of 10.0.0.0/8 exceeds 32",
        ),
        (
            r#"{ permit = "any", le = 24 }"#,
            "write \"0.0.0.0/0\" or \"::/0\"",
        ),
        (r#"{ allow = "10.0.0.0/8" }"#, "unknown field `allow`"),
        (
            r#"{ permit = "any", community = "65001" }"#,
            "\"65001\" matches no community",
        ),
        (
            r#"{ permit = "any", community = [] }"#,
            "a list of at least one",
        ),
        (
            r#"{ permit = "any", as_path = { orign = 3 } }"#,
            "unknown field `orign`",
        ),
        (r#"{ permit = "any", as_path = { origin = -3 } }"#, "-3"),
        (
            r#"{ permit = "any", med = { min = 5, max = 4 } }"#,
            "min 5 exceeds max 4",
        ),
        (
            r#"{ permit = "any", med = 4294967296 }"#,
            "a MED from 0 to 4294967295",
        ),
        (
            r#"{ permit = "any", med = "low" }"#,
            "a MED from 0 to 4294967295",
        ),
        (
            r#"{ permit = "any", from = "local" }"#,
            "from is of use on the way out",
        ),
        (
            r#"{ permit = "any", from = "mars" }"#,
            "unknown variant `mars`",
        ),
        (
            r#"{ permit = "any", set = { localpref = 3 } }"#,
            "unknown field `localpref`",
        ),
        (
            r#"{ permit = "any", set = { med = 1 }, add = { med = 1 } }"#,
            "choose one",
        ),
        (
            r#"{ permit = "any", set = { communities = ["65001:*"] } }"#,
            "no community",
        ),
        (
            r#"{ permit = "any", set = { next_hop = "self" } }"#,
            "of use on the way out",
        ),
        (
            r#"{ permit = "any", set = { next_hop = "224.0.0.1" } }"#,
            "the address of a host",
        ),
        (
            r#"{ permit = "any", set = { next_hop = "192.0.2.1" } }"#,
            "per family",
        ),
        (
            r#"{ permit = "any", prepend = 33 }"#,
            "prepend 33 exceeds 32",
        ),
        (
            r#"{ deny = "any", set = { med = 1 } }"#,
            "a rule that denies changes nothing",
        ),
        (r#""10.0.0.0/8""#, "a rule, such as"),
    ];
    for (rule, reason) in rows {
        let text = format!(
            "[[peer]]\nimport = \"all\"\nexport = \"local\"\n\n[[peer]]\nexport = {{ local = [] }}\n\
             # A rule a line.\nimport = [\n  {{ permit = \"10.0.0.0/8\", le = 24 }},\n  {rule},\n]\n"
        );
        let error = toml::from_str::<Peers>(&text).unwrap_err().to_string();
        assert!(error.contains(reason), "{rule}: {error}");
        assert!(error.contains("line 10"), "{rule}: {error}");
        assert!(error.contains(rule), "the line is shown: {error}");
    }
    let good = "[[peer]]\nimport = \"all\"\n";
    assert_eq!(toml::from_str::<Peers>(good).unwrap().peer.len(), 1);
}

#[test]
fn errors_of_the_forms() {
    for (text, reason) in [
        (
            "import = \"some\"",
            "expected \"none\", \"all\" or a list of rules",
        ),
        (
            "import = \"local\"",
            "expected \"none\", \"all\" or a list of rules",
        ),
        ("import = { local = [] }", "unknown field `local`"),
        ("import = { ipv4 = \"all\", ipv5 = \"all\" }", "ipv5"),
        (
            "import = { ipv4 = { ipv6 = \"all\" } }",
            "unknown field `ipv6`",
        ),
        (
            "import = { ipv4 = [{ permit = \"fd00::/8\" }] }",
            "fd00::/8 is no ipv4 network",
        ),
        (
            "import = 5",
            "expected \"none\", \"all\" or a list of rules",
        ),
        ("export = \"some\"", "\"local\""),
        ("export = [{ permit = \"any\" }]", "{ all = [RULES] }"),
        ("export = { learned = [] }", "unknown field `learned`"),
        ("export = { local = [], all = [] }", "not more"),
        ("export = {}", "{ local = [RULES] }"),
        (
            "export = { local = [{ permit = \"any\", from = \"learned\" }] }",
            "local routes only",
        ),
        (
            "export = { all = [{ permit = \"fd00::/8\", set = { next_hop = \"192.0.2.1\" } }] }",
            "ipv6 routes match",
        ),
    ] {
        let error = peer(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
        assert!(error.contains("line 1, column"), "{text}: {error}");
    }
    // RFC 8950: IPv4 routes may have an IPv6 next hop.
    export(r#"{ ipv4 = { local = [{ permit = "any", set = { next_hop = "2001:db8::1" } }] } }"#);
    for family in Family::ALL {
        assert!(import(&format!("{{ {family} = \"all\" }}")) != ImportPolicy::None);
    }
}

//! The table, by theme.

mod between;
mod errors;
mod guarded;
mod marks;
mod own;
mod shapes;
mod spread;
mod to_idc;
mod to_vpc;
mod underlay6;

use serde_json::json;

use crate::region::{Region, Router};
use crate::row::Row;

/// Rows that share a region.
pub(crate) struct Theme {
    pub(crate) region: Region,
    pub(crate) rows: Vec<Row>,
}

/// Every row there is.
pub(crate) fn all() -> Vec<Theme> {
    let city = [
        to_vpc::rows(),
        to_idc::rows(),
        between::rows(),
        spread::rows(),
        errors::rows(),
        shapes::rows(),
        marks::rows(),
        own::rows(),
    ];
    vec![
        Theme {
            region: city_region(),
            rows: city.concat(),
        },
        errors::narrow(),
        guarded::theme(),
        marks::links(),
        underlay6::theme(),
    ]
}

/// The city after the SLB `three` has lost its node on host 22.
pub(crate) fn without_a_node() -> Region {
    city_region().slb("three", "db", &["10.1.1.100"], &[(21, 1), (23, 2)])
}

/// Hosts of the classic network: the office and the lab are linked, the rest is not.
pub(crate) const OFFICE: &str = "10.80.1.10";
pub(crate) const OFFICE6: &str = "fd80:1::10";
pub(crate) const LAB: &str = "10.80.2.10";
pub(crate) const STRANGER: &str = "10.99.0.9";
pub(crate) const STRANGER6: &str = "fd99::9";

/// VMs of VPC web (VNI 1001), which is linked with the office and in a CCSI with db.
pub(crate) const WEB: u32 = 1001;
pub(crate) const WEB1: &str = "10.1.0.11";
pub(crate) const WEB1_6: &str = "fd00:1::11";
pub(crate) const WEB2: &str = "10.1.0.12";
/// VPC db, which is linked with the lab.
pub(crate) const DB: u32 = 1002;
pub(crate) const DB1: &str = "10.1.1.21";
pub(crate) const DB1_6: &str = "fd00:1:1::21";
/// VPCs of another CCSI with the addresses of web and db; not linked.
pub(crate) const WEB_TEST: u32 = 2001;
pub(crate) const DB_TEST: u32 = 2002;
/// VPC solo, in no CCSI, whose addresses nobody else has; three links, of which prefixes nest.
pub(crate) const SOLO: u32 = 3001;
pub(crate) const SOLO1: &str = "10.3.0.1";
pub(crate) const SOLO1_6: &str = "fd00:3::1";
pub(crate) const SOLO2: &str = "10.3.0.2";
pub(crate) const SOLO2_6: &str = "fd00:3::2";
/// VPC lone, in no CCSI and not linked.
pub(crate) const LONE: u32 = 3002;
pub(crate) const LONE1: &str = "10.4.0.1";
pub(crate) const LONE1_6: &str = "fd00:4::1";
/// VPC far, which the gateways of another group serve.
pub(crate) const FAR: u32 = 3003;
pub(crate) const FAR1: &str = "10.9.0.1";

fn city_region() -> Region {
    let (two, three) = (Router(2), Router(3));
    Region::new("city")
        .vpc("web", WEB, &["10.1.0.0/24", "fd00:1::/64"])
        .vpc("db", DB, &["10.1.1.0/24", "fd00:1:1::/64"])
        .vpc("web-test", WEB_TEST, &["10.1.0.0/24", "fd00:1::/64"])
        .vpc("db-test", DB_TEST, &["10.1.1.0/24", "fd00:1:1::/64"])
        .vpc("solo", SOLO, &["10.3.0.0/24", "fd00:3::/64"])
        .vpc("lone", LONE, &["10.4.0.0/24", "fd00:4::/64"])
        .vpc("far", FAR, &["10.9.0.0/24"])
        .ccsi("prod", &["web", "db"])
        .ccsi("test", &["web-test", "db-test"])
        .record(
            "classic/office",
            json!({"prefixes": ["10.80.1.0/24", "fd80:1::/64"]}),
        )
        .record(
            "classic/lab",
            json!({"prefixes": ["10.80.2.0/24", "fd80:2::/64"]}),
        )
        .link("web", json!({"vpc": "web", "classic": ["office"]}))
        .link("db", json!({"vpc": "db", "classic": ["lab"]}))
        .link("solo", json!({"vpc": "solo", "classic": ["office", "lab"]}))
        .link(
            "solo-wide",
            json!({"vpc": "solo", "classic": ["10.80.0.0/16", "fd80::/16"]}),
        )
        .link(
            "solo-host",
            json!({"vpc": "solo", "classic": ["10.81.0.5"]}),
        )
        .link(
            "far",
            json!({"vpc": "far", "classic": ["10.83.0.0/24"], "group": "west"}),
        )
        .vm("web-1", "web", &[WEB1, WEB1_6], 11)
        .vm("web-2", "web", &[WEB2, "fd00:1::12"], 12)
        .vm("db-1", "db", &[DB1, DB1_6], 12)
        .vm("web-1-test", "web-test", &[WEB1, WEB1_6], 13)
        .vm("db-1-test", "db-test", &[DB1, DB1_6], 14)
        .vm("solo-1", "solo", &[SOLO1, SOLO1_6], 11)
        .vm("solo-2", "solo", &[SOLO2, SOLO2_6], 12)
        .vm("lone-1", "lone", &[LONE1, LONE1_6], 13)
        .vm("far-1", "far", &[FAR1], 14)
        .slb(
            "front",
            "web",
            &["10.1.0.100", "fd00:1::100"],
            &[(21, 2), (22, 1)],
        )
        .slb("single", "web", &["10.1.0.101"], &[(23, 1)])
        .slb("idle", "web", &["10.1.0.102"], &[])
        .slb("three", "db", &["10.1.1.100"], &[(21, 1), (22, 1), (23, 2)])
        .learned("10.80.1.0/24", &[two])
        .learned("fd80:1::/64", &[two])
        .learned("10.80.2.0/24", &[two, three])
        .learned("10.80.2.128/25", &[three])
        .learned("fd80:2::/64", &[two, three])
        .learned("10.81.0.5/32", &[three])
        .learned("10.99.0.0/24", &[two])
        .learned("fd99::/64", &[two])
}

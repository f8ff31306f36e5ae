//! JSON Schemas of ids and values: the ranges and forms that parsing holds them to.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::value::{Dscp, Mac, Vni, Vtep, Weight};
use super::{
    CcsiId, ClassicName, ClassicRef, GatewayName, GroupName, LinkId, RecordKey, SlbId, VmId, VpcId,
};

/// What an id may be.
const ID: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$";

macro_rules! schemas {
    ($($type:ident: $schema:tt;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

schemas! {
    VpcId: { "description": "The id of a VPC.", "type": "string", "pattern": ID };
    VmId: { "description": "The id of a VM, unique in its VPC.", "type": "string", "pattern": ID };
    SlbId: { "description": "The id of an SLB, unique in its VPC.", "type": "string", "pattern": ID };
    CcsiId: { "description": "The id of a CCSI.", "type": "string", "pattern": ID };
    LinkId: { "description": "The name of a link.", "type": "string", "pattern": ID };
    GroupName: { "description": "The name of a group of gateways.", "type": "string", "pattern": ID };
    GatewayName: { "description": "The name of a gateway.", "type": "string", "pattern": ID };
    ClassicName: { "description": "The name of a classic network.", "type": "string", "pattern": ID };
    ClassicRef: {
        "description": "A prefix, a single address (taken as a /32 or /128), or the name of a classic network.",
        "type": "string",
        "examples": ["10.80.1.0/24", "office"],
    };
    RecordKey: {
        "description": "The key of a record: its kind's folder, and what names it there.",
        "type": "string",
        "examples": ["vpcs/web", "vms/web/web-1"],
    };
    Vni: {
        "description": "A VXLAN network identifier (RFC 7348 section 5).",
        "type": "integer",
        "minimum": 1,
        "maximum": Vni::MAX,
    };
    Weight: {
        "description": "A node's share of an SLB's flows.",
        "type": "integer",
        "minimum": 1,
        "maximum": 256,
    };
    Dscp: {
        "description": "A differentiated services code point (RFC 2474).",
        "type": "integer",
        "minimum": 0,
        "maximum": 63,
    };
    Mac: {
        "description": "A MAC address of one interface.",
        "type": "string",
        "examples": ["02:00:00:01:00:11"],
    };
    Vtep: {
        "description": "The address at which a host or a gateway ends VXLAN.",
        "type": "string",
        "examples": ["172.16.0.11"],
    };
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn schema<T: JsonSchema>() -> Value {
        schemars::schema_for!(T).into()
    }

    #[test]
    fn ranges_are_those_that_parsing_holds_to() {
        let ends = |schema: Value| [schema["minimum"].as_u64(), schema["maximum"].as_u64()];
        for (ends, fits) in [
            (
                ends(schema::<Vni>()),
                (|n| Vni::try_from(n).is_ok()) as fn(u64) -> bool,
            ),
            (ends(schema::<Weight>()), |n| Weight::try_from(n).is_ok()),
            (ends(schema::<Dscp>()), |n| Dscp::try_from(n).is_ok()),
        ] {
            let [least, most] = ends.map(|end| end.expect("a number"));
            assert!(fits(least) && fits(most) && !fits(most + 1), "{ends:?}");
            assert!(least == 0 || !fits(least - 1), "{ends:?}");
        }
        assert_eq!(schema::<VpcId>()["pattern"], json!(ID));
        let longest = "a".repeat(63);
        assert!(
            longest.parse::<VpcId>().is_ok() && format!("{longest}a").parse::<VpcId>().is_err()
        );
    }
}

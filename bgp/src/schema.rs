//! JSON Schemas of what is written as a text.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::bfd;
use crate::config::PeerName;
use crate::fsm;
use crate::wire::prefix::{Family, Prefix};

/// The schema of a type that is written as a text.
macro_rules! text {
    ($($type:ty, $name:literal: $schema:tt;)*) => {$(
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

text! {
    Family, "Family": {
        "description": "An address family.",
        "type": "string",
        "enum": ["ipv4", "ipv6"],
    };
    Prefix, "Prefix": {
        "description": "A prefix of IPv4 or IPv6, no bit set behind its length.",
        "type": "string",
        "examples": ["10.1.0.0/24", "fd00:1::/64"],
    };
    PeerName, "PeerName": {
        "description": "The name of a peer: 1 to 64 visible ASCII characters.",
        "type": "string",
        "minLength": 1,
        "maxLength": 64,
    };
    fsm::State, "SessionState": {
        "description": "The state of a session (RFC 4271 section 8.2.2).",
        "type": "string",
        "enum": ["idle", "connect", "active", "open-sent", "open-confirm", "established"],
    };
    bfd::State, "BfdState": {
        "description": "The state of a BFD session (RFC 5880 section 6.2).",
        "type": "string",
        "enum": ["admin-down", "down", "init", "up"],
    };
    bfd::Diagnostic, "BfdDiagnostic": {
        "description": "Why a side of a BFD session changed its state last (RFC 5880 section 4.1).",
        "type": "string",
    };
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The values that an enumeration's schema allows.
    fn allowed<T: JsonSchema>() -> Value {
        let schema = schemars::schema_for!(T);
        schema.get("enum").cloned().unwrap_or_default()
    }

    #[test]
    fn enumerations_are_what_is_written() {
        use fsm::State::{Active, Connect, Established, Idle, OpenConfirm, OpenSent};
        let states = [Idle, Connect, Active, OpenSent, OpenConfirm, Established];
        assert_eq!(allowed::<fsm::State>(), json!(states));
        use bfd::State::{AdminDown, Down, Init, Up};
        assert_eq!(allowed::<bfd::State>(), json!([AdminDown, Down, Init, Up]));
        assert_eq!(allowed::<Family>(), json!(Family::ALL));
    }
}

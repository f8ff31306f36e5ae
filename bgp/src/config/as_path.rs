//! What the AS path of a peer's routes must look like.

/// Which paths of a peer are taken. In TOML: `as_path = { enforce_first_as = false }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AsPathChecks {
    /// Whether the paths of an external peer must start with its AS (RFC 4271 section 6.3). Route
    /// servers do not put theirs in front (RFC 7947 section 2.2.2): turn it off towards them.
    pub enforce_first_as: bool,
    /// Whether paths with an AS_SET are taken, against RFC 9774.
    pub allow_as_set: bool,
}

impl Default for AsPathChecks {
    fn default() -> Self {
        AsPathChecks {
            enforce_first_as: true,
            allow_as_set: false,
        }
    }
}

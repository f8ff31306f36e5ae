//! Who asks, and what they may.

use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};

/// What somebody may do; each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look at everything.
    Viewer,
    /// Link and unlink.
    Operator,
    /// Write every record, and decide about the store.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        })
    }
}

/// Who sent a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Caller {
    /// The name of the token, or that in the certificate; `local` at the admin socket.
    pub name: String,
    /// What they may.
    pub role: Role,
    /// Where they are; absent at the admin socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
}

impl Caller {
    /// Somebody at the admin socket: whoever may open it may everything.
    #[must_use]
    pub fn local() -> Caller {
        Caller {
            name: "local".to_owned(),
            role: Role::Admin,
            from: None,
        }
    }
}

/// What was found out about the sender before, if anything had to be.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Caller>().cloned();
        Ok(known.unwrap_or_else(Caller::local))
    }
}

//! `apiserver.toml`: what `ccn apiserver` reads.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ConfigError, MetricsConfig, StoreConfig, faulty, parsed, read};
use crate::api::caller::Role;

/// Where an API server's configuration is looked for.
pub const DEFAULT_API_CONFIG: &str = "/etc/ccn/apiserver.toml";

/// The configuration of an API server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// Address and port to listen at.
    pub listen: SocketAddr,
    /// Certificate and those it was signed with, and its key: PEM, read again at SIGHUP.
    pub cert: PathBuf,
    /// See `cert`.
    pub key: PathBuf,
    /// Who may have signed the certificates of clients; without it tokens alone are taken.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Bearer tokens.
    #[serde(default, rename = "token")]
    pub tokens: Vec<TokenConfig>,
    /// Clients with a certificate.
    #[serde(default, rename = "client")]
    pub clients: Vec<ClientConfig>,
    /// Every change is written down here, a JSON object a line, before it is made and after.
    #[serde(default = "default_audit_log")]
    pub audit_log: PathBuf,
    /// What is too much.
    #[serde(default)]
    pub limits: RequestLimits,
    /// Where metrics are served; nowhere when absent.
    #[serde(default)]
    pub metrics: Option<MetricsConfig>,
    /// Where records live: of several machines, so etcd.
    pub store: StoreConfig,
}

/// `[[token]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// Who holds it, for the audit log.
    pub name: String,
    /// What its holder may.
    pub role: Role,
    /// The file that has it: one line of 16 octets or more, read again at SIGHUP.
    pub file: PathBuf,
}

/// `[[client]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// The common name in the certificate's subject.
    pub name: String,
    /// What its holder may.
    pub role: Role,
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestLimits {
    /// Requests a second that each caller may send for long, 1..=1,000,000.
    pub rate: u32,
    /// How many it may send at once after a while of silence, 1..=1,000,000.
    pub burst: u32,
    /// Requests under way, of all callers, 1..=65,536: more are told to come again.
    pub requests: usize,
    /// Connections, 1..=65,536: more wait until others are closed.
    pub connections: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        RequestLimits {
            rate: 100,
            burst: 200,
            requests: 1024,
            connections: 1024,
        }
    }
}

fn default_audit_log() -> PathBuf {
    PathBuf::from("/var/log/ccn/audit.jsonl")
}

impl ApiConfig {
    /// Reads and checks a configuration.
    ///
    /// # Errors
    /// Names the file, and the line or field at fault.
    pub fn read(path: &Path) -> Result<ApiConfig, ConfigError> {
        ApiConfig::parse(&read(path)?, path)
    }

    /// Parses and checks a configuration; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`ApiConfig::read`].
    pub fn parse(text: &str, path: &Path) -> Result<ApiConfig, ConfigError> {
        let config: ApiConfig = parsed(toml::from_str(text), path)?;
        match config.first_fault() {
            None => Ok(config),
            Some(fault) => Err(faulty(path, fault)),
        }
    }

    /// The first field that makes no sense.
    fn first_fault(&self) -> Option<(String, String)> {
        let said = |field: &str, reason: String| Some((field.to_owned(), reason));
        if let StoreConfig::Embedded { .. } = self.store {
            let reason = "an API server takes the store of a cluster: say \"etcd\" (one machine alone needs no API \
                          server, see `ccn agent`)";
            return said("store.kind", reason.to_owned());
        }
        if self.tokens.is_empty() && self.clients.is_empty() {
            let reason = "nobody could do anything: name a [[token]] or a [[client]]";
            return said("token", reason.to_owned());
        }
        if !self.clients.is_empty() && self.client_ca.is_none() {
            let reason = "is missing: who signs the certificates of [[client]]?";
            return said("client_ca", reason.to_owned());
        }
        let tokens = self.tokens.iter().map(|token| &token.name);
        let named = tokens.chain(self.clients.iter().map(|client| &client.name));
        let mut seen = std::collections::BTreeSet::new();
        for name in named {
            if name.is_empty() || name.len() > 64 || !name.chars().all(|c| c.is_ascii_graphic()) {
                return said(
                    "name",
                    format!("{name:?} is no name: 1 to 64 visible ASCII characters"),
                );
            }
            if name.contains('/') || !seen.insert(name) {
                return said("name", format!("{name:?} has a slash, or is there twice"));
            }
        }
        let RequestLimits {
            rate,
            burst,
            requests,
            connections,
        } = self.limits;
        let million = 1..=1_000_000;
        let many = 1..=65_536;
        for (field, is_fine) in [
            ("limits.rate", million.contains(&rate)),
            ("limits.burst", million.contains(&burst)),
            ("limits.requests", many.contains(&requests)),
            ("limits.connections", many.contains(&connections)),
        ] {
            if !is_fine {
                return said(field, "is out of its range".to_owned());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"listen = "0.0.0.0:8443"
cert = "/etc/ccn/api.pem"
key = "/etc/ccn/api.key"
client_ca = "/etc/ccn/ca.pem"
[[token]]
name = "ci"
role = "operator"
file = "/etc/ccn/ci.token"
[[client]]
name = "ops"
role = "admin"
[store]
kind = "etcd"
endpoints = ["http://127.0.0.1:2379"]
"#;

    fn parse(text: &str) -> Result<ApiConfig, String> {
        ApiConfig::parse(text, Path::new("a.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.limits, RequestLimits::default());
        assert_eq!(config.tokens[0].role, Role::Operator);
        for (good, bad, named) in [
            ("operator", "king", "king"),
            ("name = \"ops\"", "name = \"ci\"", "twice"),
            ("name = \"ops\"", "name = \"o/ps\"", "slash"),
            ("name = \"ops\"", "name = \"\"", "no name"),
            (
                "client_ca = \"/etc/ccn/ca.pem\"\n",
                "",
                "client_ca: is missing",
            ),
            (
                "kind = \"etcd\"\nendpoints = [\"http://127.0.0.1:2379\"]\n",
                "",
                "store.kind: an API server takes",
            ),
            ("[store]", "[limits]\nrate = 0\n[store]", "limits.rate"),
            ("[store]", "[limits]\nspeed = 1\n[store]", "speed"),
        ] {
            let text = GOOD.replacen(good, bad, 1);
            assert_ne!(text, GOOD, "{good} is in the text");
            let error = parse(&text).expect_err(bad);
            assert!(error.contains(named), "{bad:?} gives {error:?}");
        }
        let nobody = GOOD
            .replace(
                "[[token]]\nname = \"ci\"\nrole = \"operator\"\nfile = \"/etc/ccn/ci.token\"\n",
                "",
            )
            .replace("[[client]]\nname = \"ops\"\nrole = \"admin\"\n", "");
        let error = parse(&nobody).unwrap_err();
        assert!(error.contains("token: nobody"), "{error}");
    }
}

//! `[store]`: where records live, and how it is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

/// `[store]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Fields")]
pub enum StoreConfig {
    /// `kind = "embedded"`, the default: one file, for one machine.
    Embedded {
        /// The file.
        path: PathBuf,
    },
    /// `kind = "etcd"`: the store of a cluster.
    Etcd(EtcdConfig),
}

/// `[store]` with `kind = "etcd"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdConfig {
    /// The members, at least one, all with TLS or all without.
    pub endpoints: Vec<Endpoint>,
    /// What every key begins with; no slash at its end.
    pub root: String,
    /// How the members are known, and how we show who we are; none without TLS.
    pub tls: Option<TlsConfig>,
    /// User and the file that has the password; none where a certificate is enough.
    pub login: Option<Login>,
    /// How long one request may take.
    pub timeout: Duration,
    /// The file of the local snapshot.
    pub snapshot: PathBuf,
    /// Take what a restored backup says without being told to.
    pub follow_restored: bool,
}

/// The address of a member: `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint(String);

/// Files in PEM, read at each connection, so that they can be replaced under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Who may have signed the certificates of the members.
    pub ca: PathBuf,
    /// Our certificate and its key, where the members want one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// A user of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name.
    pub user: String,
    /// A file that holds the password, and maybe a line feed.
    pub password_file: PathBuf,
}

impl Default for StoreConfig {
    fn default() -> Self {
        StoreConfig::Embedded {
            path: PathBuf::from("/var/lib/ccn/store.redb"),
        }
    }
}

impl EtcdConfig {
    /// The first file that cannot be read, by field and reason. For a check before a start: while the agent
    /// runs, a missing file is no reason to end.
    pub fn unreadable(&self) -> Option<(&'static str, String)> {
        let tls = self.tls.iter().flat_map(|tls| {
            let identity = tls.identity.iter();
            let identity = identity.flat_map(|(cert, key)| [("cert", cert), ("key", key)]);
            identity.chain([("ca", &tls.ca)])
        });
        let login = self.login.iter();
        let mut files = tls.chain(login.map(|login| ("password_file", &login.password_file)));
        files.find_map(|(field, path)| {
            let error = std::fs::read(path).err()?;
            Some((field, format!("{}: {error}", path.display())))
        })
    }
}

impl Endpoint {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(text: &str) -> Result<Endpoint, String> {
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"));
        let host = rest.and_then(|rest| rest.rsplit_once(':'));
        match host {
            Some((host, port))
                if !host.is_empty()
                    && !host.contains(['/', '@', ' '])
                    && port.parse::<u16>().is_ok_and(|port| port > 0) =>
            {
                Ok(Endpoint(text.to_owned()))
            }
            _ => Err(format!("{text:?} is no https://HOST:PORT")),
        }
    }

    fn has_tls(&self) -> bool {
        self.0.starts_with("https://")
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[default]
    Embedded,
    Etcd,
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default)]
    kind: Kind,
    path: Option<PathBuf>,
    endpoints: Option<Vec<String>>,
    root: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    user: Option<String>,
    password_file: Option<PathBuf>,
    timeout_ms: Option<u64>,
    snapshot: Option<PathBuf>,
    follow_restored: Option<bool>,
}

impl TryFrom<Fields> for StoreConfig {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        match fields.kind {
            Kind::Embedded => fields.embedded(),
            Kind::Etcd => fields.etcd().map(StoreConfig::Etcd),
        }
    }
}

fn wrong<T>(field: &str, reason: impl std::fmt::Display) -> Result<T, String> {
    Err(format!("store.{field}: {reason}"))
}

impl Fields {
    fn embedded(self) -> Result<StoreConfig, String> {
        let of_etcd = [
            ("endpoints", self.endpoints.is_some()),
            ("root", self.root.is_some()),
            ("ca", self.ca.is_some()),
            ("cert", self.cert.is_some()),
            ("key", self.key.is_some()),
            ("user", self.user.is_some()),
            ("password_file", self.password_file.is_some()),
            ("timeout_ms", self.timeout_ms.is_some()),
            ("snapshot", self.snapshot.is_some()),
            ("follow_restored", self.follow_restored.is_some()),
        ];
        if let Some((field, _)) = of_etcd.iter().find(|(_, is_there)| *is_there) {
            return wrong(field, "goes with kind = \"etcd\" only");
        }
        Ok(match self.path {
            Some(path) => StoreConfig::Embedded { path },
            None => StoreConfig::default(),
        })
    }

    fn etcd(self) -> Result<EtcdConfig, String> {
        if self.path.is_some() {
            return wrong("path", "goes with kind = \"embedded\" only");
        }
        let endpoints = self.endpoints.unwrap_or_default();
        if endpoints.is_empty() {
            return wrong(
                "endpoints",
                "name at least one member, as https://HOST:PORT",
            );
        }
        let parsed = endpoints.iter().enumerate().map(|(index, text)| {
            Endpoint::parse(text).map_err(|reason| format!("store.endpoints[{index}]: {reason}"))
        });
        let endpoints: Vec<Endpoint> = parsed.collect::<Result<_, _>>()?;
        let has_tls = endpoints[0].has_tls();
        if endpoints
            .iter()
            .any(|endpoint| endpoint.has_tls() != has_tls)
        {
            return wrong("endpoints", "some have TLS and some have not");
        }
        let identity = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => return wrong("key", "is missing: store.cert needs its key"),
            (None, Some(_)) => {
                return wrong("cert", "is missing: store.key belongs to a certificate");
            }
        };
        let tls = match (has_tls, self.ca) {
            (true, Some(ca)) => Some(TlsConfig { ca, identity }),
            (true, None) => {
                return wrong(
                    "ca",
                    "is missing: who signs the certificates of the members?",
                );
            }
            (false, Some(_)) => return wrong("ca", "goes with https:// only"),
            (false, None) if identity.is_some() => return wrong("cert", "goes with https:// only"),
            (false, None) => None,
        };
        let login = match (self.user, self.password_file) {
            (Some(user), Some(password_file)) if !user.is_empty() => Some(Login {
                user,
                password_file,
            }),
            (Some(user), _) if user.is_empty() => return wrong("user", "is empty"),
            (None, None) => None,
            (Some(_), _) => {
                return wrong(
                    "password_file",
                    "is missing: where is the password of store.user?",
                );
            }
            (None, Some(_)) => {
                return wrong(
                    "user",
                    "is missing: whose password is in store.password_file?",
                );
            }
        };
        let root = self.root.unwrap_or_else(|| "/ccn/v1".to_owned());
        if !root.starts_with('/') || root.ends_with('/') || root.contains("//") {
            return wrong(
                "root",
                format!("{root:?} is no root: write it like /ccn/v1"),
            );
        }
        let timeout = self.timeout_ms.unwrap_or(3000);
        if !(100..=60_000).contains(&timeout) {
            return wrong("timeout_ms", format!("{timeout} is outside 100..=60000"));
        }
        let snapshot = self.snapshot;
        let snapshot =
            snapshot.unwrap_or_else(|| Path::new("/var/lib/ccn/snapshot.redb").to_owned());
        Ok(EtcdConfig {
            endpoints,
            root,
            tls,
            login,
            timeout: Duration::from_millis(timeout),
            snapshot,
            follow_restored: self.follow_restored.unwrap_or(false),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETCD: &str = r#"kind = "etcd"
endpoints = ["https://10.0.0.1:2379", "https://etcd-2.example:2379"]
ca = "/etc/ccn/ca.pem"
cert = "/etc/ccn/gw.pem"
key = "/etc/ccn/gw.key"
user = "ccn"
password_file = "/etc/ccn/password"
"#;

    fn parse(text: &str) -> Result<StoreConfig, String> {
        toml::from_str(text).map_err(|error: toml::de::Error| error.to_string())
    }

    #[test]
    fn the_embedded_store_needs_no_word() {
        assert_eq!(parse("").unwrap(), StoreConfig::default());
        let path = PathBuf::from("/tmp/s");
        assert_eq!(
            parse("path = \"/tmp/s\"").unwrap(),
            StoreConfig::Embedded { path }
        );
    }

    #[test]
    fn etcd_has_sensible_defaults() {
        let StoreConfig::Etcd(config) = parse(ETCD).unwrap() else {
            panic!("it is etcd");
        };
        assert_eq!(config.root, "/ccn/v1");
        assert_eq!(config.timeout, Duration::from_secs(3));
        assert_eq!(config.endpoints[1].as_str(), "https://etcd-2.example:2379");
        assert!(!config.follow_restored);
        let plain = parse("kind = \"etcd\"\nendpoints = [\"http://[::1]:2379\"]").unwrap();
        assert!(matches!(
            plain,
            StoreConfig::Etcd(EtcdConfig {
                tls: None,
                login: None,
                ..
            })
        ));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        let table = [
            ("kind = \"etcd\"", "kind = \"consul\"", "consul"),
            (
                "kind = \"etcd\"",
                "",
                "store.endpoints: goes with kind = \"etcd\" only",
            ),
            (
                "kind = \"etcd\"",
                "kind = \"etcd\"\npath = \"/s\"",
                "store.path: goes with",
            ),
            ("ca = ", "cat = ", "cat"),
            (
                "https://10.0.0.1:2379",
                "10.0.0.1:2379",
                "store.endpoints[0]: \"10.0.0.1:2379\" is no https",
            ),
            (
                "https://10.0.0.1:2379",
                "https://10.0.0.1",
                "store.endpoints[0]",
            ),
            (
                "https://10.0.0.1:2379",
                "https://10.0.0.1:99999",
                "store.endpoints[0]",
            ),
            (
                "https://10.0.0.1:2379",
                "https://u@h/x:1",
                "store.endpoints[0]",
            ),
            (
                "https://10.0.0.1:2379",
                "http://10.0.0.1:2379",
                "store.endpoints: some have TLS",
            ),
            ("ca = \"/etc/ccn/ca.pem\"\n", "", "store.ca: is missing"),
            ("cert = \"/etc/ccn/gw.pem\"\n", "", "store.cert: is missing"),
            ("key = \"/etc/ccn/gw.key\"\n", "", "store.key: is missing"),
            ("user = \"ccn\"\n", "", "store.user: is missing"),
            ("user = \"ccn\"\n", "user = \"\"\n", "store.user: is empty"),
            (
                "password_file = \"/etc/ccn/password\"\n",
                "",
                "store.password_file: is missing",
            ),
            (
                "ca = ",
                "root = \"ccn\"\nca = ",
                "store.root: \"ccn\" is no root",
            ),
            ("ca = ", "root = \"/ccn/\"\nca = ", "store.root"),
            (
                "ca = ",
                "timeout_ms = 5\nca = ",
                "store.timeout_ms: 5 is outside",
            ),
        ];
        for (good, bad, named) in table {
            let text = ETCD.replacen(good, bad, 1);
            assert_ne!(text, ETCD, "{good} is in the text");
            let error = parse(&text).expect_err(bad);
            assert!(
                error.contains(named),
                "{bad:?} gives {error:?}, which does not name {named:?}"
            );
        }
        let plain = "kind = \"etcd\"\nendpoints = [\"http://[::1]:2379\"]\n";
        let error = parse(&format!("{plain}ca = \"/c\"")).unwrap_err();
        assert!(
            error.contains("store.ca: goes with https:// only"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let StoreConfig::Etcd(config) = parse(ETCD).unwrap() else {
            panic!("it is etcd");
        };
        let (field, reason) = config.unreadable().expect("none of them is here");
        assert_eq!(field, "cert");
        assert!(reason.starts_with("/etc/ccn/gw.pem: "), "{reason}");
    }
}

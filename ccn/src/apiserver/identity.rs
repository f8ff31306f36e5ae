//! Who a caller is: by the certificate of the connection, or by a bearer token.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::api::caller::Role;
use crate::config::ApiConfig;

/// The shortest token that is taken, in octets.
const SHORTEST: usize = 16;

/// Why callers could not be known by the files that the configuration names.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// A file of a token cannot be read.
    #[error("token {name}: {}: {source}", path.display())]
    Unreadable {
        /// The token's name.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no token.
    #[error("token {name}: {}: {reason}", path.display())]
    NoToken {
        /// The token's name.
        name: String,
        /// Its file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Who there is, by what they show. Tokens are kept as digests, which are compared without telling anything of
/// what they are digests of.
#[derive(Default)]
pub(super) struct Identities {
    tokens: HashMap<[u8; 32], Identity>,
    clients: HashMap<String, Role>,
}

/// Somebody who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) role: Role,
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self
            .tokens
            .values()
            .map(|known| known.name.as_str())
            .collect();
        f.debug_struct("Identities")
            .field("tokens", &names)
            .field("clients", &self.clients)
            .finish()
    }
}

impl Identities {
    /// Those of a configuration; reads the files of its tokens.
    pub(super) fn read(config: &ApiConfig) -> Result<Identities, IdentityError> {
        let mut tokens = HashMap::new();
        for token in &config.tokens {
            let (name, path) = (token.name.clone(), token.file.clone());
            let text = std::fs::read(&path).map_err(|source| IdentityError::Unreadable {
                name: name.clone(),
                path: path.clone(),
                source,
            })?;
            let secret = secret(&text).map_err(|reason| IdentityError::NoToken {
                name: name.clone(),
                path: path.clone(),
                reason,
            })?;
            let identity = Identity {
                name: name.clone(),
                role: token.role,
            };
            if tokens.insert(digest(secret), identity).is_some() {
                let reason = "is the token of somebody else, too";
                return Err(IdentityError::NoToken { name, path, reason });
            }
        }
        let clients = config.clients.iter();
        Ok(Identities {
            tokens,
            clients: clients
                .map(|client| (client.name.clone(), client.role))
                .collect(),
        })
    }

    /// Who shows this token.
    pub(super) fn by_token(&self, token: &str) -> Option<&Identity> {
        self.tokens.get(&digest(token.as_bytes()))
    }

    /// Who shows a certificate with this common name.
    pub(super) fn by_name(&self, name: &str) -> Option<Identity> {
        let role = *self.clients.get(name)?;
        let name = name.to_owned();
        Some(Identity { name, role })
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The token in a file: its one line.
pub(crate) fn secret(text: &[u8]) -> Result<&[u8], &'static str> {
    let line = text.trim_ascii();
    if line.len() < SHORTEST {
        return Err("is shorter than 16 octets: make one with `openssl rand -hex 32`");
    }
    match line.iter().all(u8::is_ascii_graphic) {
        true => Ok(line),
        false => Err("has blanks or octets that are no visible ASCII"),
    }
}

/// The common name of a certificate's subject.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

/// A token out of a file, for whoever shows one.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn read_token(path: &Path) -> Result<String, String> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let secret = secret(&text).map_err(|reason| format!("{}: {reason}", path.display()))?;
    Ok(String::from_utf8_lossy(secret).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_line_and_long_enough() {
        for (text, taken) in [
            (&b"0123456789abcdef\n"[..], true),
            (b"  0123456789abcdef  ", true),
            (b"0123456789abcde", false),
            (b"", false),
            (b"0123456789 abcdef", false),
            (b"0123456789\nabcdef", false),
            (b"0123456789abcd\xff\xff", false),
        ] {
            assert_eq!(secret(text).is_ok(), taken, "{text:?}");
        }
    }

    #[test]
    fn callers_are_known_by_what_they_show() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let (one, two) = (
            write("one", "0123456789abcdef\n"),
            write("two", "fedcba9876543210"),
        );
        let config = |second: &str| {
            let text = format!(
                r#"
listen = "127.0.0.1:1"
cert = "c"
key = "k"
client_ca = "a"
token = [{{ name = "ci", role = "viewer", file = "{one}" }}, {{ name = "cd", role = "admin", file = "{second}" }}]
client = [{{ name = "ops", role = "operator" }}]
store = {{ kind = "etcd", endpoints = ["http://127.0.0.1:2379"] }}
"#
            );
            ApiConfig::parse(&text, Path::new("a")).unwrap()
        };
        let known = Identities::read(&config(&two)).unwrap();
        let role = |token| known.by_token(token).map(|identity| identity.role);
        assert_eq!(role("0123456789abcdef"), Some(Role::Viewer));
        assert_eq!(role("fedcba9876543210"), Some(Role::Admin));
        assert_eq!(role("fedcba987654321"), None);
        assert_eq!(
            known.by_name("ops").map(|identity| identity.role),
            Some(Role::Operator)
        );
        assert_eq!(known.by_name("ci"), None);
        assert!(!format!("{known:?}").contains("0123"), "no secret is shown");
        let same = Identities::read(&config(&one)).unwrap_err();
        assert!(same.to_string().contains("somebody else"), "{same}");
        let gone = Identities::read(&config("/nowhere")).unwrap_err();
        assert!(gone.to_string().starts_with("token cd: /nowhere"), "{gone}");
    }
}

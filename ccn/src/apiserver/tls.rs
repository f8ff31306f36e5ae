//! TLS of the API server and of those who talk to it: files in PEM become what rustls takes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, ServerConfig};

use crate::config::ApiConfig;

/// Why there is no TLS.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file.
    #[error("{field}: {}: {source}", path.display())]
    File {
        /// The field that names it.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// A file has nothing of what it should.
    #[error("{field}: {}: holds no certificate", path.display())]
    Empty {
        /// The field that names it.
        field: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key do not go together, or are no good.
    #[error("{field}: {source}")]
    Unfit {
        /// The field.
        field: &'static str,
        /// Why.
        source: rustls::Error,
    },
    /// Nobody could be known by these.
    #[error("client_ca: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        io::Error::other(error)
    }
}

fn certificates(
    field: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::File {
        field,
        path: path.to_owned(),
        source,
    };
    let read = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let read: Vec<_> = read.collect::<Result<_, _>>().map_err(unreadable)?;
    match read.is_empty() {
        true => Err(TlsError::Empty {
            field,
            path: path.to_owned(),
        }),
        false => Ok(read),
    }
}

fn key(field: &'static str, path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|source| TlsError::File {
        field,
        path: path.to_owned(),
        source,
    })
}

fn roots(field: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(field, path)? {
        let added = roots.add(certificate);
        added.map_err(|source| TlsError::Unfit { field, source })?;
    }
    Ok(roots)
}

/// What a server of this configuration shows and asks for. Clients may come without a certificate: what they may
/// then is decided by their token.
///
/// # Errors
/// Names the field at fault.
pub(super) fn server(config: &ApiConfig) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unfit {
            field: "tls",
            source,
        })?;
    let builder = match &config.client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(roots("client_ca", ca)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
        }
    };
    let (cert, key) = (
        certificates("cert", &config.cert)?,
        key("key", &config.key)?,
    );
    let mut server = builder
        .with_single_cert(cert, key)
        .map_err(|source| TlsError::Unfit {
            field: "cert",
            source,
        })?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}

/// What a client trusts, and shows if it has something to show.
///
/// # Errors
/// Names the option at fault.
pub fn client(ca: &Path, identity: Option<(&Path, &Path)>) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Unfit {
            field: "tls",
            source,
        })?
        .with_root_certificates(roots("--ca", ca)?);
    let Some((cert, private)) = identity else {
        return Ok(builder.with_no_client_auth());
    };
    let (chain, private) = (certificates("--cert", cert)?, key("--key", private)?);
    builder
        .with_client_auth_cert(chain, private)
        .map_err(|source| TlsError::Unfit {
            field: "--cert",
            source,
        })
}

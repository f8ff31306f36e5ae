//! A certificate authority of the lab: for members of etcd and for those who talk to them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};

/// Where members and API servers of the lab may be: the last is the gateway's address on the IDC LAN.
const HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "10.99.0.1"];

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The certificate itself.
    #[error("a certificate: {0}")]
    Made(#[from] rcgen::Error),
    /// Its file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Signs certificates, in files of its directory.
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub certificate: PathBuf,
}

/// A certificate and its key, in files.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority; `directory` is there, `name` is that of its files.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn new(directory: &Path, name: &str) -> Result<Self, CertificateError> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate()?;
        let made = params.self_signed(&key)?;
        let certificate = directory.join(format!("{name}.pem"));
        write(&certificate, &made.pem())?;
        Ok(Authority {
            directory: directory.to_owned(),
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// A certificate for a client or a member at any of [`HOSTS`], in files of this name (replaced if they are there).
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn sign(&self, name: &str) -> Result<Identity, CertificateError> {
        self.sign_until(name, 2099)
    }

    /// A certificate that was good until the end of 2020.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn sign_expired(&self, name: &str) -> Result<Identity, CertificateError> {
        self.sign_until(name, 2020)
    }

    fn sign_until(&self, name: &str, year: i32) -> Result<Identity, CertificateError> {
        let mut params = CertificateParams::new(HOSTS.map(str::to_owned))?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let made = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            certificate: self.directory.join(format!("{name}.pem")),
            key: self.directory.join(format!("{name}.key")),
        };
        write(&identity.key, &key.serialize_pem())?;
        write(&identity.certificate, &made.pem())?;
        Ok(identity)
    }
}

fn write(path: &Path, text: &str) -> Result<(), CertificateError> {
    fs::write(path, text).map_err(|source| CertificateError::File {
        path: path.to_owned(),
        source,
    })
}

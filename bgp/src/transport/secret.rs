//! Keys from files. A key is read, used and dropped; nothing here prints it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The longest key the kernel takes, for TCP-MD5 and TCP-AO alike, in octets.
pub(crate) const MAX_KEY: usize = 80;

/// Read and write permission of everybody.
const OTHERS: u32 = 0o006;

/// A key, 1 to 80 octets. Its `Debug` says nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Box<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a file with a key is refused.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// It cannot be read.
    #[error("cannot read the key file {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It is no regular file.
    #[error("the key file {0} is no regular file")]
    NoFile(PathBuf),
    /// Everybody may read or write it.
    #[error(
        "everybody may read or write the key file {path} (mode {mode:03o}): run chmod 600 {path}"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is nothing in it.
    #[error("the key file {0} is empty")]
    Empty(PathBuf),
    /// More than the kernel takes.
    #[error("the key in {0} is longer than 80 octets")]
    TooLong(PathBuf),
}

impl Secret {
    /// The key in a file, without a newline at its end.
    ///
    /// # Errors
    /// A file that cannot be read, is open to everybody, is empty or too long.
    pub(crate) fn read(path: &Path) -> Result<Secret, SecretError> {
        let unreadable = |source| SecretError::Unreadable {
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(unreadable)?;
        // Of what is open, not of what may lie there by now.
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(SecretError::NoFile(path.to_owned()));
        }
        let mode = metadata.mode() & 0o777;
        if mode & OTHERS != 0 {
            let path = path.to_owned();
            return Err(SecretError::Open { path, mode });
        }
        let mut octets = Vec::new();
        // A key, its newline, and one octet that shows there is more.
        file.take(MAX_KEY as u64 + 3)
            .read_to_end(&mut octets)
            .map_err(unreadable)?;
        Secret::parse(&octets).map_err(|fault| match fault {
            Fault::Empty => SecretError::Empty(path.to_owned()),
            Fault::TooLong => SecretError::TooLong(path.to_owned()),
        })
    }

    fn parse(octets: &[u8]) -> Result<Secret, Fault> {
        let line = octets.strip_suffix(b"\n").unwrap_or(octets);
        let key = line.strip_suffix(b"\r").unwrap_or(line);
        match key.len() {
            0 => Err(Fault::Empty),
            1..=MAX_KEY => Ok(Secret(key.into())),
            _ => Err(Fault::TooLong),
        }
    }

    /// The key, for whoever signs with it only.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Fault {
    Empty,
    TooLong,
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_what_is_in_the_file_without_its_newline() {
        let long = [b'x'; 81];
        for (octets, expected) in [
            (&b"secret\n"[..], Ok(&b"secret"[..])),
            (b"secret", Ok(b"secret")),
            (b"secret\r\n", Ok(b"secret")),
            (b" two words \n", Ok(b" two words ")),
            (b"line\n\n", Ok(b"line\n")),
            (b"\xff\x00\n", Ok(b"\xff\x00")),
            (&long[..80], Ok(&long[..80])),
            (&long[..], Err(Fault::TooLong)),
            (b"\n", Err(Fault::Empty)),
            (b"", Err(Fault::Empty)),
        ] {
            let key = Secret::parse(octets).map(|secret| secret.0.into_vec());
            assert_eq!(key, expected.map(<[u8]>::to_vec), "{octets:?}");
        }
    }

    #[test]
    fn files_that_do_not_keep_a_secret_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "hunter2\n").unwrap();
        for (mode, fits) in [
            (0o600, true),
            (0o640, true),
            (0o644, false),
            (0o602, false),
            (0o666, false),
        ] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let read = Secret::read(&path);
            assert_eq!(read.is_ok(), fits, "{mode:o}: {read:?}");
            if let Err(error) = read {
                assert!(error.to_string().contains("chmod 600"), "{error}");
            }
        }
        let error = Secret::read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
        let missing = Secret::read(&directory.path().join("none")).unwrap_err();
        assert!(
            missing.to_string().contains("/none: No such file"),
            "{missing}"
        );
        std::fs::write(&path, [b'a'; 4096]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(Secret::read(&path), Err(SecretError::TooLong(_))));
    }

    #[test]
    fn a_key_is_never_printed() {
        let secret = Secret::parse(b"hunter2").unwrap();
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}

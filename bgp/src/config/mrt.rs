//! Where messages are kept as MRT files (RFC 6396).

use std::path::PathBuf;

/// A log of what peers say: every message received but KEEPALIVEs, and every change of state.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MrtConfig {
    /// The file. Earlier ones stand beside it with `.1` (the latest), `.2` and so on at the end of
    /// their names.
    pub updates: PathBuf,
    /// A file that has grown to this is followed by a new one, in units of 1,000,000 octets, 1 to
    /// 65,536.
    #[serde(default = "default_rotate")]
    pub rotate_mb: u32,
    /// How many earlier files are kept, 0 to 1,000.
    #[serde(default = "default_keep")]
    pub keep: u32,
}

fn default_rotate() -> u32 {
    64
}

fn default_keep() -> u32 {
    8
}

impl MrtConfig {
    /// A log in this file, with default terms.
    pub fn new(updates: PathBuf) -> MrtConfig {
        MrtConfig {
            updates,
            rotate_mb: default_rotate(),
            keep: default_keep(),
        }
    }

    /// The size at which a file is followed by a new one, in octets.
    pub fn rotate_octets(&self) -> u64 {
        u64::from(self.rotate_mb) * 1_000_000
    }

    /// Field, and what is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.updates.file_name().is_none() {
            return Err(format!("updates: {:?} names no file", self.updates));
        }
        if !(1..=65_536).contains(&self.rotate_mb) {
            return Err("rotate_mb: must be 1 to 65536".to_owned());
        }
        if self.keep > 1000 {
            return Err("keep: must be 0 to 1000".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<MrtConfig, String> {
        let config: MrtConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()?;
        Ok(config)
    }

    #[test]
    fn a_file_is_enough() {
        let seen = config("updates = '/var/log/ccn/updates.mrt'").unwrap();
        assert_eq!(seen, MrtConfig::new("/var/log/ccn/updates.mrt".into()));
        assert_eq!((seen.rotate_octets(), seen.keep), (64_000_000, 8));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_field() {
        for (text, expected) in [
            ("updates = '/'", "updates: \"/\" names no file"),
            (
                "updates = 'u'\nrotate_mb = 0",
                "rotate_mb: must be 1 to 65536",
            ),
            ("updates = 'u'\nkeep = 1001", "keep: must be 0 to 1000"),
            ("rotate_mb = 1", "missing field `updates`"),
            ("updates = 'u'\ncolour = 1", "unknown field `colour`"),
        ] {
            let error = config(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}

//! A file that says that a gateway is drained, so that its agent knows it after a restart.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where it stands, whether or not there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(PathBuf);

#[derive(Serialize, Deserialize)]
struct Text {
    /// Seconds since 1970.
    since: u64,
}

impl Mark {
    /// The file beside a store's own: the same name, ending in `.drained`.
    #[must_use]
    pub fn beside(store: &Path) -> Mark {
        Mark(store.with_extension("drained"))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Since when the gateway is drained, in seconds since 1970; nothing where it is not. A file that cannot be made out
    /// still says that it is, since then 0.
    ///
    /// # Errors
    /// When it cannot be known whether there is a file.
    pub fn read(&self) -> io::Result<Option<u64>> {
        match fs::read(&self.0) {
            Ok(text) => {
                let text: Result<Text, _> = serde_json::from_slice(&text);
                Ok(Some(text.map_or(0, |text| text.since)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Has the file there, or not there, also after a power failure.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn write(&self, since: Option<u64>) -> io::Result<()> {
        let Some(since) = since else {
            match fs::remove_file(&self.0) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => return self.sync_folder(),
            }
        };
        let new = self.0.with_extension("drained.new");
        let mut file = File::create(&new)?;
        serde_json::to_writer(&mut file, &Text { since })?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&new, &self.0)?;
        self.sync_folder()
    }

    fn sync_folder(&self) -> io::Result<()> {
        match self.0.parent() {
            Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_there_until_it_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let mark = Mark::beside(&folder.path().join("store.redb"));
        assert!(mark.path().ends_with("store.drained"));
        assert_eq!(mark.read().unwrap(), None);
        mark.write(None).unwrap();
        for since in [7, 1_764_138_678] {
            mark.write(Some(since)).unwrap();
            assert_eq!(mark.read().unwrap(), Some(since));
        }
        fs::write(mark.path(), "who knows").unwrap();
        assert_eq!(mark.read().unwrap(), Some(0), "somebody wanted it drained");
        mark.write(None).unwrap();
        assert_eq!(mark.read().unwrap(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let nowhere = Mark::beside(Path::new("/proc/nothing/store"));
        assert!(nowhere.write(Some(1)).is_err());
    }
}

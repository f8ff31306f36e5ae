//! Where maps are pinned, so that they outlive the agent: `BPFFS/DEVICE-NAMESPACE/v1/MAP`; and that the programs are on
//! their links: `BPFFS/DEVICE-NAMESPACE/links/IFINDEX`.
//!
//! A BPF file system knows nothing of network namespaces, so the number of ours is part of the name.
//! Another version of the layout has a directory of its own, beside the one that is in use.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::layout::{Flow, LAYOUT_VERSION, Tally};
use super::sys::Map;
use crate::plane::PlaneError;
use crate::plane::model::DropReason;

/// Where the system has its BPF file system.
const SYSTEM: &str = "/sys/fs/bpf";

/// Maps that mean the same in every version that has the same key, value and, where it counts
/// something by number, as many elements.
const CARRIED: [(&str, u32, u32, Option<u32>); 3] = [
    ("flows", size_of::<Flow>() as u32, 16, None),
    (
        "drops",
        4,
        size_of::<Tally>() as u32,
        Some(DropReason::ALL.len() as u32),
    ),
    ("totals", 4, size_of::<Tally>() as u32, Some(3)),
];

/// The directories of one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pins {
    device: PathBuf,
}

impl Pins {
    /// Below this directory of a BPF file system.
    pub(crate) fn new(bpffs: &Path, device: &str) -> Pins {
        let namespace = fs::metadata("/proc/thread-self/ns/net").map_or(0, |it| it.ino());
        // A BPF file system takes no names with dots.
        let device = device.replace('.', "-");
        Pins {
            device: bpffs.join(format!("{device}-{namespace}")),
        }
    }

    /// Where the maps of our layout are.
    pub(crate) fn directory(&self) -> PathBuf {
        self.device.join(format!("v{LAYOUT_VERSION}"))
    }

    /// Where a map of our layout is.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// Where it is pinned that a program is on a device: whatever the layout of its maps.
    pub(crate) fn attached(&self, ifindex: u32) -> PathBuf {
        self.links().join(ifindex.to_string())
    }

    /// Where all of those are.
    fn links(&self) -> PathBuf {
        self.device.join("links")
    }

    /// Makes the directory, and mounts the system's BPF file system where there is none.
    pub(crate) fn ensure(&self) -> Result<(), PlaneError> {
        let directory = self.directory();
        if !is_bpf(&directory) {
            if !directory.starts_with(SYSTEM) {
                return Err(failed(
                    &format!("pin maps in {}", directory.display()),
                    &io::Error::other("it is in no BPF file system (mount one of type bpf there)"),
                ));
            }
            let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            let mounted = mount(Some("bpf"), SYSTEM, Some("bpf"), flags, Some("mode=700"));
            mounted.map_err(|errno| failed(&format!("mount {SYSTEM}"), &errno.into()))?;
        }
        let make = |path: PathBuf| {
            fs::create_dir_all(&path)
                .map_err(|error| failed(&format!("make {}", path.display()), &error))
        };
        make(directory)?;
        make(self.links())
    }

    /// Versions of the layout that something is pinned of, other than ours.
    pub(crate) fn others(&self) -> Vec<PathBuf> {
        let ours = [self.directory(), self.links()];
        let entries = fs::read_dir(&self.device).into_iter().flatten().flatten();
        entries
            .map(|entry| entry.path())
            .filter(|path| !ours.contains(path))
            .collect()
    }

    /// Takes flows and counts over from another version of the layout, where these maps are still of
    /// the shape they have in ours.
    pub(crate) fn carry_over(&self) -> Result<(), PlaneError> {
        for other in self.others() {
            for (name, key, value, entries) in CARRIED {
                let (from, to) = (other.join(name), self.map(name));
                if to.exists() || !from.exists() {
                    continue;
                }
                let action = format!("take {} over", from.display());
                let map = Map::open(&from).map_err(|error| failed(&action, &error))?;
                let shape = map.shape();
                let same = (shape.key, shape.value) == (key, value)
                    && entries.is_none_or(|entries| entries == shape.entries);
                if same {
                    map.pin(&to).map_err(|error| failed(&action, &error))?;
                }
            }
        }
        Ok(())
    }

    /// Whether anything is pinned, of whichever version.
    pub(crate) fn exist(&self) -> bool {
        self.device.exists()
    }

    /// Takes the pins of other versions away.
    pub(crate) fn remove_others(&self) -> Result<usize, PlaneError> {
        let others = self.others();
        for path in &others {
            remove(path)?;
        }
        Ok(others.len())
    }

    /// Takes all pins away, and the directories.
    pub(crate) fn remove(&self) -> Result<(), PlaneError> {
        if !self.exist() {
            return Ok(());
        }
        remove(&self.device)?;
        // The one that all devices share goes with the last of them.
        if let Some(shared) = self
            .device
            .parent()
            .filter(|path| *path != Path::new(SYSTEM))
        {
            let _ = fs::remove_dir(shared);
        }
        Ok(())
    }
}

pub(super) fn remove(path: &Path) -> Result<(), PlaneError> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(|error| failed(&format!("remove {}", path.display()), &error))
}

/// Whether a path is in a BPF file system, or the first directory above it that there is.
pub(crate) fn is_bpf(path: &Path) -> bool {
    let mut existing = path.ancestors().filter(|path| path.exists());
    existing
        .next()
        .is_some_and(|path| statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC))
}

/// An error of the system, in the plane's terms.
pub(crate) fn failed(action: &str, error: &io::Error) -> PlaneError {
    let errno = error.raw_os_error().map(Errno::from_raw);
    match errno {
        Some(Errno::EPERM | Errno::EACCES) => PlaneError::Privilege {
            capability: "CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN",
            action: action.to_owned(),
        },
        Some(Errno::ENOSYS) => PlaneError::Feature {
            feature: "bpf(2)",
            detail: format!("{action}: {error}"),
        },
        _ => PlaneError::Kernel {
            action: action.to_owned(),
            detail: error.to_string(),
        },
    }
}

//! Network namespaces: make, open, enter.
//!
//! A thread that enters one is started for that purpose and ends with it, so no caller is ever left
//! in a namespace it did not expect.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::Error;

/// Where named namespaces live, as `ip netns` has it.
const DIRECTORY: &str = "/run/netns";
/// The namespace of the thread that reads this.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, held open. One that was created here is deleted on drop.
#[derive(Debug)]
pub struct Namespace {
    /// Name or path, for messages.
    name: PathBuf,
    file: File,
    /// The mount to take away on drop.
    owned: Option<PathBuf>,
}

impl Namespace {
    /// Makes a namespace that `ip netns exec NAME` finds too. It is deleted on drop, see
    /// [`Namespace::keep`].
    ///
    /// # Errors
    /// When the name is taken or no path component, or the system refuses (`CAP_SYS_ADMIN`).
    pub fn create(name: &str) -> Result<Namespace, Error> {
        let path = named(name)?;
        let fail = |action, source| Error::Namespace {
            name: path.clone(),
            action,
            source,
        };
        fs::create_dir_all(DIRECTORY).map_err(|e| fail("cannot make /run/netns", e))?;
        // The empty file is the mount point; `create_new` refuses a name in use.
        File::create_new(&path).map_err(|e| fail("cannot make its file", e))?;
        let bound = fresh(|| {
            let none = None::<&str>;
            mount(Some(OWN), &path, none, MsFlags::MS_BIND, none).map_err(io::Error::from)
        })
        .and_then(|bound| bound);
        let opened = bound.and_then(|()| File::open(&path));
        match opened {
            Ok(file) => Ok(Namespace {
                name: path.clone(),
                file,
                owned: Some(path),
            }),
            Err(source) => {
                delete(&path);
                Err(fail("cannot make it (this needs CAP_SYS_ADMIN)", source))
            }
        }
    }

    /// Makes a namespace without a name; it lives as long as it is open or something runs in it.
    ///
    /// # Errors
    /// When the system refuses (`CAP_SYS_ADMIN`).
    pub fn anonymous() -> Result<Namespace, Error> {
        let name = PathBuf::from("(anonymous)");
        match fresh(|| File::open(OWN)).and_then(|file| file) {
            Ok(file) => Ok(Namespace {
                name,
                file,
                owned: None,
            }),
            Err(source) => Err(Error::Namespace {
                name,
                action: "cannot make it (this needs CAP_SYS_ADMIN)",
                source,
            }),
        }
    }

    /// Opens the one with this name; it is not deleted on drop.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(name: &str) -> Result<Namespace, Error> {
        Namespace::open_path(&named(name)?)
    }

    /// Opens that of a process.
    ///
    /// # Errors
    /// When there is no such process, or it is not ours to look at.
    pub fn open_pid(pid: u32) -> Result<Namespace, Error> {
        Namespace::open_path(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// Opens that of the calling thread.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn current() -> Result<Namespace, Error> {
        Namespace::open_path(Path::new(OWN))
    }

    /// Opens one by the path of its file.
    ///
    /// # Errors
    /// When there is none.
    pub fn open_path(path: &Path) -> Result<Namespace, Error> {
        let file = File::open(path).map_err(|source| Error::Namespace {
            name: path.to_owned(),
            action: "cannot open it",
            source,
        })?;
        Ok(Namespace {
            name: path.to_owned(),
            file,
            owned: None,
        })
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. Sockets opened and processes
    /// started there belong to this namespace for good; `/proc/sys/net` shows its settings.
    ///
    /// # Errors
    /// When it cannot be entered. A panic in `work` goes on in the caller.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let fail = |source| Error::Namespace {
            name: self.name.clone(),
            action: "cannot enter it (this needs CAP_SYS_ADMIN)",
            source,
        };
        on_thread(|| {
            setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            Ok(work())
        })
        .and_then(|outcome| outcome)
        .map_err(fail)
    }

    /// Its open file, for calls that take a namespace.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Path of its file, where it has a name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.name
    }

    /// Leaves it in place on drop.
    pub fn keep(&mut self) {
        self.owned = None;
    }

    /// Deletes the one with this name, whoever made it. What runs inside goes on.
    ///
    /// # Errors
    /// When the name is no path component.
    pub fn delete(name: &str) -> Result<(), Error> {
        delete(&named(name)?);
        Ok(())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Some(path) = &self.owned {
            delete(path);
        }
    }
}

fn delete(path: &Path) {
    // Both fail only if another has done it already.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

fn named(name: &str) -> Result<PathBuf, Error> {
    if name.is_empty() || name.len() > 255 || name.contains(['/', '\0']) || name.starts_with('.') {
        return Err(Error::Namespace {
            name: PathBuf::from(name),
            action: "bad name",
            source: io::Error::from(io::ErrorKind::InvalidInput),
        });
    }
    Ok(Path::new(DIRECTORY).join(name))
}

/// Runs `work` in a new, empty network namespace.
fn fresh<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        Ok(work())
    })?
}

fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let handle = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)?;
        Ok(handle
            .join()
            .unwrap_or_else(|cause| panic::resume_unwind(cause)))
    })
}

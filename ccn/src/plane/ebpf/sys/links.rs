//! Programs on the ingress of a link without a qdisc (`BPF_TCX_INGRESS`, Linux 6.6): attaching one stops nothing that
//! is sent on the link, as a qdisc that is made or deleted does.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::{
    Attr, INFO, InfoAttr, OBJ_GET, OBJ_PIN, PinAttr, address_mut, bpf, owned, path_text, raw,
};

const QUERY: u32 = 16;
const LINK_CREATE: u32 = 28;
const LINK_UPDATE: u32 = 29;
const LINK_BY_ID: u32 = 30;
const LINK_DETACH: u32 = 34;

/// `BPF_TCX_INGRESS`
const INGRESS: u32 = 46;
/// `BPF_LINK_TYPE_TCX`
const LINK_TYPE: u32 = 11;
/// The most programs that the kernel takes at one place.
const MOST: usize = 64;

attr!(CreateAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
});
attr!(UpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
});
attr!(DetachAttr { link_fd: u32 });
attr!(QueryAttr {
    target_ifindex: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    count: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
});

/// That a program is on the ingress of a network device, for as long as this or a pin of it is there.
#[derive(Debug)]
pub struct Attached(OwnedFd);

/// What the kernel says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttachedInfo {
    /// The number of the program.
    pub program: u32,
    /// The number of the device; 0 when it is on none any more.
    pub ifindex: u32,
}

/// Whether a kernel has this.
#[derive(Debug)]
pub enum Ingress {
    /// It is done.
    Done(Attached),
    /// It is older than Linux 6.6.
    Unknown,
}

impl Attached {
    /// Puts a program on a device of this network namespace, after those that are there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn attach(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<Ingress> {
        let mut attr = CreateAttr {
            prog_fd: raw(program),
            target_ifindex: ifindex,
            attach_type: INGRESS,
            flags: 0,
        };
        match bpf(LINK_CREATE, &mut attr) {
            Ok(fd) => Ok(Ingress::Done(Attached(owned(fd)))),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(Ingress::Unknown),
            Err(error) => Err(error),
        }
    }

    /// The one that is pinned at this path.
    ///
    /// # Errors
    /// The kernel's; `NotFound` when there is none.
    pub fn open(path: &Path) -> io::Result<Attached> {
        let path = path_text(path)?;
        let mut attr = PinAttr {
            path: path.as_ptr() as u64,
            ..PinAttr::default()
        };
        Ok(Attached(owned(bpf(OBJ_GET, &mut attr)?)))
    }

    /// Those on the ingress of a device, in the order in which packets come by; those of others too.
    ///
    /// # Errors
    /// The kernel's.
    pub fn all_on(ifindex: u32) -> io::Result<Vec<Attached>> {
        let (_, links) = query(ifindex)?;
        let mut all = Vec::new();
        // A program that was attached in an older way has no such number.
        for id in links.into_iter().filter(|id| *id != 0) {
            let mut attr = PinAttr {
                path: id.into(),
                ..PinAttr::default()
            };
            match bpf(LINK_BY_ID, &mut attr) {
                Ok(fd) => all.push(Attached(owned(fd))),
                // It went meanwhile, or is about to.
                Err(error)
                    if [io::ErrorKind::NotFound, io::ErrorKind::WouldBlock]
                        .contains(&error.kind()) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Pins it at a path in a BPF file system.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        let path = path_text(path)?;
        let mut attr = PinAttr {
            path: path.as_ptr() as u64,
            fd: raw(self.0.as_fd()),
            flags: 0,
        };
        bpf(OBJ_PIN, &mut attr).map(drop)
    }

    /// What is on which device.
    ///
    /// # Errors
    /// The kernel's; `InvalidData` when this is something else.
    pub fn info(&self) -> io::Result<AttachedInfo> {
        // struct bpf_link_info: type, id, prog_id, a gap, and of this type: ifindex, attach_type.
        let mut info = [0u32; 6];
        let mut attr = InfoAttr {
            fd: raw(self.0.as_fd()),
            len: size_of_val(&info) as u32,
            info: address_mut(&mut info),
        };
        bpf(INFO, &mut attr)?;
        match info {
            [LINK_TYPE, _, program, _, ifindex, INGRESS] => Ok(AttachedInfo { program, ifindex }),
            other => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("it is something else: {other:?}"),
            )),
        }
    }

    /// Puts another program in the place of the one that is there, in one step.
    ///
    /// # Errors
    /// The kernel's.
    pub fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut attr = UpdateAttr {
            link_fd: raw(self.0.as_fd()),
            new_prog_fd: raw(program),
            ..UpdateAttr::default()
        };
        bpf(LINK_UPDATE, &mut attr).map(drop)
    }

    /// Takes the program off the device, whoever has this or a pin of it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn detach(&self) -> io::Result<()> {
        let mut attr = DetachAttr {
            link_fd: raw(self.0.as_fd()),
        };
        bpf(LINK_DETACH, &mut attr).map(drop)
    }
}

/// Numbers of the programs that are on the ingress of a device so; none where the kernel has none of it.
///
/// # Errors
/// The kernel's.
pub fn programs_on(ifindex: u32) -> io::Result<Vec<u32>> {
    Ok(query(ifindex)?.0)
}

/// Programs, and the number of what each is attached with.
fn query(ifindex: u32) -> io::Result<(Vec<u32>, Vec<u32>)> {
    let (mut programs, mut links) = (vec![0u32; MOST], vec![0u32; MOST]);
    let mut attr = QueryAttr {
        target_ifindex: ifindex,
        attach_type: INGRESS,
        prog_ids: address_mut(&mut programs),
        link_ids: address_mut(&mut links),
        count: MOST as u32,
        ..QueryAttr::default()
    };
    let count = match bpf(QUERY, &mut attr) {
        Ok(_) => attr.count as usize,
        // Nothing was ever there, or the kernel does not know the place.
        Err(error)
            if [io::ErrorKind::NotFound, io::ErrorKind::InvalidInput].contains(&error.kind()) =>
        {
            0
        }
        Err(error) => return Err(error),
    };
    programs.truncate(count);
    links.truncate(count);
    Ok((programs, links))
}

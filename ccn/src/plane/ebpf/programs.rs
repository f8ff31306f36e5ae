//! The programs: loaded with the maps that are pinned, and the maps that are not there yet made
//! and pinned with them.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use aya::programs::{ProgramError, SchedClassifier};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};

use super::layout::KINDS;
use super::pins::{self, Pins};
use super::sys;
use crate::plane::PlaneError;

/// What `ccn/bpf/build` makes of the programs' source.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../../bpf/ccn.bpf.o");

/// Every map of the object.
pub(crate) const MAPS: [&str; 19] = [
    "globals",
    "slots",
    "hosts",
    "vpcs",
    "subnets4",
    "subnets6",
    "linked4",
    "linked6",
    "classics4",
    "classics6",
    "sparse",
    "link_counters",
    "vpc_counters",
    "drops",
    "last_drops",
    "totals",
    "flows",
    "events",
    "buckets",
];

/// The programs that are put on links.
pub(crate) const NAMES: [&str; 3] = ["from_idc", "from_underlay", "from_vpc"];

/// How many numbers counters begin with; each has an element for each kind and processor.
const COUNTERS: [(&str, u32); 2] = [("link_counters", 1024), ("vpc_counters", 4096)];

/// A program in the kernel.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    fd: OwnedFd,
    /// Its number in the kernel.
    pub(crate) id: u32,
    /// A hash of its instructions.
    pub(crate) tag: [u8; 8],
    /// Numbers of the maps it reads, sorted.
    pub(crate) maps: Vec<u32>,
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Where a program of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// An interface on the IDC's side, whether or not hypervisors are there too.
    Idc,
    /// An interface that only packets of hypervisors come in by.
    Underlay,
    /// The VXLAN device.
    Device,
}

/// How many elements maps begin with whose sizes are not the same for everybody.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) slots: u32,
    pub(crate) flows: u32,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Programs {
    /// For the ingress of IDC interfaces.
    pub(crate) from_idc: Program,
    /// For the ingress of the interfaces that hypervisors are behind.
    pub(crate) from_underlay: Program,
    /// For the ingress of the VXLAN device.
    pub(crate) from_vpc: Program,
}

impl Programs {
    /// Loads them with the maps that are pinned; the others begin with these sizes.
    pub(crate) fn load(pins: &Pins, sizes: Sizes) -> Result<Programs, PlaneError> {
        let mut loader = EbpfLoader::new();
        loader.map_max_entries("slots", sizes.slots);
        loader.map_max_entries("flows", sizes.flows);
        let cpus = sys::cpus().map_err(|error| pins::failed("count processors", &error))?;
        for (name, numbers) in COUNTERS {
            loader.map_max_entries(name, numbers * KINDS * cpus);
        }
        Programs::from(with_pinned(&mut loader, pins))
    }

    /// The one for a place.
    pub(crate) fn of(&self, place: Place) -> &Program {
        match place {
            Place::Idc => &self.from_idc,
            Place::Underlay => &self.from_underlay,
            Place::Device => &self.from_vpc,
        }
    }

    /// Whether the maps that all read are those that are pinned.
    pub(crate) fn read_pinned(&self, pins: &Pins) -> bool {
        let pinned = |name: &str| sys::Map::open(&pins.map(name)).map(|map| map.id());
        ["globals", "slots", "hosts", "vpcs"].iter().all(|name| {
            let all = [&self.from_idc, &self.from_underlay, &self.from_vpc];
            pinned(name).is_ok_and(|id| all.iter().all(|program| program.maps.contains(&id)))
        })
    }

    fn from(loader: &mut EbpfLoader<'_>) -> Result<Programs, PlaneError> {
        let mut object = object(loader)?;
        Ok(Programs {
            from_idc: program(&mut object, "from_idc")?,
            from_underlay: program(&mut object, "from_underlay")?,
            from_vpc: program(&mut object, "from_vpc")?,
        })
    }
}

/// The same programs for whoever asks: they are on no link.
#[derive(Debug)]
pub(crate) struct Asking {
    pub(crate) idc: Program,
    pub(crate) vpc: Program,
}

impl Asking {
    /// Loads them with the maps that are pinned.
    pub(crate) fn load(pins: &Pins) -> Result<Asking, PlaneError> {
        let mut object = object(with_pinned(&mut EbpfLoader::new(), pins))?;
        Ok(Asking {
            idc: program(&mut object, "ask_idc")?,
            vpc: program(&mut object, "ask_vpc")?,
        })
    }
}

fn with_pinned<'a, 'b>(loader: &'a mut EbpfLoader<'b>, pins: &Pins) -> &'a mut EbpfLoader<'b> {
    for name in MAPS {
        loader.map_pin_path(name, pins.map(name));
    }
    loader
}

fn object(loader: &mut EbpfLoader<'_>) -> Result<Ebpf, PlaneError> {
    // What the programs read of the kernel are its stable helpers only: no BTF is needed.
    loader
        .verifier_log_level(VerifierLogLevel::DISABLE)
        .btf(None);
    loader.load(OBJECT).map_err(|error| lacks(&error))
}

fn program(object: &mut Ebpf, name: &'static str) -> Result<Program, PlaneError> {
    let missing = || PlaneError::Kernel {
        action: format!("load the program {name}"),
        detail: "the object has none".to_owned(),
    };
    let found = object.program_mut(name).ok_or_else(missing)?;
    let found: &mut SchedClassifier = found
        .try_into()
        .map_err(|error: ProgramError| lacks(&error))?;
    found.load().map_err(|error| lacks(&error))?;
    let fd = found.fd().map_err(|error| lacks(&error))?;
    let action = format!("read the program {name}");
    let fd = fd.as_fd().try_clone_to_owned();
    let fd = fd.map_err(|error| pins::failed(&action, &error))?;
    let sys::ProgramInfo { id, tag, maps, .. } =
        sys::program_info(fd.as_fd()).map_err(|error| pins::failed(&action, &error))?;
    Ok(Program {
        name,
        fd,
        id,
        tag,
        maps,
    })
}

/// Why nothing could be loaded: missing privileges are told apart from missing features.
fn lacks(error: &(dyn std::error::Error + 'static)) -> PlaneError {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && io.raw_os_error() == Some(nix::libc::EPERM)
        {
            return pins::failed("load BPF maps and programs", io);
        }
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    PlaneError::Feature {
        feature: "what the programs of the ebpf plane need",
        detail: text,
    }
}

/// Makes a pinned map another one, in one step.
pub(crate) fn repin(map: &sys::Map, path: &Path) -> io::Result<()> {
    // A BPF file system takes no names with dots.
    let mut beside = path.as_os_str().to_owned();
    beside.push("-next");
    let beside = PathBuf::from(beside);
    if beside.exists() {
        std::fs::remove_file(&beside)?;
    }
    map.pin(&beside)?;
    std::fs::rename(&beside, path)
}

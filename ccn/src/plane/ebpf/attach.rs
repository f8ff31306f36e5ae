//! The programs on the links: on the ingress of each IDC interface and of the VXLAN device.
//!
//! One is put in the place of the one before in one step. Those of others are never touched. Before Linux 6.6 they are
//! filters, for which a link needs a qdisc: while that is made or deleted, what is sent on the link is lost for some
//! milliseconds.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use netlink::{BpfFilter, Errno, FilterPlace, Hook, Request, Socket};

use super::pins::{self, Pins};
use super::programs::{self, Program};
use super::sys::{self, Attached, AttachedInfo, Ingress};
use crate::plane::PlaneError;
use crate::plane::routes::devices::failed;

/// Before the filters of most others, and where a person sees whose it is.
const PRIORITY: u16 = 0xcc;
const HANDLE: u32 = 1;
/// How the names of our filters begin.
const NAME: &str = "ccn ";

/// A place of ours on a link.
fn place(ifindex: u32) -> FilterPlace {
    FilterPlace {
        ifindex,
        hook: Hook::Ingress,
        priority: PRIORITY,
        handle: HANDLE,
    }
}

/// A program of ours on a link.
struct On {
    /// Its number.
    id: u32,
    how: How,
}

enum How {
    /// Without a qdisc, and pinned where we pin it.
    Pinned(Attached),
    /// The same, pinned elsewhere, as by an agent with another `bpffs`.
    Elsewhere(Attached),
    /// By a filter, as before Linux 6.6.
    Filter,
}

/// What of ours is on a link.
fn attached(socket: &mut Socket, pins: &Pins, ifindex: u32) -> Result<Option<On>, PlaneError> {
    if let Some((attached, info)) = pinned(pins, ifindex)?
        && info.ifindex == ifindex
    {
        let how = How::Pinned(attached);
        return Ok(Some(On {
            id: info.program,
            how,
        }));
    }
    let looked = elsewhere(ifindex);
    if let Some(on) = looked.map_err(|error| pins::failed("read the programs of a link", &error))? {
        return Ok(Some(on));
    }
    let filters = socket
        .filters(ifindex, Hook::Ingress)
        .map_err(|error| failed("read the filters", error))?;
    let mut ours = filters
        .into_iter()
        .filter(|filter| filter.place == place(ifindex))
        .filter_map(|filter| filter.program);
    let ours = ours.find(|program| program.name.starts_with(NAME));
    Ok(ours.map(|program| On {
        id: program.id,
        how: How::Filter,
    }))
}

/// A program of ours that is on a link, wherever it is pinned: it would have the packets before another one.
fn elsewhere(ifindex: u32) -> io::Result<Option<On>> {
    for attached in Attached::all_on(ifindex)? {
        let id = attached.info()?.program;
        let info = sys::program(id).and_then(|fd| sys::program_info(fd.as_fd()));
        if info.is_ok_and(|info| programs::NAMES.contains(&info.name.as_str())) {
            let how = How::Elsewhere(attached);
            return Ok(Some(On { id, how }));
        }
    }
    Ok(None)
}

/// What is pinned for a link; its device may be gone.
fn pinned(pins: &Pins, ifindex: u32) -> Result<Option<(Attached, AttachedInfo)>, PlaneError> {
    let path = pins.attached(ifindex);
    let opened = Attached::open(&path).and_then(|attached| {
        let info = attached.info()?;
        Ok((attached, info))
    });
    match opened {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(pins::failed(&format!("read {}", path.display()), &error)),
    }
}

/// Whether a program of ours is on a link.
pub(crate) fn is_attached(
    socket: &mut Socket,
    pins: &Pins,
    ifindex: u32,
) -> Result<bool, PlaneError> {
    Ok(attached(socket, pins, ifindex)?.is_some())
}

/// Whether what is on a link does the same with the same maps.
pub(crate) fn is_equal(
    socket: &mut Socket,
    pins: &Pins,
    ifindex: u32,
    program: &Program,
) -> Result<bool, PlaneError> {
    let Some(On { id, how }) = attached(socket, pins, ifindex)? else {
        return Ok(false);
    };
    if matches!(how, How::Elsewhere(_)) {
        return Ok(false);
    }
    let does_the_same = || {
        let found = sys::program(id).and_then(|fd| sys::program_info(fd.as_fd()));
        found.is_ok_and(|info| info.tag == program.tag && info.maps == program.maps)
    };
    Ok(id == program.id || does_the_same())
}

/// Puts a program on a link, unless it is there. Answers how many things had to be changed.
pub(crate) fn put(
    socket: &mut Socket,
    pins: &Pins,
    ifindex: u32,
    program: &Program,
) -> Result<usize, PlaneError> {
    let failed =
        |error: io::Error| pins::failed(&format!("attach {} to a link", program.name), &error);
    let pin = |attached: &Attached| {
        let path = pins.attached(ifindex);
        if path.exists() {
            // It was for a device that is gone, or has been detached.
            pins::remove(&path)?;
        }
        attached.pin(&path).map_err(failed)
    };
    let is_filter = match attached(socket, pins, ifindex)? {
        Some(On { id, how }) => match how {
            How::Pinned(_) | How::Filter if id == program.id => return Ok(0),
            How::Pinned(attached) => {
                attached.replace(program.as_fd()).map_err(failed)?;
                return Ok(1);
            }
            How::Elsewhere(attached) => {
                attached.replace(program.as_fd()).map_err(failed)?;
                pin(&attached)?;
                return Ok(1);
            }
            How::Filter => true,
        },
        None => false,
    };
    let Ingress::Done(attached) = Attached::attach(program.as_fd(), ifindex).map_err(failed)?
    else {
        return put_filter(socket, ifindex, program);
    };
    pin(&attached)?;
    if is_filter {
        // Of an agent that put it there so. It would be asked what the program has left alone.
        request(socket, Request::delete_filter(place(ifindex)))?;
        return Ok(2);
    }
    Ok(1)
}

fn put_filter(socket: &mut Socket, ifindex: u32, program: &Program) -> Result<usize, PlaneError> {
    let mut changes = 1;
    let has_qdisc = socket
        .has_clsact(ifindex)
        .map_err(|error| failed("read the qdiscs", error))?;
    if !has_qdisc {
        request(socket, Request::add_clsact(ifindex))?;
        changes += 1;
    }
    request(
        socket,
        Request::replace_filter(BpfFilter {
            place: place(ifindex),
            program: program.as_fd().as_raw_fd(),
            name: format!("{NAME}{}", program.name),
        }),
    )?;
    Ok(changes)
}

/// Takes our program from a link: a filter with its qdisc, if no other filter is on that. Answers how many there were.
pub(crate) fn take_away(
    socket: &mut Socket,
    pins: &Pins,
    ifindex: u32,
) -> Result<usize, PlaneError> {
    let mut taken = 0;
    while let Some(On { how, .. }) = attached(socket, pins, ifindex)? {
        taken += 1;
        match how {
            How::Pinned(attached) | How::Elsewhere(attached) => {
                let detached = attached.detach();
                detached.map_err(|error| pins::failed("detach a program", &error))?;
            }
            How::Filter => return take_filter(socket, ifindex).map(|()| taken),
        }
    }
    let path = pins.attached(ifindex);
    if path.exists() {
        pins::remove(&path)?;
    }
    Ok(taken)
}

fn take_filter(socket: &mut Socket, ifindex: u32) -> Result<(), PlaneError> {
    request(socket, Request::delete_filter(place(ifindex)))?;
    for hook in [Hook::Ingress, Hook::Egress] {
        let others = socket
            .filters(ifindex, hook)
            .map_err(|error| failed("read the filters", error))?;
        if !others.is_empty() {
            return Ok(());
        }
    }
    request(socket, Request::delete_clsact(ifindex))
}

fn request(socket: &mut Socket, request: Request) -> Result<(), PlaneError> {
    let action = request.to_string();
    match socket.request(request) {
        Err(error) if error.errno() == Some(Errno::EOPNOTSUPP) => Err(PlaneError::Feature {
            feature: "BPF filters (clsact, cls_bpf)",
            detail: error.to_string(),
        }),
        done => done.map_err(|error| failed(&action, error)),
    }
}

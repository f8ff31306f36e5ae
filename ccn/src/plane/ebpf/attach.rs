//! The programs on the links: a filter on the ingress of each IDC interface and of the VXLAN device.
//!
//! A filter is put in the place of the one before in one step. Filters of others are never touched.

use std::os::fd::{AsFd, AsRawFd};

use netlink::{BpfFilter, Errno, FilterPlace, Hook, Request, Socket};

use super::programs::Program;
use super::sys;
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

/// The number of the program on a link, and its tag, if one of ours is there.
fn attached(socket: &mut Socket, ifindex: u32) -> Result<Option<(u32, [u8; 8])>, PlaneError> {
    let filters = socket
        .filters(ifindex, Hook::Ingress)
        .map_err(|error| failed("read the filters", error))?;
    let mut ours = filters
        .into_iter()
        .filter(|filter| filter.place == place(ifindex))
        .filter_map(|filter| filter.program);
    let ours = ours.find(|program| program.name.starts_with(NAME));
    Ok(ours.map(|program| (program.id, program.tag)))
}

/// Whether a program with this name of ours is on a link.
pub(crate) fn is_attached(socket: &mut Socket, ifindex: u32) -> Result<bool, PlaneError> {
    Ok(attached(socket, ifindex)?.is_some())
}

/// Whether what is on a link does the same with the same maps.
pub(crate) fn is_equal(
    socket: &mut Socket,
    ifindex: u32,
    program: &Program,
) -> Result<bool, PlaneError> {
    let Some((id, tag)) = attached(socket, ifindex)? else {
        return Ok(false);
    };
    let reads_ours = || {
        let found = sys::program(id).and_then(|fd| sys::program_info(fd.as_fd()));
        found.is_ok_and(|info| info.maps == program.maps)
    };
    Ok(id == program.id || (tag == program.tag && reads_ours()))
}

/// Puts a program on a link, unless it is there. Answers how many things had to be changed.
pub(crate) fn put(
    socket: &mut Socket,
    ifindex: u32,
    program: &Program,
) -> Result<usize, PlaneError> {
    if attached(socket, ifindex)?.is_some_and(|(id, _)| id == program.id) {
        return Ok(0);
    }
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

/// Takes our filter from a link, and the qdisc if no other filter is on it. Answers how many there were.
pub(crate) fn take_away(socket: &mut Socket, ifindex: u32) -> Result<usize, PlaneError> {
    if !is_attached(socket, ifindex)? {
        return Ok(0);
    }
    request(socket, Request::delete_filter(place(ifindex)))?;
    for hook in [Hook::Ingress, Hook::Egress] {
        let others = socket
            .filters(ifindex, hook)
            .map_err(|error| failed("read the filters", error))?;
        if !others.is_empty() {
            return Ok(1);
        }
    }
    request(socket, Request::delete_clsact(ifindex))?;
    Ok(1)
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

//! Programs: what they are, and what they make of made-up frames.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::libc;

use super::{Attr, INFO, InfoAttr, PinAttr, address, address_mut, bpf, owned, raw};

const TEST_RUN: u32 = 10;
const PROGRAM_BY_ID: u32 = 13;

/// Octets of the largest context.
const CONTEXT_ROOM: usize = 512;

attr!(TestRunAttr {
    prog_fd: u32,
    answer: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    pad: u32,
});

/// What a program is run with.
#[derive(Debug, Clone, Copy, Default)]
pub struct TestRun<'a> {
    /// The frame, from its Ethernet header on.
    pub data: &'a [u8],
    /// The context, such as a `struct __sk_buff`; empty: the kernel's default.
    pub context: &'a [u8],
    /// How often; 0 is once.
    pub repeat: u32,
    /// `BPF_F_TEST_*`.
    pub flags: u32,
    /// Frames taken at once with `BPF_F_TEST_XDP_LIVE_FRAMES`; 0: the kernel's default.
    pub batch_size: u32,
}

/// What a program made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestOutcome {
    /// What the program returned.
    pub answer: u32,
    /// The frame as the program left it.
    pub data: Vec<u8>,
    /// The context as the program left it.
    pub context: Vec<u8>,
    /// Nanoseconds a run, on average.
    pub duration: u32,
}

/// Runs a program on a made-up frame.
///
/// # Errors
/// The kernel's.
pub fn test_run(program: BorrowedFd<'_>, run: TestRun<'_>) -> io::Result<TestOutcome> {
    let live = run.flags & 2 != 0;
    // A program may make a frame larger, by headers.
    let mut data = vec![0; if live { 0 } else { run.data.len() + 512 }];
    // The kernel gives all of its context or says that there is no room, and newer ones have more.
    let room = if run.context.is_empty() {
        0
    } else {
        CONTEXT_ROOM
    };
    let mut context = vec![0; if live { 0 } else { room }];
    let mut attr = TestRunAttr {
        prog_fd: raw(program),
        data_size_in: run.data.len() as u32,
        data_size_out: data.len() as u32,
        data_in: address(run.data),
        data_out: if live { 0 } else { address_mut(&mut data) },
        repeat: run.repeat,
        ctx_size_in: run.context.len() as u32,
        ctx_size_out: context.len() as u32,
        ctx_in: if run.context.is_empty() {
            0
        } else {
            address(run.context)
        },
        ctx_out: if context.is_empty() {
            0
        } else {
            address_mut(&mut context)
        },
        flags: run.flags,
        batch_size: run.batch_size,
        ..TestRunAttr::default()
    };
    bpf(TEST_RUN, &mut attr)?;
    data.truncate(attr.data_size_out as usize);
    context.truncate(attr.ctx_size_out as usize);
    Ok(TestOutcome {
        answer: attr.answer,
        data,
        context,
        duration: attr.duration,
    })
}

/// What the kernel says of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    /// Its number.
    pub id: u32,
    /// A hash of its instructions.
    pub tag: [u8; 8],
    /// Numbers of the maps it reads, sorted.
    pub maps: Vec<u32>,
    /// Its name, cut to 15 octets.
    pub name: String,
}

/// `struct bpf_prog_info`, as far as it is read.
#[repr(C)]
#[derive(Default)]
struct RawProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    translated_len: u32,
    jited: u64,
    translated: u64,
    load_time: u64,
    created_by: u32,
    map_count: u32,
    maps: u64,
    name: [u8; 16],
}

/// Asks what a program is.
///
/// # Errors
/// The kernel's.
pub fn program_info(program: BorrowedFd<'_>) -> io::Result<ProgramInfo> {
    // 64 is the most that the verifier allows.
    let mut maps = vec![0u32; 64];
    let mut info = [RawProgramInfo {
        map_count: maps.len() as u32,
        maps: address_mut(&mut maps),
        ..RawProgramInfo::default()
    }];
    let mut attr = InfoAttr {
        fd: raw(program),
        len: size_of_val(&info) as u32,
        info: address_mut(&mut info),
    };
    bpf(INFO, &mut attr)?;
    let [info] = info;
    maps.truncate(info.map_count as usize);
    maps.sort_unstable();
    let name = info.name.split(|octet| *octet == 0).next();
    Ok(ProgramInfo {
        id: info.id,
        tag: info.tag,
        maps,
        name: String::from_utf8_lossy(name.unwrap_or_default()).into_owned(),
    })
}

/// The program with this number in the kernel.
///
/// # Errors
/// The kernel's; `NotFound` when it is gone.
pub fn program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = PinAttr {
        path: id.into(),
        ..PinAttr::default()
    };
    bpf(PROGRAM_BY_ID, &mut attr).map(owned)
}

/// Waits until every program that runs now has ended: what was made unreachable before is read by
/// nobody any more.
///
/// # Errors
/// The kernel's.
pub fn wait_for_programs() -> io::Result<()> {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: membarrier(2) takes integers only. MEMBARRIER_CMD_GLOBAL waits for an RCU grace period,
    // and programs at tc run within RCU read sections.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    match done {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_programs_ends() {
        wait_for_programs().expect("waited");
    }
}

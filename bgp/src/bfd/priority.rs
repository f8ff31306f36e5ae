//! Asks the system to run the calling thread before others. It may say no: then nothing changes.

use std::io;

use nix::libc;
use tracing::debug;

/// Above every ordinary thread, below the kernel's own (1 to 99).
const REAL_TIME: libc::c_int = 10;
/// The best that an ordinary thread can get (-20 to 19).
const NICEST: libc::c_int = -20;

/// Runs the calling thread in real time, or at least before other ordinary threads.
pub(super) fn raise() {
    let refused = match real_time() {
        Ok(()) => return debug!(priority = REAL_TIME, "BFD runs in real time"),
        Err(error) => error,
    };
    match nice() {
        Ok(()) => {
            debug!(%refused, nice = NICEST, "BFD does not run in real time, but before others")
        }
        Err(error) => debug!(
            %refused, %error,
            "BFD runs like anybody: give the service CAP_SYS_NICE to keep it punctual on a busy machine"
        ),
    }
}

fn real_time() -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: REAL_TIME,
    };
    // Children of this thread, if ever there are any, are ordinary.
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel only reads `parameters`, which lives until the call returns. 0 is the
    // calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &parameters) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn nice() -> io::Result<()> {
    // SAFETY: no memory is involved. On Linux, 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICEST) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

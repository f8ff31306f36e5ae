//! The signals by which people and service managers end a program, and how the two halves of a lab's
//! program take them: neither dies of them before the lab is gone.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGINT (Ctrl-C), SIGTERM and SIGHUP.
fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect()
}

/// Inside the lab: ends this process, and with it the lab, when one of them comes; `code` is asked
/// for the exit code. Must be called before other threads are started: they inherit that the
/// signals are held back.
///
/// # Errors
/// The system gives no thread.
pub fn end_on_goodbye(code: impl FnOnce() -> u8 + Send + 'static) -> io::Result<()> {
    let signals = signals();
    signals.thread_block()?;
    std::thread::Builder::new()
        .name("goodbye".to_owned())
        .spawn(move || {
            // It can only fail for an invalid set; ending is right then, too.
            let _ = signals.wait();
            std::process::exit(code().into())
        })
        .map(drop)
}

/// The signals, held back from this thread and read one by one; dropping it lets them through.
pub(super) struct Goodbyes {
    signals: SigSet,
    file: SignalFd,
}

impl Goodbyes {
    pub(super) fn listen() -> io::Result<Self> {
        let signals = signals();
        signals.thread_block()?;
        let file = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { signals, file })
    }

    /// Whether one has come since the last question.
    pub(super) fn heard(&self) -> io::Result<bool> {
        Ok(self.file.read_signal()?.is_some())
    }
}

impl Drop for Goodbyes {
    fn drop(&mut self) {
        // It can only fail for a set that is none.
        let _ = self.signals.thread_unblock();
    }
}

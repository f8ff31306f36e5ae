//! The process's own memory: what was needed for a while goes back to the system.

/// Gives back what is free. The C library keeps it otherwise, wherever something small lies above it; a
/// load or a comparison of a million records leaves some hundred megabytes like that.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it looks at what the allocator has free, and at nothing that anybody holds.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

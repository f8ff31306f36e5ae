//! Our own subject: where its program is, and that it is of today.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Failure;

/// The speaker example that belongs to this program: in the same `target` directory.
///
/// # Errors
/// This program's own path is not known.
pub fn speaker() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let directory = own.parent().unwrap_or(Path::new("."));
    let directory = match directory.file_name() {
        Some(name) if name == "deps" => directory.parent().unwrap_or(directory),
        _ => directory,
    };
    Ok(directory.join("examples/speaker"))
}

/// Builds the speaker example as this program was built, so that no stale one is measured. Without
/// cargo or sources the one that is there must do.
///
/// # Errors
/// There is none, and it cannot be built.
pub fn build_speaker() -> Result<(), Failure> {
    let speaker = speaker()?;
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        // The workspace's choice of features: what the tests' build has made already is not made again.
        .args(["build", "--quiet", "--locked", "--workspace"])
        .args(["--example", "speaker"])
        .current_dir(workspace);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let built = match command.status() {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => format!("cargo failed ({status})"),
        Err(error) => format!("cargo cannot be run: {error}"),
    };
    if speaker.is_file() {
        let _ = writeln!(
            io::stderr(),
            "{built}; {} is used as it is",
            speaker.display()
        );
        return Ok(());
    }
    Err(format!("there is no {}, and {built}", speaker.display()).into())
}

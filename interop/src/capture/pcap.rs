//! Writing captures in the classic pcap format (microseconds, Ethernet), for tshark and for people.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::Captured;

const MAGIC: u32 = 0xa1b2_c3d4;
const LINKTYPE_ETHERNET: u32 = 1;
/// The longest frame a reader need expect: the kernel hands over segments of up to 64 KiB unsplit.
const SNAPLEN: u32 = 0x4_0000;

/// Writes frames to a new file.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, frames: &[Captured]) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&MAGIC.to_ne_bytes())?;
    file.write_all(&2_u16.to_ne_bytes())?;
    file.write_all(&4_u16.to_ne_bytes())?;
    for field in [0, 0, SNAPLEN, LINKTYPE_ETHERNET] {
        file.write_all(&field.to_ne_bytes())?;
    }
    for frame in frames {
        let at = frame.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let length = frame.bytes.len() as u32;
        for field in [at.as_secs() as u32, at.subsec_micros(), length, length] {
            file.write_all(&field.to_ne_bytes())?;
        }
        file.write_all(&frame.bytes)?;
    }
    file.flush()
}

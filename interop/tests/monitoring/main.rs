//! What operators' tools read of us: MRT files by `bgpdump`, BMP by Wireshark's dissector.

mod agent;
mod bmp;
mod mrt;

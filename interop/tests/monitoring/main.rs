//! What operators' tools read of us: MRT files by `bgpdump`.

mod mrt;

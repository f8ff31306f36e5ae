//! The routing tables: what peers told us, what is best, what each peer is told (RFC 4271
//! section 3.2). Plain data structures; no session, socket or clock.

pub mod attributes;

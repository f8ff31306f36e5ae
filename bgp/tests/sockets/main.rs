//! What the kernel does for a session: keys, TTL, and who gets past accept. Real sockets on the
//! loopback interface.

mod dynamic;
mod flood;
mod keys;
mod pair;
mod reload;
mod ttl;
#[path = "../waiting/mod.rs"]
mod waiting;

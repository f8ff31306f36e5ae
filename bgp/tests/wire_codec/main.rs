//! The codec seen from outside: octets beside structs, errors beside notifications, laws.

mod as4;
mod bmp;
mod differential;
mod errors;
mod generate;
mod hex;
mod json;
mod laws;
mod mrt;
mod pack;
mod rfc7606;
mod table;
mod vectors;

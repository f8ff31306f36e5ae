//! The lab: topologies of network namespaces, real routers, real packets, and the tests and the
//! demo that use them. It drives the product from outside, as an operator would, and no other
//! crate depends on it.

pub mod apiserver;
pub mod bench;
pub mod capture;
pub mod demo;
pub mod enter;
pub mod etcd;
pub mod gateway;
pub mod hostile;
pub mod peer;
pub mod process;
pub mod scene;
pub mod simulate;
pub mod speaker;
pub mod steady;
pub mod topology;
pub mod traffic;
pub mod wait;

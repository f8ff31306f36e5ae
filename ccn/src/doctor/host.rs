//! What `ccn doctor` wants to know of the host around the plane: read, never changed.

use std::net::IpAddr;
use std::path::Path;

use netlink::Socket;
use nix::libc;

use super::networkd::{self, Networkd};
use crate::config::PlaneConfig;
use crate::plane::routes::sysctl::{self, Setting};

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// MTU in bytes.
    pub mtu: u32,
    /// It is up and has a carrier.
    pub carries: bool,
}

/// What is known of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// The kernel's release, such as `6.18.5`.
    pub kernel: String,
    /// The settings that forwarding depends on.
    pub settings: Vec<Setting>,
    /// systemd-networkd.
    pub networkd: Networkd,
    /// The VXLAN device.
    pub device: Option<Interface>,
    /// The interface with the VTEP's address.
    pub underlay: Option<Interface>,
    /// The interfaces on the IDC side that are there.
    pub idc: Vec<Interface>,
    /// The kernel's clock is kept right by somebody; absent: it does not say.
    pub clock_is_kept: Option<bool>,
}

/// Looks at everything. Blocks.
///
/// # Errors
/// The kernel's, when it cannot be asked for its links.
pub fn look(config: &PlaneConfig) -> Result<Host, netlink::Error> {
    let mut socket = Socket::open()?;
    let links = socket.links()?;
    let addresses = socket.addresses()?;
    let interface = |link: &netlink::Link| Interface {
        name: link.name.clone(),
        mtu: link.mtu,
        carries: link.up && link.carrier,
    };
    let named = |name: &String| links.iter().find(|link| link.name == *name).map(interface);
    let vtep = |addr: IpAddr| {
        let address = addresses.iter().find(|it| it.net.addr() == addr)?;
        let link = links.iter().find(|link| link.index == address.ifindex)?;
        Some(interface(link))
    };
    let release =
        nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned());
    Ok(Host {
        kernel: release.unwrap_or_default(),
        settings: sysctl::look(&config.device, &config.idc_interfaces),
        networkd: networkd::look(Path::new("/")),
        device: named(&config.device),
        underlay: vtep(config.vtep),
        idc: config.idc_interfaces.iter().filter_map(named).collect(),
        clock_is_kept: clock_is_kept(),
    })
}

fn clock_is_kept() -> Option<bool> {
    // SAFETY: all zero is a value of this struct of integers.
    let mut asked: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: with no mode set adjtimex(2) only writes to the struct, which lives through the call.
    match unsafe { libc::adjtimex(&mut asked) } {
        libc::TIME_ERROR => Some(false),
        0.. => Some(true),
        _ => None,
    }
}

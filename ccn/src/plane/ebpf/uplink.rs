//! The host around the programs: the VXLAN device, the IDC's side, and what the maps say of both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink::{Address, Socket};

use super::attach;
use super::layout::{Globals, LAYOUT_VERSION};
use super::pins::Pins;
use super::programs::Place;
use super::{pins, sys, translate};
use crate::config::PlaneConfig;
use crate::plane::PlaneError;
use crate::plane::routes::compose::Host;
use crate::plane::routes::devices::{self, failed};
use crate::plane::routes::layout::IDC_TABLE;
use crate::plane::routes::sysctl;

/// Makes or corrects device and settings. Answers what routing needs to know of the host, and how many
/// things had to be changed.
pub(crate) fn ensure(
    socket: &mut Socket,
    config: &PlaneConfig,
) -> Result<(Host, usize), PlaneError> {
    let links = socket
        .links()
        .map_err(|error| failed("read the links", error))?;
    let existing = links.iter().find(|link| link.name == config.device);
    sysctl::check()?;
    if let Some(link) = existing {
        devices::adoptable_vxlan(link, config)?;
    }
    let (idc, _) = devices::look(socket, &links, config)?;
    let mut changes = sysctl::host()?;
    for name in &config.idc_interfaces {
        changes += sysctl::idc(name)?;
    }
    let (vxlan_index, changed) = devices::vxlan_device(socket, existing, config)?;
    changes += sysctl::asked_for_routes(&config.device)?;
    let host = Host {
        protocol: config.protocol,
        vtep: config.vtep,
        vxlan: config.device.clone(),
        vxlan_index,
        drop_index: BTreeMap::new(),
        idc,
    };
    Ok((host, changes + changed))
}

/// What the maps say of the host, and the links that programs are put on with what each is.
pub(crate) fn facts(
    socket: &mut Socket,
    config: &PlaneConfig,
    host: &Host,
) -> Result<(translate::Host, Vec<(u32, Place)>), PlaneError> {
    let addresses = socket
        .addresses()
        .map_err(|error| failed("read the addresses", error))?;
    let of_idc = |v4: bool| {
        let first = host.idc.first();
        let mut nets = first.into_iter().flat_map(|link| &link.subnets);
        nets.find_map(|net| match net.addr() {
            IpAddr::V6(addr) if addr.is_unicast_link_local() => None,
            addr if addr.is_ipv4() == v4 => Some(addr),
            _ => None,
        })
    };
    let source = |v4: bool| of_idc(v4).or(Some(config.vtep).filter(|vtep| vtep.is_ipv4() == v4));
    let mut globals = Globals {
        version: LAYOUT_VERSION,
        device: host.vxlan_index,
        mtu: config.mtu,
        mac: config.mac.bytes(),
        trace_link: u32::MAX,
        idc_table: IDC_TABLE,
        port: config.port.to_be_bytes(),
        past_device: config.goes_past_device().into(),
        cpus: sys::cpus().map_err(|error| pins::failed("count processors", &error))?,
        ..Globals::default()
    };
    match config.vtep {
        IpAddr::V4(addr) => globals.local4 = addr.to_bits(),
        IpAddr::V6(addr) => globals.local6 = addr.octets(),
    }
    if let Some(IpAddr::V4(addr)) = source(true) {
        globals.icmp4 = addr.octets();
    }
    if let Some(IpAddr::V6(addr)) = source(false) {
        globals.icmp6 = addr.octets();
    }
    let own = addresses.iter().map(|address| address.net.addr());
    let own: BTreeSet<IpAddr> = own.filter(|addr| !addr.is_loopback()).collect();
    let places = places(host, underlay(socket, config, &addresses)?);
    Ok((translate::Host { globals, own }, places))
}

/// The links that programs are put on, and what each is.
fn places(host: &Host, underlay: Vec<u32>) -> Vec<(u32, Place)> {
    let mut places: Vec<(u32, Place)> = host
        .idc
        .iter()
        .map(|link| (link.index, Place::Idc))
        .chain([(host.vxlan_index, Place::Device)])
        .collect();
    for ifindex in underlay {
        if places.iter().all(|(known, _)| *known != ifindex) {
            places.push((ifindex, Place::Underlay));
        }
    }
    places
}

/// The interfaces that packets of hypervisors come in by: those configured, or else the one that has the
/// VTEP's address, unless that is the loopback's.
fn underlay(
    socket: &mut Socket,
    config: &PlaneConfig,
    addresses: &[Address],
) -> Result<Vec<u32>, PlaneError> {
    if !config.goes_past_device() {
        return Ok(Vec::new());
    }
    let links = socket
        .links()
        .map_err(|error| failed("read the links", error))?;
    if let Some(names) = &config.underlay_interfaces {
        let index = |name: &String| {
            let found = links.iter().find(|link| link.name == *name);
            found
                .map(|link| link.index)
                .ok_or_else(|| PlaneError::NoDevice {
                    name: name.clone(),
                    field: "plane.underlay_interfaces",
                })
        };
        return names.iter().map(index).collect();
    }
    let with_vtep = addresses
        .iter()
        .filter(|address| address.net.addr() == config.vtep)
        .map(|address| address.ifindex);
    let is_loopback = |index: &u32| {
        links
            .iter()
            .any(|link| link.index == *index && link.name == "lo")
    };
    Ok(with_vtep.filter(|index| !is_loopback(index)).collect())
}

/// The links and the filters on them, a line each.
pub(crate) fn lines(socket: &mut Socket, config: &PlaneConfig) -> Result<Vec<String>, PlaneError> {
    let links = socket
        .links()
        .map_err(|error| failed("read the links", error))?;
    let pins = Pins::new(&config.bpffs, &config.device);
    let mut lines = Vec::new();
    for link in links {
        let name = &link.name;
        if *name == config.device {
            lines.push(format!("link {name} index {}", link.index));
        }
        if attach::is_attached(socket, &pins, link.index)? {
            lines.push(format!("program on ingress of {name}"));
        }
    }
    Ok(lines)
}

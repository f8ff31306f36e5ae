//! The plane's devices: one external VXLAN device, and a bridge without ports for each drop reason.
//!
//! Makes what is missing, adopts what an earlier run made, corrects what differs. A device of
//! another owner is never touched: it is an error.

use std::collections::BTreeMap;

use netlink::{
    Address, Encap, Errno, Error, Family, Link, LinkChange, Mac, Netfilter, NewLink, NextHop,
    Request, Route, Rule, Socket,
};

use super::compose::{Host, IdcLink};
use super::input;
use super::layout::{ALIAS, DROP_MAC, PROBE_TABLE, Reason, priority};
use super::sysctl;
use crate::config::PlaneConfig;
use crate::plane::PlaneError;

/// So large that a packet is never answered with "too big" instead of being dropped.
const DROP_MTU: u32 = 65_535;
/// Interface of the rule that probes the kernel; no packet ever comes in by it.
const PROBE_INTERFACE: &str = "ccn-probe";

/// Makes or corrects all devices and settings, and the filter before the device it is for. Answers what translation needs to know of the host,
/// and how many things had to be changed.
pub(crate) fn ensure(
    socket: &mut Socket,
    netfilter: &mut Netfilter,
    config: &PlaneConfig,
) -> Result<(Host, usize), PlaneError> {
    let links = socket
        .links()
        .map_err(|error| failed("read the links", error))?;
    let named = |name: &str| links.iter().find(|link| link.name == name);
    // All that can be refused by looking is refused before anything is changed.
    sysctl::check()?;
    if let Some(link) = named(&config.device) {
        adoptable_vxlan(link, config)?;
    }
    for link in Reason::ALL
        .iter()
        .filter_map(|reason| named(reason.device()))
    {
        adoptable_drop(link)?;
    }
    let (idc, _) = look(socket, &links, config)?;

    let mut changes = input::ensure(netfilter, &config.device)?;
    changes += sysctl::host()?;
    for name in &config.idc_interfaces {
        changes += sysctl::idc(name)?;
    }
    let mut drop_index = BTreeMap::new();
    for reason in Reason::ALL {
        let (link, changed) = drop_device(socket, named(reason.device()), reason)?;
        changes += changed;
        drop_index.insert(reason, link);
    }
    let (vxlan_index, changed) = vxlan_device(socket, named(&config.device), config)?;
    changes += changed;
    let host = Host {
        protocol: config.protocol,
        vtep: config.vtep,
        vxlan: config.device.clone(),
        vxlan_index,
        drop_index,
        idc,
    };
    Ok((host, changes))
}

/// The interfaces on the IDC's side with their subnets, and all addresses of this host.
pub(crate) fn look(
    socket: &mut Socket,
    links: &[Link],
    config: &PlaneConfig,
) -> Result<(Vec<IdcLink>, Vec<Address>), PlaneError> {
    let named = |name: &str| links.iter().find(|link| link.name == name);
    let mut idc = Vec::new();
    let addresses = socket
        .addresses()
        .map_err(|error| failed("read the addresses", error))?;
    for name in &config.idc_interfaces {
        let link = named(name).ok_or_else(|| PlaneError::NoDevice {
            name: name.clone(),
            field: "plane.idc_interfaces",
        })?;
        let subnets = addresses
            .iter()
            .filter(|a| a.ifindex == link.index)
            .map(|a| a.net)
            .collect();
        idc.push(IdcLink {
            name: name.clone(),
            index: link.index,
            subnets,
        });
    }
    if !addresses
        .iter()
        .any(|address| address.net.addr() == config.vtep)
    {
        return Err(PlaneError::Kernel {
            action: "check plane.vtep".to_owned(),
            detail: format!("{} is no address of this host", config.vtep),
        });
    }
    Ok((idc, addresses))
}

/// Whether a device with the name of ours is the one that we made.
pub(crate) fn adoptable_vxlan(link: &Link, config: &PlaneConfig) -> Result<(), PlaneError> {
    if !link.vxlan.is_some_and(|vxlan| vxlan.external) {
        return Err(foreign(link, "no external VXLAN device"));
    }
    // A run that died between making and marking it left it down and otherwise as we make it.
    let half_made = link.alias.is_none() && !link.up && link.mac == Some(Mac(config.mac.bytes()));
    if link.alias.as_deref() == Some(ALIAS) || half_made {
        return Ok(());
    }
    Err(foreign(link, "an external VXLAN device of another owner"))
}

/// The same for a device that counts drops.
fn adoptable_drop(link: &Link) -> Result<(), PlaneError> {
    if link.kind.as_deref() != Some("bridge") {
        return Err(foreign(link, "no bridge"));
    }
    let half_made = link.alias.is_none() && !link.up;
    if link.alias.as_deref() == Some(ALIAS) || half_made {
        return Ok(());
    }
    Err(foreign(link, "a bridge of another owner"))
}

/// Makes or corrects the VXLAN device. Answers its index, and how many things had to be changed.
pub(crate) fn vxlan_device(
    socket: &mut Socket,
    existing: Option<&Link>,
    config: &PlaneConfig,
) -> Result<(u32, usize), PlaneError> {
    let name = &config.device;
    let mac = Mac(config.mac.bytes());
    let mut changes = 0;
    let mut existing = existing.cloned();
    if let Some(link) = &existing
        && link.vxlan.is_some_and(|vxlan| vxlan.port != config.port)
    {
        // The port of a device cannot be changed.
        change(socket, Request::delete_link(link.index))?;
        changes += 1;
        existing = None;
    }
    let link = match existing {
        Some(link) => link,
        None => {
            let new = NewLink::vxlan_external(name, config.port)
                .mac(mac)
                .mtu(config.mtu);
            changes += 1;
            create(socket, new, "VXLAN devices in external mode")?
        }
    };
    let mut wanted = LinkChange::of(link.index);
    let mut differs = false;
    if link.alias.as_deref() != Some(ALIAS) {
        (wanted, differs) = (wanted.alias(ALIAS), true);
    }
    if link.mac != Some(mac) {
        (wanted, differs) = (wanted.mac(mac), true);
    }
    if link.mtu != config.mtu {
        (wanted, differs) = (wanted.mtu(config.mtu), true);
    }
    if link.makes_link_local != Some(false) {
        (wanted, differs) = (wanted.link_local(false), true);
    }
    if differs {
        change(socket, Request::change_link(wanted))?;
        changes += 1;
    }
    changes += sysctl::vxlan(name)?;
    changes += bring_up(socket, &link)?;
    Ok((link.index, changes))
}

fn drop_device(
    socket: &mut Socket,
    existing: Option<&Link>,
    reason: Reason,
) -> Result<(u32, usize), PlaneError> {
    let name = reason.device();
    let mut changes = 0;
    let link = match existing {
        Some(link) => link.clone(),
        None => {
            changes += 1;
            create(socket, NewLink::bridge(name).mtu(DROP_MTU), "bridges")?
        }
    };
    changes += sysctl::drop_device(name)?;
    if link.alias.as_deref() != Some(ALIAS)
        || link.makes_link_local != Some(false)
        || link.multicast
        || link.mtu != DROP_MTU
    {
        let wanted = LinkChange::of(link.index)
            .alias(ALIAS)
            .link_local(false)
            .multicast(false)
            .mtu(DROP_MTU);
        change(socket, Request::change_link(wanted))?;
        changes += 1;
    }
    changes += bring_up(socket, &link)?;
    Ok((link.index, changes))
}

fn bring_up(socket: &mut Socket, link: &Link) -> Result<usize, PlaneError> {
    if link.up {
        return Ok(0);
    }
    change(
        socket,
        Request::change_link(LinkChange::of(link.index).up(true)),
    )?;
    Ok(1)
}

/// Names and indices of all devices that are ours.
pub(crate) fn ours(socket: &mut Socket) -> Result<Vec<Link>, PlaneError> {
    let links = socket
        .links()
        .map_err(|error| failed("read the links", error))?;
    Ok(links
        .into_iter()
        .filter(|link| link.alias.as_deref() == Some(ALIAS))
        .collect())
}

/// Asks the kernel for what no version number tells: routes that encapsulate and lead over an IPv6
/// next hop, and rules that look at the tunnel id. What it makes for that it takes away.
pub(crate) fn probe(socket: &mut Socket, host: &Host) -> Result<(), PlaneError> {
    for family in Family::BOTH {
        let hop = NextHop {
            encap: Some(Encap::new(1, host.vtep)),
            ..NextHop::via(DROP_MAC.link_local().into(), host.vxlan_index)
        };
        let mut route = Route::new(family.everything(), hop);
        (route.table, route.protocol) = (PROBE_TABLE, host.protocol);
        let rule = Rule {
            iif: Some(PROBE_INTERFACE.to_owned()),
            tunnel_id: Some(1),
            protocol: host.protocol,
            ..Rule::lookup(family, priority::UNKNOWN_VNI, PROBE_TABLE)
        };
        let undo = [
            Request::delete_route(route.clone()),
            Request::delete_rule(rule.clone()),
        ];
        // What an earlier probe left is in the way of this one; there is none as a rule.
        let _ = socket.batch(&undo);
        let routed = socket.request(Request::add_route(route));
        let ruled = socket.request(Request::add_rule(rule.clone()));
        let shown = socket.rules(Some(host.protocol));
        let _ = socket.batch(&undo);
        routed.map_err(|error| {
            lacks(
                "routes with encapsulation (lightweight tunnels)",
                "add a route",
                error,
            )
        })?;
        ruled.map_err(|error| lacks("policy rules", "add a rule", error))?;
        let shown = shown.map_err(|error| failed("read the rules", error))?;
        if !shown.contains(&rule) {
            return Err(PlaneError::Feature {
                feature: "policy rules by tunnel id",
                detail: "it took the rule and left the tunnel id out".to_owned(),
            });
        }
    }
    Ok(())
}

fn create(socket: &mut Socket, link: NewLink, feature: &'static str) -> Result<Link, PlaneError> {
    let action = format!("create {link}");
    socket
        .create_link(link)
        .map_err(|error| lacks(feature, &action, error))
}

fn change(socket: &mut Socket, request: Request) -> Result<(), PlaneError> {
    let action = request.to_string();
    socket
        .request(request)
        .map_err(|error| failed(&action, error))
}

fn foreign(link: &Link, detail: &str) -> PlaneError {
    PlaneError::ForeignDevice {
        name: link.name.clone(),
        detail: format!("it is {detail}"),
    }
}

fn lacks(feature: &'static str, action: &str, error: Error) -> PlaneError {
    match error.errno() {
        Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT) => {
            PlaneError::Feature {
                feature,
                detail: error.to_string(),
            }
        }
        _ => failed(action, error),
    }
}

/// An error of the netlink crate, in the plane's terms.
pub(crate) fn failed(action: &str, error: Error) -> PlaneError {
    match error.errno() {
        Some(Errno::EPERM | Errno::EACCES) => PlaneError::Privilege {
            capability: "CAP_NET_ADMIN",
            action: action.to_owned(),
        },
        _ => PlaneError::Kernel {
            action: action.to_owned(),
            detail: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use netlink::Failure;

    use super::*;

    #[test]
    fn what_the_kernel_refuses_is_told_as_privilege_feature_or_in_its_own_words() {
        let feature = "the kernel lacks VXLAN devices in external mode: \
                       add vxlan ccn0: Operation not supported on transport endpoint \
                       (Unknown device type)";
        let privilege = "missing privilege CAP_NET_ADMIN: create vxlan ccn0 was refused; \
                         run as root or grant CAP_NET_ADMIN";
        let table = [
            (Errno::EOPNOTSUPP, feature),
            (Errno::EPERM, privilege),
            (Errno::EACCES, privilege),
            (
                Errno::EEXIST,
                "create vxlan ccn0: add vxlan ccn0: File exists (Unknown device type)",
            ),
        ];
        for (errno, expected) in table {
            let refused = Error::Refused(Failure {
                index: 0,
                request: "add vxlan ccn0".to_owned(),
                errno,
                text: Some("Unknown device type".to_owned()),
            });
            let told = lacks(
                "VXLAN devices in external mode",
                "create vxlan ccn0",
                refused,
            );
            assert_eq!(told.to_string(), expected, "{errno}");
        }
    }
}

//! What is wrong with the host around the plane: kernel, settings, interfaces, clock. Facts in, findings
//! out, as in all of `doctor`.

use std::net::IpAddr;

use super::host::Host;
use super::{Facts, Findings};

/// The oldest kernel that the programs were run on.
const OLDEST: (u32, u32) = (6, 1);
/// Octets around an inner packet: Ethernet, VXLAN, UDP, and IPv4 or IPv6.
const AROUND: [u32; 2] = [50, 70];
/// Looks at all of the host.
pub(super) fn examine(facts: &Facts, host: &Host, to: &mut Findings) {
    kernel(facts, host, to);
    settings(host, to);
    networkd(host, to);
    interfaces(facts, host, to);
    clock(host, to);
}

fn kernel(facts: &Facts, host: &Host, to: &mut Findings) {
    let mut numbers = host
        .kernel
        .split(['.', '-'])
        .map_while(|part| part.parse::<u32>().ok());
    let version = numbers.next().zip(numbers.next());
    if facts.status.plane.name == "ebpf" && version.is_some_and(|version| version < OLDEST) {
        let (major, minor) = OLDEST;
        return to.note(
            "kernel",
            format!("Linux {}", host.kernel),
            (
                "the programs load, but nobody has tried them on a kernel this old",
                format!("Linux {major}.{minor} or later"),
            ),
        );
    }
    to.fine("kernel", format!("Linux {}", host.kernel));
}

fn settings(host: &Host, to: &mut Findings) {
    let before = to.0.len();
    for setting in &host.settings {
        let found = setting.found.as_deref();
        if found == Some(setting.wanted) {
            continue;
        }
        let what = match found {
            Some(found) => format!("{} is {found}", setting.name),
            None => format!("there is no {}", setting.name),
        };
        let set = format!(
            "sysctl -w {}={}; look in /etc/sysctl.d for who sets it",
            setting.name, setting.wanted
        );
        if setting.name.ends_with("all.rp_filter") && found == Some("2") {
            to.note(
                "sysctl",
                what,
                (
                    "packets of VMs pass only while this host has a default route",
                    set,
                ),
            );
        } else {
            to.wrong(
                "sysctl",
                what,
                ("the kernel drops packets that it should forward", set),
            );
        }
    }
    let count = host.settings.len();
    to.unless_found(
        before,
        "sysctl",
        format!("{count} settings are as they should be"),
    );
}

fn networkd(host: &Host, to: &mut Findings) {
    let takes = match (host.networkd.takes_routes, host.networkd.takes_rules) {
        _ if !host.networkd.runs => return to.fine("networkd", "systemd-networkd does not run"),
        (false, false) => return to.fine("networkd", "systemd-networkd leaves our routes alone"),
        (true, true) => "routes and rules",
        (true, false) => "routes",
        (false, true) => "rules",
    };
    to.wrong(
        "networkd",
        format!("systemd-networkd deletes {takes} that it did not make"),
        (
            "when it restarts or an interface changes, our forwarding goes until the agent has seen it",
            "put ManageForeignRoutes=no and ManageForeignRoutingPolicyRules=no below [Network] in \
             /etc/systemd/networkd.conf.d/ccn.conf, and restart systemd-networkd",
        ),
    );
}

fn interfaces(facts: &Facts, host: &Host, to: &mut Findings) {
    let before = to.0.len();
    let config = &facts.config;
    for name in &config.idc_interfaces {
        if !host.idc.iter().any(|link| link.name == *name) {
            to.wrong(
                "interfaces",
                format!("there is no interface {name}"),
                (
                    "nothing comes from the IDC, and nothing goes there",
                    "correct plane.idc_interfaces, or make the interface",
                ),
            );
        }
    }
    if host.underlay.is_none() {
        to.wrong(
            "interfaces",
            format!("no interface has the VTEP {}", config.vtep),
            (
                "hypervisors cannot send to this gateway",
                "give the address to the underlay's interface, or correct plane.vtep",
            ),
        );
    }
    if host.device.is_none() {
        to.wrong(
            "interfaces",
            format!("there is no VXLAN device {}", config.device),
            (
                "nothing is encapsulated or decapsulated",
                "the agent makes it again by itself; find out who deletes it",
            ),
        );
    }
    for link in host.idc.iter().chain(&host.underlay) {
        if !link.carries {
            to.wrong(
                "interfaces",
                format!("{} is down or has no carrier", link.name),
                ("no packet passes it", "mend the cable, or bring it up"),
            );
        }
    }
    let around = match config.vtep {
        IpAddr::V4(_) => AROUND[0],
        IpAddr::V6(_) => AROUND[1],
    };
    if let (Some(device), Some(underlay)) = (&host.device, &host.underlay) {
        let most = underlay.mtu.saturating_sub(around);
        if device.mtu > most {
            to.wrong(
                "mtu",
                format!(
                    "{} takes packets of {} bytes, {} carries {most} inside VXLAN",
                    device.name, device.mtu, underlay.name
                ),
                (
                    "large packets are cut in two on the underlay or lost",
                    format!(
                        "plane.mtu = {most}, or an MTU of {} for {}",
                        device.mtu + around,
                        underlay.name
                    ),
                ),
            );
        }
        for link in host.idc.iter().filter(|link| link.mtu < device.mtu) {
            to.note(
                "mtu",
                format!(
                    "{} carries {} bytes, {} takes {}",
                    link.name, link.mtu, device.name, device.mtu
                ),
                (
                    "VMs must hear \"too big\" before large packets pass",
                    format!("an MTU of at least {} for {}", device.mtu, link.name),
                ),
            );
        }
    }
    let mtu = host.device.as_ref().map_or(0, |device| device.mtu);
    to.unless_found(
        before,
        "interfaces",
        format!(
            "{}, {} and {} are up; VMs may send {mtu} bytes",
            config.idc_interfaces.join(", "),
            host.underlay.as_ref().map_or("-", |link| &link.name),
            config.device,
        ),
    );
}

fn clock(host: &Host, to: &mut Findings) {
    match host.clock_is_kept {
        Some(false) => to.note(
            "clock",
            "nobody keeps the clock right",
            (
                "times in logs, MRT files and traces cannot be held against those of other machines",
                "run chrony or systemd-timesyncd",
            ),
        ),
        Some(true) => to.fine("clock", "kept right"),
        None => {}
    }
}

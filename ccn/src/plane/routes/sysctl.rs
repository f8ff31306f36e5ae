//! The kernel settings that forwarding between the VXLAN device and the IDC's side depends on.
//!
//! Only what differs is written, and only of devices that are ours or that the configuration names,
//! but for how flows are spread over several next hops, which the kernel has once for all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::plane::PlaneError;

const ROOT: &str = "/proc/sys/net";

/// Settings of the VXLAN device: packets come from any source and go back out where they came in.
const VXLAN: &[(&str, &str, &str)] = &[
    ("ipv4", "rp_filter", "0"),
    ("ipv4", "accept_local", "1"),
    ("ipv4", "send_redirects", "0"),
    ("ipv4", "accept_redirects", "0"),
    ("ipv4", "forwarding", "1"),
    ("ipv6", "disable_ipv6", "0"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "accept_redirects", "0"),
];

/// Settings of a device that only counts: it never says anything of its own. The order matters: a
/// host that forwards IPv6 has joined a group on it, and leaving is silent in MLD version 1 alone.
const DROP: &[(&str, &str, &str)] = &[
    ("ipv6", "disable_ipv6", "0"),
    ("ipv6", "force_mld_version", "1"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "forwarding", "0"),
];

/// Settings of an interface on the IDC's side.
const IDC: &[(&str, &str, &str)] = &[("ipv4", "forwarding", "1")];

/// Whether sources are checked against routes, on all devices.
const STRICT: &str = "ipv4/conf/all/rp_filter";

/// Per flow, not per pair of addresses.
const BY_FLOW: &[&str] = &[
    "ipv4/fib_multipath_hash_policy",
    "ipv6/fib_multipath_hash_policy",
];

/// Refuses a kernel that has not got what the settings are of.
pub(crate) fn check() -> Result<(), PlaneError> {
    let path = Path::new(ROOT).join("ipv6/conf");
    if path.is_dir() {
        return Ok(());
    }
    Err(PlaneError::Feature {
        feature: "IPv6",
        detail: format!("there is no {}", path.display()),
    })
}

/// Applies the settings of the VXLAN device; answers how many differed.
pub(crate) fn vxlan(name: &str) -> Result<usize, PlaneError> {
    Ok(apply(name, VXLAN)? + forward_ipv6(name)?)
}

/// Lets programs ask for IPv6 routes of packets that come in by a device: what force_forwarding does for
/// packets it does not do for them.
pub(crate) fn asked_for_routes(name: &str) -> Result<usize, PlaneError> {
    set(&device("ipv6", name, "forwarding"), "1")
}

/// Applies the settings of a counting device.
pub(crate) fn drop_device(name: &str) -> Result<usize, PlaneError> {
    apply(name, DROP)
}

/// Applies the settings of an interface on the IDC's side.
pub(crate) fn idc(name: &str) -> Result<usize, PlaneError> {
    Ok(apply(name, IDC)? + forward_ipv6(name)?)
}

/// Stops the VXLAN device from forwarding, before what steers its packets is taken away.
pub(crate) fn stop_forwarding(name: &str) -> Result<usize, PlaneError> {
    let force = device("ipv6", name, "force_forwarding");
    let ipv6 = if force.exists() { set(&force, "0")? } else { 0 };
    let ipv6 = ipv6 + set(&device("ipv6", name, "forwarding"), "0")?;
    Ok(ipv6 + set(&device("ipv4", name, "forwarding"), "0")?)
}

/// Applies what the kernel has once for all devices, and refuses what it would silently override.
pub(crate) fn host() -> Result<usize, PlaneError> {
    match read(&Path::new(ROOT).join(STRICT))
        .unwrap_or_default()
        .as_str()
    {
        "1" => {
            return Err(PlaneError::Kernel {
                action: format!("check {}", dotted(STRICT)),
                detail:
                    "it is 1 (strict), so packets of VMs would be dropped; set it to 0, or to 2"
                        .to_owned(),
            });
        }
        "2" => tracing::warn!(
            "net.ipv4.conf.all.rp_filter is 2 (loose): packets of VMs pass only while this host \
             has a default route; 0 is better"
        ),
        _ => {}
    }
    let mut written = 0;
    for path in BY_FLOW {
        let path = Path::new(ROOT).join(path);
        // Another policy than the default was somebody's choice.
        if path.exists() && read(&path).is_ok_and(|value| value == "0") {
            written += set(&path, "1")?;
        }
    }
    Ok(written)
}

/// A setting that forwarding depends on, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The name that `sysctl` uses.
    pub name: String,
    /// Its value; absent: there is no such setting.
    pub found: Option<String>,
    /// What it should be.
    pub wanted: &'static str,
}

/// The settings that the planes make, as they are now: of the VXLAN device, of the IDC interfaces, and
/// `rp_filter` of all. Nothing is changed.
#[must_use]
pub(crate) fn look(vxlan: &str, idc: &[String]) -> Vec<Setting> {
    let of = |path: PathBuf, wanted| Setting {
        name: dotted(&path.to_string_lossy()),
        found: read(&path).ok(),
        wanted,
    };
    let on = |name: &str, settings: &[(&str, &str, &'static str)]| -> Vec<Setting> {
        let settings = settings.iter();
        let settings =
            settings.map(|(family, setting, value)| of(device(family, name, setting), *value));
        settings.chain([of(forwards_ipv6(name), "1")]).collect()
    };
    let strict = of(Path::new(ROOT).join(STRICT), "0");
    let idc = idc.iter().flat_map(|name| on(name, IDC));
    [strict]
        .into_iter()
        .chain(on(vxlan, VXLAN))
        .chain(idc)
        .collect()
}

/// Kernels since 6.17 forward IPv6 per device; for older ones it is all devices or none.
fn forwards_ipv6(name: &str) -> PathBuf {
    let force = device("ipv6", name, "force_forwarding");
    match force.exists() {
        true => force,
        false => device("ipv6", "all", "forwarding"),
    }
}

fn forward_ipv6(name: &str) -> Result<usize, PlaneError> {
    set(&forwards_ipv6(name), "1")
}

fn apply(name: &str, settings: &[(&str, &str, &str)]) -> Result<usize, PlaneError> {
    let mut written = 0;
    for (family, setting, value) in settings {
        written += set(&device(family, name, setting), value)?;
    }
    Ok(written)
}

fn device(family: &str, name: &str, setting: &str) -> PathBuf {
    Path::new(ROOT)
        .join(family)
        .join("conf")
        .join(name)
        .join(setting)
}

/// Writes a setting unless it has the value already; answers whether it wrote.
fn set(path: &Path, value: &str) -> Result<usize, PlaneError> {
    let action = || format!("set {} to {value}", dotted(&path.to_string_lossy()));
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => PlaneError::Privilege {
            capability: "CAP_NET_ADMIN",
            action: action(),
        },
        io::ErrorKind::NotFound if path.to_string_lossy().contains("/ipv6/") => {
            PlaneError::Feature {
                feature: "IPv6",
                detail: format!("{}: {error}", action()),
            }
        }
        _ => PlaneError::Kernel {
            action: action(),
            detail: error.to_string(),
        },
    };
    if read(path).map_err(failed)? == value {
        return Ok(0);
    }
    fs::write(path, value).map_err(failed)?;
    Ok(1)
}

fn read(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim().to_owned())
}

/// The name that `sysctl` uses.
fn dotted(path: &str) -> String {
    let tail = path
        .strip_prefix(ROOT)
        .unwrap_or(path)
        .trim_start_matches('/');
    format!("net.{}", tail.replace('/', "."))
}

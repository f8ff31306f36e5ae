//! The filter that keeps VMs from the gateway's own addresses, which the kernel looks up before any
//! rule of ours: what comes in by the VXLAN device for this host is dropped.
//!
//! Its nftables table has the name of the device. What the gateway sends is not its business, nor
//! what comes in by another device. It tells no VNIs apart, so it counts all under one reason.

use netlink::{Error, InputFilter, Netfilter};

use super::devices::failed;
use super::layout::Reason;
use crate::plane::{Count, PlaneError};

/// The reason it counts under: no link leads to the gateway itself.
pub(crate) const REASON: Reason = Reason::NoLink;

/// Opens the way to the kernel's filters.
pub(crate) fn open() -> Result<Netfilter, PlaneError> {
    Netfilter::open().map_err(|error| refused("open a netfilter socket", error))
}

/// Makes or corrects the filter. Answers how many things had to be changed.
pub(crate) fn ensure(netfilter: &mut Netfilter, device: &str) -> Result<usize, PlaneError> {
    netfilter
        .ensure(&filter(device))
        .map(usize::from)
        .map_err(|error| refused(&format!("filter what {device} brings for this host"), error))
}

/// What it has dropped; nothing while it is missing.
pub(crate) fn dropped(netfilter: &mut Netfilter, device: &str) -> Result<Count, PlaneError> {
    let state = netfilter
        .input_filter(&filter(device))
        .map_err(|error| refused("read the nftables filter", error))?
        .unwrap_or_default();
    Ok(Count {
        packets: state.packets,
        bytes: state.bytes,
    })
}

/// Its line in a dump, if it is there.
pub(crate) fn line(netfilter: &mut Netfilter, device: &str) -> Result<Option<String>, PlaneError> {
    let state = netfilter
        .input_filter(&filter(device))
        .map_err(|error| refused("read the nftables filter", error))?;
    Ok(state.map(|_| format!("filter inet {device} input iif {device} drop")))
}

/// Deletes it, if it is there.
pub(crate) fn remove(netfilter: &mut Netfilter, device: &str) -> Result<(), PlaneError> {
    netfilter
        .delete(device)
        .map(|_| ())
        .map_err(|error| refused(&format!("delete nftables table inet {device}"), error))
}

fn filter(device: &str) -> InputFilter {
    InputFilter {
        table: device.to_owned(),
        interface: device.to_owned(),
    }
}

fn refused(action: &str, error: Error) -> PlaneError {
    match error {
        Error::NoNftables { detail } => PlaneError::Feature {
            feature: "nftables filters (nf_tables)",
            detail,
        },
        error => failed(action, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_nftables_is_told_as_a_missing_feature() {
        let error = Error::NoNftables {
            detail: "read nftables table inet ccn0: Invalid argument".to_owned(),
        };
        assert_eq!(
            refused("filter", error).to_string(),
            "the kernel lacks nftables filters (nf_tables): \
             read nftables table inet ccn0: Invalid argument"
        );
    }
}

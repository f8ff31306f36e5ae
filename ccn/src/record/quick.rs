//! VMs without a tree of JSON: of a million records nearly all are VMs that say what is known and no more.
//!
//! It reads those alone. Whatever is wrong, unknown or just written otherwise is `None`, and is read, and
//! judged, in the way of all records.

use std::net::IpAddr;

use serde::Deserialize;

use super::value::ordinary_address;
use super::{Extra, MAX_ADDRESSES, Vm};

/// Texts without escapes, as they lie in the value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    #[serde(borrow)]
    addrs: Vec<&'a str>,
    mac: &'a str,
    vtep: &'a str,
}

/// The VM that a value says, if it is that simple.
pub(super) fn vm(value: &[u8]) -> Option<Vm> {
    let plain: Plain<'_> = serde_json::from_str(std::str::from_utf8(value).ok()?).ok()?;
    let mut addrs: Vec<IpAddr> = Vec::with_capacity(plain.addrs.len());
    for text in plain.addrs {
        let addr = ordinary_address(text).ok()?;
        if addrs.contains(&addr) {
            return None;
        }
        addrs.push(addr);
    }
    if addrs.is_empty() || addrs.len() > MAX_ADDRESSES {
        return None;
    }
    Some(Vm {
        addrs,
        mac: plain.mac.parse().ok()?,
        vtep: plain.vtep.parse().ok()?,
        extra: Extra::new(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::super::{Record, RecordKey};
    use super::*;

    fn slow(value: &str) -> Option<Vm> {
        let key: RecordKey = "vms/a/b".parse().expect("a key");
        let tree = serde_json::from_str(value).ok()?;
        match Record::from_value(&key, tree) {
            Ok(Record::Vm(vm)) => Some(vm),
            _ => None,
        }
    }

    #[test]
    fn a_plain_vm_is_read() {
        let value =
            r#"{"addrs":["10.0.0.5","fd00::5"],"mac":"02:00:00:00:00:05","vtep":"172.16.0.11"}"#;
        assert_eq!(vm(value.as_bytes()), slow(value));
        assert!(vm(value.as_bytes()).is_some());
    }

    proptest! {
        /// What it reads is what everybody reads.
        #[test]
        fn the_quick_way_says_what_the_slow_one_says(
            addrs in proptest::collection::vec(select(vec![
                r#""10.0.0.1""#, r#""10.0.0.2""#, r#""fd00::1""#, r#""FD00::1""#, r#""127.0.0.1""#, r#""10.0.0.\u0031""#,
                r#""10.0.0.1/24""#, "7", "null",
            ]), 0..4),
            mac in select(vec![r#""02:00:00:00:00:01""#, r#""02:00:00:00:00:0A""#, r#""01:00:00:00:00:01""#, r#""x""#, "null"]),
            vtep in select(vec![r#""172.16.0.1""#, r#""fd16::1""#, r#""224.0.0.1""#, r#""""#, "[]"]),
            more in select(vec!["", "", r#","name":"x""#, r#","mac":"02:00:00:00:00:02""#, ",", "}"]),
        ) {
            let value = format!(r#"{{"addrs":[{}],"mac":{mac},"vtep":{vtep}{more}}}"#, addrs.join(","));
            if let Some(quick) = vm(value.as_bytes()) {
                prop_assert_eq!(Some(quick), slow(&value));
            }
        }
    }
}

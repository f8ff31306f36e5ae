//! The records that the bench writes: those of `ccn fixture`, with links, and the VM that is looked at.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::net::Ipv4Addr;
use std::path::Path;

use netlink::Mac;
use serde_json::Value;

use super::Failure;
use super::floor::Record;
use crate::bench::prefix_set::PrefixId;
use crate::bench::start::{each_record, ipv4_subnet};

/// All records of a region.
pub(super) struct Records {
    /// Keys without the root.
    pub(super) all: Vec<Record>,
    /// How many VMs there are.
    pub(super) vms: usize,
    /// Where they begin among all.
    first_vm: usize,
    /// What an agent announces.
    pub(super) announced: Vec<PrefixId>,
    /// A VPC that is not linked, and its IPv4 subnet.
    pub(super) free: (String, PrefixId),
    /// The MAC of the first VM, which is looked at.
    pub(super) mac: Mac,
}

impl Records {
    /// A region of so many VMs, of which eight VPCs are linked.
    ///
    /// # Errors
    /// It is too small.
    pub(super) fn make(vms: u64) -> Result<Records, Failure> {
        let (mut others, mut machines) = (Vec::new(), Vec::new());
        let mut vpcs = Vec::new();
        let announced = each_record(vms, false, |key, value| {
            let record = (key.to_owned(), value.to_string());
            match key.starts_with("vms/") {
                true => machines.push(record),
                false => others.push(record),
            }
            if let Some(vpc) = key.strip_prefix("vpcs/") {
                vpcs.push((vpc.to_owned(), ipv4_subnet(value)?));
            }
            Ok(())
        })?;
        // CCSIs go in pairs with the same addresses, and a prefix is announced once.
        let free = vpcs
            .into_iter()
            .find(|(_, subnet)| !announced.contains(subnet));
        let (_, first) = machines.first().ok_or("a region without VMs")?;
        let first: Value = serde_json::from_str(first)?;
        let mac = first["mac"].as_str().unwrap_or_default().parse()?;
        let (vms, first_vm) = (machines.len(), others.len());
        others.append(&mut machines);
        Ok(Records {
            all: others,
            vms,
            first_vm,
            announced,
            free: free.ok_or("a region without a VPC that is not linked")?,
            mac,
        })
    }

    /// Writes all of them to a file, as `ccn import` reads them.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let mut file = BufWriter::new(File::create(path)?);
        for (key, value) in &self.all {
            writeln!(file, r#"{{"key":"{key}","value":{value}}}"#)?;
        }
        Ok(file.flush()?)
    }

    /// All of them, with keys as etcd has them.
    pub(super) fn below(&self, root: &str) -> Vec<Record> {
        let records = self.all.iter();
        let records = records.map(|(key, value)| (format!("{root}/{key}"), value.clone()));
        records.collect()
    }

    /// Gives the memory of the records back: to start a program takes the longer the more this one has.
    pub(super) fn forget(&mut self) {
        self.all = Vec::new();
        ccn::memory::give_back();
    }

    /// The record of VM number `vm` on another host, which `turn` says; and that host.
    ///
    /// # Errors
    /// A record is none.
    pub(super) fn moved(
        &self,
        vm: usize,
        turn: usize,
        root: &str,
    ) -> Result<(Record, Ipv4Addr), Failure> {
        let at = self.first_vm + vm % self.vms;
        let (key, value) = &self.all[at];
        let mut value: Value = serde_json::from_str(value)?;
        // 172.16.0.11 and those after it, never the same twice in a row.
        let host = Ipv4Addr::new(172, 16, (turn / 200 % 8) as u8, 11 + (turn % 200) as u8);
        value["vtep"] = host.to_string().into();
        Ok(((format!("{root}/{key}"), value.to_string()), host))
    }

    /// The same for the VM that is looked at.
    ///
    /// # Errors
    /// As [`Records::moved`].
    pub(super) fn move_first(
        &self,
        turn: usize,
        root: &str,
    ) -> Result<(Record, Ipv4Addr), Failure> {
        self.moved(0, turn, root)
    }

    /// So many VMs that move (fewer than there are), one change each, the one that is looked at last; and where that is then.
    ///
    /// # Errors
    /// As [`Records::moved`].
    pub(super) fn storm(
        &self,
        changes: usize,
        turn: usize,
        root: &str,
    ) -> Result<(Vec<Record>, Ipv4Addr), Failure> {
        let (first, host) = self.move_first(turn, root)?;
        // Over all others, none twice: a prime that does not divide their number.
        let others = self.vms - 1;
        let spread = |change: usize| 1 + (change + turn) * 7_919 % others;
        let storm = (1..changes).map(|change| self.moved(spread(change), change + turn, root));
        let mut storm: Vec<Record> = storm
            .map(|moved| moved.map(|(record, _)| record))
            .collect::<Result<_, _>>()?;
        storm.push(first);
        Ok((storm, host))
    }
}

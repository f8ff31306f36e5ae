//! From the records of a region to the instances that the lab starts for them.

use std::collections::HashMap;

use ccn::record::{Record, RecordKey, VpcId};
use netlink::Mac;

use super::Instance;

/// One instance for each VM, called `VM@VPC`, and one for each node of each SLB, called
/// `SLB@VPC#NODE` with the nodes numbered from 1. SLBs of a VPC that are on one node with one MAC
/// are one instance, under the name of the first.
///
/// Those of a VPC without a record are left out: they have no VNI to be on.
pub fn instances<'a>(
    records: impl IntoIterator<Item = (&'a RecordKey, &'a Record)> + Clone,
) -> Vec<Instance> {
    let vnis: HashMap<&VpcId, u32> = records
        .clone()
        .into_iter()
        .filter_map(|record| match record {
            (RecordKey::Vpc(vpc), Record::Vpc(record)) => Some((vpc, record.vni.number())),
            _ => None,
        })
        .collect();
    let mut instances: Vec<Instance> = Vec::new();
    for record in records {
        match record {
            (RecordKey::Vm(vpc, vm), Record::Vm(record)) => {
                let Some(vni) = vnis.get(vpc) else { continue };
                instances.push(Instance {
                    name: format!("{vm}@{vpc}"),
                    vni: *vni,
                    mac: Mac(record.mac.bytes()),
                    addrs: record.addrs.clone(),
                    vtep: record.vtep.addr(),
                });
            }
            (RecordKey::Slb(vpc, slb), Record::Slb(record)) => {
                let Some(vni) = vnis.get(vpc) else { continue };
                for (index, node) in record.nodes.iter().enumerate() {
                    let (vtep, mac) = (node.vtep.addr(), Mac(node.inner_mac().bytes()));
                    let same = |i: &&mut Instance| (i.vni, i.vtep, i.mac) == (*vni, vtep, mac);
                    if let Some(instance) = instances.iter_mut().find(same) {
                        instance.addrs.extend_from_slice(&record.vips);
                        continue;
                    }
                    instances.push(Instance {
                        name: format!("{slb}@{vpc}#{}", index + 1),
                        vni: *vni,
                        mac,
                        addrs: record.vips.clone(),
                        vtep,
                    });
                }
            }
            _ => {}
        }
    }
    instances
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vms_and_nodes_become_instances() {
        let records: Vec<(RecordKey, Record)> = [
            ("vpcs/web", r#"{"vni":10001,"subnets":["10.1.0.0/16"]}"#),
            (
                "vms/web/a",
                r#"{"addrs":["10.1.0.5"],"mac":"02:00:00:00:00:05","vtep":"172.16.0.11"}"#,
            ),
            (
                "vms/gone/b",
                r#"{"addrs":["10.1.0.5"],"mac":"02:00:00:00:00:05","vtep":"172.16.0.11"}"#,
            ),
            (
                "slbs/web/lb",
                r#"{"vips":["10.1.0.80"],"nodes":[{"vtep":"172.16.0.12","weight":1}]}"#,
            ),
            (
                "slbs/web/mb",
                r#"{"vips":["10.1.0.81"],"nodes":[{"vtep":"172.16.0.12","weight":1}]}"#,
            ),
        ]
        .into_iter()
        .map(|(key, value)| {
            let key: RecordKey = key.parse().expect("a key");
            let record = Record::parse(&key, value.as_bytes()).expect("a record");
            (key, record)
        })
        .collect();
        let instances = instances(records.iter().map(|(key, record)| (key, record)));
        let names: Vec<&str> = instances.iter().map(|i| i.name.as_str()).collect();
        assert_eq!(names, ["a@web", "lb@web#1"]);
        assert_eq!(instances[1].addrs.len(), 2, "{:?}", instances[1]);
        assert_eq!(instances[0].vni, 10001);
    }
}

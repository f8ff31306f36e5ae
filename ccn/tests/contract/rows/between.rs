//! VPC to VPC: VXLAN from a hypervisor, for an address of the same CCSI.

use ccn::plane::model::DropReason;

use super::*;
use crate::packet::{SYN, ping, tcp, udp};
use crate::row::{Expect, row, to_node, to_vm, vxlan};

pub(crate) fn rows() -> Vec<Row> {
    let drop = Expect::Drop;
    vec![
        row(
            "a VM of the same VPC",
            vxlan(WEB, udp(WEB1, WEB2)),
            to_vm("web-2"),
        ),
        row(
            "a VM of the same VPC over IPv6",
            vxlan(WEB, udp(WEB1_6, "fd00:1::12")),
            to_vm("web-2"),
        ),
        row("a VM itself", vxlan(WEB, udp(WEB1, WEB1)), to_vm("web-1")),
        row(
            "a VM of another VPC of the CCSI",
            vxlan(WEB, udp(WEB1, DB1)),
            to_vm("db-1"),
        ),
        row("and back", vxlan(DB, udp(DB1, WEB1)), to_vm("web-1")),
        row(
            "a VM of another VPC of the CCSI over IPv6",
            vxlan(WEB, udp(WEB1_6, DB1_6)),
            to_vm("db-1"),
        ),
        row(
            "TCP between VPCs",
            vxlan(WEB, tcp(WEB1, DB1, SYN)),
            to_vm("db-1"),
        ),
        row(
            "an echo request between VPCs",
            vxlan(WEB, ping(WEB1, DB1)),
            to_vm("db-1"),
        ),
        row(
            "the same addresses in another CCSI are other VMs",
            vxlan(WEB_TEST, udp(WEB1, DB1)),
            to_vm("db-1-test"),
        ),
        row(
            "the same IPv6 addresses in another CCSI are other VMs",
            vxlan(DB_TEST, udp(DB1_6, WEB1_6)),
            to_vm("web-1-test"),
        ),
        row(
            "an address that the other CCSI alone has",
            vxlan(WEB_TEST, udp(WEB1, WEB2)),
            drop(DropReason::NoSuchEndpoint),
        ),
        row(
            "within a VPC in no CCSI",
            vxlan(SOLO, udp(SOLO1, SOLO2)),
            to_vm("solo-2"),
        ),
        row(
            "within a VPC in no CCSI over IPv6",
            vxlan(SOLO, udp(SOLO1_6, SOLO2_6)),
            to_vm("solo-2"),
        ),
        row(
            "a VPC outside the CCSI",
            vxlan(WEB, udp(WEB1, SOLO1)),
            drop(DropReason::NoLink),
        ),
        row(
            "a VPC outside the CCSI over IPv6",
            vxlan(WEB, udp(WEB1_6, SOLO1_6)),
            drop(DropReason::NoLink),
        ),
        row(
            "from outside into a CCSI",
            vxlan(SOLO, udp(SOLO1, WEB1)),
            drop(DropReason::NoLink),
        ),
        row(
            "two VPCs in no CCSI",
            vxlan(SOLO, udp(SOLO1, LONE1)),
            drop(DropReason::NoLink),
        ),
        row(
            "an address that nobody in the CCSI has",
            vxlan(WEB, udp(WEB1, "10.1.1.99")),
            drop(DropReason::NoSuchEndpoint),
        ),
        row(
            "an IPv6 address that nobody in the CCSI has",
            vxlan(WEB, udp(WEB1_6, "fd00:1:1::99")),
            drop(DropReason::NoSuchEndpoint),
        ),
        row(
            "a source of another VPC to its own VPC",
            vxlan(WEB, udp(DB1, DB1)),
            drop(DropReason::BadSource),
        ),
        row(
            "an SLB of another VPC",
            vxlan(DB, udp(DB1, "10.1.0.101")),
            to_node(WEB, 23),
        ),
        row(
            "an SLB without a node, from a VM",
            vxlan(DB, udp(DB1, "10.1.0.102")),
            drop(DropReason::NoSuchEndpoint),
        ),
    ]
}

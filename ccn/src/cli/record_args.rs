//! The words and flags of `ccn vpc`, `vm`, `slb`, `ccsi` and `classic`: single records, made, changed, deleted, shown.

use std::net::IpAddr;
use std::str::FromStr;

use bgp::Prefix;
use clap::{Args, Subcommand};

use crate::record::{Mac, ValueError, Vni, VpcId, Vtep, Weight};

/// What is to become of a record. `F` are its fields, `C` what may be changed of them.
#[derive(Debug, Subcommand)]
pub enum Verb<F: Args, C: Args> {
    /// Make it; refused when it is there already
    Create {
        /// Its name; with the VPC in front where it is in one: VPC/NAME.
        name: String,
        /// What it says.
        #[command(flatten)]
        fields: F,
    },
    /// Change what is named and nothing else, also where others change it meanwhile
    Update {
        /// Its name; with the VPC in front where it is in one: VPC/NAME.
        name: String,
        /// What to change.
        #[command(flatten)]
        change: C,
    },
    /// Delete it; refused while something needs it
    Delete {
        /// Its name; with the VPC in front where it is in one: VPC/NAME.
        name: String,
    },
    /// Show it as it stands in the store, good or not
    Show {
        /// Its name; with the VPC in front where it is in one: VPC/NAME.
        name: String,
    },
}

/// `ccn vpc create`
#[derive(Debug, Args)]
pub struct VpcFields {
    /// The VXLAN network identifier, which no other VPC has.
    #[arg(long)]
    pub vni: Vni,
    /// Its subnets, which never overlap one another.
    #[arg(long, num_args = 1.., value_name = "CIDR")]
    pub subnet: Vec<Prefix>,
}

/// `ccn vpc update`
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct VpcChange {
    /// Another VNI.
    #[arg(long)]
    pub vni: Option<Vni>,
    /// These subnets in place of those that it has.
    #[arg(long, num_args = 1.., value_name = "CIDR", conflicts_with_all = ["add_subnet", "remove_subnet"])]
    pub subnet: Vec<Prefix>,
    /// Subnets that it gets.
    #[arg(long, num_args = 1.., value_name = "CIDR")]
    pub add_subnet: Vec<Prefix>,
    /// Subnets that it loses.
    #[arg(long, num_args = 1.., value_name = "CIDR")]
    pub remove_subnet: Vec<Prefix>,
}

/// `ccn vm create`
#[derive(Debug, Args)]
pub struct VmFields {
    /// Its addresses, in the VPC's subnets.
    #[arg(long, required = true, num_args = 1.., value_name = "ADDRESS")]
    pub addr: Vec<IpAddr>,
    /// Its MAC.
    #[arg(long)]
    pub mac: Mac,
    /// The VTEP of its host.
    #[arg(long, value_name = "ADDRESS")]
    pub vtep: Vtep,
}

/// `ccn vm update`
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct VmChange {
    /// These addresses in place of those that it has.
    #[arg(long, num_args = 1.., value_name = "ADDRESS", conflicts_with_all = ["add_addr", "remove_addr"])]
    pub addr: Vec<IpAddr>,
    /// Addresses that it gets.
    #[arg(long, num_args = 1.., value_name = "ADDRESS")]
    pub add_addr: Vec<IpAddr>,
    /// Addresses that it loses.
    #[arg(long, num_args = 1.., value_name = "ADDRESS")]
    pub remove_addr: Vec<IpAddr>,
    /// Another MAC.
    #[arg(long)]
    pub mac: Option<Mac>,
    /// The VTEP of the host that it moves to.
    #[arg(long, value_name = "ADDRESS")]
    pub vtep: Option<Vtep>,
}

/// `ccn slb create`
#[derive(Debug, Args)]
pub struct SlbFields {
    /// Its virtual addresses, in the VPC's subnets.
    #[arg(long, required = true, num_args = 1.., value_name = "ADDRESS")]
    pub vip: Vec<IpAddr>,
    /// The nodes that serve it; the weight is 1 and the MAC made from the VTEP where none is given.
    #[arg(long, num_args = 1.., value_name = "VTEP[=WEIGHT[,MAC]]")]
    pub node: Vec<Node>,
}

/// `ccn slb update`
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct SlbChange {
    /// These virtual addresses in place of those that it has.
    #[arg(long, num_args = 1.., value_name = "ADDRESS", conflicts_with_all = ["add_vip", "remove_vip"])]
    pub vip: Vec<IpAddr>,
    /// Virtual addresses that it gets.
    #[arg(long, num_args = 1.., value_name = "ADDRESS")]
    pub add_vip: Vec<IpAddr>,
    /// Virtual addresses that it loses.
    #[arg(long, num_args = 1.., value_name = "ADDRESS")]
    pub remove_vip: Vec<IpAddr>,
    /// These nodes in place of those that it has.
    #[arg(long, num_args = 1.., value_name = "VTEP[=WEIGHT[,MAC]]", conflicts_with_all = ["add_node", "remove_node"])]
    pub node: Vec<Node>,
    /// Nodes that it gets; one that it has takes the weight and MAC that are given.
    #[arg(long, num_args = 1.., value_name = "VTEP[=WEIGHT[,MAC]]")]
    pub add_node: Vec<Node>,
    /// Nodes that it loses.
    #[arg(long, num_args = 1.., value_name = "VTEP")]
    pub remove_node: Vec<Vtep>,
}

/// `ccn ccsi create`
#[derive(Debug, Args)]
pub struct CcsiFields {
    /// Its VPCs, which may reach one another; a VPC is in one CCSI at most.
    #[arg(long, num_args = 1.., value_name = "VPC")]
    pub vpc: Vec<VpcId>,
}

/// `ccn ccsi update`
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct CcsiChange {
    /// These VPCs in place of those that it has.
    #[arg(long, num_args = 1.., value_name = "VPC", conflicts_with_all = ["add_vpc", "remove_vpc"])]
    pub vpc: Vec<VpcId>,
    /// VPCs that come to it.
    #[arg(long, visible_alias = "add", num_args = 1.., value_name = "VPC")]
    pub add_vpc: Vec<VpcId>,
    /// VPCs that leave it.
    #[arg(long, visible_alias = "remove", num_args = 1.., value_name = "VPC")]
    pub remove_vpc: Vec<VpcId>,
}

/// `ccn classic create`
#[derive(Debug, Args)]
pub struct ClassicFields {
    /// Its prefixes.
    #[arg(long, required = true, num_args = 1.., value_name = "CIDR")]
    pub prefix: Vec<Prefix>,
}

/// `ccn classic update`
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct ClassicChange {
    /// These prefixes in place of those that it has.
    #[arg(long, num_args = 1.., value_name = "CIDR", conflicts_with_all = ["add_prefix", "remove_prefix"])]
    pub prefix: Vec<Prefix>,
    /// Prefixes that it gets.
    #[arg(long, num_args = 1.., value_name = "CIDR")]
    pub add_prefix: Vec<Prefix>,
    /// Prefixes that it loses.
    #[arg(long, num_args = 1.., value_name = "CIDR")]
    pub remove_prefix: Vec<Prefix>,
}

/// A node of an SLB, as far as it is given: `VTEP`, `VTEP=WEIGHT` or `VTEP=WEIGHT,MAC`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it terminates VXLAN.
    pub vtep: Vtep,
    /// Its share of the flows.
    pub weight: Option<Weight>,
    /// The inner destination MAC.
    pub mac: Option<Mac>,
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = |error: ValueError| error.to_string();
        let (vtep, rest) = match text.split_once('=') {
            Some((vtep, rest)) => (vtep, Some(rest)),
            None => (text, None),
        };
        let (weight, mac) = match rest.map(|rest| rest.split_once(',')) {
            None => (None, None),
            Some(None) => (rest, None),
            Some(Some((weight, mac))) => (Some(weight), Some(mac)),
        };
        let weight = weight.map(|text| {
            let number: u64 = text.parse().map_err(|_| {
                format!("\"{text}\" is no weight: a node is VTEP, VTEP=WEIGHT or VTEP=WEIGHT,MAC")
            })?;
            Weight::try_from(number).map_err(words)
        });
        Ok(Node {
            vtep: vtep.parse().map_err(words)?,
            weight: weight.transpose()?,
            mac: mac.map(|mac| mac.parse().map_err(words)).transpose()?,
        })
    }
}

//! The command line, as clap reads it. Words and flags only; nothing is done here.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::record_args::{
    CcsiChange, CcsiFields, ClassicChange, ClassicFields, SlbChange, SlbFields, Verb, VmChange,
    VmFields, VpcChange, VpcFields,
};
use crate::config;
use crate::record::{ClassicRef, Dscp, GatewayName, GroupName, LinkId, Mode, Vni, VpcId};
use crate::store::Generation;

/// ClassicLink route controller: joins VPCs with a classic network over BGP and VXLAN.
#[derive(Debug, Parser)]
#[command(name = "ccn", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// Admin socket of the agent.
    #[arg(long, global = true, env = "CCN_SOCKET", default_value = config::DEFAULT_SOCKET)]
    pub socket: PathBuf,
    /// API servers, and how they are known.
    #[command(flatten)]
    pub servers: ServerArgs,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Where orders go that are for a cluster.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ServerArgs {
    /// API servers of the cluster to talk to instead: https://HOST:PORT; where one does not answer the next is
    /// asked.
    #[arg(
        long,
        global = true,
        env = "CCN_SERVER",
        value_delimiter = ',',
        value_name = "URL"
    )]
    pub server: Vec<String>,
    /// Ask this gateway, by way of an API server: what its own socket would say. Also for `drain`, `undrain`, `reload` and
    /// `peer up|down|refresh`.
    #[arg(long, global = true, value_name = "GATEWAY")]
    pub gateway: Option<GatewayName>,
    /// Who signs the certificates of the API servers (PEM).
    #[arg(long, global = true, env = "CCN_CA", default_value = config::DEFAULT_CA, value_name = "FILE")]
    pub ca: PathBuf,
    /// The file that holds the token to show.
    #[arg(long, global = true, env = "CCN_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// The certificate to show (PEM).
    #[arg(long, global = true, env = "CCN_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, global = true, env = "CCN_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// What `ccn` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway's agent in the foreground
    Agent(AgentArgs),
    /// Run an API server in the foreground, which takes orders for a cluster of gateways
    Apiserver(ApiserverArgs),
    /// Join a VPC with classic prefixes, and wait until it is announced
    Link(LinkArgs),
    /// Undo a link, and wait until nothing of it forwards any more
    Unlink(UnlinkArgs),
    /// Take a link out of service and keep it; waits until nothing of it forwards any more
    Disable(LinkNameArgs),
    /// Bring a disabled link back, and wait until it is announced
    Enable(LinkNameArgs),
    /// Let the last change of a link stand, which was made with --confirm
    Confirm(ConfirmArgs),
    /// Take the last change of a link back; once more brings it back
    Undo(UndoArgs),
    /// How the gateway is doing
    Status,
    /// Links, and how far each has come
    Links(RatesArgs),
    /// VPCs, with VNI, subnets and CCSI
    Vpcs(RatesArgs),
    /// What was dropped, by reason, and the last packet of each
    Drops,
    /// Packets as they pass and are dropped, a line each, until Ctrl-C
    Trace(TraceArgs),
    /// VMs, with addresses, MAC and the VTEP of the host
    Vms {
        /// Only those of this VPC.
        vpc: Option<VpcId>,
    },
    /// One VPC
    Vpc {
        /// What to do with it.
        #[command(subcommand)]
        verb: Verb<VpcFields, VpcChange>,
    },
    /// One VM
    Vm {
        /// What to do with it.
        #[command(subcommand)]
        verb: Verb<VmFields, VmChange>,
    },
    /// One SLB: addresses of a VPC that several nodes serve
    Slb {
        /// What to do with it.
        #[command(subcommand)]
        verb: Verb<SlbFields, SlbChange>,
    },
    /// One CCSI: a group of VPCs that may reach one another
    Ccsi {
        /// What to do with it.
        #[command(subcommand)]
        verb: Verb<CcsiFields, CcsiChange>,
    },
    /// One classic network: prefixes of the IDC under a name that links use
    Classic {
        /// What to do with it.
        #[command(subcommand)]
        verb: Verb<ClassicFields, ClassicChange>,
    },
    /// What an API server takes and answers, as an OpenAPI 3.1 document
    Openapi {
        /// The routes of the agent's admin socket instead.
        #[arg(long)]
        agent: bool,
    },
    /// Gateways that are registered in the store of the cluster
    Gateways {
        /// What else there is to do with them.
        #[command(subcommand)]
        verb: Option<GatewaysCommand>,
    },
    /// BGP peers, and what was exchanged with each
    Peers,
    /// One peer in full, or an order to it
    Peer(PeerArgs),
    /// Have other gateways carry what this one carries, and say when it is safe to stop
    Drain(DrainArgs),
    /// Have a drained gateway announce and serve again
    Undrain(UndrainArgs),
    /// Have the agent read its configuration again; sessions that do not change stay up
    Reload,
    /// Routes: announced to the IDC, and learned from it
    Routes,
    /// Records that are wrong and therefore ignored, with the reason
    Quarantine,
    /// What is limited, and how full it is
    Limits,
    /// What would happen to a packet, and why
    Explain(ExplainArgs),
    /// What is wrong with this gateway, why it matters, and what to do
    Doctor(DoctorArgs),
    /// Load records from a file or a directory of *.jsonl files
    Import {
        /// JSON lines of the form {"key":"vpcs/web","value":{...}}.
        path: PathBuf,
        /// Write straight into the store that this configuration of an agent names, not by way of the agent. The
        /// records are checked beside one another, and not beside those that are there.
        #[arg(long, value_name = "CONFIG")]
        store_of: Option<PathBuf>,
    },
    /// Print all records in the form that `import` reads
    Export {
        /// Read straight from the store that this configuration of an agent names.
        #[arg(long, value_name = "CONFIG")]
        store_of: Option<PathBuf>,
    },
    /// The store
    Store {
        /// What to do with it.
        #[command(subcommand)]
        command: StoreCommand,
    },
    /// Print a made-up region of any size, always the same for the same numbers
    Fixture(FixtureArgs),
    /// Read BGP messages in hex, one a line, and print each as a JSON object
    Decode(DecodeArgs),
    /// What the plane has put into the kernel
    Plane {
        /// What to do with it.
        #[command(subcommand)]
        command: PlaneCommand,
    },
    /// BGP routes as MRT files, which bgpdump and its kin read
    Mrt {
        /// What to do.
        #[command(subcommand)]
        command: MrtCommand,
    },
    /// Print a completion script
    Completion {
        /// For which shell.
        shell: clap_complete::Shell,
    },
}

/// `ccn agent`
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Configuration file (TOML).
    #[arg(long, env = "CCN_CONFIG", default_value = config::DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Read and check the configuration, then exit.
    #[arg(long)]
    pub check: bool,
    /// Form of the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// `ccn apiserver`
#[derive(Debug, Args)]
pub struct ApiserverArgs {
    /// Configuration file (TOML).
    #[arg(long, env = "CCN_API_CONFIG", default_value = config::DEFAULT_API_CONFIG)]
    pub config: PathBuf,
    /// Read and check the configuration and the files that it names, then exit.
    #[arg(long)]
    pub check: bool,
    /// Form of the log.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `ccn link`
#[derive(Debug, Args)]
pub struct LinkArgs {
    /// The VPC to join.
    pub vpc: VpcId,
    /// Classic prefixes, or names of classic networks.
    #[arg(long, required = true, num_args = 1.., value_name = "CIDR|NAME")]
    pub classic: Vec<ClassicRef>,
    /// Name of the link; the VPC's, with a number if that is taken, when absent.
    #[arg(long)]
    pub name: Option<LinkId>,
    /// The group of gateways that shall serve it; chosen when absent, at an agent its own.
    #[arg(long)]
    pub group: Option<GroupName>,
    /// Which side may open connections: both, or classic-to-vpc.
    #[arg(long, default_value = "both")]
    pub mode: Mode,
    /// DSCP of the outer header, 0..=63, where the plane can set one.
    #[arg(long)]
    pub dscp: Option<Dscp>,
    /// Where another link is in its way, stand by until that goes. A standby makes way for any link that is none.
    #[arg(long)]
    pub standby: bool,
    /// How long to wait until it is announced.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub wait: Duration,
    /// Only check and say what would happen; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Undo it after this time, unless `ccn confirm` comes; also if the agent restarts meanwhile.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub confirm: Option<Duration>,
}

/// `ccn links`, `ccn vpcs`
#[derive(Debug, Args)]
pub struct RatesArgs {
    /// Show packets and bits a second instead, where the plane counts them.
    #[arg(long)]
    pub rates: bool,
    /// How long to count.
    #[arg(long, default_value = "1s", value_parser = duration, value_name = "TIME", requires = "rates")]
    pub interval: Duration,
}

/// `ccn trace`
///
/// At most a thousand packets a second and processor are shown. Links and VPCs are counted whole: see
/// `ccn links --rates` and `ccn drops`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Only packets of this link.
    #[arg(long)]
    pub link: Option<LinkId>,
    /// Only packets from or to this VM, or any other address.
    #[arg(long, value_name = "VPC/VM|ADDRESS")]
    pub vm: Option<String>,
    /// Only packets that are dropped.
    #[arg(long)]
    pub drops: bool,
    /// End after so many packets.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// What must hold of a link for an order to be carried out.
#[derive(Debug, Clone, Copy, Args)]
pub struct OnlyIf {
    /// Only as long as nobody has changed the link since: its generation, as `ccn links --json` tells it.
    #[arg(long, value_name = "N")]
    pub if_generation: Option<Generation>,
}

/// `ccn confirm`
#[derive(Debug, Args)]
pub struct ConfirmArgs {
    /// The link (see `ccn links`).
    pub link: LinkId,
    /// See there.
    #[command(flatten)]
    pub only_if: OnlyIf,
}

/// `ccn unlink`
#[derive(Debug, Args)]
pub struct UnlinkArgs {
    /// The link (see `ccn links`).
    pub link: LinkId,
    /// See there.
    #[command(flatten)]
    pub only_if: OnlyIf,
    /// How long to wait until nothing of it forwards any more.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub wait: Duration,
    /// Bring it back after this time, unless `ccn confirm` comes; also if the agent restarts meanwhile.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub confirm: Option<Duration>,
}

/// `ccn disable`, `ccn enable`
#[derive(Debug, Args)]
pub struct LinkNameArgs {
    /// The link (see `ccn links`).
    pub link: LinkId,
    /// See there.
    #[command(flatten)]
    pub only_if: OnlyIf,
    /// How long to wait until it is done.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub wait: Duration,
    /// Undo it after this time, unless `ccn confirm` comes; also if the agent restarts meanwhile.
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub confirm: Option<Duration>,
}

/// `ccn undo`
#[derive(Debug, Args)]
pub struct UndoArgs {
    /// The link (see `ccn links`).
    pub link: LinkId,
    /// See there.
    #[command(flatten)]
    pub only_if: OnlyIf,
    /// How long to wait until it is done.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub wait: Duration,
    /// Only check and say what would happen; change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `ccn peer`
#[derive(Debug, Args)]
#[command(
    override_usage = "ccn peer NAME\n       ccn peer up|refresh NAME\n       ccn peer down NAME [--text TEXT]"
)]
pub struct PeerArgs {
    /// A peer to show; or `up`, `down` or `refresh` and a peer.
    #[arg(required = true, num_args = 1..=2, value_name = "[up|down|refresh] NAME")]
    words: Vec<String>,
    /// With `down`: a word for the peer's operator, up to 255 octets (RFC 9003).
    #[arg(long)]
    pub text: Option<String>,
}

/// What `ccn peer` is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerVerb {
    /// Show it.
    Show,
    /// Let its session come up.
    Up,
    /// Take its session down until told otherwise.
    Down,
    /// Ask for all its routes again.
    Refresh,
}

impl PeerArgs {
    /// The verb and the peer.
    ///
    /// # Errors
    /// What is wrong with the words.
    pub fn order(&self) -> Result<(PeerVerb, &str), String> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let order = match words.as_slice() {
            ["up" | "down" | "refresh"] => Err(format!("which peer? ccn peer {} NAME", words[0])),
            [name] => Ok((PeerVerb::Show, *name)),
            ["up", name] => Ok((PeerVerb::Up, *name)),
            ["down", name] => Ok((PeerVerb::Down, *name)),
            ["refresh", name] => Ok((PeerVerb::Refresh, *name)),
            words => Err(format!(
                "{:?} is none of up, down and refresh",
                words.first().unwrap_or(&"")
            )),
        }?;
        if self.text.is_some() && order.0 != PeerVerb::Down {
            return Err("--text goes with down".to_owned());
        }
        Ok(order)
    }
}

/// `ccn drain`
#[derive(Debug, Args)]
#[command(after_help = "\
Tells routers that this gateway is about to go (RFC 8326), lets them move, withdraws everything, and counts
the packets that still come. Forwarding stays all the while. Ends with 0 when the gateway is safe to stop, and
with 4 when packets still come. It is drained either way, also after a restart of the agent, until
`ccn undrain`. Asked again it looks again.")]
pub struct DrainArgs {
    /// How long routers have to move to other gateways [default: as configured, 5s].
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub settle: Option<Duration>,
    /// After the withdrawal: how long to wait until peers have it and no packet comes [default: as configured, 30s].
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub wait: Option<Duration>,
    /// Packets a second, each way, that are no traffic any more [default: 1].
    #[arg(long, value_name = "N")]
    pub threshold: Option<f64>,
}

/// `ccn undrain`
#[derive(Debug, Args)]
pub struct UndrainArgs {
    /// How long to wait until every peer has it.
    #[arg(long, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub wait: Duration,
}

/// `ccn explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Source address of the packet.
    pub src: IpAddr,
    /// Destination address of the packet.
    pub dst: IpAddr,
    /// The packet comes from a hypervisor, with this VNI.
    #[arg(long)]
    pub vni: Option<Vni>,
}

/// `ccn doctor`
///
/// Ends with 1 when something is wrong. What is only worth knowing is noted.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Packets to ask both the records and the kernel about, spread over links and VPCs.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub sample: usize,
}

/// `ccn decode`
///
/// Reads BGP messages from standard input, one a line: hex digits, with or without spaces and
/// colons, header included. Empty lines are skipped; every other line gives one line of output:
///
///   {"verdict": "accept", "type": "update", "message": {...}, "errors": []}
///
/// verdict is what a session makes of the message: accept, attribute-discard, treat-as-withdraw,
/// afi-safi-disable or session-reset (RFC 7606); or incomplete when it would wait for more. A line
/// that is no hex is incomplete as well, and its error says where. message has the fields of the
/// message, without what is in error; null when it resets the session or is incomplete. errors
/// has attribute, reason, and code and subcode of the NOTIFICATION for it, whether or not one is
/// sent. Octets behind the message are counted in trailing_octets. Families and attributes that
/// are not known are no error, and shown as hex.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct DecodeArgs {
    /// AS numbers of 4 octets (RFC 6793).
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub as4: Switch,
    /// Routes carry path identifiers (RFC 7911).
    #[arg(long)]
    pub add_path: bool,
    /// Messages of up to 65535 octets (RFC 8654).
    #[arg(long)]
    pub extended: bool,
    /// IPv4 routes may have an IPv6 next hop (RFC 8950).
    #[arg(long)]
    pub next_hop_v6: bool,
    /// The peer is in our own AS.
    #[arg(long, conflicts_with = "ebgp")]
    pub ibgp: bool,
    /// The peer is in another AS. The default.
    #[arg(long)]
    pub ebgp: bool,
    /// AS of an external peer, which its paths must start with (RFC 4271); not checked if absent.
    #[arg(long, value_name = "AS")]
    pub peer_as: Option<u32>,
    /// Take paths with an AS_SET (RFC 9774).
    #[arg(long)]
    pub allow_as_set: bool,
    /// Read this MRT file (RFC 6396) instead, and print an object for each of its records. What
    /// the other options say, the file says itself.
    #[arg(long, value_name = "FILE")]
    pub mrt: Option<PathBuf>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// In use.
    On,
    /// Not in use.
    Off,
}

/// `ccn fixture`
#[derive(Debug, Args)]
pub struct FixtureArgs {
    /// How many VMs.
    #[arg(long)]
    pub vms: u64,
    /// How many VPCs.
    #[arg(long)]
    pub vpcs: u32,
    /// How many hosts.
    #[arg(long)]
    pub hosts: u32,
    /// Another number, another region.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// `ccn mrt`
#[derive(Debug, Clone, Subcommand)]
pub enum MrtCommand {
    /// Let the agent write every route it has accepted to a file (TABLE_DUMP_V2)
    Dump {
        /// The file, on the gateway; one that is there is replaced when the new one is whole.
        file: PathBuf,
    },
}

/// `ccn gateways`
#[derive(Debug, Clone, Subcommand)]
pub enum GatewaysCommand {
    /// Count no longer with a gateway that is gone and will not be back: what it had is forwarded by nobody
    Forget {
        /// Its name.
        name: GatewayName,
    },
}

/// `ccn store`
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum StoreCommand {
    /// Take what the store holds although it went back, as after a backup was restored
    Follow,
}

/// `ccn plane`
#[derive(Debug, Clone, Subcommand)]
pub enum PlaneCommand {
    /// Which plane it is and why, what of it is in place, and how full it is
    Show,
    /// Every object of ours in the kernel, a line each
    Dump {
        /// Configuration file (TOML): looks at the kernel itself, also while no agent runs.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Packets and bytes, forwarded and dropped by reason
    Counters,
    /// Take everything of ours out of the kernel, and say so to the cluster; the agent must not be running
    Remove {
        /// Configuration file (TOML).
        #[arg(long, env = "CCN_CONFIG", default_value = config::DEFAULT_CONFIG)]
        config: PathBuf,
    },
}

/// Reads `90s`, `5m`, `500ms`, `1h` or a plain number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let bad = || format!("{text:?} is no time: write it like 500ms, 30s, 5m or 1h");
    let number: u64 = number.parse().map_err(|_| bad())?;
    let millis: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    number
        .checked_mul(millis)
        .map(Duration::from_millis)
        .ok_or_else(bad)
}

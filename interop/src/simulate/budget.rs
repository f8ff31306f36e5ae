//! What a store, a gateway and an API server can carry, each with its source; and what a real etcd was measured to
//! take for one of each, which no sample can tell.

/// The largest database that etcd's documentation suggests (dev-guide/limit; 2 GiB unless configured otherwise).
pub(super) const DATABASE: f64 = 8.0 * GIB;
/// Requests a second of three members under heavy load (op-guide/performance: "more than 30,000").
pub(super) const REQUESTS: f64 = 30_000.0;
/// Cores of the machine that this was said of (n1-standard-4).
pub(super) const CORES: f64 = 4.0;
/// Watch events a second: so many cores that do nothing else.
pub(super) const EVENTS: f64 = CORES * 1e9 / EVENT_NS;
/// What one machine sends: 10 Gbit/s, in octets a second.
pub(super) const SENDS: f64 = 1.25e9;
/// Memory that is taken for an agent, an API server or an etcd.
pub(super) const MEMORY: f64 = 32.0 * GIB;
/// The agent's loop is one thread.
pub(super) const CPU: f64 = 1.0;
/// Routers keep the routes of an agent that starts for `restart_time_s`: 120 s unless configured (4095 at most).
pub(super) const START: f64 = 120.0;
/// `plane/ebpf`: hosts, VPCs, and slots of addresses and SLB nodes that its maps take.
pub(super) const HOSTS: f64 = 65_534.0;
pub(super) const VPCS: f64 = 65_536.0;
pub(super) const SLOTS: f64 = (1u64 << 26) as f64;
/// Each VPC has one VNI in the whole region.
pub(super) const VNIS: f64 = ((1u64 << 24) - 1) as f64;
/// Addresses of 10.0.0.0/8: linked VPCs of one store may not overlap (`inventory/links`).
pub(super) const ADDRESSES: f64 = (1u64 << 24) as f64;

/// API servers, each of which watches everything.
pub(super) const API_SERVERS: f64 = 3.0;
/// VMs of a host, as in DESIGN (a million on 10,000).
pub(super) const VMS_PER_HOST: f64 = 100.0;
/// One change in so many is an order to link or unlink.
pub(super) const ORDERS: f64 = 0.01;
/// How long etcd keeps history, in seconds: `--auto-compaction-retention=5m`.
pub(super) const RETENTION: f64 = 300.0;

// Measured by hand, see ARCHITECTURE.md: etcd 3.4.23, one member with TLS, on 2 busy cores of an AMD EPYC, Linux 6.18.

/// CPU of etcd for an event told to one who watches, in ns: the least of 24 to 39 µs.
pub(super) const EVENT_NS: f64 = 24_000.0;
/// CPU of etcd for a put of one key among many at once, in ns.
pub(super) const PUT_NS: f64 = 290_000.0;
/// Octets of its database for each octet of a record: 176 for 123.
pub(super) const DATABASE_FACTOR: f64 = 1.43;
/// Octets of memory that etcd takes for a key beside its database.
pub(super) const KEY_MEMORY: f64 = 750.0;
/// CPU of etcd for a key that it counts behind a page, in ns.
pub(super) const COUNT_NS: f64 = 380.0;
/// CPU of etcd for a record that it hands out in a page, in ns.
pub(super) const PAGE_NS: f64 = 2_800.0;
/// CPU of an agent for an event that it takes from the network (TLS, gRPC, protobuf), in ns: the least of 16 to 24 µs.
pub(super) const RECEIVE_NS: f64 = 16_000.0;
/// Orders a second that one store takes, one after the other through its key `commit`.
pub(super) const COMMITS: f64 = 345.0;
/// The most records of a page, and what it aims at in octets (`store/etcd/pages`).
pub(super) const PAGE_RECORDS: f64 = 100_000.0;
pub(super) const PAGE_OCTETS: f64 = (16 << 20) as f64;

// Measured by `bench start` with a million VMs and an SLB for every 64 (ARCHITECTURE.md, "A million VMs").

/// Slots of the `ebpf` plane's maps, of 8 octets, for each VM.
pub(super) const SLOTS_PER_VM: f64 = 51.0 / 8.0;
/// What its maps take before the first VM.
pub(super) const MAPS: f64 = 32e6;
/// The plane brings a VM into an empty kernel, in ns.
pub(super) const PROGRAM_NS: f64 = 1_100.0;

pub(super) const GIB: f64 = (1u64 << 30) as f64;

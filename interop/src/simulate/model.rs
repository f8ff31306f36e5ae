//! From what a sample costs to what the whole would carry: counts follow from the numbers alone, what they cost from
//! what one of each was measured to take.

use serde::Serialize;

use super::budget;
use super::count::Counted;
use super::etcd::Writer;
use super::memory::Octets;
use super::meter::{Meter, Work};

/// How large a cloud is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Scale {
    pub(super) gateways: f64,
    pub(super) groups: f64,
    pub(super) vms: f64,
    pub(super) vpcs: f64,
    pub(super) links: f64,
    /// Changes of VMs a second, and orders to link or unlink.
    pub(super) changes: f64,
    pub(super) orders: f64,
}

/// Who watches what, and where it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Layout {
    /// One store, and everybody watches all of it.
    Flat,
    /// One store; what belongs to a group's CCSIs has a prefix of its own, and its gateways watch only that.
    Prefixes,
    /// A store for each group.
    Stores,
}

/// By what a cloud grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Growth {
    /// More groups of the same size.
    Groups,
    /// The same groups, with more in each.
    Within,
}

impl Layout {
    pub(super) const ALL: [Layout; 3] = [Layout::Flat, Layout::Prefixes, Layout::Stores];

    pub(super) fn name(self) -> &'static str {
        match self {
            Layout::Flat => "flat",
            Layout::Prefixes => "prefixes",
            Layout::Stores => "stores",
        }
    }
}

impl Scale {
    fn times(self, factor: f64, growth: Growth) -> Scale {
        Scale {
            gateways: self.gateways * factor,
            groups: match growth {
                Growth::Groups => self.groups * factor,
                Growth::Within => self.groups,
            },
            vms: self.vms * factor,
            vpcs: self.vpcs * factor,
            links: self.links * factor,
            changes: self.changes * factor,
            orders: self.orders * factor,
        }
    }

    /// What belongs to one group, alone.
    pub(super) fn of_group(self) -> Scale {
        Scale {
            gateways: self.gateways / self.groups,
            groups: 1.0,
            vms: self.vms / self.groups,
            vpcs: self.vpcs / self.groups,
            links: self.links / self.groups,
            changes: self.changes / self.groups,
            orders: self.orders / self.groups,
        }
    }

    /// What moves the generation, a second.
    fn moves(self) -> f64 {
        self.changes + self.orders
    }

    /// Addresses of a VPC's subnet.
    fn addresses(self) -> f64 {
        let each = self.vms / self.vpcs * (1.0 + 1.0 / 64.0) + 17.0;
        2f64.powf(each.log2().ceil().max(8.0))
    }
}

/// One write of a kind, as each of those who watch is told it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(super) struct Write {
    pub(super) events: f64,
    pub(super) octets: f64,
}

/// What one of each takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Units {
    /// Counted: writes.
    pub(super) change: Write,
    pub(super) order: Write,
    pub(super) registration: Write,
    /// Counted: reports of a link for each order, by each gateway of its group.
    pub(super) reports: f64,
    /// Counted: octets of a record in etcd (a VM with its share of SLBs), and in the page that brings it.
    pub(super) vm_octets: f64,
    pub(super) vpc_octets: f64,
    pub(super) link_octets: f64,
    pub(super) gateway_octets: f64,
    pub(super) page_octets: f64,
    /// Counted: records for each VM.
    pub(super) records: f64,
    /// Measured: CPU in ns.
    pub(super) vm_ns: f64,
    pub(super) link_ns: f64,
    pub(super) registration_ns: f64,
    pub(super) batch_ns: f64,
    pub(super) load_ns: f64,
    pub(super) list_ns: f64,
    /// Measured: memory of an agent.
    pub(super) memory: Octets,
}

impl Units {
    /// From a run and what was measured in it.
    pub(super) fn of(counted: &Counted, meter: &Meter, gateways: f64, memory: Octets) -> Units {
        let write = |writer| {
            let flow = counted.carried.flow(writer);
            let writes = flow.writes.max(1) as f64;
            Write {
                events: flow.events_each as f64 / writes,
                octets: flow.octets_each as f64 / writes,
            }
        };
        let orders = counted.carried.flow(Writer::Orders).writes.max(1) as f64;
        let kind = |kind: &str| counted.records.get(kind).copied().unwrap_or_default();
        let each = |name: &str| {
            let (count, octets) = kind(name);
            octets as f64 / count.max(1) as f64
        };
        let vms = kind("vms").0.max(1) as f64;
        let all: u64 = counted.records.values().map(|(count, _)| count).sum();
        let read = counted.start.page_octets as f64 / counted.gateways.max(1) as f64;
        // While they start, not all gateways are registered: few beside the records.
        let in_store = all as f64 / counted.stores.max(1) as f64;
        Units {
            change: write(Writer::Controllers),
            order: write(Writer::Orders),
            registration: write(Writer::Registration),
            reports: counted.carried.reports as f64 / orders / gateways,
            vm_octets: (kind("vms").1 + kind("slbs").1) as f64 / vms,
            vpc_octets: each("vpcs") + each("ccsis") / 8.0,
            link_octets: each("links"),
            gateway_octets: each("gateways"),
            page_octets: read / in_store,
            records: (kind("vms").0 + kind("slbs").0) as f64 / vms,
            vm_ns: meter.each(Work::Vm),
            link_ns: meter.each(Work::Link),
            registration_ns: meter.each(Work::Registration),
            batch_ns: meter.each(Work::Done),
            load_ns: meter.each(Work::Load),
            list_ns: meter.each(Work::List),
            memory,
        }
    }
}

/// Who carries something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Who {
    /// One etcd.
    Etcd,
    /// One API server.
    ApiServer,
    /// One gateway.
    Gateway,
    /// All of it together.
    Region,
}

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Basis {
    /// One of each was counted in the sample; how many there are follows from the numbers.
    Counted,
    /// One of each was measured in the sample, with the real code.
    Measured,
    /// One of each was measured elsewhere: of a real etcd by hand, or by a bench.
    Elsewhere,
}

/// A load of somebody.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Load {
    pub(super) who: Who,
    pub(super) what: &'static str,
    pub(super) unit: &'static str,
    pub(super) value: f64,
    pub(super) basis: Basis,
    /// The most there may be, and who says so.
    pub(super) budget: Option<(f64, &'static str)>,
}

/// How often a gateway writes its record, when what it watches moves so often a second: at most once a second, and
/// else when the next change comes, which comes by chance.
pub(super) fn registrations(moves: f64) -> f64 {
    match moves > 0.0 {
        true => 1.0 / (1.0 + (-moves).exp() / moves),
        false => 0.0,
    }
}

/// What goes through one store a second, from all that is in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Traffic {
    pub(super) writes: f64,
    pub(super) requests: f64,
    pub(super) events: f64,
    pub(super) octets: f64,
    /// Octets of keys and values that are written.
    written: f64,
}

/// `in_store` is what one store holds, `seen` what one of its gateways watches.
pub(super) fn traffic(units: &Units, in_store: Scale, seen: Scale, api_servers: f64) -> Traffic {
    let rate = registrations(seen.moves());
    let (orders, changes) = (in_store.orders, in_store.changes);
    let registrations = in_store.gateways * rate;
    let in_group = in_store.gateways / in_store.groups;
    let reports = orders * in_group * units.reports;
    let writes = changes + orders + registrations + reports;
    // Each gateway is told its part; API servers are told everything.
    let share = seen.gateways / in_store.gateways;
    let told = |watchers: f64, of: f64| {
        let sum = |of: fn(&Write) -> f64| {
            changes * of(&units.change)
                + orders * of(&units.order)
                + registrations * of(&units.registration)
        };
        (
            watchers * of * sum(|write| write.events),
            watchers * of * sum(|write| write.octets),
        )
    };
    let (to_gateways, to_servers) = (told(in_store.gateways, share), told(api_servers, 1.0));
    Traffic {
        writes,
        requests: writes + orders + in_store.gateways / 10.0,
        events: to_gateways.0 + to_servers.0,
        octets: to_gateways.1 + to_servers.1,
        written: changes * units.change.octets
            + orders * units.order.octets
            + registrations * units.registration.octets
            + reports * units.gateway_octets / 2.0,
    }
}

/// What everybody would carry.
pub(super) fn loads(units: &Units, whole: Scale, layout: Layout) -> Vec<Load> {
    let group = whole.of_group();
    let (in_store, seen) = match layout {
        Layout::Flat => (whole, whole),
        Layout::Prefixes => (whole, group),
        Layout::Stores => (group, group),
    };
    [
        of_etcd(units, in_store, seen),
        of_api_server(units, in_store, seen),
        of_gateway(units, in_store, seen, layout),
        vec![Load {
            who: Who::Region,
            what: "vnis",
            unit: "",
            value: whole.vpcs,
            basis: Basis::Counted,
            budget: Some((budget::VNIS, "24 bits (RFC 7348)")),
        }],
    ]
    .concat()
}

fn of_etcd(units: &Units, in_store: Scale, seen: Scale) -> Vec<Load> {
    use Basis::{Counted, Elsewhere};
    let traffic = traffic(units, in_store, seen, budget::API_SERVERS);
    let live = in_store.vms * units.vm_octets
        + in_store.vpcs * units.vpc_octets
        + in_store.links * units.link_octets
        + in_store.gateways * units.gateway_octets
        + in_store.links * in_store.gateways / in_store.groups * units.gateway_octets / 2.0;
    let database = (live + traffic.written * budget::RETENTION) * budget::DATABASE_FACTOR;
    let keys = in_store.vms * units.records + in_store.vpcs + in_store.links;
    let memory = keys * budget::KEY_MEMORY + database;
    let cpu = (traffic.writes * budget::PUT_NS + traffic.events * budget::EVENT_NS) / 1e9;
    let load = |what, unit, value, basis, budget| Load {
        who: Who::Etcd,
        what,
        unit,
        value,
        basis,
        budget,
    };
    let octets = Some((budget::SENDS, "10 Gbit/s"));
    vec![
        load("database", "octets", database, Elsewhere, {
            Some((budget::DATABASE, "etcd, dev-guide/limit: suggested maximum"))
        }),
        load("memory", "octets", memory, Elsewhere, {
            Some((budget::MEMORY, "assumed"))
        }),
        load("writes", "1/s", traffic.writes, Counted, None),
        load("requests", "1/s", traffic.requests, Counted, {
            Some((budget::REQUESTS, "etcd, op-guide/performance"))
        }),
        load("watch-events", "1/s", traffic.events, Counted, {
            Some((budget::EVENTS, "4 cores, CPU an event measured by hand"))
        }),
        load("watch-octets", "octets/s", traffic.octets, Counted, octets),
        load("leases", "", in_store.gateways, Counted, None),
        load("renewals", "1/s", in_store.gateways / 10.0, Counted, None),
        load("cpu", "cores", cpu, Elsewhere, None),
    ]
}

fn of_api_server(units: &Units, in_store: Scale, seen: Scale) -> Vec<Load> {
    let per_group = in_store.gateways / in_store.groups;
    let memory = memory(units, in_store, 0.0);
    let traffic = traffic(units, in_store, seen, budget::API_SERVERS);
    // An order is a read, a write, and what the gateways report of it.
    let each = 2.0 + per_group * units.reports;
    let room = (budget::REQUESTS - traffic.requests).max(0.0) / each + in_store.orders;
    let load = |what, unit, value, basis, budget| Load {
        who: Who::ApiServer,
        what,
        unit,
        value,
        basis,
        budget,
    };
    let orders = Some((budget::COMMITS, "one store, by hand"));
    vec![
        load("memory", "octets", memory, Basis::Measured, {
            Some((budget::MEMORY, "assumed"))
        }),
        load("orders", "1/s", in_store.orders, Basis::Counted, orders),
        load("room-for-orders", "1/s", room, Basis::Counted, None),
    ]
}

fn memory(units: &Units, seen: Scale, own_links: f64) -> f64 {
    seen.vms * units.memory.vm
        + seen.vpcs * units.memory.vpc
        + (seen.links - own_links) * units.memory.link
        + own_links * units.memory.own_link
}

fn of_gateway(units: &Units, in_store: Scale, seen: Scale, layout: Layout) -> Vec<Load> {
    use Basis::{Counted, Elsewhere, Measured};
    let told = seen.gateways * registrations(seen.moves());
    let (orders, changes) = (seen.orders, seen.changes);
    let events = changes * units.change.events
        + orders * units.order.events
        + told * units.registration.events;
    let octets = changes * units.change.octets
        + orders * units.order.octets
        + told * units.registration.octets;
    let cpu = changes * units.vm_ns
        + orders * units.link_ns
        + told * units.registration_ns
        + seen.moves() * units.batch_ns
        + events * budget::RECEIVE_NS;
    let records = seen.vms * units.records + seen.vpcs + seen.links + seen.gateways;
    let start_octets = records * units.page_octets;
    // etcd counts what is left of the range with each page.
    let page = budget::PAGE_RECORDS.min(budget::PAGE_OCTETS / units.page_octets);
    let pages = (records / page).max(1.0);
    let counting = pages * records / 2.0 * budget::COUNT_NS / 1e9;
    let etcd_reads = records * budget::PAGE_NS / 1e9 + counting;
    let loads = records * units.load_ns / 1e9;
    let settles = seen.vms * (units.list_ns + budget::PROGRAM_NS) / 1e9;
    let start = etcd_reads.max(loads).max(start_octets / budget::SENDS) + settles;
    let slots = seen.vms * budget::SLOTS_PER_VM;
    let own_links = in_store.links / in_store.groups;
    let linked = match layout {
        // What one inventory holds is compared; a store of its own is an inventory of its own.
        Layout::Flat => in_store.links,
        Layout::Prefixes | Layout::Stores => own_links,
    } * in_store.addresses();
    let load = |what, unit, value, basis, budget| Load {
        who: Who::Gateway,
        what,
        unit,
        value,
        basis,
        budget,
    };
    let agent = memory(units, seen, own_links.min(seen.links));
    vec![
        load("memory", "octets", agent, Measured, {
            Some((budget::MEMORY, "assumed"))
        }),
        load(
            "kernel",
            "octets",
            slots * 8.0 + budget::MAPS,
            Elsewhere,
            None,
        ),
        load("slots", "", slots, Elsewhere, {
            Some((budget::SLOTS, "the ebpf plane's limit"))
        }),
        load("hosts", "", seen.vms / budget::VMS_PER_HOST, Counted, {
            Some((budget::HOSTS, "the ebpf plane's limit"))
        }),
        load("vpcs", "", seen.vpcs, Counted, {
            Some((budget::VPCS, "the ebpf plane's limit"))
        }),
        load("linked-addresses", "", linked, Counted, {
            Some((budget::ADDRESSES, "10.0.0.0/8: linked VPCs may not overlap"))
        }),
        load("events", "1/s", events, Counted, None),
        load("octets", "octets/s", octets, Counted, None),
        load("cpu", "cores", cpu / 1e9, Measured, {
            Some((budget::CPU, "one loop"))
        }),
        load("start", "s", start, Measured, {
            Some((budget::START, "restart_time_s, what routers wait"))
        }),
        load("start-octets", "octets", start_octets, Counted, None),
        load(
            "start-of-all",
            "s",
            {
                let together = in_store.gateways * etcd_reads / budget::CORES;
                let sent = in_store.gateways * start_octets / budget::SENDS;
                together.max(sent) + settles
            },
            Elsewhere,
            None,
        ),
    ]
}

/// How many times as large a cloud may be until a load is over its budget, and which; the first of all first.
pub(super) fn limits(
    units: &Units,
    whole: Scale,
    layout: Layout,
    growth: Growth,
) -> Vec<(f64, Load)> {
    let at = |factor: f64| loads(units, whole.times(factor, growth), layout);
    let mut limits: Vec<(f64, Load)> = Vec::new();
    for (index, load) in at(1.0).into_iter().enumerate() {
        let Some((budget, _)) = load.budget else {
            continue;
        };
        let fits = |factor: f64| at(factor)[index].value <= budget;
        let (mut low, mut high) = (1e-6f64, 1e6f64);
        if fits(high) {
            continue;
        }
        while high / low > 1.0001 {
            let middle = (low * high).sqrt();
            match fits(middle) {
                true => low = middle,
                false => high = middle,
            }
        }
        limits.push((low, load));
    }
    limits.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_writes_its_record_at_most_once_a_second() {
        assert_eq!(registrations(0.0), 0.0);
        assert!(
            (registrations(0.1) - 0.0995).abs() < 0.001,
            "rare changes: each"
        );
        assert!((registrations(1.0) - 0.731).abs() < 0.001);
        assert!((registrations(1000.0) - 1.0).abs() < 1e-6);
    }
}

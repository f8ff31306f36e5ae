//! What the programs have counted of links and VPCs, in the words of everybody.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use super::layout::{Counter, Sample, unmapped};
use super::memory::Memory;
use super::tables::Tables;
use super::translate::Translator;
use crate::plane::traffic::{self, Flows, Traffic, TwoWays};
use crate::plane::{Count, PlaneError};
use crate::record::Vni;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Reads all of it.
pub(crate) fn read<M: Memory>(
    tables: &Tables,
    translator: &Translator<M>,
) -> Result<Traffic, PlaneError> {
    let mut traffic = Traffic::default();
    for (link, number) in translator.links().iter() {
        let counts = two_ways(tables.of_link(number)?);
        traffic.links.insert(link.clone(), counts);
    }
    for (vni, number) in translator.counters().iter() {
        if let Ok(vni) = Vni::new(*vni) {
            traffic.vpcs.insert(vni, two_ways(tables.of_vpc(number)?));
        }
    }
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    let now = now.unwrap_or_default();
    for (reason, last) in tables.last_drops()? {
        let mut links = translator.links().iter();
        let link = links.find(|(_, number)| *number == last.link);
        let link = link.map(|(link, _)| link.clone());
        let sample = traffic::Sample {
            link,
            ..sample(&last, now)
        };
        traffic
            .last_drops
            .insert(reason.as_str().to_owned(), sample);
    }
    let [_, _, begun] = tables.totals()?;
    let (known, max) = tables.flows()?;
    traffic.flows = Some(Flows {
        begun: begun.packets,
        known,
        max,
    });
    Ok(traffic)
}

fn two_ways(counter: Counter) -> TwoWays {
    let count = |packets, bytes| Count { packets, bytes };
    TwoWays {
        to_vpc: count(counter.to_vpc_packets, counter.to_vpc_octets),
        from_vpc: count(counter.from_vpc_packets, counter.from_vpc_octets),
        dropped: count(counter.dropped_packets, counter.dropped_octets),
    }
}

/// A sample, but for the link, which only has a number.
fn sample(sample: &Sample, now: Duration) -> traffic::Sample {
    let has_ports = matches!(sample.proto, TCP | UDP);
    let then = Duration::from_nanos(sample.time);
    traffic::Sample {
        ago_s: now.saturating_sub(then).as_secs_f64(),
        src: unmapped(sample.src),
        dst: unmapped(sample.dst),
        protocol: sample.proto,
        src_port: has_ports.then_some(sample.sport),
        dst_port: has_ports.then_some(sample.dport),
        octets: sample.octets,
        vni: Vni::new(sample.vni).ok(),
        link: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::mapped;
    use super::*;

    #[test]
    fn a_sample_has_ports_only_where_the_protocol_has() {
        let (src, dst) = ("10.0.0.1", "fd00::1");
        let raw = |proto| Sample {
            time: 5_000_000_000,
            src: mapped(src.parse().expect("an address")),
            dst: mapped(dst.parse().expect("an address")),
            octets: 99,
            sport: 7,
            dport: 8,
            proto,
            ..Sample::default()
        };
        let now = Duration::from_millis(6_500);
        let tcp = sample(&raw(TCP), now);
        assert_eq!(
            (tcp.src.to_string(), tcp.dst.to_string()),
            (src.into(), dst.into())
        );
        assert_eq!(
            (tcp.ago_s, tcp.src_port, tcp.dst_port, tcp.vni),
            (1.5, Some(7), Some(8), None)
        );
        let icmp = sample(&raw(1), Duration::ZERO);
        assert_eq!((icmp.ago_s, icmp.src_port), (0.0, None));
    }
}

//! What the programs have counted of links and VPCs, and what they have written of packets, in the words
//! of everybody.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use super::layout::{Sample, unmapped};
use super::memory::Memory;
use super::numbers::Numbers;
use super::tables::Tables;
use super::translate::Translator;
use crate::plane::PlaneError;
use crate::plane::model::DropReason;
use crate::plane::traffic::{self, Flows, Traffic};
use crate::record::{LinkId, Vni};

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Reads all of it.
pub(crate) fn read<M: Memory>(
    tables: &Tables,
    translator: &Translator<M>,
) -> Result<Traffic, PlaneError> {
    let mut traffic = Traffic::default();
    for (link, number) in translator.links().iter() {
        let counts = tables.of_link(number);
        traffic.links.insert(link.clone(), counts);
    }
    for (vni, number) in translator.counters().iter() {
        if let Ok(vni) = Vni::new(*vni) {
            traffic.vpcs.insert(vni, tables.of_vpc(number));
        }
    }
    let (now, links) = (since_boot(), names(translator.links()));
    for (reason, last) in tables.last_drops()? {
        let sample = traffic::Sample {
            ago_s: age(&last, now).as_secs_f64(),
            header: header(&last, &links),
        };
        traffic
            .last_drops
            .insert(reason.as_str().to_owned(), sample);
    }
    let [_, _, begun] = tables.totals()?;
    let (known, max) = tables.flows()?;
    traffic.flows = Some(Flows {
        begun: begun.packets,
        evicted: begun.bytes.saturating_sub(known),
        known,
        max,
    });
    Ok(traffic)
}

/// The time of programs.
fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.unwrap_or_default()
}

fn age(sample: &Sample, now: Duration) -> Duration {
    now.saturating_sub(Duration::from_nanos(sample.time))
}

/// What the programs have written of packets.
pub(crate) fn sampled<M: Memory>(
    samples: &[Sample],
    translator: &Translator<M>,
) -> Vec<traffic::Sampled> {
    if samples.is_empty() {
        return Vec::new();
    }
    let (boot, clock) = (since_boot(), SystemTime::now());
    let links = names(translator.links());
    let samples = samples.iter();
    samples
        .map(|sample| traffic::Sampled {
            at: clock - age(sample, boot),
            reason: DropReason::ALL
                .get(usize::from(sample.reason))
                .map(|reason| reason.as_str()),
            header: header(sample, &links),
        })
        .collect()
}

/// Links by their numbers.
type Names<'a> = BTreeMap<u32, &'a LinkId>;

fn names(links: &Numbers<LinkId>) -> Names<'_> {
    links.iter().map(|(link, number)| (number, link)).collect()
}

/// The packet of a sample.
fn header(sample: &Sample, links: &Names<'_>) -> traffic::Header {
    let has_ports = matches!(sample.proto, TCP | UDP);
    traffic::Header {
        src: unmapped(sample.src),
        dst: unmapped(sample.dst),
        protocol: sample.proto,
        src_port: has_ports.then_some(sample.sport),
        dst_port: has_ports.then_some(sample.dport),
        octets: sample.octets,
        vni: Vni::new(sample.vni).ok(),
        link: links.get(&sample.link).map(|link| (*link).clone()),
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
        let web: LinkId = "web".parse().expect("a link");
        let links = Names::from([(0, &web)]);
        let tcp = header(&raw(TCP), &links);
        assert_eq!(
            (tcp.src.to_string(), tcp.dst.to_string()),
            (src.into(), dst.into())
        );
        assert_eq!(
            (tcp.src_port, tcp.dst_port, tcp.vni, tcp.link),
            (Some(7), Some(8), None, Some(web.clone()))
        );
        assert_eq!(header(&raw(1), &links).src_port, None);
        for (now, ago) in [(6_500, 1_500), (0, 0)] {
            let age = age(&raw(TCP), Duration::from_millis(now));
            assert_eq!(age, Duration::from_millis(ago));
        }
    }
}

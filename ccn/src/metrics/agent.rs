//! What an agent tells a scraper: itself, its peers, its limits, and what passes through the plane.

use bgp::PeerStatus;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::{Column, Encoded, Labels, Source, counter, family, gauge};
use crate::api::error::ApiError;
use crate::api::{LimitView, Status};
use crate::controller::AgentHandle;
use crate::plane::Count;
use crate::plane::traffic::{Traffic, TwoWays};
use crate::record::VpcId;

/// What there is to tell at one moment.
#[derive(Debug)]
pub struct Reading {
    status: Status,
    peers: Vec<PeerStatus>,
    limits: Vec<LimitView>,
    traffic: Traffic,
    /// The id of each VPC in `traffic`, where it has one.
    vpcs: Vec<String>,
}

impl Source for AgentHandle {
    type Reading = Reading;

    async fn read(&self) -> Result<Reading, ApiError> {
        let status = self.status().await?;
        let limits = self.limits().await?;
        let peers = self.peers().await?;
        // A plane that cannot be asked is told of in the status.
        let traffic = self.plane().traffic().await.ok().flatten();
        let traffic = traffic.unwrap_or_default();
        let vpcs = self
            .vpcs_with(traffic.vpcs.keys().copied().collect())
            .await?;
        let name = |id: Option<VpcId>| id.map_or_else(String::new, |id| id.to_string());
        let vpcs = vpcs.into_iter().map(name).collect();
        Ok(Reading {
            status,
            peers,
            limits,
            traffic,
            vpcs,
        })
    }
}

impl Reading {
    fn encode_state(&self, to: &mut DescriptorEncoder<'_>) -> Encoded {
        let status = &self.status;
        family(
            to,
            "agent",
            "The agent that runs",
            None,
            MetricType::Gauge,
            |each| {
                gauge(
                    each,
                    &[
                        ("gateway", &status.gateway),
                        ("group", status.group.as_str()),
                        ("version", status.version),
                        ("plane", status.plane.name),
                    ],
                    1,
                )
            },
        )?;
        let seconds = Some(&Unit::Seconds);
        family(
            to,
            "uptime",
            "Since the agent started",
            seconds,
            MetricType::Gauge,
            |each| gauge(each, &[], status.uptime_s),
        )?;
        super::store(to, status.generation, status.store.stale_s)?;
        for (name, help, value) in [
            (
                "acknowledged_generation",
                "Generation that the plane has acknowledged",
                status.acknowledged,
            ),
            (
                "settled",
                "1 when nothing is on its way to the kernel or the speaker",
                u64::from(status.settled),
            ),
            (
                "drain_state",
                "0 serving, 1 draining, 2 drained, 3 returning",
                status.drain.state.number(),
            ),
            (
                "plane_healthy",
                "1 when the plane holds all it shall",
                u64::from(status.plane.state == "healthy"),
            ),
            ("links", "Links", status.links.total as u64),
            (
                "links_announced",
                "Links that are announced",
                status.links.announced as u64,
            ),
            ("vpcs", "VPCs", status.records.vpcs as u64),
            ("vms", "VMs", status.records.vms as u64),
            ("slbs", "SLBs", status.records.slbs as u64),
            (
                "quarantined_records",
                "Records that are wrong and therefore ignored",
                status.records.quarantined as u64,
            ),
        ] {
            family(to, name, help, None, MetricType::Gauge, |each| {
                gauge(each, &[], value)
            })?;
        }
        let operations = status.plane.operations;
        family(
            to,
            "plane_operations",
            "Kernel operations of the plane",
            None,
            MetricType::Counter,
            |each| counter(each, &[], operations),
        )
    }

    fn encode_peers(&self, to: &mut DescriptorEncoder<'_>) -> Encoded {
        let gauges: [Column<PeerStatus, u64>; 2] = [
            ("peer_established", "1 while the session is up", |peer| {
                u64::from(peer.state == bgp::SessionState::Established)
            }),
            (
                "peer_enabled",
                "1 while the operator lets it be up",
                |peer| u64::from(peer.admin_up),
            ),
        ];
        for (name, help, value) in gauges {
            family(to, name, help, None, MetricType::Gauge, |each| {
                self.peers
                    .iter()
                    .try_for_each(|peer| gauge(each, &[("peer", peer.name.as_str())], value(peer)))
            })?;
        }
        let counts: [Column<PeerStatus, u64>; 3] = [
            ("peer_sessions", "Sessions that were established", |peer| {
                peer.sessions
            }),
            (
                "peer_received_messages",
                "Messages of this session",
                |peer| peer.messages_in,
            ),
            ("peer_sent_messages", "Messages of this session", |peer| {
                peer.messages_out
            }),
        ];
        for (name, help, value) in counts {
            family(to, name, help, None, MetricType::Counter, |each| {
                self.peers.iter().try_for_each(|peer| {
                    counter(each, &[("peer", peer.name.as_str())], value(peer))
                })
            })?;
        }
        let help = "Routes of a peer, by family and what became of them";
        family(to, "peer_routes", help, None, MetricType::Gauge, |each| {
            for peer in &self.peers {
                for (name, counts) in &peer.prefixes {
                    let of_family = name.to_string();
                    for (state, count) in [
                        ("received", counts.received),
                        ("accepted", counts.accepted),
                        ("stale", counts.stale),
                        ("beyond-limit", counts.beyond_limit),
                        ("advertised", counts.advertised),
                        ("pending", counts.pending),
                    ] {
                        let labels = [
                            ("peer", peer.name.as_str()),
                            ("family", &of_family),
                            ("state", state),
                        ];
                        gauge(each, &labels, count as u64)?;
                    }
                }
            }
            Ok(())
        })
    }

    fn encode_limits(&self, to: &mut DescriptorEncoder<'_>) -> Encoded {
        let columns: [Column<LimitView, Option<u64>>; 3] = [
            (
                "limit_used",
                "How much of what is limited there is",
                |limit| Some(limit.used),
            ),
            ("limit_max", "The most there may be", |limit| {
                Some(limit.max)
            }),
            ("limit_refused", "How many are refused", |limit| {
                limit.refused
            }),
        ];
        for (name, help, value) in columns {
            family(to, name, help, None, MetricType::Gauge, |each| {
                self.limits.iter().try_for_each(|limit| match value(limit) {
                    Some(value) => gauge(each, &[("limit", &limit.name)], value),
                    None => Ok(()),
                })
            })?;
        }
        Ok(())
    }

    fn encode_packets(&self, to: &mut DescriptorEncoder<'_>) -> Encoded {
        let counters = &self.status.counters;
        for (name, help, count) in [
            (
                "decapsulated",
                "Received from hypervisors",
                counters.decapsulated,
            ),
            ("encapsulated", "Sent to hypervisors", counters.encapsulated),
        ] {
            packets_and_octets(to, name, help, |each, part| {
                counter(each, &[], part(&count))
            })?;
        }
        packets_and_octets(to, "dropped", "Dropped, by reason", |each, part| {
            let mut drops = counters.drops.iter();
            drops.try_for_each(|(reason, count)| counter(each, &[("reason", reason)], part(count)))
        })?;
        packets_and_octets(to, "link", "Of each link, by direction", |each, part| {
            self.traffic.links.iter().try_for_each(|(link, ways)| {
                by_direction(each, &[("link", link.as_str())], ways, part)
            })
        })?;
        packets_and_octets(to, "vpc", "Of each VPC, by direction", |each, part| {
            let mut vpcs = self.traffic.vpcs.iter().zip(&self.vpcs);
            vpcs.try_for_each(|((vni, ways), id)| {
                let vni = vni.to_string();
                by_direction(each, &[("vpc", id), ("vni", &vni)], ways, part)
            })
        })?;
        let Some(flows) = self.traffic.flows else {
            return Ok(());
        };
        let help = "Flows begun over links of mode classic-to-vpc";
        family(to, "flows_begun", help, None, MetricType::Counter, |each| {
            counter(each, &[], flows.begun)
        })?;
        let help = "Flows forgotten because others needed the room";
        family(
            to,
            "flows_evicted",
            help,
            None,
            MetricType::Counter,
            |each| counter(each, &[], flows.evicted),
        )?;
        family(
            to,
            "flows",
            "Flows known now",
            None,
            MetricType::Gauge,
            |each| gauge(each, &[], flows.known),
        )
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let to = &mut encoder;
        self.encode_state(to)?;
        self.encode_peers(to)?;
        self.encode_limits(to)?;
        self.encode_packets(to)
    }
}

type Part = fn(&Count) -> u64;

/// Two families: of packets and of octets.
fn packets_and_octets(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    each: impl Fn(&mut MetricEncoder<'_>, Part) -> Encoded,
) -> Encoded {
    let bytes = Unit::Bytes;
    let parts: [(&str, Option<&Unit>, Part); 2] = [
        ("_packets", None, |count| count.packets),
        ("", Some(&bytes), |count| count.bytes),
    ];
    for (suffix, unit, part) in parts {
        let name = format!("{name}{suffix}");
        family(to, &name, help, unit, MetricType::Counter, |to| {
            each(to, part)
        })?;
    }
    Ok(())
}

fn by_direction(
    each: &mut MetricEncoder<'_>,
    labels: Labels<'_>,
    ways: &TwoWays,
    part: Part,
) -> Encoded {
    for (direction, count) in [
        ("to-vpc", &ways.to_vpc),
        ("from-vpc", &ways.from_vpc),
        ("dropped", &ways.dropped),
    ] {
        let labels = [labels, &[("direction", direction)]].concat();
        counter(each, &labels, part(count))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::text_of;
    use super::*;
    use crate::api::{LinksView, PeersView, PlaneView, RecordsView, StartView, StoreView};
    use crate::drain;
    use crate::plane::Counters;
    use crate::plane::traffic::Flows;
    use crate::record::{GroupName, Vni};

    fn count(packets: u64, bytes: u64) -> Count {
        Count { packets, bytes }
    }

    fn reading() -> Reading {
        let ways = TwoWays {
            to_vpc: count(3, 300),
            from_vpc: count(2, 200),
            dropped: count(1, 100),
        };
        let counters = Counters {
            decapsulated: count(2, 200),
            encapsulated: count(3, 300),
            drops: BTreeMap::from([("no-link".to_owned(), count(7, 700))]),
        };
        Reading {
            status: Status {
                gateway: "gw\"1".to_owned(),
                group: GroupName::default(),
                version: "0",
                uptime_s: 5,
                start: StartView::default(),
                generation: 9,
                store: StoreView {
                    state: "away",
                    stale_s: Some(40),
                    reason: None,
                },
                acknowledged: 8,
                settled: false,
                drain: drain::Report {
                    state: drain::State::Drained,
                    ..drain::Report::default()
                },
                plane: PlaneView {
                    name: "ebpf",
                    state: "healthy",
                    ..PlaneView::default()
                },
                peers: PeersView::default(),
                links: LinksView::default(),
                records: RecordsView::default(),
                counters,
            },
            peers: Vec::new(),
            limits: vec![LimitView {
                name: "slots".to_owned(),
                used: 1,
                max: 2,
                refused: None,
            }],
            traffic: Traffic {
                links: BTreeMap::from([("web".parse().unwrap(), ways)]),
                vpcs: BTreeMap::from([(Vni::new(1001).unwrap(), ways)]),
                flows: Some(Flows {
                    begun: 4,
                    evicted: 2,
                    known: 2,
                    max: 10,
                }),
                ..Traffic::default()
            },
            vpcs: vec!["web".to_owned()],
        }
    }

    #[test]
    fn what_is_counted_is_told_with_its_labels() {
        let body = text_of(reading()).unwrap();
        for line in [
            r#"ccn_agent{gateway="gw\"1",group="default",version="0",plane="ebpf"} 1"#,
            "ccn_uptime_seconds 5",
            "ccn_store_generation 9",
            "ccn_store_stale 1",
            "ccn_store_age_seconds 40",
            "ccn_settled 0",
            "ccn_drain_state 2",
            "ccn_plane_healthy 1",
            "ccn_plane_operations_total 0",
            r#"ccn_limit_used{limit="slots"} 1"#,
            "ccn_encapsulated_packets_total 3",
            "ccn_encapsulated_bytes_total 300",
            r#"ccn_dropped_packets_total{reason="no-link"} 7"#,
            r#"ccn_link_packets_total{link="web",direction="from-vpc"} 2"#,
            r#"ccn_link_bytes_total{link="web",direction="dropped"} 100"#,
            r#"ccn_vpc_packets_total{vpc="web",vni="1001",direction="to-vpc"} 3"#,
            "ccn_flows_begun_total 4",
            "ccn_flows_evicted_total 2",
            "ccn_flows 2",
        ] {
            assert!(body.lines().any(|l| l == line), "{line} is not in\n{body}");
        }
        assert!(body.ends_with("# EOF\n"), "{body}");
    }

    #[test]
    fn names_follow_the_rules() {
        let body = text_of(reading()).unwrap();
        let families = super::super::tests::families(&body);
        for (name, samples) in &families {
            let may_be_empty = name.starts_with("ccn_peer") || name == "ccn_limit_refused";
            assert!(*samples > 0 || may_be_empty, "{name}");
        }
        assert!(families.len() > 20, "{families:?}");
    }
}

//! What an API server tells a scraper: what was asked of it and what came of that, the store, and who serves.

use std::collections::BTreeMap;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::audit::Audit;
use super::office::Server;
use super::tally::{Tally, TurnedAway};
use crate::api::error::ApiError;
use crate::inventory::Inventory;
use crate::ledger::Ledger;
use crate::metrics::{Column, Encoded, Source, counter, family, gauge, store};
use crate::store::Generation;

/// What there is to tell at one moment.
#[derive(Debug)]
pub struct Reading {
    uptime_s: u64,
    generation: Generation,
    stale_s: Option<u64>,
    groups: BTreeMap<String, Group>,
    records: [(&'static str, &'static str, u64); 4],
    tally: Tally,
    audit: Audit,
}

/// What there is of a group.
#[derive(Debug, Default)]
struct Group {
    alive: u64,
    fit: u64,
    links: u64,
}

/// The groups that gateways are in, or that links want: one of which no gateway lives is among them.
fn groups(inventory: &Inventory) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (_, gateway) in inventory.gateways() {
        let group = groups.entry(gateway.group.to_string()).or_default();
        group.alive += 1;
        group.fit += u64::from(super::placement::is_fit(gateway));
    }
    for (_, link) in inventory.links() {
        groups.entry(link.group.to_string()).or_default().links += 1;
    }
    groups
}

impl Source for Server {
    type Reading = Reading;

    async fn read(&self) -> Result<Reading, ApiError> {
        let (started, tally, audit) = (self.started, self.tally.clone(), self.audit.clone());
        let look = move |ledger: &Ledger| {
            let inventory = ledger.inventory();
            Reading {
                uptime_s: started.elapsed().as_secs(),
                generation: ledger.generation(),
                stale_s: ledger.store_view().stale_s,
                groups: groups(inventory),
                records: [
                    ("vpcs", "VPCs", inventory.vpcs().count() as u64),
                    ("vms", "VMs", inventory.vm_count() as u64),
                    ("slbs", "SLBs", inventory.slb_count() as u64),
                    (
                        "quarantined_records",
                        "Records that are wrong and therefore ignored",
                        inventory.quarantined() as u64,
                    ),
                ],
                tally,
                audit,
            }
        };
        self.ledger.ask(look).await
    }
}

impl Reading {
    fn encode_state(&self, to: &mut DescriptorEncoder<'_>) -> Encoded {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let help = "The API server that runs";
        family(to, "apiserver", help, None, MetricType::Gauge, |each| {
            gauge(each, &version, 1)
        })?;
        let seconds = Some(&Unit::Seconds);
        let help = "Since the API server started";
        family(to, "uptime", help, seconds, MetricType::Gauge, |each| {
            gauge(each, &[], self.uptime_s)
        })?;
        store(to, self.generation, self.stale_s)?;
        let of_groups: [Column<Group, u64>; 3] = [
            (
                "gateways_alive",
                "Gateways that are registered, by group; 0 where links want a group that has none",
                |group| group.alive,
            ),
            (
                "gateways_fit",
                "Of these, those that new links may be placed at: healthy, and not draining",
                |group| group.fit,
            ),
            ("links", "Links, by group", |group| group.links),
        ];
        for (name, help, value) in of_groups {
            family(to, name, help, None, MetricType::Gauge, |each| {
                self.groups
                    .iter()
                    .try_for_each(|(group, counts)| gauge(each, &[("group", group)], value(counts)))
            })?;
        }
        for (name, help, value) in self.records {
            family(to, name, help, None, MetricType::Gauge, |each| {
                gauge(each, &[], value)
            })?;
        }
        Ok(())
    }

    fn encode_requests(&self, to: &mut DescriptorEncoder<'_>) -> Encoded {
        let counts = self.tally.counts();
        for (name, help, value) in [
            (
                "connections",
                "Connections that are open",
                counts.connections(),
            ),
            (
                "requests_under_way",
                "Requests under way",
                counts.under_way(),
            ),
        ] {
            family(to, name, help, None, MetricType::Gauge, |each| {
                gauge(each, &[], value)
            })?;
        }
        let help = "Requests, by route, method and class of status; hung-up: the caller did not wait for the answer";
        let kind = MetricType::Counter;
        let each = to.encode_descriptor("requests", help, None, kind)?;
        counts.requests.encode(each)?;
        let help = "Until a request is answered, an order's waiting for gateways included";
        let (unit, kind) = (Some(&Unit::Seconds), MetricType::Histogram);
        let each = to.encode_descriptor("request_duration", help, unit, kind)?;
        counts.durations.encode(each)?;
        for (name, help, is_of_identity) in [
            (
                "authentication_failures",
                "Connections and requests of callers who are not known or may not, by reason",
                true,
            ),
            (
                "requests_refused",
                "Requests that were too many, by the limit that they met",
                false,
            ),
        ] {
            let reasons = TurnedAway::ALL.into_iter();
            let mut reasons = reasons.filter(|why| why.is_of_identity() == is_of_identity);
            family(to, name, help, None, MetricType::Counter, |each| {
                reasons.try_for_each(|why| {
                    let labels = [("reason", why.name())];
                    counter(each, &labels, counts.turned_away(why))
                })
            })?;
        }
        Ok(())
    }

    fn encode_orders(&self, to: &mut DescriptorEncoder<'_>) -> Encoded {
        let counts = self.tally.counts();
        let kind = MetricType::Counter;
        let help =
            "Orders, by what came of them: done, the code of an error, or abandoned by the caller";
        let each = to.encode_descriptor("orders", help, None, kind)?;
        counts.orders.encode(each)?;
        let help = "Orders that had been carried out before under the same Idempotency-Key";
        let each = to.encode_descriptor("orders_repeated", help, None, kind)?;
        counts.repeated.encode(each)?;
        for (name, help, value) in [
            (
                "audited_changes",
                "Changes of records that are in the audit log",
                self.audit.changes(),
            ),
            (
                "audit_write_failures",
                "Lines that could not be written into the audit log",
                self.audit.unwritten(),
            ),
        ] {
            family(to, name, help, None, kind, |each| counter(each, &[], value))?;
        }
        Ok(())
    }
}

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Encoded {
        let to = &mut encoder;
        self.encode_state(to)?;
        self.encode_requests(to)?;
        self.encode_orders(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::tests::families;
    use crate::metrics::text_of;

    #[tokio::test]
    async fn names_follow_the_rules_and_labels_tell_things_apart() {
        let folder = tempfile::tempdir().unwrap();
        let tally = Tally::default();
        tally.turned_away(TurnedAway::Rate);
        tally.repeated("link");
        tally.order("link", async { Ok(()) }).await.unwrap();
        let labels = |status: Option<&str>| {
            let labels = [("route", "/v1/links"), ("method", "GET")];
            let labels = labels.into_iter().chain(status.map(|s| ("status", s)));
            labels
                .map(|(name, value)| (name, value.to_owned()))
                .collect::<Vec<_>>()
        };
        let counts = tally.counts();
        counts.requests.get_or_create(&labels(Some("2xx"))).inc();
        counts.durations.get_or_create(&labels(None)).observe(0.02);
        let group = Group {
            links: 3,
            ..Group::default()
        };
        let body = text_of(Reading {
            uptime_s: 5,
            generation: 9,
            stale_s: Some(40),
            groups: BTreeMap::from([("default".to_owned(), group)]),
            records: ["a", "b", "c", "d"].map(|name| (name, "Some", 1)),
            tally,
            audit: Audit::open(&folder.path().join("audit")).unwrap(),
        });
        let body = body.unwrap();
        for line in [
            "ccn_uptime_seconds 5",
            "ccn_store_generation 9",
            "ccn_store_age_seconds 40",
            r#"ccn_gateways_alive{group="default"} 0"#,
            r#"ccn_links{group="default"} 3"#,
            r#"ccn_requests_total{route="/v1/links",method="GET",status="2xx"} 1"#,
            r#"ccn_request_duration_seconds_bucket{le="0.01",route="/v1/links",method="GET"} 0"#,
            r#"ccn_request_duration_seconds_bucket{le="0.025",route="/v1/links",method="GET"} 1"#,
            r#"ccn_request_duration_seconds_count{route="/v1/links",method="GET"} 1"#,
            r#"ccn_requests_refused_total{reason="rate"} 1"#,
            r#"ccn_authentication_failures_total{reason="unknown-token"} 0"#,
            r#"ccn_orders_total{order="link",outcome="done"} 1"#,
            r#"ccn_orders_repeated_total{order="link"} 1"#,
            "ccn_audited_changes_total 0",
        ] {
            assert!(body.lines().any(|l| l == line), "{line} is not in\n{body}");
        }
        assert!(families(&body).values().all(|samples| *samples > 0));
    }
}

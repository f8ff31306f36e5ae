//! Prometheus metrics of agents and API servers, as OpenMetrics text over HTTP.
//!
//! What can be asked is asked when a scraper asks. Names begin with `ccn_`, units are base units, and what only
//! grows ends in `_total`. Labels come from the configuration and the records, never from what somebody sent.

pub mod agent;

use std::fmt;
use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::api::error::ApiError;
use crate::config::MetricsConfig;
use crate::store::Generation;

/// The media type of OpenMetrics text.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Who can tell something to a scraper. Cheap to clone.
pub trait Source: Clone + Send + Sync + 'static {
    /// What there is to tell at one moment.
    type Reading: Collector;

    /// Looks.
    fn read(&self) -> impl Future<Output = Result<Self::Reading, ApiError>> + Send;
}

/// The address for metrics cannot be had.
#[derive(Debug, Error)]
#[error("metrics.listen: {address}: {source}")]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// Has the address at which metrics are asked for, if there is one.
///
/// # Errors
/// It cannot be had.
pub async fn listen(config: Option<&MetricsConfig>) -> Result<Option<TcpListener>, ListenError> {
    let Some(MetricsConfig { listen: address }) = config.copied() else {
        return Ok(None);
    };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) => Err(ListenError { address, source }),
    }
}

/// Serves `/metrics` until the task is dropped.
///
/// # Errors
/// When the listener breaks.
pub async fn serve<S: Source>(listener: TcpListener, source: S) -> io::Result<()> {
    let router = Router::new()
        .route("/metrics", get(metrics::<S>))
        .with_state(source);
    axum::serve(listener, router).await
}

async fn metrics<S: Source>(State(source): State<S>) -> Response {
    match source.read().await {
        Ok(reading) => match text_of(reading) {
            Ok(body) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        },
        Err(error) => (error.code.status(), error.message).into_response(),
    }
}

pub(crate) fn text_of(reading: impl Collector) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("ccn");
    registry.register_collector(Box::new(reading));
    let mut body = String::new();
    text::encode(&mut body, &registry)?;
    Ok(body)
}

pub(crate) type Encoded = Result<(), fmt::Error>;

/// Labels of one metric, in order.
pub(crate) type Labels<'a> = &'a [(&'static str, &'a str)];

/// A name, a help text, and how to read the value from what the metric is of.
pub(crate) type Column<T, V> = (&'static str, &'static str, fn(&T) -> V);

/// One name, and a metric for each set of labels.
pub(crate) fn family(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    kind: MetricType,
    each: impl FnOnce(&mut MetricEncoder<'_>) -> Encoded,
) -> Encoded {
    each(&mut to.encode_descriptor(name, help, unit, kind)?)
}

pub(crate) fn gauge(each: &mut MetricEncoder<'_>, labels: Labels<'_>, value: u64) -> Encoded {
    let value = i64::try_from(value).unwrap_or(i64::MAX);
    with_labels(each, labels, |each| ConstGauge::new(value).encode(each))
}

pub(crate) fn counter(each: &mut MetricEncoder<'_>, labels: Labels<'_>, value: u64) -> Encoded {
    with_labels(each, labels, |each| ConstCounter::new(value).encode(each))
}

fn with_labels(
    each: &mut MetricEncoder<'_>,
    labels: Labels<'_>,
    encode: impl FnOnce(MetricEncoder<'_>) -> Encoded,
) -> Encoded {
    encode(each.encode_family(&labels)?)
}

/// The store, as whoever follows it knows it; `stale_s` as in [`crate::api::StoreView`].
pub(crate) fn store(
    to: &mut DescriptorEncoder<'_>,
    generation: Generation,
    stale_s: Option<u64>,
) -> Encoded {
    family(
        to,
        "store_age",
        "Since what is known was last known to be what the store holds; 0 while it is heard",
        Some(&Unit::Seconds),
        MetricType::Gauge,
        |each| gauge(each, &[], stale_s.unwrap_or(0)),
    )?;
    for (name, help, value) in [
        ("store_generation", "Generation of the store", generation),
        (
            "store_stale",
            "1 when the store is not heard, so that nothing can be changed",
            u64::from(stale_s.is_some()),
        ),
    ] {
        family(to, name, help, None, MetricType::Gauge, |each| {
            gauge(each, &[], value)
        })?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    /// How many samples each family of a text has, by the family's name: a text that is as OpenMetrics has it, and names
    /// things by the house's rules.
    pub(crate) fn families(body: &str) -> BTreeMap<String, usize> {
        let mut families: BTreeMap<String, usize> = BTreeMap::new();
        let mut current = None;
        for line in body.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let (name, kind) = family.split_once(' ').unwrap();
                assert!(name.starts_with("ccn_"), "{name}");
                assert!(
                    !name.contains("_total"),
                    "{name}: the encoder adds it to counters"
                );
                assert!(
                    families.insert(name.to_owned(), 0).is_none(),
                    "{name} twice"
                );
                current = Some((name, kind));
            } else if !line.starts_with('#') {
                let (name, kind) = current.unwrap_or_else(|| panic!("{line} before any # TYPE"));
                let suffix = line.split(['{', ' ']).next().unwrap().strip_prefix(name);
                let suffixes: &[&str] = match kind {
                    "gauge" => &[""],
                    "counter" => &["_total"],
                    "histogram" => &["_bucket", "_count", "_sum"],
                    kind => panic!("{name} is a {kind}"),
                };
                assert!(
                    suffix.is_some_and(|suffix| suffixes.contains(&suffix)),
                    "{line} is no sample of {name}, a {kind}"
                );
                *families.get_mut(name).unwrap() += 1;
            }
        }
        assert!(body.ends_with("# EOF\n"), "{body}");
        families
    }
}

//! Whom to report to over BMP (RFC 7854), and what.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A monitoring station. We connect to it, and again whenever the connection is lost.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BmpCollector {
    /// Its address.
    pub address: IpAddr,
    /// Its port. BMP has none of its own; 11019 is what others use.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Seconds between two reports of the counters of each peer; 0: none. At most a day.
    #[serde(default = "default_stats_interval")]
    pub stats_interval_s: u32,
    /// Report routes as peers tell them, before our import policy. We keep none of those, so when
    /// the collector connects, peers are asked for their routes again (RFC 2918).
    #[serde(default)]
    pub pre_policy: bool,
    /// Report routes as our import policy left them.
    #[serde(default = "default_post_policy")]
    pub post_policy: bool,
}

/// The longest [`BmpCollector::stats_interval_s`].
const MAX_STATS_INTERVAL: u32 = 24 * 3600;

fn default_port() -> u16 {
    11019
}

fn default_stats_interval() -> u32 {
    60
}

fn default_post_policy() -> bool {
    true
}

impl BmpCollector {
    /// A collector with default terms at this address.
    pub fn new(address: IpAddr) -> BmpCollector {
        BmpCollector {
            address,
            port: default_port(),
            stats_interval_s: default_stats_interval(),
            pre_policy: false,
            post_policy: default_post_policy(),
        }
    }

    /// Where it listens.
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// How often its counters are reported, if at all.
    pub fn stats_interval(&self) -> Option<Duration> {
        (self.stats_interval_s > 0).then(|| Duration::from_secs(self.stats_interval_s.into()))
    }
}

/// What is wrong with them, by the place in the list.
pub(super) fn check(collectors: &[BmpCollector]) -> Result<(), String> {
    for (index, collector) in collectors.iter().enumerate() {
        let fault = |reason: String| Err(format!("[{index}].{reason}"));
        let address = collector.address;
        if address.is_unspecified() || address.is_multicast() {
            return fault(format!("address: {address} is no address of a host"));
        }
        if collector.port == 0 {
            return fault("port: must not be 0".to_owned());
        }
        if collector.stats_interval_s > MAX_STATS_INTERVAL {
            return fault(format!(
                "stats_interval_s: must be 0 (none) to {MAX_STATS_INTERVAL}"
            ));
        }
        if !collector.pre_policy && !collector.post_policy {
            return fault(
                "post_policy: nothing is to be reported: set it or pre_policy to true".to_owned(),
            );
        }
        let where_to = collector.socket_address();
        if collectors[..index]
            .iter()
            .any(|earlier| earlier.socket_address() == where_to)
        {
            return fault(format!("address: {where_to} is configured twice"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collectors(text: &str) -> Result<Vec<BmpCollector>, String> {
        #[derive(serde::Deserialize)]
        struct File {
            bmp: Vec<BmpCollector>,
        }
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        check(&file.bmp)?;
        Ok(file.bmp)
    }

    #[test]
    fn an_address_is_enough() {
        let seen = collectors("bmp = [{ address = '10.0.0.9' }]").unwrap();
        assert_eq!(seen, [BmpCollector::new("10.0.0.9".parse().unwrap())]);
        assert_eq!(seen[0].socket_address().to_string(), "10.0.0.9:11019");
        assert_eq!(seen[0].stats_interval(), Some(Duration::from_secs(60)));
        assert!(seen[0].post_policy && !seen[0].pre_policy);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_field() {
        for (fields, expected) in [
            (
                "address = '0.0.0.0'",
                "[0].address: 0.0.0.0 is no address of a host",
            ),
            ("address = '10.0.0.9', port = 0", "[0].port: must not be 0"),
            (
                "address = '10.0.0.9', stats_interval_s = 86401",
                "[0].stats_interval_s: must be 0 (none) to 86400",
            ),
            (
                "address = '10.0.0.9', post_policy = false",
                "[0].post_policy: nothing is to be reported: set it or pre_policy to true",
            ),
            ("address = '10.0.0.9', colour = 1", "unknown field `colour`"),
            ("address = 'there'", "invalid IP address syntax"),
        ] {
            let error = collectors(&format!("bmp = [{{ {fields} }}]")).unwrap_err();
            assert!(error.contains(expected), "{fields}: {error}");
        }
        let twice = "bmp = [{ address = '10.0.0.9' }, { address = '10.0.0.9' }]";
        let error = collectors(twice).unwrap_err();
        assert_eq!(error, "[1].address: 10.0.0.9:11019 is configured twice");
    }
}

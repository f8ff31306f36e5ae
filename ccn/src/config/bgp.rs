//! `[bgp]`: who the gateway peers with, and what that makes of the speaker.
//!
//! A gateway says what it is linked with and passes nothing on: whatever is written here, no learned
//! route is told to a peer.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ::bgp::{
    Aggregate, BmpCollector, DynamicPeers, ExportPolicy, GracefulRestart, MrtConfig, Multipath,
    PeerConfig, RuleList, SpeakerConfig,
};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::drain::Terms;

/// `[bgp]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BgpConfig {
    /// Our AS number, 1..=4294967295.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Where to listen; empty to only connect.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// How long routers are asked to keep our routes while the agent is away, 0..=4095 s (RFC 4724).
    #[serde(default = "default_restart_time")]
    pub restart_time_s: u16,
    /// Most next hops of one learned prefix.
    #[serde(default = "default_max_paths")]
    pub max_paths: usize,
    /// How long forwarding outlives the moment at which every peer has a withdrawal, in ms.
    #[serde(default = "default_drain")]
    pub drain_ms: u64,
    /// Drain the gateway before the agent ends by SIGTERM or SIGINT; a second one ends it at once. By default the routers
    /// are asked to keep our routes meanwhile.
    #[serde(default)]
    pub drain_on_stop: bool,
    /// How long routers have to move once they know that this gateway is about to go, 0..=3,600,000 ms.
    #[serde(default = "default_drain_settle")]
    pub drain_settle_ms: u64,
    /// After the withdrawal: how long the peers may take to have it, and traffic to end, 0..=3,600,000 ms.
    #[serde(default = "default_drain_wait")]
    pub drain_wait_ms: u64,
    /// Routes that stand for the linked subnets inside them.
    #[serde(default)]
    pub aggregate: Vec<Aggregate>,
    /// Monitoring stations that are told sessions and routes over BMP (RFC 7854).
    #[serde(default)]
    pub bmp: Vec<BmpCollector>,
    /// A log of what routers say, as MRT files (RFC 6396); absent: none.
    #[serde(default)]
    pub mrt: Option<MrtConfig>,
    /// The routers.
    #[serde(default, rename = "peer")]
    pub peers: Vec<PeerConfig>,
    /// Routers that are known by the prefix they connect from.
    #[serde(default)]
    pub dynamic: Vec<DynamicPeers>,
}

fn default_restart_time() -> u16 {
    120
}

fn default_max_paths() -> usize {
    16
}

fn default_drain() -> u64 {
    500
}

fn default_drain_settle() -> u64 {
    5_000
}

fn default_drain_wait() -> u64 {
    30_000
}

/// Packets a second that are no traffic any more: an address that is looked for now and then.
const STRAY: f64 = 1.0;

impl BgpConfig {
    /// What the speaker is told. `adopted`: forwarding state of an earlier run goes on forwarding,
    /// so this is a restart as graceful restart means it (RFC 4724).
    #[must_use]
    pub fn speaker(&self, adopted: bool) -> SpeakerConfig {
        let dynamic = |group: &DynamicPeers| DynamicPeers {
            template: announcing_own(&group.template),
            ..group.clone()
        };
        SpeakerConfig {
            listen: self.listen.clone(),
            multipath: Multipath {
                max_paths: self.max_paths,
                relax: true,
            },
            graceful_restart: Some(GracefulRestart {
                restart_time: self.restart_time(),
                forwarding_preserved: adopted,
                restarting: adopted,
            }),
            track_next_hops: true,
            aggregate: self.aggregate.clone(),
            bmp: self.bmp.clone(),
            mrt: self.mrt.clone(),
            peers: self.peers.iter().map(announcing_own).collect(),
            dynamic: self.dynamic.iter().map(dynamic).collect(),
            ..SpeakerConfig::new(self.asn, self.router_id)
        }
    }

    /// Keeps the word of who wrote `export = "none"`: only an export that is not written at all means
    /// every linked subnet. `text` is what this was read from.
    pub(super) fn keep_silence(&mut self, text: &str) -> Result<(), toml::de::Error> {
        let Written { bgp } = toml::from_str(text)?;
        let peers = self.peers.iter_mut();
        let templates = self.dynamic.iter_mut().map(|group| &mut group.template);
        let written = bgp.peer.iter().chain(&bgp.dynamic);
        for (peer, written) in peers.chain(templates).zip(written) {
            if peer.export == ExportPolicy::None && written.export.is_some() {
                peer.export = ExportPolicy::List(RuleList::default());
            }
        }
        Ok(())
    }

    /// See [`BgpConfig::drain_ms`].
    #[must_use]
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }

    /// How to drain where an order says nothing else, as when the agent ends.
    #[must_use]
    pub fn drain_terms(&self) -> Terms {
        Terms {
            settle: Duration::from_millis(self.drain_settle_ms),
            wait: Duration::from_millis(self.drain_wait_ms),
            threshold: STRAY,
            remember: false,
        }
    }

    /// See [`BgpConfig::restart_time_s`].
    #[must_use]
    pub fn restart_time(&self) -> Duration {
        Duration::from_secs(u64::from(self.restart_time_s))
    }

    /// The first field that is well formed and wrong all the same, and why.
    pub(super) fn first_fault(&self) -> Option<(String, String)> {
        if self.restart_time_s > 4095 {
            let reason = format!("{} is over 4095 s (RFC 4724)", self.restart_time_s);
            return Some(("bgp.restart_time_s".to_owned(), reason));
        }
        if let Some((field, reason)) = self.drain_terms().first_fault() {
            return Some((format!("bgp.drain_{field}_ms"), reason));
        }
        let templates = self.dynamic.iter().map(|group| &group.template);
        if let Some(peer) = self
            .peers
            .iter()
            .chain(templates)
            .find(|peer| peer.export.passes_on())
        {
            let reason = format!(
                "peer {} would be told learned routes: a gateway announces its links and passes \
                 nothing on; leave export out, or write export = {{ local = [RULES] }}",
                peer.name
            );
            return Some(("bgp.peer.export".to_owned(), reason));
        }
        match self.speaker(false).check() {
            Ok(()) => None,
            Err(error) => Some(("bgp".to_owned(), error.to_string())),
        }
    }
}

/// The file once more, as far as it matters whether something is written.
#[derive(Deserialize)]
struct Written {
    bgp: WrittenBgp,
}

#[derive(Deserialize)]
struct WrittenBgp {
    #[serde(default)]
    peer: Vec<WrittenPeer>,
    #[serde(default)]
    dynamic: Vec<WrittenPeer>,
}

#[derive(Deserialize)]
struct WrittenPeer {
    export: Option<IgnoredAny>,
}

/// Without an export policy, a router is told every linked subnet.
fn announcing_own(peer: &PeerConfig) -> PeerConfig {
    let export = match &peer.export {
        ExportPolicy::None => ExportPolicy::Local,
        rules => rules.clone(),
    };
    PeerConfig {
        export,
        ..peer.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &str) -> Result<BgpConfig, String> {
        let text = format!("asn = 65001\nrouter_id = \"10.99.0.1\"\n{rest}");
        let config: BgpConfig = toml::from_str(&text).map_err(|error| error.to_string())?;
        match config.first_fault() {
            None => Ok(config),
            Some((field, reason)) => Err(format!("{field}: {reason}")),
        }
    }

    #[test]
    fn every_peer_is_told_what_is_ours_and_nothing_else() {
        let group = "[[dynamic]]\nname = \"tor\"\nprefix = \"10.98.0.0/24\"\nasn = 65002\n";
        let peer = "[[peer]]\nname = \"r\"\naddress = \"10.99.0.2\"\nasn = 65002\n";
        for section in [peer, group] {
            let export = |text: &str| {
                let config = parse(&format!("{section}{text}"))?;
                let speaker = config.speaker(false);
                let peer = speaker.peers.first();
                let peer = peer.or(speaker.dynamic.first().map(|group| &group.template));
                Ok::<_, String>(peer.map(|peer| peer.export.clone()))
            };
            assert_eq!(export(""), Ok(Some(ExportPolicy::Local)));
            assert_eq!(export("export = \"local\""), Ok(Some(ExportPolicy::Local)));
            let rules = "export = { local = [{ permit = \"any\", set = { med = 5 } }] }";
            assert!(matches!(export(rules), Ok(Some(ExportPolicy::List(_)))));
            let own = "export = { all = [{ permit = \"any\", from = \"local\" }] }";
            assert!(matches!(export(own), Ok(Some(ExportPolicy::List(_)))));
            for passes_on in ["\"all\"", "{ all = [{ permit = \"10.0.0.0/8\" }] }"] {
                let refused = export(&format!("export = {passes_on}")).unwrap_err();
                assert!(refused.contains("passes nothing on"), "{refused}");
            }
        }
    }

    #[test]
    fn dynamic_peers_and_aggregates_reach_the_speaker() {
        let config = parse(
            "aggregate = [{ prefix = \"10.1.0.0/16\", summary_only = true }]\n\
             [[dynamic]]\nname = \"tor\"\nprefix = \"10.98.0.0/24\"\nasn = \"external\"\nlimit = 2\n",
        );
        let speaker = config.unwrap().speaker(false);
        assert!(speaker.aggregate[0].summary_only);
        assert_eq!(speaker.dynamic[0].limit, 2);
        assert!(speaker.peers.is_empty());
    }
}

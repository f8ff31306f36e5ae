//! Our speaker in the gateway's place, with the configuration that the agent would have.

use std::sync::Arc;

use bgp::{ExportPolicy, SpeakerConfig};
use interop::gateway::BgpSection;
use interop::speaker::BareSpeaker;
use netlink::Namespace;

use super::encounter::Failure;

/// Runs in the namespace, and tells its peers everything it announces.
pub(super) fn start(
    namespace: Arc<Namespace>,
    section: &BgpSection,
) -> Result<BareSpeaker, Failure> {
    let mut config = SpeakerConfig {
        listen: section.listen.clone(),
        ..SpeakerConfig::new(section.asn, section.router_id)
    };
    for peer in &section.peer {
        let mut peer: bgp::PeerConfig = toml::from_str(&toml::to_string(peer)?)?;
        peer.export = ExportPolicy::Local;
        config.peers.push(peer);
    }
    Ok(BareSpeaker::start(namespace, config)?)
}

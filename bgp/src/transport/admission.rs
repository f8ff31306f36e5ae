//! Who may connect, and under which terms. Pure: asked for every connection before anything else
//! is done with it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

use super::key::Key;
use super::option::SocketTerms;
use super::secret::{Secret, SecretError};
use crate::config::{InterfaceName, PeerConfig, PeerName, SpeakerConfig, is_link_local};
use crate::wire::Prefix;

/// A key file of a peer that is refused.
#[derive(Debug, thiserror::Error)]
#[error("peer {peer}: {source}")]
pub struct PeerSecretError {
    /// The peer.
    pub peer: PeerName,
    /// What is wrong.
    #[source]
    pub source: SecretError,
}

/// Everybody we know.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    /// By address, and by interface where the address alone says nothing.
    sources: HashMap<(IpAddr, Option<InterfaceName>), Arc<SocketTerms>>,
    /// By prefix, and by interface where that is link-local; the longest first.
    prefixes: Vec<(Prefix, Option<InterfaceName>, Arc<SocketTerms>)>,
    /// The terms of connecting.
    named: HashMap<PeerName, Arc<SocketTerms>>,
}

impl Admission {
    /// Of a checked configuration; reads the key files.
    ///
    /// # Errors
    /// The first file that is refused.
    pub(crate) fn read(config: &SpeakerConfig) -> Result<Admission, PeerSecretError> {
        let mut admission = Admission::default();
        for peer in &config.peers {
            let key = key(peer).map_err(|source| PeerSecretError {
                peer: peer.name.clone(),
                source,
            })?;
            let terms = Arc::new(SocketTerms {
                whom: peer.address.into(),
                interface: peer.interface.clone(),
                hops: peer.hops(peer.asn == config.asn),
                key,
            });
            admission.sources.insert(peer.source(), terms.clone());
            admission.named.insert(peer.name.clone(), terms);
        }
        for group in &config.dynamic {
            let template = &group.template;
            let key = key(template).map_err(|source| PeerSecretError {
                peer: template.name.clone(),
                source,
            })?;
            let terms = SocketTerms {
                whom: group.prefix.into(),
                interface: template.interface.clone(),
                hops: template.hops(group.asn.is_internal(config.asn)),
                key,
            };
            let link = template.interface.clone();
            let link = link.filter(|_| is_link_local(group.prefix.addr()));
            admission
                .prefixes
                .push((group.prefix, link, Arc::new(terms)));
        }
        admission
            .prefixes
            .sort_by_key(|(prefix, ..)| std::cmp::Reverse(prefix.len()));
        Ok(admission)
    }

    fn all(&self) -> impl Iterator<Item = &Arc<SocketTerms>> {
        let prefixes = self.prefixes.iter().map(|(.., terms)| terms);
        self.sources.values().chain(prefixes)
    }

    /// The terms for a connection from this address, which came in by that interface; `None`:
    /// nobody is known there.
    pub(crate) fn of_source(
        &self,
        address: IpAddr,
        interface: Option<&InterfaceName>,
    ) -> Option<&Arc<SocketTerms>> {
        let link = interface.filter(|_| is_link_local(address)).cloned();
        let source = (address, link);
        if let Some(terms) = self.sources.get(&source) {
            return Some(terms);
        }
        if is_link_local(address) && source.1.is_none() {
            return None;
        }
        let known = |(prefix, link, _): &&(Prefix, Option<InterfaceName>, _)| {
            prefix.contains_addr(address) && (source.1.is_none() || *link == source.1)
        };
        self.prefixes.iter().find(known).map(|(.., terms)| terms)
    }

    /// The terms for connecting to this peer.
    pub(crate) fn of_peer(&self, name: &PeerName) -> Option<&Arc<SocketTerms>> {
        self.named.get(name)
    }

    /// Every key that a socket which listens at this address needs.
    pub(crate) fn keys(&self, listen: IpAddr) -> impl Iterator<Item = (IpNet, &Key)> {
        self.all()
            .filter(move |terms| terms.whom.addr().is_ipv4() == listen.is_ipv4())
            .filter_map(|terms| Some((terms.whom, terms.key.as_ref()?)))
    }

    /// The lowest TTL that anybody we know may arrive with at this address; 0: any.
    pub(crate) fn least_ttl(&self, listen: IpAddr) -> u8 {
        self.all()
            .filter(|terms| terms.whom.addr().is_ipv4() == listen.is_ipv4())
            .map(|terms| terms.hops.least())
            .min()
            .unwrap_or(0)
    }
}

fn key(peer: &PeerConfig) -> Result<Option<Key>, SecretError> {
    let read = |path: &Path| Secret::read(path);
    if let Some(path) = &peer.password_file {
        return Ok(Some(Key::Md5(read(path)?)));
    }
    let Some(ao) = &peer.tcp_ao else {
        return Ok(None);
    };
    Ok(Some(Key::Ao {
        secret: read(&ao.key_file)?,
        send: ao.key_id,
        receive: ao.recv_id,
        algorithm: ao.algorithm,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str, address: &str, interface: Option<&str>) -> PeerConfig {
        PeerConfig {
            interface: interface.map(|name| name.parse().unwrap()),
            ..PeerConfig::new(name.parse().unwrap(), address.parse().unwrap(), 65002)
        }
    }

    #[test]
    fn only_configured_sources_are_known() {
        let config = SpeakerConfig {
            peers: vec![
                peer("a", "10.99.0.2", None),
                peer("b", "fd99::2", Some("eth0")),
                peer("c", "fe80::2", Some("eth0")),
                peer("d", "fe80::2", Some("eth1")),
            ],
            ..SpeakerConfig::new(65001, "10.99.0.1".parse().unwrap())
        };
        config.check().unwrap();
        let admission = Admission::read(&config).unwrap();
        for (address, interface, known) in [
            ("10.99.0.2", None, true),
            ("10.99.0.2", Some("eth7"), true),
            ("10.99.0.3", None, false),
            ("fd99::2", Some("eth0"), true),
            ("fe80::2", Some("eth0"), true),
            ("fe80::2", Some("eth1"), true),
            ("fe80::2", Some("eth2"), false),
            ("fe80::2", None, false),
            ("::ffff:10.99.0.2", None, false),
        ] {
            let interface = interface.map(|name| name.parse().unwrap());
            let terms = admission.of_source(address.parse().unwrap(), interface.as_ref());
            assert_eq!(terms.is_some(), known, "{address} {interface:?}");
        }
        let c = admission.of_peer(&"c".parse().unwrap()).unwrap();
        assert_eq!(c.interface.as_ref().unwrap().as_str(), "eth0");
    }

    #[test]
    fn a_listener_drops_by_ttl_only_what_nobody_may_send() {
        let secured = |hops, name: &str, address: &str| PeerConfig {
            ttl_security: Some(hops),
            ..peer(name, address, None)
        };
        let v4 = "0.0.0.0".parse().unwrap();
        let v6 = "::".parse().unwrap();
        let least = |peers| {
            let config = SpeakerConfig {
                peers,
                ..SpeakerConfig::new(65001, "10.99.0.1".parse().unwrap())
            };
            let admission = Admission::read(&config).unwrap();
            (admission.least_ttl(v4), admission.least_ttl(v6))
        };
        assert_eq!(least(vec![]), (0, 0));
        let both = vec![secured(1, "a", "10.0.0.2"), secured(3, "b", "10.0.0.3")];
        assert_eq!(least(both), (253, 0));
        let mixed = vec![secured(1, "a", "10.0.0.2"), peer("b", "10.0.0.3", None)];
        assert_eq!(least(mixed), (0, 0));
        assert_eq!(least(vec![secured(1, "a", "fd00::2")]), (0, 255));
    }
}

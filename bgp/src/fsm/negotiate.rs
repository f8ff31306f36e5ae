//! OPENs: the one we send, and what we make of the peer's (RFC 4271 section 6.2).
//!
//! Decides whether the peer is the one configured and what both sides have in common. The OPEN
//! has been parsed; what its octets alone show wrong has been dealt with.

use std::net::Ipv4Addr;

use crate::config::{self, GracefulRestart, PeerConfig};
use crate::wire::capability::{AddPath, AddPathMode, ExtendedNextHop};
use crate::wire::prefix::AFI_IPV6;
use crate::wire::{
    self, AfiSafi, Capability, Family, FamilySet, GracefulRestartFamily, Open, OpenError, Role,
    WireOptions,
};

/// Who we are towards a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Local {
    /// Our AS number.
    pub asn: u32,
    /// Our BGP identifier.
    pub router_id: Ipv4Addr,
    /// Graceful restart as it stands now: the R bit goes once the restart is over.
    pub graceful_restart: Option<GracefulRestart>,
    /// We are about to go, and say so in every route (RFC 8326).
    pub graceful_shutdown: bool,
}

impl Local {
    /// Who we are towards this peer: it may know us by another AS number.
    pub fn towards(&self, peer: &PeerConfig) -> Local {
        Local {
            asn: peer.local_asn.unwrap_or(self.asn),
            ..*self
        }
    }
}

/// What both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's AS number.
    pub asn: u32,
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
    /// The smaller of the two hold times, in seconds; 0: none (RFC 4271 section 4.2).
    pub hold_time: u16,
    /// The families both sides named, at least one.
    pub families: Vec<Family>,
    /// Both sides know ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// Both sides know its marks (RFC 7313).
    pub enhanced_refresh: bool,
    /// The peer's graceful restart capability (RFC 4724), if it has one and we offered ours.
    pub graceful_restart: Option<wire::GracefulRestart>,
    /// Families whose routes may stay for long, if both sides offered it (RFC 9494).
    pub long_lived: Vec<wire::LongLivedFamily>,
    /// How messages look from now on.
    pub options: WireOptions,
    /// What we offered.
    pub ours: Vec<Capability>,
    /// What the peer offered.
    pub theirs: Vec<Capability>,
}

impl Negotiated {
    /// Whether the family may be exchanged.
    pub fn carries(&self, family: Family) -> bool {
        self.families.contains(&family)
    }

    /// Whether a NOTIFICATION other than a hard reset leaves routes where they are (RFC 8538).
    pub fn survives_notification(&self) -> bool {
        let restart = self.graceful_restart.as_ref();
        restart.is_some_and(|restart| restart.notification)
    }

    /// Whether the peer's routes of the family stay while it restarts.
    pub fn survives_restart(&self, family: Family) -> bool {
        let restart = self.graceful_restart.iter();
        let mut kept = restart.flat_map(|restart| &restart.families);
        self.carries(family) && kept.any(|entry| entry.family.family() == Some(family))
    }

    /// Whether the peer says that it has gone on forwarding routes of the family.
    pub fn forwarding_preserved(&self, family: Family) -> bool {
        let restart = self.graceful_restart.iter();
        let mut kept = restart.flat_map(|restart| &restart.families);
        self.carries(family)
            && kept.any(|entry| entry.family.family() == Some(family) && entry.forwarding_preserved)
    }

    /// What is in use of a capability that we or the peer offered; `None`: nothing.
    pub fn in_use(&self, capability: &Capability) -> bool {
        let both = self.ours.iter().chain(&self.theirs);
        let offered = |list: &[Capability]| list.iter().any(|c| c.code() == capability.code());
        match capability {
            Capability::Multiprotocol(family) => {
                family.family().is_some_and(|family| self.carries(family))
            }
            Capability::AddPath(_) => {
                !self.options.add_path_send.is_empty() || !self.options.add_path_receive.is_empty()
            }
            Capability::ExtendedNextHop(_) => self.options.ipv4_next_hop_v6,
            Capability::EnhancedRouteRefresh => self.enhanced_refresh,
            Capability::Unknown { .. } => false,
            _ => both.count() > 0 && offered(&self.ours) && offered(&self.theirs),
        }
    }
}

/// Our OPEN towards this peer.
pub fn open(local: &Local, peer: &PeerConfig) -> Open {
    let switches = &peer.capabilities;
    let families = || peer.families.iter().map(|family| AfiSafi::from(*family));
    let mut capabilities: Vec<Capability> = families().map(Capability::Multiprotocol).collect();
    let mut offer = |offered: bool, capability: Capability| {
        if offered {
            capabilities.push(capability);
        }
    };
    offer(switches.route_refresh, Capability::RouteRefresh);
    offer(
        switches.route_refresh && switches.enhanced_refresh,
        Capability::EnhancedRouteRefresh,
    );
    offer(switches.extended_messages, Capability::ExtendedMessage);
    offer(
        switches.ipv4_next_hop_v6 && peer.families.contains(&Family::Ipv4Unicast),
        Capability::ExtendedNextHop(vec![ExtendedNextHop {
            family: Family::Ipv4Unicast.into(),
            next_hop_afi: AFI_IPV6,
        }]),
    );
    if let Some(mode) = add_path_mode(switches.add_path) {
        let entries = families().map(|family| AddPath { family, mode });
        offer(true, Capability::AddPath(entries.collect()));
    }
    if let Some(role) = peer.role {
        offer(true, Capability::Role(role as u8));
    }
    let restart = local.graceful_restart;
    let preserved = restart.is_some_and(|restart| restart.forwarding_preserved);
    offer(
        switches.graceful_restart,
        Capability::GracefulRestart(wire::GracefulRestart {
            restarting: restart.is_some_and(|restart| restart.restarting),
            notification: true,
            // The configuration was checked; the field holds no more.
            restart_time: restart.map_or(0, |restart| {
                u16::try_from(restart.restart_time.as_secs())
                    .unwrap_or(u16::MAX)
                    .min(wire::GracefulRestart::MAX_RESTART_TIME)
            }),
            // Without a family: we only help others.
            families: families()
                .filter(|_| restart.is_some())
                .map(|family| GracefulRestartFamily {
                    family,
                    forwarding_preserved: preserved,
                })
                .collect(),
        }),
    );
    let stale_time = u32::try_from(switches.long_lived_stale_time.as_secs()).unwrap_or(u32::MAX);
    offer(
        // RFC 9494 section 4.1: not without graceful restart.
        switches.graceful_restart && stale_time > 0,
        Capability::LongLivedGracefulRestart(
            families()
                .map(|family| wire::LongLivedFamily {
                    family,
                    forwarding_preserved: preserved,
                    stale_time: stale_time.min(wire::LongLivedFamily::MAX_STALE_TIME),
                })
                .collect(),
        ),
    );
    let mut open = Open::new(local.asn, peer.hold_time, local.router_id, capabilities);
    if !switches.four_octet_as {
        open.capabilities
            .retain(|capability| !matches!(capability, Capability::FourOctetAs(_)));
    }
    open
}

fn add_path_mode(configured: config::AddPath) -> Option<AddPathMode> {
    match configured {
        config::AddPath::Off => None,
        config::AddPath::Send => Some(AddPathMode::Send),
        config::AddPath::Receive => Some(AddPathMode::Receive),
        config::AddPath::Both => Some(AddPathMode::Both),
    }
}

/// Judges the peer's OPEN.
///
/// # Errors
/// The [`OpenError`] whose NOTIFICATION is to be sent: 2/2 for another AS than configured, 2/3 for
/// an identifier that is 0 or, from an internal peer, our own (RFC 6286), 2/6 for a hold time of 1
/// or 2 seconds, 2/7 when no family is common (the data then names ours, RFC 5492 section 5), 2/11
/// when its role does not go with ours (RFC 9234 section 4.2).
pub fn judge(local: &Local, peer: &PeerConfig, open: &Open) -> Result<Negotiated, OpenError> {
    if open.asn() != peer.asn {
        return Err(OpenError::PeerAs {
            expected: peer.asn,
            received: open.asn(),
        });
    }
    let internal = peer.asn == local.asn;
    if open.router_id.is_unspecified() || (internal && open.router_id == local.router_id) {
        return Err(OpenError::Identifier(open.router_id));
    }
    if matches!(open.hold_time, 1 | 2) {
        return Err(OpenError::HoldTime(open.hold_time));
    }
    let theirs = open.families();
    let families: Vec<Family> = peer
        .families
        .iter()
        .copied()
        .filter(|family| theirs.contains(family))
        .collect();
    if families.is_empty() {
        let ours = peer
            .families
            .iter()
            .map(|family| Capability::multiprotocol(*family));
        return Err(OpenError::MissingCapabilities(ours.collect()));
    }
    if !internal {
        judge_role(peer, open)?;
    }
    let ours = self::open(local, peer).capabilities;
    let switches = &peer.capabilities;
    let has = |capability| open.capabilities.contains(&capability);
    let refresh = switches.route_refresh && open.route_refresh();
    let add_path = |ours: bool, theirs: fn(AddPathMode) -> bool| {
        let common = families
            .iter()
            .copied()
            .filter(|family| ours && add_path_of(open, *family).is_some_and(theirs));
        common.collect::<FamilySet>()
    };
    let next_hop_v6 = open.capabilities.iter().any(|capability| {
        let Capability::ExtendedNextHop(entries) = capability else {
            return false;
        };
        entries.iter().any(|entry| {
            entry.family == Family::Ipv4Unicast.into() && entry.next_hop_afi == AFI_IPV6
        })
    });
    Ok(Negotiated {
        asn: open.asn(),
        router_id: open.router_id,
        hold_time: peer.hold_time.min(open.hold_time),
        route_refresh: refresh,
        enhanced_refresh: refresh
            && switches.enhanced_refresh
            && has(Capability::EnhancedRouteRefresh),
        graceful_restart: open
            .graceful_restart()
            .filter(|_| switches.graceful_restart)
            .cloned(),
        long_lived: long_lived(peer, open),
        options: WireOptions {
            four_octet_as: switches.four_octet_as && open.four_octet_as().is_some(),
            extended_messages: switches.extended_messages && has(Capability::ExtendedMessage),
            internal,
            allow_as_set: peer.as_path.allow_as_set,
            first_as: (!internal && peer.as_path.enforce_first_as).then(|| open.asn()),
            add_path_send: add_path(switches.add_path.sends(), AddPathMode::receives),
            add_path_receive: add_path(switches.add_path.receives(), AddPathMode::sends),
            ipv4_next_hop_v6: switches.ipv4_next_hop_v6
                && next_hop_v6
                && families.contains(&Family::Ipv4Unicast),
        },
        families,
        ours,
        theirs: open.capabilities.clone(),
    })
}

/// RFC 9234 section 4.2; of several roles that differ none fits.
fn judge_role(peer: &PeerConfig, open: &Open) -> Result<(), OpenError> {
    let Some(ours) = peer.role else {
        return Ok(());
    };
    let roles = open
        .capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::Role(role) => Some(*role),
            _ => None,
        });
    let mut theirs: Vec<u8> = roles.collect();
    theirs.dedup();
    match theirs.as_slice() {
        [] if !peer.role_strict => Ok(()),
        [one] if Role::from_octet(*one).is_some_and(|theirs| ours.fits(theirs)) => Ok(()),
        all => Err(OpenError::Role {
            ours,
            theirs: all.first().copied(),
        }),
    }
}

/// What the peer does with several paths, of the last entry for the family.
fn add_path_of(open: &Open, family: Family) -> Option<AddPathMode> {
    let entries = open
        .capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::AddPath(entries) => Some(entries),
            _ => None,
        });
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.retain(|entry| entry.family == family.into());
    entries.last().map(|entry| entry.mode)
}

/// The families that both sides offered to keep for long. Without graceful restart the capability
/// is ignored (RFC 9494 section 4.1).
fn long_lived(peer: &PeerConfig, open: &Open) -> Vec<wire::LongLivedFamily> {
    let switches = &peer.capabilities;
    let offered = switches.graceful_restart && !switches.long_lived_stale_time.is_zero();
    if !offered || open.graceful_restart().is_none() {
        return Vec::new();
    }
    let entries = open
        .capabilities
        .iter()
        .filter_map(|capability| match capability {
            Capability::LongLivedGracefulRestart(entries) => Some(entries.as_slice()),
            _ => None,
        });
    let known = |entry: &&wire::LongLivedFamily| {
        let family = entry.family.family();
        family.is_some_and(|family| peer.families.contains(&family))
    };
    entries.flatten().filter(known).copied().collect()
}

/// Which of two colliding connections stays (RFC 4271 section 6.8, RFC 6286 section 2.3): true for
/// the one we opened, false for the one the peer opened.
///
/// The one opened by the side with the higher identifier stays; of equal identifiers (only
/// possible between external peers), the one opened by the side with the higher AS number.
pub fn ours_survives(local: &Local, peer_router_id: Ipv4Addr, peer_asn: u32) -> bool {
    (local.router_id, local.asn) > (peer_router_id, peer_asn)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::PeerName;
    use crate::wire::AfiSafi;

    fn local() -> Local {
        Local {
            asn: 65001,
            router_id: Ipv4Addr::new(10, 0, 0, 1),
            graceful_restart: None,
            graceful_shutdown: false,
        }
    }

    fn peer(asn: u32) -> PeerConfig {
        let name = PeerName::try_from("idc1").unwrap();
        PeerConfig::new(name, "10.99.0.2".parse().unwrap(), asn)
    }

    fn their_open(asn: u32, hold_time: u16, id: [u8; 4], families: &[Family]) -> Open {
        let capabilities = families
            .iter()
            .map(|family| Capability::multiprotocol(*family));
        Open::new(asn, hold_time, id.into(), capabilities.collect())
    }

    #[test]
    fn an_open_is_judged_as_the_rfc_says() {
        const ID: [u8; 4] = [10, 0, 0, 2];
        const OURS: [u8; 4] = [10, 0, 0, 1];
        let ipv4 = [Family::Ipv4Unicast];
        // configured AS, OPEN, code and subcode or the hold time agreed on
        let rows = [
            (65002, their_open(65002, 90, ID, &ipv4), Ok(9)),
            (65002, their_open(65002, 3, ID, &ipv4), Ok(3)),
            (65002, their_open(65002, 0, ID, &ipv4), Ok(0)),
            (65002, their_open(65002, 1, ID, &ipv4), Err((2, 6))),
            (65002, their_open(65002, 2, ID, &ipv4), Err((2, 6))),
            (65002, their_open(65003, 90, ID, &ipv4), Err((2, 2))),
            (
                4_200_000_000,
                their_open(4_200_000_000, 90, ID, &ipv4),
                Ok(9),
            ),
            (65002, their_open(65002, 90, [0; 4], &ipv4), Err((2, 3))),
            (65002, their_open(65002, 90, OURS, &ipv4), Ok(9)),
            (65001, their_open(65001, 90, OURS, &ipv4), Err((2, 3))),
            (65001, their_open(65001, 90, ID, &ipv4), Ok(9)),
            // Without any multiprotocol capability a peer speaks IPv4.
            (65002, their_open(65002, 90, ID, &[]), Ok(9)),
        ];
        for (asn, open, expected) in rows {
            let seen = judge(&local(), &peer(asn), &open)
                .map(|negotiated| negotiated.hold_time)
                .map_err(|error| (error.notification().code, error.notification().subcode));
            assert_eq!(seen, expected, "configured {asn}, {open:?}");
        }
    }

    #[test]
    fn without_a_common_family_ours_are_the_data() {
        let mut config = peer(65002);
        config.families = vec![Family::Ipv6Unicast];
        let open = their_open(65002, 9, [10, 0, 0, 2], &[Family::Ipv4Unicast]);
        let notification = judge(&local(), &config, &open).unwrap_err().notification();
        assert_eq!((notification.code, notification.subcode), (2, 7));
        assert_eq!(&notification.data[..], [1, 4, 0, 2, 0, 1]);
    }

    #[test]
    fn only_what_both_know_is_used() {
        let mut open = their_open(65002, 9, [10, 0, 0, 2], &Family::ALL);
        let negotiated = judge(&local(), &peer(65002), &open).unwrap();
        assert_eq!(negotiated.families, Family::ALL);
        assert!(negotiated.options.four_octet_as && !negotiated.route_refresh);
        assert!(!negotiated.options.internal);

        open.capabilities = vec![
            Capability::RouteRefresh,
            Capability::multiprotocol(Family::Ipv6Unicast),
        ];
        let negotiated = judge(&local(), &peer(65002), &open).unwrap();
        assert_eq!(negotiated.families, [Family::Ipv6Unicast]);
        assert!(!negotiated.options.four_octet_as && negotiated.route_refresh);
        assert!(!negotiated.carries(Family::Ipv4Unicast));
    }

    #[test]
    fn our_open_offers_what_is_configured() {
        let mut local = local();
        let plain = open(&local, &peer(65002));
        assert_eq!(
            (plain.asn(), plain.hold_time, plain.router_id),
            (65001, 9, local.router_id)
        );
        assert_eq!(plain.families(), Family::ALL);
        assert!(plain.route_refresh());
        // We help others, and have nothing to be kept ourselves.
        let helper = wire::GracefulRestart {
            notification: true,
            ..wire::GracefulRestart::default()
        };
        assert_eq!(plain.graceful_restart(), Some(&helper));

        local.graceful_restart = Some(GracefulRestart {
            restart_time: Duration::from_secs(120),
            forwarding_preserved: true,
            restarting: true,
        });
        let mut config = peer(65002);
        config.families = vec![Family::Ipv4Unicast];
        let restarting = open(&local, &config);
        let expected = wire::GracefulRestart {
            restarting: true,
            notification: true,
            restart_time: 120,
            families: vec![GracefulRestartFamily {
                family: AfiSafi::from(Family::Ipv4Unicast),
                forwarding_preserved: true,
            }],
        };
        assert_eq!(restarting.graceful_restart(), Some(&expected));

        config.capabilities = config::Capabilities {
            route_refresh: false,
            enhanced_refresh: true,
            four_octet_as: false,
            extended_messages: false,
            ipv4_next_hop_v6: false,
            graceful_restart: false,
            long_lived_stale_time: Duration::from_secs(60),
            add_path: config::AddPath::Off,
        };
        let bare = open(&local, &config).capabilities;
        assert_eq!(bare, [Capability::multiprotocol(Family::Ipv4Unicast)]);
    }

    #[test]
    fn the_higher_identifier_then_the_higher_as_opens_the_connection_that_stays() {
        for (id, asn, ours) in [
            ([10, 0, 0, 0], 65002, true),
            ([10, 0, 0, 2], 65002, false),
            ([9, 255, 255, 255], 65002, true),
            ([192, 0, 0, 1], 1, false),
            ([10, 0, 0, 1], 65000, true),
            ([10, 0, 0, 1], 65002, false),
        ] {
            assert_eq!(
                ours_survives(&local(), id.into(), asn),
                ours,
                "{id:?} {asn}"
            );
        }
    }
}

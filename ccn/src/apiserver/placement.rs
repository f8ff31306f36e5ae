//! Which group of gateways serves a link that names none.
//!
//! Pure: the records in, a group out.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::error::{ApiError, ErrorCode};
use crate::inventory::Inventory;
use crate::record::{Fullest, Gateway, GatewayName, GroupName, Health, VpcId};

/// The live gateways of a group, or of all.
pub(super) fn live(
    inventory: &Inventory,
    group: Option<&GroupName>,
) -> BTreeMap<GatewayName, Gateway> {
    let gateways = inventory.gateways();
    let wanted = gateways.filter(|(_, gateway)| group.is_none_or(|group| gateway.group == *group));
    wanted
        .map(|(name, gateway)| (name.clone(), gateway.clone()))
        .collect()
}

/// Those of some gateways that are not alive.
pub(super) fn gone(
    inventory: &Inventory,
    mut gateways: BTreeSet<GatewayName>,
) -> BTreeSet<GatewayName> {
    for (name, _) in inventory.gateways() {
        gateways.remove(name);
    }
    gateways
}

/// A gateway of which more than this share of some limit is used is left alone, while there is another.
const FULL: f64 = 0.95;

/// Whether a gateway is fit for more links.
pub(super) fn is_fit(gateway: &Gateway) -> bool {
    gateway.health == Health::Healthy && !gateway.draining && full(gateway).is_none()
}

/// The limit of which it has used too much for more links.
fn full(gateway: &Gateway) -> Option<&Fullest> {
    let fullest = gateway.fullest.as_ref();
    fullest.filter(|limit| limit.share() > FULL)
}

/// The group for a link of a VPC: the one that serves the VPC already, while a gateway of it is fit; else that
/// with the fewest links for each gateway that is fit for more, the first by name where several are equal.
///
/// # Errors
/// No gateway is fit.
pub(super) fn choose(inventory: &Inventory, vpc: &VpcId) -> Result<GroupName, ApiError> {
    let mut fit: BTreeMap<&GroupName, usize> = BTreeMap::new();
    let mut live = Vec::new();
    for (name, gateway) in inventory.gateways() {
        live.push(format!("{name} of {} is {}", gateway.group, how(gateway)));
        if is_fit(gateway) {
            *fit.entry(&gateway.group).or_default() += 1;
        }
    }
    let serving = inventory.links_of(vpc).map(|(_, link)| &link.group);
    if let Some(group) = serving.into_iter().find(|group| fit.contains_key(group)) {
        return Ok(group.clone());
    }
    let mut links: BTreeMap<&GroupName, usize> = BTreeMap::new();
    for (_, link) in inventory.links() {
        *links.entry(&link.group).or_default() += 1;
    }
    // As a fraction without division: a/b < c/d when a*d < c*b.
    let load = |group: &GroupName| links.get(group).copied().unwrap_or(0);
    let best = fit.iter().min_by(|(one, gateways), (other, others)| {
        (load(one) * **others).cmp(&(load(other) * **gateways))
    });
    match best {
        Some((group, _)) => Ok((*group).clone()),
        None => {
            let there = match live.is_empty() {
                true => "none is registered".to_owned(),
                false => live.join(", "),
            };
            let message = format!(
                "no gateway is fit to serve a new link: {there}; see `ccn gateways`, or name a --group and it is \
                 served as soon as that has one"
            );
            Err(ApiError::new(ErrorCode::Unavailable, message))
        }
    }
}

/// Why a gateway is fit or not, in words.
fn how(gateway: &Gateway) -> String {
    let health = gateway.health.as_str();
    match full(gateway) {
        _ if gateway.draining => format!("{health}, draining"),
        Some(Fullest { name, used, max }) => format!("{health}, full ({name} {used} of {max})"),
        None => health.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Stored;

    fn inventory(gateways: &[(&str, &str, &str)], links: &[(&str, &str)]) -> Inventory {
        let mut records: Vec<(String, String)> = Vec::new();
        for (name, group, health) in gateways {
            records.push((
                format!("gateways/{name}"),
                format!(
                    r#"{{"group":"{group}","vtep":"172.16.0.1","router_id":"10.99.0.1","asn":65001,"roles":["classic-link"],"generation":1,"health":"{health}"}}"#
                ),
            ));
        }
        for (index, (vpc, group)) in links.iter().enumerate() {
            let vni = 100 + index;
            records.push((
                format!("vpcs/{vpc}"),
                format!(r#"{{"vni":{vni},"subnets":["10.{index}.0.0/24"]}}"#),
            ));
            records.push((
                format!("links/{vpc}"),
                format!(r#"{{"vpc":"{vpc}","classic":["192.168.0.0/24"],"group":"{group}"}}"#),
            ));
        }
        records.sort();
        let stored = records.into_iter().map(|(key, value)| Stored {
            key,
            created: 1,
            modified: 1,
            value: value.into(),
        });
        let mut inventory = Inventory::default();
        inventory.load(stored.collect());
        assert_eq!(inventory.quarantined(), 0);
        inventory
    }

    #[test]
    fn a_gateway_that_is_full_gets_no_links_and_is_named() {
        let with = |used: u64| {
            let mut records = vec![Stored {
                key: "gateways/gw-1".to_owned(),
                created: 1,
                modified: 1,
                value: format!(
                    r#"{{"group":"a","vtep":"172.16.0.1","router_id":"10.99.0.1","asn":65001,"roles":[],"generation":1,"health":"healthy","fullest":{{"name":"links","used":{used},"max":100}}}}"#
                )
                .into(),
            }];
            let mut inventory = Inventory::default();
            inventory.load(std::mem::take(&mut records));
            choose(&inventory, &"v".parse().unwrap())
        };
        for (used, fit) in [(0, true), (95, true), (96, false), (100, false)] {
            match with(used) {
                Ok(group) => assert!(fit, "{used}: {group}"),
                Err(error) => {
                    assert!(!fit, "{used}: {}", error.message);
                    let named = format!("gw-1 of a is healthy, full (links {used} of 100)");
                    assert!(error.message.contains(&named), "{}", error.message);
                }
            }
        }
    }

    #[test]
    fn the_least_loaded_group_that_is_fit_and_that_of_the_vpc_before_all() {
        let two_groups = &[
            ("gw-1", "a", "healthy"),
            ("gw-2", "a", "healthy"),
            ("gw-3", "b", "healthy"),
        ][..];
        for (gateways, links, vpc, expected) in [
            (&[][..], &[][..], "new", None),
            (&[("gw-1", "a", "starting")], &[], "new", None),
            (&[("gw-1", "a", "failing")], &[], "new", None),
            (two_groups, &[], "new", Some("a")),
            // Two links for two gateways, none for one.
            (two_groups, &[("v", "a"), ("w", "a")], "new", Some("b")),
            (two_groups, &[("v", "a"), ("w", "b")], "new", Some("a")),
            (two_groups, &[("v", "b")], "v", Some("b")),
            (
                &[("gw-1", "a", "healthy"), ("gw-3", "b", "degraded")],
                &[("v", "b")],
                "v",
                Some("a"),
            ),
        ] {
            let inventory = inventory(gateways, links);
            let chosen = choose(&inventory, &vpc.parse().unwrap());
            let chosen = chosen.map(|group| group.to_string());
            assert_eq!(
                chosen.as_deref().ok(),
                expected,
                "{gateways:?} {links:?} {vpc}"
            );
        }
    }
}

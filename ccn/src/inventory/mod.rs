//! The inventory: which of the store's records are good beside one another, indexed for use.
//!
//! A record that cannot stand beside the others is quarantined, with the field and the reason, and
//! stops nobody else; it heals when its cause goes. Who of two in conflict is right does not depend
//! on the order of arrival: the one created earlier is (by the generation that created it, then by
//! key), and only accepted records can be in the way of others. So the inventory is a function of
//! the records alone, and every change costs what it touches: one VM, O(log n).
//!
//! Kinds settle in this order, each looking only at those before it and at itself: VPCs, CCSIs,
//! VMs and SLBs, links. Of a CCSI single members may be left out; the rest of it stands. Links that are
//! marked as a standby come after all others, whenever they were created, and nothing is wrong with one that
//! another link keeps out.

mod ccsis;
mod check;
mod effects;
mod endpoints;
mod links;
mod load;
pub mod prefixes;
mod quarantine;
mod vm_table;
mod vpcs;

use std::collections::{BTreeMap, BTreeSet};

pub use effects::Effects;
pub use endpoints::EndpointId;
pub use links::{LinkState, StandsBy};
pub use load::{Load, Loaded};
pub use vpcs::VpcState;

use crate::plane::Abilities;
use crate::record::{
    Classic, ClassicName, Gateway, GatewayName, GroupName, LinkId, Reason, Record, RecordError,
    RecordKey,
};
use crate::store::{Changed, Generation};
use effects::Work;

/// Who is right: the lowest.
type Rank<Id> = (Generation, Id);

/// Whether a record can stand beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Accepted,
    Quarantined,
}

/// A record that parses, and when its key was created.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot<R, State> {
    created: Generation,
    record: R,
    /// What came of it beside the others.
    state: State,
}

/// All records, accepted or quarantined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    vpcs: vpcs::Vpcs,
    ccsis: ccsis::Ccsis,
    classics: BTreeMap<ClassicName, Slot<Classic, ()>>,
    endpoints: endpoints::Endpoints,
    links: links::Links,
    gateways: BTreeMap<GatewayName, Slot<Gateway, ()>>,
    /// The generation that changed each link's record last. No rehearsal touches it.
    link_generations: BTreeMap<LinkId, Generation>,
    /// Keys whose record does not parse, and when they were created.
    junk: BTreeMap<String, Generation>,
    quarantine: quarantine::Quarantine,
}

/// A record as it came: parsed, or why not.
type Parsed = Result<(RecordKey, Record), RecordError>;

fn parse(key: &str, value: &[u8]) -> Parsed {
    let parsed = key.parse::<RecordKey>();
    let key = parsed.map_err(|error| RecordError {
        key: key.to_owned(),
        field: "key".to_owned(),
        reason: Reason::BadKey(error),
    })?;
    let record = Record::parse(&key, value)?;
    Ok((key, record))
}

impl Inventory {
    /// Takes over what a commit of the store changed.
    pub fn apply(&mut self, changes: &[Changed]) -> Effects {
        let mut work = Work::default();
        for change in changes {
            match change {
                Changed::Put(stored) => {
                    let parsed = parse(&stored.key, &stored.value);
                    self.learn_generation(&parsed, Some(stored.modified));
                    self.put(&stored.key, stored.created, parsed, &mut work);
                }
                Changed::Deleted { key } => {
                    self.forget_generation(key);
                    self.delete(key, &mut work);
                }
            }
        }
        self.settle(&mut work);
        work.effects
    }

    /// The generation that changed a link's record last, as far as its store has told.
    #[must_use]
    pub fn link_generation(&self, id: &LinkId) -> Option<Generation> {
        self.link_generations.get(id).copied()
    }

    /// What was put at a key was put by this generation.
    fn learn_generation(&mut self, parsed: &Parsed, modified: Option<Generation>) {
        match (parsed, modified) {
            (Ok((RecordKey::Link(id), _)), Some(modified)) => {
                self.link_generations.insert(id.clone(), modified);
            }
            (Err(error), _) => self.forget_generation(&error.key),
            _ => {}
        }
    }

    fn forget_generation(&mut self, key: &str) {
        if let Ok(RecordKey::Link(id)) = key.parse() {
            self.link_generations.remove(&id);
        }
    }

    /// Whether the store has no record at all.
    pub fn is_empty(&self) -> bool {
        self.junk.is_empty()
            && self.vpcs.is_empty()
            && self.ccsis.is_empty()
            && self.classics.is_empty()
            && self.endpoints.is_empty()
            && self.links.is_empty()
            && self.gateways.is_empty()
    }

    /// Everything that is wrong with records of the store, by key.
    pub fn quarantine(&self) -> impl Iterator<Item = &RecordError> {
        self.quarantine.iter()
    }

    /// How many records are quarantined, whole or in part.
    pub fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// What is wrong with the record at this key; nothing when it is accepted or not there.
    pub fn faults(&self, key: &RecordKey) -> &[RecordError] {
        self.quarantine.of(key)
    }

    /// The record at this key as it stands in the store, accepted or not, if it parses; of a VM without
    /// the fields that are not known.
    pub fn record(&self, key: &RecordKey) -> Option<Record> {
        match key {
            RecordKey::Vpc(id) => Some(Record::Vpc(self.vpcs.slot(id)?.record.clone())),
            RecordKey::Ccsi(id) => Some(Record::Ccsi(self.ccsis.slot(id)?.record.clone())),
            RecordKey::Classic(name) => {
                Some(Record::Classic(self.classics.get(name)?.record.clone()))
            }
            RecordKey::Vm(vpc, id) => Some(Record::Vm(self.endpoints.vm(vpc, id)?)),
            RecordKey::Slb(vpc, id) => {
                Some(Record::Slb(self.endpoints.slb(vpc, id)?.record.clone()))
            }
            RecordKey::Link(id) => Some(Record::Link(self.links.slot(id)?.record.clone())),
            RecordKey::Gateway(name) => {
                Some(Record::Gateway(self.gateways.get(name)?.record.clone()))
            }
        }
    }

    /// Whether the store has this key, whatever its value.
    pub fn is_stored(&self, key: &RecordKey) -> bool {
        self.created(key).is_some() || self.junk.contains_key(&key.to_string())
    }

    /// The classic networks by name.
    pub fn classics(&self) -> impl Iterator<Item = (&ClassicName, &Classic)> {
        self.classics
            .iter()
            .map(|(name, slot)| (name, &slot.record))
    }

    /// The gateways that are registered, by name.
    pub fn gateways(&self) -> impl Iterator<Item = (&GatewayName, &Gateway)> {
        self.gateways
            .iter()
            .map(|(name, slot)| (name, &slot.record))
    }

    /// What every gateway of a group that is registered can do; all, where none is.
    pub fn abilities_of(&self, group: &GroupName) -> Abilities {
        let of_group = self
            .gateways()
            .filter(|(_, gateway)| gateway.group == *group);
        let said = of_group.filter_map(|(_, gateway)| gateway.abilities);
        said.fold(Abilities::ALL, |all, one| Abilities {
            tracks_replies: all.tracks_replies && one.tracks_replies,
            marks_links: all.marks_links && one.marks_links,
        })
    }

    /// Every key of the store.
    fn keys(&self) -> BTreeSet<String> {
        let classics = self.classics.keys().cloned().map(RecordKey::Classic);
        let keys = self.vpcs.keys().chain(self.ccsis.keys()).chain(classics);
        let keys = keys.chain(self.endpoints.keys()).chain(self.links.keys());
        let gateways = self.gateways.keys().cloned().map(RecordKey::Gateway);
        let keys = keys.chain(gateways);
        keys.map(|key| key.to_string())
            .chain(self.junk.keys().cloned())
            .collect()
    }

    fn created(&self, key: &RecordKey) -> Option<Generation> {
        match key {
            RecordKey::Vpc(id) => self.vpcs.slot(id).map(|slot| slot.created),
            RecordKey::Ccsi(id) => self.ccsis.slot(id).map(|slot| slot.created),
            RecordKey::Classic(name) => self.classics.get(name).map(|slot| slot.created),
            RecordKey::Vm(vpc, id) => self.endpoints.vm_created(vpc, id),
            RecordKey::Slb(vpc, id) => self.endpoints.slb(vpc, id).map(|slot| slot.created),
            RecordKey::Link(id) => self.links.slot(id).map(|slot| slot.created),
            RecordKey::Gateway(name) => self.gateways.get(name).map(|slot| slot.created),
        }
    }

    /// Whether this record stands there already, created then.
    fn has(&self, key: &RecordKey, created: Generation, record: &Record) -> bool {
        match (key, record) {
            (RecordKey::Vm(vpc, id), Record::Vm(vm)) => self.endpoints.has_vm(vpc, id, created, vm),
            _ => self.created(key) == Some(created) && self.record(key).as_ref() == Some(record),
        }
    }

    fn put(&mut self, key: &str, created: Generation, parsed: Parsed, work: &mut Work) {
        match parsed {
            Ok((parsed, record)) => {
                if self.has(&parsed, created, &record) {
                    return;
                }
                self.delete(key, work);
                self.insert(parsed, created, record, work);
            }
            Err(error) => {
                self.delete(key, work);
                self.insert_junk(created, error, work);
            }
        }
    }

    fn insert_junk(&mut self, created: Generation, error: RecordError, work: &mut Work) {
        let key = error.key.clone();
        self.junk.insert(key.clone(), created);
        self.quarantine.set_faults(key, vec![error], work);
    }

    fn insert(&mut self, key: RecordKey, created: Generation, record: Record, work: &mut Work) {
        match (key, record) {
            (RecordKey::Vpc(id), Record::Vpc(vpc)) => self.insert_vpc(id, created, vpc, work),
            (RecordKey::Ccsi(id), Record::Ccsi(ccsi)) => self.insert_ccsi(id, created, ccsi, work),
            (RecordKey::Classic(name), Record::Classic(record)) => {
                self.reconsider_links_naming(&name, work);
                self.classics.insert(
                    name,
                    Slot {
                        created,
                        record,
                        state: (),
                    },
                );
            }
            (RecordKey::Vm(vpc, id), Record::Vm(vm)) => {
                self.insert_vm(vpc, id, created, vm, work);
            }
            (RecordKey::Slb(vpc, id), Record::Slb(slb)) => {
                self.insert_slb(vpc, id, created, slb, work);
            }
            (RecordKey::Link(id), Record::Link(link)) => self.insert_link(id, created, link, work),
            (RecordKey::Gateway(name), Record::Gateway(record)) => {
                let state = ();
                let slot = Slot {
                    created,
                    record,
                    state,
                };
                self.gateways.insert(name, slot);
            }
            // Record::parse gives the variant of the key.
            _ => {}
        }
    }

    fn delete(&mut self, key: &str, work: &mut Work) {
        match key.parse::<RecordKey>() {
            Ok(RecordKey::Vpc(id)) => self.remove_vpc(&id, work),
            Ok(RecordKey::Ccsi(id)) => self.remove_ccsi(&id, work),
            Ok(RecordKey::Classic(name)) => {
                self.reconsider_links_naming(&name, work);
                self.classics.remove(&name);
            }
            Ok(RecordKey::Vm(vpc, id)) => self.remove_endpoint(&vpc, EndpointId::Vm(id), work),
            Ok(RecordKey::Slb(vpc, id)) => self.remove_endpoint(&vpc, EndpointId::Slb(id), work),
            Ok(RecordKey::Link(id)) => self.remove_link(&id, work),
            Ok(RecordKey::Gateway(name)) => {
                self.gateways.remove(&name);
            }
            Err(_) => {}
        }
        self.junk.remove(key);
        self.quarantine.heal(key, work);
    }

    /// Looks again at all that a change may have turned, until nothing is left.
    fn settle(&mut self, work: &mut Work) {
        self.settle_vpcs(work);
        self.settle_ccsis(work);
        self.settle_endpoints(work);
        self.settle_links(work);
    }
}

#[cfg(test)]
pub(crate) mod history;
#[cfg(test)]
mod tests;

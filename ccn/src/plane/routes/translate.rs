//! Entries to kernel objects. Pure and incremental: each entry claims objects, an object is desired
//! while a claim on it stands, and the best claim decides what it is.
//!
//! After any history the desired state is the same as from the last entries alone.

use std::collections::{BTreeMap, BTreeSet};

use bgp::Prefix;

use super::compose::{Host, PREFERRED};
use super::objects::{Key, Object, State};
use super::own_rules::OwnRules;
use crate::plane::LearnedNextHops;
use crate::plane::entry::{EntryKey, EntryValue};
use crate::record::{Mode, Vni};

mod forecast;

/// Most VNIs: the kernel asks rules one after the other.
pub(crate) const MAX_VNIS: usize = 256;
/// Most addresses of VMs and SLBs.
pub(crate) const MAX_ENDPOINTS: usize = 50_000;
/// Most places that serve one address; the kernel takes weights up to 256 each.
const MAX_HOPS: usize = 256;

/// The smallest is the best; equal ones are decided by the order of the objects.
type Claims = BTreeMap<(u8, Object), usize>;

/// Keeps the desired state.
#[derive(Debug)]
pub(crate) struct Translator {
    host: Host,
    entries: BTreeMap<EntryKey, EntryValue>,
    learned: BTreeMap<Prefix, Object>,
    claims: BTreeMap<Key, Claims>,
    desired: State,
    touched: BTreeSet<Key>,
    vnis: BTreeMap<Vni, usize>,
    endpoints: usize,
    own: OwnRules,
}

impl Translator {
    /// One that holds only what is there always: the ways into the drop devices.
    pub(crate) fn new(host: Host) -> Translator {
        let mut translator = Translator {
            entries: BTreeMap::new(),
            learned: BTreeMap::new(),
            claims: BTreeMap::new(),
            desired: State::new(),
            touched: BTreeSet::new(),
            vnis: BTreeMap::new(),
            endpoints: 0,
            own: OwnRules::default(),
            host,
        };
        for (object, rank) in translator.host.always() {
            translator.claim(rank, object);
        }
        translator
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// What the kernel should hold. Call [`Translator::settle`] before.
    pub(crate) fn desired(&self) -> &State {
        &self.desired
    }

    pub(crate) fn entries(&self) -> &BTreeMap<EntryKey, EntryValue> {
        &self.entries
    }

    pub(crate) fn vnis(&self) -> usize {
        self.vnis.len()
    }

    pub(crate) fn endpoints(&self) -> usize {
        self.endpoints
    }

    /// Brings what depends on several entries up to date, and returns the keys of all objects that
    /// may have changed since the last call.
    pub(crate) fn settle(&mut self) -> BTreeSet<Key> {
        if let Some((gone, new)) = self.own.settle() {
            for (subnet, scope) in new {
                self.claim(PREFERRED, self.host.own_rule(subnet, scope));
            }
            for (subnet, scope) in gone {
                self.release(PREFERRED, &self.host.own_rule(subnet, scope));
            }
        }
        std::mem::take(&mut self.touched)
    }

    /// Takes an entry in, in place of the one with its key. A refused one changes nothing; the
    /// answer says why.
    pub(crate) fn put(&mut self, key: &EntryKey, value: &EntryValue) -> Result<(), String> {
        let old = self.entries.get(key);
        if old == Some(value) {
            return Ok(());
        }
        refuse_unsupported(key, value)?;
        let old_vni = old.and_then(|value| vni_of(key, value));
        if let Some(vni) = vni_of(key, value)
            && !self.vnis.contains_key(&vni)
            && self.vnis.len() >= MAX_VNIS
            && old_vni.is_none_or(|old| self.vnis.get(&old) != Some(&1))
        {
            return Err(format!(
                "the routes plane holds at most {MAX_VNIS} VNIs; {vni} is one more"
            ));
        }
        let is_endpoint = matches!(key, EntryKey::Endpoint { .. });
        if is_endpoint && old.is_none() && self.endpoints >= MAX_ENDPOINTS {
            return Err(format!(
                "the routes plane holds at most {MAX_ENDPOINTS} endpoints"
            ));
        }
        let old = self.entries.insert(key.clone(), value.clone());
        self.count(key, value);
        for (rank, object) in self.host.objects(key, value) {
            self.claim(rank, object);
        }
        if let Some(old) = old {
            self.forget(key, &old);
        }
        Ok(())
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: &EntryKey) {
        if let Some(old) = self.entries.remove(key) {
            self.forget(key, &old);
        }
    }

    fn forget(&mut self, key: &EntryKey, value: &EntryValue) {
        for (rank, object) in self.host.objects(key, value) {
            self.release(rank, &object);
        }
        if let Some(vni) = vni_of(key, value)
            && let Some(count) = self.vnis.get_mut(&vni)
        {
            *count -= 1;
            if *count == 0 {
                self.vnis.remove(&vni);
            }
        }
        if matches!(key, EntryKey::Endpoint { .. }) {
            self.endpoints -= 1;
        }
        self.own.remove(key, value);
    }

    fn count(&mut self, key: &EntryKey, value: &EntryValue) {
        if let Some(vni) = vni_of(key, value) {
            *self.vnis.entry(vni).or_default() += 1;
        }
        if matches!(key, EntryKey::Endpoint { .. }) {
            self.endpoints += 1;
        }
        self.own.add(key, value);
    }

    /// Sets the next hops of a learned prefix; none takes it out. The answer says which next hops
    /// are unusable; the others are used all the same.
    pub(crate) fn learn(&mut self, prefix: Prefix, hops: &LearnedNextHops) -> Result<(), String> {
        let (new, unusable) = self.host.learned_route(prefix, hops);
        let old = match &new {
            Some(object) => self.learned.insert(prefix, object.clone()),
            None => self.learned.remove(&prefix),
        };
        if let Some(object) = new {
            self.claim(PREFERRED, object);
        }
        if let Some(object) = old {
            self.release(PREFERRED, &object);
        }
        unusable.map_or(Ok(()), Err)
    }

    /// The entries that these objects are there for. One pass over all entries: for telling of
    /// failures only.
    pub(crate) fn owners(&self, keys: &BTreeSet<Key>) -> BTreeMap<Key, Vec<EntryKey>> {
        let mut owners: BTreeMap<Key, Vec<EntryKey>> = BTreeMap::new();
        for (entry, value) in &self.entries {
            let own = match (entry, value) {
                (EntryKey::Permit { subnet, .. }, EntryValue::Permit { scope, .. }) => {
                    Some(self.host.own_rule(*subnet, *scope).key())
                }
                _ => None,
            };
            for key in self.keys_of(entry, value).into_iter().chain(own) {
                if keys.contains(&key) {
                    owners.entry(key).or_default().push(entry.clone());
                }
            }
        }
        owners
    }

    /// Whether a learned prefix has a usable next hop.
    pub(crate) fn has_learned(&self, prefix: &Prefix) -> bool {
        self.learned.contains_key(prefix)
    }

    /// The keys of what an entry needs, whether it is held or not.
    pub(crate) fn keys_of(&self, key: &EntryKey, value: &EntryValue) -> Vec<Key> {
        self.host
            .objects(key, value)
            .iter()
            .map(|(_, object)| object.key())
            .collect()
    }

    fn claim(&mut self, rank: u8, object: Object) {
        let key = object.key();
        *self
            .claims
            .entry(key.clone())
            .or_default()
            .entry((rank, object))
            .or_default() += 1;
        self.decide(key);
    }

    fn release(&mut self, rank: u8, object: &Object) {
        let key = object.key();
        let Some(claims) = self.claims.get_mut(&key) else {
            return;
        };
        let claim = (rank, object.clone());
        if let Some(count) = claims.get_mut(&claim) {
            *count -= 1;
            if *count == 0 {
                claims.remove(&claim);
            }
        }
        if claims.is_empty() {
            self.claims.remove(&key);
        }
        self.decide(key);
    }

    fn decide(&mut self, key: Key) {
        let best = self
            .claims
            .get(&key)
            .and_then(|claims| claims.first_key_value());
        match best {
            Some(((_, object), _)) if self.desired.get(&key) == Some(object) => return,
            Some(((_, object), _)) => {
                self.desired.insert(key.clone(), object.clone());
            }
            None => {
                self.desired.remove(&key);
            }
        }
        self.touched.insert(key);
    }
}

fn vni_of(key: &EntryKey, value: &EntryValue) -> Option<Vni> {
    match (key, value) {
        (EntryKey::Source { vni, .. } | EntryKey::Permit { vni, .. }, _)
        | (_, EntryValue::Endpoint { vni, .. }) => Some(*vni),
        _ => None,
    }
}

fn refuse_unsupported(key: &EntryKey, value: &EntryValue) -> Result<(), String> {
    match (key, value) {
        (EntryKey::Source { .. }, EntryValue::Source { .. }) => Ok(()),
        (EntryKey::Endpoint { .. }, EntryValue::Endpoint { hops, .. }) => match hops.len() {
            1..=MAX_HOPS => Ok(()),
            n => Err(format!(
                "an endpoint is served by 1 to {MAX_HOPS} places, not {n}"
            )),
        },
        (
            EntryKey::Permit { .. },
            EntryValue::Permit {
                mode: Mode::ClassicToVpc,
                ..
            },
        ) => Err("mode classic-to-vpc needs flow state, which the routes plane has not".to_owned()),
        (EntryKey::Permit { .. }, EntryValue::Permit { dscp: Some(_), .. }) => {
            Err("a DSCP of the link's own is nothing the routes plane can set".to_owned())
        }
        (EntryKey::Permit { .. }, EntryValue::Permit { .. }) => Ok(()),
        _ => Err("the value is not one for this kind of entry".to_owned()),
    }
}

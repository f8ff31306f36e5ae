//! What permits would take beside all that is there. Nothing is changed by asking.

use std::collections::{BTreeMap, BTreeSet};

use super::super::compose::PREFERRED;
use super::super::objects::{Key, Object};
use super::Translator;
use crate::plane::entry::{EntryKey, EntryValue};

impl Translator {
    /// The objects that the kernel would hold more of, by kind; of what would be refused none.
    pub(crate) fn forecast(
        &self,
        permits: &BTreeMap<EntryKey, EntryValue>,
    ) -> BTreeMap<&'static str, u64> {
        let mut own = self.own.clone();
        let mut objects: Vec<(u8, Object)> = Vec::new();
        for (key, value) in permits {
            if super::refuse_unsupported(key, value).is_ok() {
                own.add(key, value);
                objects.extend(self.host.objects(key, value));
            }
        }
        let (_, ruled) = own.settle().unwrap_or_default();
        let ruled = ruled.into_iter();
        objects.extend(ruled.map(|(subnet, scope)| (PREFERRED, self.host.own_rule(subnet, scope))));
        let keys = objects.iter().map(|(_, object)| object.key());
        let new: BTreeSet<Key> = keys.filter(|key| !self.claims.contains_key(key)).collect();
        let mut kinds = BTreeMap::new();
        for key in new {
            let kind = match key {
                Key::Neighbour(..) => "neighbours",
                Key::Route(..) => "routes",
                Key::Rule(_) => "rules",
            };
            *kinds.entry(kind).or_default() += 1;
        }
        kinds
    }
}

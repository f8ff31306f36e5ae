//! Taking over the whole of a store, record by record, in any order: what is not in it is gone in the
//! end, and what is the same is not touched.

use std::collections::BTreeSet;

use super::effects::Work;
use super::endpoints::Tenants;
use super::{Effects, Inventory, Parsed, parse};
use crate::record::{Record, RecordKey, VpcId};
use crate::store::{Generation, Stored};

/// A load that has begun. Nothing is settled before its end.
#[derive(Debug)]
pub struct Load {
    work: Work,
    /// Keys that were there before and have not come.
    gone: BTreeSet<String>,
    /// Those of the VPC whose VMs are coming, while everything is new: they come one after the other.
    tenants: Option<(VpcId, Tenants)>,
}

/// A record of the store, parsed. That needs no inventory, so others may do it meanwhile.
#[derive(Debug)]
pub struct Loaded {
    created: Generation,
    modified: Option<Generation>,
    parsed: Parsed,
}

impl Loaded {
    /// Parses what a store has at a key that was created then.
    pub fn parse(key: &str, created: Generation, value: &[u8]) -> Loaded {
        let parsed = parse(key, value);
        Loaded {
            created,
            modified: None,
            parsed,
        }
    }

    /// With the generation that changed it last.
    #[must_use]
    pub fn modified(self, generation: Generation) -> Loaded {
        Loaded {
            modified: Some(generation),
            ..self
        }
    }
}

impl Inventory {
    /// Begins a load. No change may be applied before its end.
    pub fn begin_load(&self) -> Load {
        let mut work = Work::default();
        work.effects.whole = self.is_empty();
        let gone = self.keys();
        Load {
            work,
            gone,
            tenants: None,
        }
    }

    /// Takes a record over.
    pub fn load_one(&mut self, load: &mut Load, loaded: Loaded) {
        let Loaded {
            created,
            modified,
            parsed,
        } = loaded;
        self.learn_generation(&parsed, modified);
        if load.work.effects.whole {
            // No key comes twice, so there is nothing in its place.
            match parsed {
                Ok((RecordKey::Vm(vpc, id), Record::Vm(vm))) => {
                    self.tenants_of(load, vpc).add_vm(&id, created, &vm);
                }
                Ok((key, record)) => {
                    self.put_back(load.tenants.take());
                    self.insert(key, created, record, &mut load.work);
                }
                Err(error) => self.insert_junk(created, error, &mut load.work),
            }
            return;
        }
        let key = match &parsed {
            Ok((key, _)) => key.to_string(),
            Err(error) => error.key.clone(),
        };
        load.gone.remove(&key);
        self.put(&key, created, parsed, &mut load.work);
    }

    /// That was everything.
    pub fn end_load(&mut self, mut load: Load) -> Effects {
        self.put_back(load.tenants.take());
        let Load { mut work, gone, .. } = load;
        for key in gone {
            self.forget_generation(&key);
            self.delete(&key, &mut work);
        }
        self.settle(&mut work);
        work.effects
    }

    fn tenants_of<'a>(&mut self, load: &'a mut Load, vpc: VpcId) -> &'a mut Tenants {
        if load.tenants.as_ref().is_none_or(|(at, _)| *at != vpc) {
            self.put_back(load.tenants.take());
            load.work.tenants.insert(vpc.clone());
        }
        let taken = load.tenants.get_or_insert_with(|| {
            let tenants = self.endpoints.take(&vpc);
            (vpc, tenants)
        });
        &mut taken.1
    }

    fn put_back(&mut self, taken: Option<(VpcId, Tenants)>) {
        if let Some((vpc, tenants)) = taken {
            self.endpoints.put_back(vpc, tenants);
        }
    }

    /// A whole load.
    pub fn load(&mut self, records: Vec<Stored>) -> Effects {
        let mut load = self.begin_load();
        for stored in records {
            let loaded = Loaded::parse(&stored.key, stored.created, &stored.value);
            let loaded = loaded.modified(stored.modified);
            self.load_one(&mut load, loaded);
        }
        self.end_load(load)
    }
}

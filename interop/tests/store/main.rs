//! The store's contract, held against every store there is; and what becomes of the store of a cluster when the
//! cluster does what clusters do.

#![allow(
    clippy::print_stdout,
    reason = "a test says what it saw; the harness shows it when it fails"
)]

mod cluster;
mod laws;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ccn::config::{EtcdConfig, StoreConfig};
use ccn::store::Store;
use ccn::store::embedded::EmbeddedStore;
use ccn::store::etcd::EtcdStore;
use interop::enter::{self, Lab};
use interop::etcd::Etcd;
use interop::process::Launch;

type Failure = Box<dyn Error + Send + Sync>;

/// An etcd of so many members, beside the test.
fn start(lab: &Lab, members: usize) -> Result<Etcd, Failure> {
    // The lab's own namespace begins without.
    let loopback = Launch::new("ip").args(["link", "set", "lo", "up"]);
    loopback.output(Duration::from_secs(10))?;
    Ok(Etcd::start(lab.scratch(), lab.scratch(), None, members)?)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Runtime::new()?)
}

/// The configuration of a store in this etcd, below a root of its own.
fn config_of(etcd: &Etcd, snapshot: &Path, part: &str) -> Result<EtcdConfig, Failure> {
    let mut section = etcd.section(snapshot);
    section.insert(
        "root".to_owned(),
        format!("{}/{part}", interop::etcd::ROOT).into(),
    );
    match section.try_into::<StoreConfig>()? {
        StoreConfig::Etcd(config) => Ok(config),
        StoreConfig::Embedded { .. } => Err("it is etcd".into()),
    }
}

#[test]
fn the_embedded_store_keeps_the_laws() {
    enter::test(|lab| {
        for (name, law) in laws::ALL {
            println!("{name}");
            let path = lab.scratch().join(format!("{name}.redb"));
            let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(path)?);
            runtime()?.block_on(law(store))?;
        }
        Ok(())
    });
}

#[test]
fn etcd_keeps_the_laws() {
    enter::test(|lab| {
        let etcd = start(lab, 1)?;
        keep_the_laws(&etcd, lab.scratch())
    });
}

#[test]
fn three_members_keep_the_laws() {
    enter::test(|lab| {
        let etcd = start(lab, 3)?;
        keep_the_laws(&etcd, lab.scratch())
    });
}

fn keep_the_laws(etcd: &Etcd, scratch: &Path) -> Result<(), Failure> {
    for (name, law) in laws::ALL {
        println!("{name}");
        let config = config_of(etcd, &scratch.join(format!("{name}.redb")), name)?;
        let runtime = runtime()?;
        let _inside = runtime.enter();
        let store: Arc<dyn Store> = Arc::new(EtcdStore::open(config)?);
        runtime.block_on(law(store))?;
    }
    Ok(())
}

//! A load of the store: one thread reads, one parses, and the inventory takes over what they have.

use tokio::sync::mpsc;

use crate::inventory::{Effects, Inventory, Loaded};
use crate::store::{Generation, Store, StoreError};

/// Parts that are parsed and wait.
const AHEAD: usize = 2;

/// What came of a load.
pub(super) struct Taken {
    pub(super) generation: Generation,
    pub(super) records: usize,
    pub(super) effects: Effects,
}

/// Takes over everything that the store holds.
///
/// # Errors
/// When it cannot be read.
pub(super) async fn load(
    store: &dyn Store,
    inventory: &mut Inventory,
    mut settling: impl FnMut(usize),
) -> Result<Taken, StoreError> {
    let mut reading = store.read().await?;
    let generation = reading.generation();
    let (parsed, mut parts) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        while let Some(part) = reading.blocking_next() {
            let part = part.map(|part| {
                let rows = part.rows();
                rows.map(|row| Loaded::parse(row.key, row.created, row.value))
                    .collect::<Vec<_>>()
            });
            if parsed.blocking_send(part).is_err() {
                break;
            }
        }
    });
    let mut load = inventory.begin_load();
    let mut records = 0;
    while let Some(part) = parts.recv().await {
        let part = part?;
        records += part.len();
        for loaded in part {
            inventory.load_one(&mut load, loaded);
        }
    }
    settling(records);
    Ok(Taken {
        generation,
        records,
        effects: inventory.end_load(load),
    })
}

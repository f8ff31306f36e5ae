//! Orders for links, as changes of records: made of the records as they are when an order's turn comes.
//!
//! Pure: an order and the inventory in, changes out. Who waits for what they lead to is elsewhere.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::undo::{self, StepError, put};
use crate::api::error::{ApiError, ErrorCode};
use crate::inventory::Inventory;
use crate::ledger::{Made, Make};
use crate::record::{
    ClassicRef, Dscp, GroupName, Link, LinkId, Mode, Previous, Record, RecordKey, VpcId,
};
use crate::store::Change;

/// An order to link a VPC.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinkOrder {
    /// The VPC.
    pub vpc: VpcId,
    /// Classic prefixes, or names of classic networks; at least one.
    pub classic: Vec<ClassicRef>,
    /// Name of the link; made from the VPC's when absent.
    #[serde(default)]
    pub name: Option<LinkId>,
    /// Gateways that shall serve it; chosen when absent.
    #[serde(default)]
    pub group: Option<GroupName>,
    /// Which side may open connections.
    #[serde(default)]
    pub mode: Mode,
    /// DSCP of the outer header; copied when absent.
    #[serde(default)]
    pub dscp: Option<Dscp>,
    /// Where another link is in its way, it waits until that goes.
    #[serde(default)]
    pub standby: bool,
}

/// There is no link of this name.
#[must_use]
pub fn unknown(link: &LinkId) -> ApiError {
    let message = format!("there is no link {link}; see `ccn links`");
    ApiError::new(ErrorCode::NotFound, message)
}

impl From<StepError> for ApiError {
    fn from(error: StepError) -> Self {
        ApiError::new(ErrorCode::Refused, error.to_string())
    }
}

/// The record of a link as it is stored.
///
/// # Errors
/// There is none, or it is none that can be read.
pub fn stored(inventory: &Inventory, id: &LinkId) -> Result<Link, ApiError> {
    let key = RecordKey::Link(id.clone());
    match inventory.record(&key) {
        Some(Record::Link(link)) => Ok(link),
        _ if inventory.is_stored(&key) => {
            let message = format!("{key} is no link that can be read, see `ccn quarantine`");
            Err(ApiError::new(ErrorCode::Refused, message))
        }
        _ => Err(unknown(id)),
    }
}

/// The name of a new link: the one asked for, or one made from the VPC's.
///
/// # Errors
/// When the name asked for is taken.
pub fn free_name(
    inventory: &Inventory,
    vpc: &VpcId,
    name: Option<&LinkId>,
) -> Result<LinkId, ApiError> {
    let taken = |id: &LinkId| inventory.is_stored(&RecordKey::Link(id.clone()));
    if let Some(name) = name {
        if taken(name) {
            let message =
                format!("links/{name}: name: is taken; unlink it first, or choose another");
            return Err(ApiError::new(ErrorCode::Refused, message));
        }
        return Ok(name.clone());
    }
    let numbered = (2u32..).map(|number| format!("{vpc}-{number}"));
    let names = std::iter::once(vpc.to_string()).chain(numbered);
    // A name that has grown too long for an id ends the search.
    names
        .map_while(|name| name.parse().ok())
        .find(|id| !taken(id))
        .ok_or_else(|| {
            let message = format!("no name for a link could be made from {vpc}: give one");
            ApiError::new(ErrorCode::BadRequest, message)
        })
}

/// Which group serves a link that names none.
pub type Choose = Arc<dyn Fn(&Inventory, &VpcId) -> Result<GroupName, ApiError> + Send + Sync>;

/// The record that an order to link comes to, to be confirmed by then (seconds since 1970) if a time is given.
///
/// # Errors
/// No classic side, a name that is taken, or no group.
pub fn link_of(
    inventory: &Inventory,
    order: &LinkOrder,
    choose: &Choose,
    confirm_by: Option<u64>,
) -> Result<(LinkId, Link), ApiError> {
    if order.classic.is_empty() {
        let message = "classic: name at least one prefix or classic network";
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    }
    let id = free_name(inventory, &order.vpc, order.name.as_ref())?;
    let group = match &order.group {
        Some(group) => group.clone(),
        None => choose(inventory, &order.vpc)?,
    };
    let link = Link {
        vpc: order.vpc.clone(),
        classic: order.classic.clone(),
        group,
        mode: order.mode,
        dscp: order.dscp,
        disabled: false,
        standby: order.standby,
        previous: Some(Previous::Nothing),
        confirm_by,
        unlink_when_confirmed: false,
        extra: serde_json::Map::new(),
    };
    Ok((id, link))
}

/// The link that a change was about.
///
/// # Errors
/// It was about none.
pub fn link_in(made: &Made) -> Result<LinkId, ApiError> {
    let first = made.keys.first().map(|key| key.parse());
    match first {
        Some(Ok(RecordKey::Link(id))) => Ok(id),
        _ => Err(ApiError::new(
            ErrorCode::Refused,
            "this order was carried out before, and was about something else",
        )),
    }
}

/// Links a VPC.
pub fn link(order: LinkOrder, choose: Choose, confirm_by: Option<u64>) -> Make {
    Arc::new(move |inventory| {
        let (id, link) = link_of(inventory, &order, &choose, confirm_by)?;
        Ok(vec![put(&id, link)])
    })
}

/// Removes a link, whether or not its record can be read.
pub fn unlink(id: LinkId) -> Make {
    Arc::new(move |inventory| {
        let key = RecordKey::Link(id.clone());
        match inventory.is_stored(&key) {
            true => Ok(vec![Change::delete(&key)]),
            false => Err(unknown(&id)),
        }
    })
}

/// A change of a link that is there.
fn amend(
    id: LinkId,
    amend: impl Fn(&LinkId, &Link) -> Result<Change, StepError> + Send + Sync + 'static,
) -> Make {
    Arc::new(move |inventory| Ok(vec![amend(&id, &stored(inventory, &id)?)?]))
}

/// Brings a link back that was disabled, or disables it.
pub fn set_enabled(id: LinkId, enabled: bool, confirm_by: Option<u64>) -> Make {
    amend(id, move |id, link| {
        let after = Link {
            disabled: !enabled,
            ..link.clone()
        };
        Ok(put(id, undo::changed(id, link, after, confirm_by)?))
    })
}

/// Takes a link out of service until that is confirmed, by when it goes, or is not, by when it comes back.
pub fn unlink_for(id: LinkId, confirm_by: u64) -> Make {
    amend(id, move |id, link| {
        let after = Link {
            disabled: true,
            unlink_when_confirmed: true,
            ..link.clone()
        };
        Ok(put(id, undo::changed(id, link, after, Some(confirm_by))?))
    })
}

/// Lets the last change of a link stand.
pub fn confirm(id: LinkId) -> Make {
    amend(id, undo::confirmed)
}

/// What taking the last change of a link back would make of it, or of which link it would leave nothing; and the
/// change that does it.
///
/// # Errors
/// There is no such link, or what was before is not known.
pub fn undone(inventory: &Inventory, id: &LinkId) -> Result<(Link, Change), ApiError> {
    let link = stored(inventory, id)?;
    let change = undo::undone(id, &link)?;
    let after = match link.previous {
        Some(Previous::Link(previous)) => *previous,
        _ => link,
    };
    Ok((after, change))
}

/// Takes the last change of a link back.
pub fn undo(id: LinkId) -> Make {
    amend(id, undo::undone)
}

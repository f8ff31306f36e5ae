//! What an order to link is checked for beside the records: whether the plane can carry it.
//!
//! What links mean beside one another is the inventory's; this room knows only the order itself.

use crate::record::{Mode, Reason, Record, RecordError, RecordKey};
use crate::store::Change;

/// The links among these changes that need flow state, each as an error: for a plane that keeps
/// none, which would have to drop every reply (or let every new connection through).
pub fn needing_flow_state(changes: &[Change]) -> Vec<RecordError> {
    let links = changes.iter().filter_map(|change| {
        let Change::Put { key, value } = change else {
            return None;
        };
        let key: RecordKey = key.parse().ok()?;
        match Record::parse(&key, value).ok()? {
            Record::Link(link) if link.mode == Mode::ClassicToVpc => Some(key),
            _ => None,
        }
    });
    links
        .map(|key| RecordError::new(&key, "mode", Reason::NeedsFlowState))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_links_that_need_it_are_named() {
        let put = |key: &str, value: &'static str| Change::Put {
            key: key.to_owned(),
            value: value.as_bytes().into(),
        };
        let changes = [
            put("links/a", r#"{"vpc":"web","classic":["office"]}"#),
            put(
                "links/b",
                r#"{"vpc":"web","classic":["office"],"mode":"classic-to-vpc"}"#,
            ),
            put(
                "links/c",
                r#"{"vpc":"web","classic":["office"],"mode":"both"}"#,
            ),
            put("links/d", "junk"),
            put(
                "vpcs/web",
                r#"{"vni":1,"subnets":[],"mode":"classic-to-vpc"}"#,
            ),
            Change::Delete {
                key: "links/b".to_owned(),
            },
        ];
        let errors = needing_flow_state(&changes);
        let found: Vec<(&str, &str)> = errors
            .iter()
            .map(|error| (error.key.as_str(), error.field.as_str()))
            .collect();
        assert_eq!(found, [("links/b", "mode")]);
    }
}

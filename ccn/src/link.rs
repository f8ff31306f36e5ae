//! What an order to link is checked for beside the records: whether the plane can carry it.
//!
//! What links mean beside one another is the inventory's; this room knows only the order itself.

pub mod orders;
pub mod undo;

use crate::plane::Abilities;
use crate::record::{GroupName, Mode, Reason, Record, RecordError, RecordKey};
use crate::store::Change;

/// The links among these changes that need what the planes of their group cannot do, each as an error. Without
/// flow state a plane would have to drop every reply, or let every new connection through.
pub fn beyond(
    abilities_of: impl Fn(&GroupName) -> Abilities,
    changes: &[Change],
) -> Vec<RecordError> {
    let mut errors = Vec::new();
    for change in changes {
        let Change::Put { key, value } = change else {
            continue;
        };
        let Ok(key @ RecordKey::Link(_)) = key.parse() else {
            continue;
        };
        let Ok(Record::Link(link)) = Record::parse(&key, value) else {
            continue;
        };
        let abilities = abilities_of(&link.group);
        if link.mode == Mode::ClassicToVpc && !abilities.tracks_replies {
            errors.push(RecordError::new(&key, "mode", Reason::NeedsFlowState));
        }
        if link.dscp.is_some() && !abilities.marks_links {
            errors.push(RecordError::new(&key, "dscp", Reason::NeedsMarking));
        }
    }
    errors
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
            put("links/e", r#"{"vpc":"web","classic":["office"],"dscp":46}"#),
            put(
                "vpcs/web",
                r#"{"vni":1,"subnets":[],"mode":"classic-to-vpc"}"#,
            ),
            Change::Delete {
                key: "links/b".to_owned(),
            },
        ];
        let faults = |abilities| -> Vec<(String, String)> {
            let errors = beyond(|_| abilities, &changes).into_iter();
            errors.map(|error| (error.key, error.field)).collect()
        };
        let fault = |key: &str, field: &str| (key.to_owned(), field.to_owned());
        let (mode, dscp) = (fault("links/b", "mode"), fault("links/e", "dscp"));
        assert_eq!(faults(Abilities::default()), [mode.clone(), dscp.clone()]);
        let tracks_replies = Abilities {
            tracks_replies: true,
            ..Abilities::default()
        };
        assert_eq!(faults(tracks_replies), [dscp]);
        let marks_links = Abilities {
            marks_links: true,
            ..Abilities::default()
        };
        assert_eq!(faults(marks_links), [mode]);
    }
}

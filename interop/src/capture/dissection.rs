//! All that Wireshark's dissector makes of a protocol's messages: a tree for each, with the octets
//! behind each field. What the fields mean is for the caller.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::process::{Launch, ProcessError};

/// Thousands of messages take it seconds.
const DEADLINE: Duration = Duration::from_secs(120);
/// The least severity of a remark that is a fault: Wireshark's number for a warning.
const WARNING: u64 = 0x60_0000;
/// The name of what a dissector could not read to its end.
const MALFORMED: &str = "_ws.malformed";

/// Nothing could be learned of a file.
#[derive(Debug, thiserror::Error)]
pub enum DissectionError {
    /// `tshark` is missing, or fails.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// It printed something else than frames with layers.
    #[error("what tshark printed is not understood")]
    Json(#[from] serde_json::Error),
}

/// A field of a message, with those inside it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Field {
    /// Its name, such as `bgp.type`; where the dissector only writes a line, that.
    pub name: String,
    /// What it says; empty for one that only holds others.
    pub text: String,
    /// The octets it was read from; empty for a line, and for less than an octet.
    pub octets: Vec<u8>,
    /// What is inside it, in order.
    pub inside: Vec<Field>,
}

impl Field {
    /// The first field of this name right inside.
    pub fn child(&self, name: &str) -> Option<&Field> {
        self.inside.iter().find(|field| field.name == name)
    }

    /// What it says as a number, written as in `10` or `0x0a`.
    pub fn number(&self) -> Option<u64> {
        match self.text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => self.text.parse().ok(),
        }
    }

    /// What the dissector finds malformed in it, or warns of.
    pub fn faults(&self) -> Vec<&str> {
        let mut found: Vec<&str> = self.fault().into_iter().collect();
        // Some remarks are followed by a mark that they are of this kind.
        let marked = self.child("_ws.expert").is_some();
        let inside = self.inside.iter();
        let inside = inside.filter(|field| !(marked && field.name == MALFORMED));
        found.extend(inside.flat_map(Field::faults));
        found
    }

    fn fault(&self) -> Option<&str> {
        let said = |name| self.child(name).map(|field| field.text.as_str());
        let severity = self.child("_ws.expert.severity").and_then(Field::number);
        match self.name.as_str() {
            MALFORMED => Some("malformed"),
            "_ws.expert" if severity.is_none_or(|severity| severity >= WARNING) => {
                said("_ws.expert.message").or(Some("a remark without words"))
            }
            _ => None,
        }
    }
}

/// Dissects a pcap file with these preferences, such as `bgp.desegment:FALSE`: for each frame the
/// messages of the protocol that end in it.
///
/// # Errors
/// `tshark` is missing, or knows no such protocol or preference.
pub fn dissect(
    pcap: &Path,
    protocol: &str,
    preferences: &[&str],
) -> Result<Vec<Vec<Field>>, DissectionError> {
    // With -x the octets are there, too; each name may be there several times.
    let mut launch = Launch::new("tshark")
        .args(["-n", "-T", "json", "-x", "-J", protocol, "-r"])
        .arg(pcap);
    for preference in preferences {
        launch = launch.args(["-o", preference]);
    }
    read(&launch.output(DEADLINE)?, protocol)
}

fn read(json: &str, protocol: &str) -> Result<Vec<Vec<Field>>, DissectionError> {
    let Tree::List(frames) = serde_json::from_str(json)? else {
        return Ok(Vec::new());
    };
    Ok(frames
        .into_iter()
        .map(|frame| {
            let layers = frame.entry("_source").and_then(|it| it.entry("layers"));
            let mut layers = layers.map(Tree::into_fields).unwrap_or_default();
            layers.retain(|layer| layer.name == protocol);
            layers
        })
        .collect())
}

/// JSON with the order of its maps, and all entries of the same name.
enum Tree {
    Text(String),
    Map(Vec<(String, Tree)>),
    List(Vec<Tree>),
    Other,
}

impl Tree {
    fn entry(self, name: &str) -> Option<Tree> {
        let Tree::Map(entries) = self else {
            return None;
        };
        let mut values = entries.into_iter();
        values.find_map(|(key, value)| (key == name).then_some(value))
    }

    /// The entries of a map as fields: `X_raw` has the octets of the `X` behind it, `X_tree` what is
    /// inside the `X` before it.
    fn into_fields(self) -> Vec<Field> {
        let Tree::Map(entries) = self else {
            return Vec::new();
        };
        let mut fields: Vec<Field> = Vec::new();
        let mut octets = Vec::new();
        for (name, value) in entries {
            match (name.strip_suffix("_tree"), fields.last_mut(), value) {
                (Some(whole), Some(last), value @ Tree::Map(_)) if last.name == whole => {
                    last.inside = value.into_fields();
                }
                // The octets, where in the frame, how many, which bits, type.
                (_, _, Tree::List(raw)) => octets = first_as_octets(raw),
                (_, _, Tree::Text(text)) => fields.push(Field {
                    name,
                    text,
                    octets: std::mem::take(&mut octets),
                    inside: Vec::new(),
                }),
                (_, _, value) => fields.push(Field {
                    name,
                    text: String::new(),
                    octets: std::mem::take(&mut octets),
                    inside: value.into_fields(),
                }),
            }
        }
        fields
    }
}

fn first_as_octets(raw: Vec<Tree>) -> Vec<u8> {
    let Some(Tree::Text(digits)) = raw.into_iter().next() else {
        return Vec::new();
    };
    // Some digits are those of a few bits.
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|it| it.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect::<Option<_>>().unwrap_or_default()
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Other)
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut values = Vec::new();
        if let Some(first) = list.next_element()? {
            // Of the octets of a field and what is said of them only the octets are of use.
            let octets = matches!(first, Tree::Text(_));
            values.push(first);
            match octets {
                true => while list.next_element::<IgnoredAny>()?.is_some() {},
                false => {
                    while let Some(value) = list.next_element()? {
                        values.push(value);
                    }
                }
            }
        }
        Ok(Tree::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_keep_their_order_their_octets_and_what_is_inside() {
        let text = r#"[{"_index": "x", "_score": null, "_source": {"layers": {
            "frame": {"filtered": "frame"},
            "bgp_raw": ["ff", 54, 1, 0, 1],
            "bgp": {
                "a_raw": ["0a0b", 1, 2, 0, 5], "a": "0x0a0b",
                "a_tree": {"bit_raw": ["1", 1, 1, 128, 2], "bit": "1"},
                "a_raw": ["01", 3, 1, 0, 4], "a": "1",
                "a line": {"b": "2"}
            },
            "bgp": {"_ws.expert": {
                "_ws.expert.message": "odd", "_ws.expert.severity": "6291456"
            }, "_ws.expert": {
                "_ws.expert.message": "by the way", "_ws.expert.severity": "2097152"
            }, "c": {"_ws.malformed": "x"}}
        }}}, {"_source": {"layers": {"frame": {}}}}]"#;
        let field = |name: &str, text: &str, octets: &[u8], inside| Field {
            name: name.to_owned(),
            text: text.to_owned(),
            octets: octets.to_owned(),
            inside,
        };
        let frames = read(text, "bgp").expect("JSON");
        assert_eq!(frames.len(), 2);
        let bit = field("bit", "1", &[], vec![]);
        let expected = [
            field("a", "0x0a0b", &[10, 11], vec![bit]),
            field("a", "1", &[1], vec![]),
            field("a line", "", &[], vec![field("b", "2", &[], vec![])]),
        ];
        let [first, second] = &frames[0][..] else {
            panic!("{frames:?}")
        };
        assert_eq!(
            (&first.octets[..], &first.inside[..]),
            (&[255][..], &expected[..])
        );
        assert_eq!(first.child("a").and_then(Field::number), Some(2571));
        assert_eq!(first.faults(), [""; 0]);
        assert_eq!(second.faults(), ["odd", "malformed"]);
        assert_eq!(frames[1], []);
        assert!(read("[{", "bgp").is_err());
    }
}

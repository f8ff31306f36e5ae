//! Takes a JSON object apart, field by field, so that an error can name the field.

use std::fmt::Display;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Extra, Reason};

/// A field and what is wrong with it, before the record's key is known.
pub(super) type Fault = (String, Reason);

/// The fields of a record (or of an object inside it) that have not been taken yet.
pub(super) struct Fields {
    map: Map<String, Value>,
    /// Where the object stands in its record: empty, or `nodes[2].`
    path: String,
}

impl Fields {
    pub(super) fn of(value: Value) -> Result<Fields, Fault> {
        match value {
            Value::Object(map) => Ok(Fields {
                map,
                path: String::new(),
            }),
            _ => Err(("value".to_owned(), Reason::NotObject)),
        }
    }

    /// A field that must be there.
    pub(super) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, Fault> {
        self.optional(name)?
            .ok_or_else(|| (self.field(name), Reason::Missing))
    }

    /// A field that may be absent or null.
    pub(super) fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, Fault> {
        match self.map.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match serde_json::from_value(value) {
                Ok(parsed) => Ok(Some(parsed)),
                Err(error) => Err((self.field(name), Reason::Invalid(error.to_string()))),
            },
        }
    }

    /// A list that must be there, with `least` to `most` items, each read by `parse`.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        least: usize,
        most: usize,
        parse: impl Fn(&Value) -> Result<T, Reason>,
    ) -> Result<Vec<T>, Fault> {
        let items = self.items(name, least, most)?;
        let parsed = items.iter().enumerate().map(|(index, item)| {
            parse(item).map_err(|reason| (format!("{}[{index}]", self.field(name)), reason))
        });
        parsed.collect()
    }

    /// A list in which nothing may stand twice.
    pub(super) fn set<T: Ord + Display>(
        &mut self,
        name: &str,
        least: usize,
        most: usize,
        parse: impl Fn(&Value) -> Result<T, Reason>,
    ) -> Result<Vec<T>, Fault> {
        let items = self.list(name, least, most, parse)?;
        match first_repeated(&items) {
            None => Ok(items),
            Some(index) => {
                let field = format!("{}[{index}]", self.field(name));
                Err((field, Reason::Duplicate(items[index].to_string())))
            }
        }
    }

    /// A list of objects that must be there (and may be empty).
    pub(super) fn objects<T>(
        &mut self,
        name: &str,
        most: usize,
        parse: impl Fn(Fields) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let items = self.items(name, 0, most)?;
        let parsed = items.into_iter().enumerate().map(|(index, item)| {
            let field = format!("{}[{index}]", self.field(name));
            match item {
                Value::Object(map) => parse(Fields {
                    map,
                    path: format!("{field}."),
                }),
                _ => Err((field, Reason::NotObject)),
            }
        });
        parsed.collect()
    }

    /// What nobody took.
    pub(super) fn rest(self) -> Extra {
        match self.map.is_empty() {
            // A map keeps the room of what was taken out of it, 632 octets for each record.
            true => Extra::new(),
            false => self.map,
        }
    }

    fn items(&mut self, name: &str, least: usize, most: usize) -> Result<Vec<Value>, Fault> {
        let reason = match self.map.remove(name) {
            None | Some(Value::Null) => Reason::Missing,
            Some(Value::Array(items)) if items.len() > most => Reason::TooMany {
                len: items.len(),
                max: most,
            },
            Some(Value::Array(items)) if items.len() < least => Reason::Empty,
            Some(Value::Array(items)) => return Ok(items),
            Some(other) => expected("a list", &other),
        };
        Err((self.field(name), reason))
    }

    fn field(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }
}

/// The index of the first item that stands earlier in the list already.
pub(super) fn first_repeated<T: Ord>(items: &[T]) -> Option<usize> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|index| (&items[*index], *index));
    order
        .windows(2)
        .filter(|pair| items[pair[0]] == items[pair[1]])
        .map(|pair| pair[1])
        .min()
}

/// A text that parses.
pub(super) fn text<T: FromStr<Err: Display>>(value: &Value) -> Result<T, Reason> {
    let text = value.as_str().ok_or_else(|| expected("a text", value))?;
    text.parse()
        .map_err(|error: T::Err| Reason::Invalid(error.to_string()))
}

/// The reason of a value that is of another type. It never repeats the value, which may be large.
pub(super) fn expected(what: &str, value: &Value) -> Reason {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    Reason::Invalid(format!("is {found} where {what} is expected"))
}

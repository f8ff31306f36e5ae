//! Reads a struct from a table that has more in it, or has it written otherwise: entries pass by
//! a [`Taker`] first, which may keep them or put others in their place.
//!
//! Faults keep the place in the file that the format gives them.

use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor,
};

/// The value of an entry that is put in the place of another.
#[derive(Debug)]
pub(super) enum Given {
    Text(String),
    Number(u32),
}

/// Who sees the entries of a table before the struct does.
pub(super) trait Taker {
    /// Entries that the struct gets whatever the table has.
    fn given(&self) -> Vec<(&'static str, Given)> {
        Vec::new()
    }

    /// Whether it wants the entry of this key.
    fn wants(&self, key: &str) -> bool;

    /// Takes the value of an entry it wanted. What it returns is put in its place.
    fn take<'de, D: Deserializer<'de>>(
        &mut self,
        key: &str,
        value: D,
    ) -> Result<Vec<(&'static str, Given)>, D::Error>;
}

/// Reads a `T`, whose entries pass by `taker`.
pub(super) fn intercept<'de, T, D>(taker: &mut impl Taker, deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(Table {
        taker,
        what: PhantomData,
    })
}

struct Table<'t, T, Y> {
    taker: &'t mut Y,
    what: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>, Y: Taker> Visitor<'de> for Table<'_, T, Y> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(Entries {
            map,
            given: self.taker.given().into(),
            taker: self.taker,
            value: None,
        }))
    }
}

struct Entries<'t, A, Y> {
    map: A,
    taker: &'t mut Y,
    /// Entries to be put in the place of others.
    given: VecDeque<(&'static str, Given)>,
    /// The value of the last key, if that is one of them.
    value: Option<Given>,
}

impl<'de, A: MapAccess<'de>, Y: Taker> MapAccess<'de> for Entries<'_, A, Y> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        let mut seed = Some(seed);
        loop {
            if let Some((key, value)) = self.given.pop_front() {
                self.value = Some(value);
                return match seed.take() {
                    Some(seed) => seed.deserialize(key.into_deserializer()).map(Some),
                    None => Ok(None),
                };
            }
            let key = Key {
                seed: &mut seed,
                taker: &*self.taker,
            };
            match self.map.next_key_seed(key)? {
                None => return Ok(None),
                Some(Seen::Passed(key)) => return Ok(Some(key)),
                Some(Seen::Wanted(key)) => {
                    let taken = self.map.next_value_seed(Taken {
                        key: &key,
                        taker: self.taker,
                    })?;
                    self.given.extend(taken);
                }
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(GivenValue(value, PhantomData)),
            None => self.map.next_value_seed(seed),
        }
    }
}

enum Seen<K> {
    Passed(K),
    Wanted(String),
}

struct Key<'k, K, Y> {
    seed: &'k mut Option<K>,
    taker: &'k Y,
}

impl<'de, K: DeserializeSeed<'de>, Y: Taker> DeserializeSeed<'de> for Key<'_, K, Y> {
    type Value = Seen<K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let key = String::deserialize(deserializer)?;
        if self.taker.wants(&key) {
            return Ok(Seen::Wanted(key));
        }
        let seed = self.seed.take();
        let seed = seed.ok_or_else(|| D::Error::custom("a key was read twice"))?;
        seed.deserialize(key.into_deserializer()).map(Seen::Passed)
    }
}

struct Taken<'t, Y> {
    key: &'t str,
    taker: &'t mut Y,
}

impl<'de, Y: Taker> DeserializeSeed<'de> for Taken<'_, Y> {
    type Value = Vec<(&'static str, Given)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.taker.take(self.key, deserializer)
    }
}

/// A value that was put in the place of another, for a field or an optional one.
struct GivenValue<E>(Given, PhantomData<E>);

impl<'de, E: Error> Deserializer<'de> for GivenValue<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        match self.0 {
            Given::Text(text) => visitor.visit_string(text),
            Given::Number(number) => visitor.visit_u32(number),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_some(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

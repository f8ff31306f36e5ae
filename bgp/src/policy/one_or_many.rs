//! A list that may be written without brackets when it has one entry.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{I64Deserializer, SeqAccessDeserializer, StrDeserializer, U64Deserializer};
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// One text or number, or a list of them that is not empty.
pub(super) fn one_or_many<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    // A visitor rather than an untagged enum: this keeps the place and the reason of an error.
    struct OneOrMany<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrMany<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("one value or a list of at least one")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<T>, E> {
            T::deserialize(StrDeserializer::new(text)).map(|one| vec![one])
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Vec<T>, E> {
            T::deserialize(U64Deserializer::new(number)).map(|one| vec![one])
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Vec<T>, E> {
            T::deserialize(I64Deserializer::new(number)).map(|one| vec![one])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, many: A) -> Result<Vec<T>, A::Error> {
            let many = Vec::<T>::deserialize(SeqAccessDeserializer::new(many))?;
            match many.is_empty() {
                // An empty list would match everything or nothing, whichever one did not mean.
                true => Err(A::Error::invalid_length(0, &self)),
                false => Ok(many),
            }
        }
    }

    deserializer.deserialize_any(OneOrMany(PhantomData))
}

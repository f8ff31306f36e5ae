//! What a rule may ask of a route beside its prefix.

use serde::Deserialize;

use super::Provenance;
use super::one_or_many::one_or_many;
use super::pattern::{CommunityPattern, ExtendedPattern, LargePattern};
use crate::rib::attributes::RouteAttributes;

/// What must be so for a rule to match. Everything stated must hold; of a list, one entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Conditions {
    /// Where the route comes from.
    pub from: Option<Provenance>,
    /// A community that one of these matches.
    pub community: Vec<CommunityPattern>,
    /// A large community that one of these matches.
    pub large_community: Vec<LargePattern>,
    /// An extended community that one of these matches.
    pub ext_community: Vec<ExtendedPattern>,
    /// What the AS path looks like.
    pub as_path: Option<PathCondition>,
    /// MULTI_EXIT_DISC; a route without one matches no value.
    pub med: Option<MedCondition>,
}

/// What must be so of an AS path. Of a list of AS numbers, one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathCondition {
    /// The AS it starts in, the neighbour that told it.
    #[serde(default, deserialize_with = "one_or_many")]
    pub neighbour: Vec<u32>,
    /// The AS it ends in, that originated the route.
    #[serde(default, deserialize_with = "one_or_many")]
    pub origin: Vec<u32>,
    /// An AS that is anywhere in it.
    #[serde(default, deserialize_with = "one_or_many")]
    pub contains: Vec<u32>,
    /// The least length, as route selection counts it.
    pub min_length: Option<u16>,
    /// The greatest length, as route selection counts it.
    pub max_length: Option<u16>,
}

/// Values of MULTI_EXIT_DISC. In TOML: a number, or `{ min = N, max = N }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MedCondition {
    /// The least one.
    pub min: u32,
    /// The greatest one.
    pub max: u32,
}

impl Conditions {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Conditions::default()
    }

    /// Whether the route is as asked.
    pub fn hold(&self, attributes: &RouteAttributes, from: Provenance) -> bool {
        self.from.is_none_or(|asked| asked == from)
            && any(&self.community, |pattern| {
                let mut all = attributes.communities.iter();
                all.any(|community| pattern.matches(*community))
            })
            && any(&self.large_community, |pattern| {
                let mut all = attributes.rare.large_communities.iter();
                all.any(|community| pattern.matches(*community))
            })
            && any(&self.ext_community, |pattern| {
                let mut all = attributes.rare.ext_communities.iter();
                all.any(|community| pattern.matches(*community))
            })
            && self
                .as_path
                .as_ref()
                .is_none_or(|asked| asked.holds(attributes))
            && self.med.is_none_or(|asked| {
                attributes
                    .med
                    .is_some_and(|med| (asked.min..=asked.max).contains(&med))
            })
    }
}

impl PathCondition {
    fn holds(&self, attributes: &RouteAttributes) -> bool {
        let path = &attributes.as_path;
        let long = |least: Option<u16>, most: Option<u16>| {
            (least.is_none() && most.is_none()) || {
                let hops = path.hops();
                least.is_none_or(|least| hops >= usize::from(least))
                    && most.is_none_or(|most| hops <= usize::from(most))
            }
        };
        any(&self.neighbour, |asn| path.first() == Some(*asn))
            && any(&self.origin, |asn| path.origin() == Some(*asn))
            && any(&self.contains, |asn| path.contains(*asn))
            && long(self.min_length, self.max_length)
    }
}

/// Whether one of them holds, or there is none to ask.
fn any<T>(asked: &[T], holds: impl Fn(&T) -> bool) -> bool {
    asked.is_empty() || asked.iter().any(holds)
}

impl<'de> Deserialize<'de> for MedCondition {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::{Error, MapAccess, Visitor, value::MapAccessDeserializer};

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Bounds {
            #[serde(default)]
            min: u32,
            #[serde(default = "greatest")]
            max: u32,
        }

        fn greatest() -> u32 {
            u32::MAX
        }

        struct Med;

        impl<'de> Visitor<'de> for Med {
            type Value = MedCondition;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a MED from 0 to 4294967295, or { min = N, max = N }")
            }

            fn visit_u64<E: Error>(self, med: u64) -> Result<MedCondition, E> {
                let med = u32::try_from(med)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(med), &self))?;
                Ok(MedCondition { min: med, max: med })
            }

            fn visit_i64<E: Error>(self, med: i64) -> Result<MedCondition, E> {
                let unsigned = u64::try_from(med)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(med), &self))?;
                self.visit_u64(unsigned)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MedCondition, A::Error> {
                let Bounds { min, max } = Bounds::deserialize(MapAccessDeserializer::new(map))?;
                match min <= max {
                    true => Ok(MedCondition { min, max }),
                    false => Err(A::Error::custom(format!("min {min} exceeds max {max}"))),
                }
            }
        }

        deserializer.deserialize_any(Med)
    }
}

//! AS_PATH (RFC 4271 section 4.3), held in one compact block with 4-octet AS numbers.
//!
//! What a 2-octet peer sends or needs is converted at the edge, in [`super::as4`].

use std::fmt;

use serde::ser::{Serialize, Serializer};

/// The type of a path segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum SegmentKind {
    /// Unordered: ASes an aggregate went through.
    Set = 1,
    /// Ordered: the last AS first.
    Sequence = 2,
}

impl SegmentKind {
    /// The kind of a type octet. Confederation segments (3, 4) are none: see RFC 5065 section 5.
    pub const fn from_octet(octet: u8) -> Option<SegmentKind> {
        match octet {
            1 => Some(SegmentKind::Set),
            2 => Some(SegmentKind::Sequence),
            _ => None,
        }
    }
}

/// Most AS numbers a segment holds: its count is one octet.
pub const MAX_SEGMENT: usize = 255;

/// The AS path of a route. Segments are never empty; the path may be.
#[derive(Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct AsPath {
    // Segments in wire form with 4-octet AS numbers, always well-formed: one allocation a path,
    // compared and hashed as octets, sent to a 4-octet peer as is.
    octets: Box<[u8]>,
}

/// One segment of an [`AsPath`].
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    kind: SegmentKind,
    octets: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Set or sequence.
    pub const fn kind(&self) -> SegmentKind {
        self.kind
    }

    /// The AS numbers, in wire order.
    pub fn asns(
        &self,
    ) -> impl ExactSizeIterator<Item = u32> + DoubleEndedIterator + Clone + use<'a> {
        self.octets
            .as_chunks::<4>()
            .0
            .iter()
            .map(|asn| u32::from_be_bytes(*asn))
    }

    /// How many AS numbers: 1 to 255.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub const fn len(&self) -> usize {
        self.octets.len() / 4
    }
}

impl fmt::Debug for Segment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        f.debug_list().entries(self.asns()).finish()
    }
}

impl AsPath {
    /// The path of a route originated here, as internal peers see it.
    pub fn empty() -> AsPath {
        AsPath::default()
    }

    /// A path of one sequence (or several, beyond 255 ASes).
    pub fn sequence(asns: impl IntoIterator<Item = u32>) -> AsPath {
        let asns: Vec<u32> = asns.into_iter().collect();
        AsPath::from_segments([(SegmentKind::Sequence, asns.as_slice())])
    }

    /// A path of these segments. Empty ones are left out, those beyond 255 ASes are split.
    pub fn from_segments<'s>(
        segments: impl IntoIterator<Item = (SegmentKind, &'s [u32])>,
    ) -> AsPath {
        let mut octets = Vec::new();
        for (kind, asns) in segments {
            for chunk in asns.chunks(MAX_SEGMENT) {
                octets.extend([kind as u8, chunk.len() as u8]);
                octets.extend(chunk.iter().flat_map(|asn| asn.to_be_bytes()));
            }
        }
        AsPath {
            octets: octets.into(),
        }
    }

    /// `octets` must be whole, non-empty segments of known kinds with 4-octet AS numbers.
    pub(super) fn from_checked_octets(octets: Box<[u8]>) -> AsPath {
        AsPath { octets }
    }

    /// The value of the attribute for a 4-octet peer.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// The segments from the nearest AS to the origin.
    pub fn segments(&self) -> Segments<'_> {
        Segments { rest: &self.octets }
    }

    /// Whether there is no AS at all.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// Every AS number, sets flattened.
    pub fn asns(&self) -> impl Iterator<Item = u32> + '_ {
        self.segments().flat_map(|segment| segment.asns())
    }

    /// The length that route selection compares: a set counts as one (RFC 4271 section 9.1.2.2).
    pub fn hops(&self) -> usize {
        self.segments()
            .map(|segment| match segment.kind {
                SegmentKind::Set => 1,
                SegmentKind::Sequence => segment.len(),
            })
            .sum()
    }

    /// Whether the AS appears anywhere: a loop, when it is our own.
    pub fn contains(&self, asn: u32) -> bool {
        self.asns().any(|other| other == asn)
    }

    /// The neighbouring AS: the first one, when the path starts with a sequence.
    pub fn first(&self) -> Option<u32> {
        let first = self.segments().next()?;
        (first.kind == SegmentKind::Sequence)
            .then(|| first.asns().next())
            .flatten()
    }

    /// The AS that originated the route: the last one, when the path ends with a sequence.
    pub fn origin(&self) -> Option<u32> {
        let last = self.segments().last()?;
        (last.kind == SegmentKind::Sequence)
            .then(|| last.asns().next_back())
            .flatten()
    }

    /// Whether there is an AS_SET (deprecated by RFC 9774).
    pub fn has_set(&self) -> bool {
        self.segments()
            .any(|segment| segment.kind == SegmentKind::Set)
    }

    /// How often the AS appears, sets flattened.
    pub fn count(&self, asn: u32) -> usize {
        self.asns().filter(|other| *other == asn).count()
    }

    /// The path without private AS numbers (RFC 6996). Segments that become empty go.
    pub fn without_private(&self) -> AsPath {
        if !self.asns().any(is_private) {
            return self.clone();
        }
        let segments: Vec<(SegmentKind, Vec<u32>)> = self
            .segments()
            .map(|segment| {
                let public = segment.asns().filter(|asn| !is_private(*asn));
                (segment.kind, public.collect())
            })
            .collect();
        AsPath::from_segments(segments.iter().map(|(kind, asns)| (*kind, asns.as_slice())))
    }

    /// The path with `asn` put in front `count` times, as done towards external peers
    /// (RFC 4271 section 5.1.2).
    pub fn prepended(&self, asn: u32, count: usize) -> AsPath {
        let mut lead = vec![asn; count];
        let mut rest = self.octets();
        // A leading sequence is extended; a full one starts another.
        if let Some(first) = self.segments().next()
            && first.kind == SegmentKind::Sequence
            && first.len() + count <= MAX_SEGMENT
        {
            lead.extend(first.asns());
            rest = &rest[2 + first.octets.len()..];
        }
        let mut octets = AsPath::sequence(lead).octets.into_vec();
        octets.extend_from_slice(rest);
        AsPath {
            octets: octets.into(),
        }
    }
}

/// Whether an AS number is for private use (RFC 6996 section 5).
pub const fn is_private(asn: u32) -> bool {
    matches!(asn, 64_512..=65_534 | 4_200_000_000..=4_294_967_294)
}

/// Iterator over the segments of a path.
#[derive(Debug, Clone)]
pub struct Segments<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Segments<'a> {
    type Item = Segment<'a>;

    fn next(&mut self) -> Option<Segment<'a>> {
        let [kind, count, rest @ ..] = self.rest else {
            return None;
        };
        let (octets, rest) = rest.split_at_checked(usize::from(*count) * 4)?;
        self.rest = rest;
        Some(Segment {
            kind: SegmentKind::from_octet(*kind)?,
            octets,
        })
    }
}

/// `65001 65002 {65003,65004}`.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for segment in self.segments() {
            let (open, between, close) = match segment.kind {
                SegmentKind::Sequence => ("", " ", ""),
                SegmentKind::Set => ("{", ",", "}"),
            };
            if !first {
                f.write_str(" ")?;
            }
            first = false;
            f.write_str(open)?;
            for (index, asn) in segment.asns().enumerate() {
                if index > 0 {
                    f.write_str(between)?;
                }
                write!(f, "{asn}")?;
            }
            f.write_str(close)?;
        }
        Ok(())
    }
}

impl fmt::Debug for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsPath")?;
        f.debug_list().entries(self.segments()).finish()
    }
}

impl Serialize for AsPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed() -> AsPath {
        AsPath::from_segments([
            (SegmentKind::Sequence, &[65001, 70000][..]),
            (SegmentKind::Set, &[1, 2, 3]),
        ])
    }

    #[test]
    fn private_as_numbers_are_those_of_rfc_6996() {
        for (asn, private) in [
            (64_511, false),
            (64_512, true),
            (65_534, true),
            (65_535, false),
            (4_199_999_999, false),
            (4_200_000_000, true),
            (4_294_967_294, true),
            (4_294_967_295, false),
        ] {
            assert_eq!(is_private(asn), private, "{asn}");
        }
        for (path, without, of_one) in [
            (AsPath::empty(), "", 0),
            (AsPath::sequence([1, 2]), "1 2", 1),
            (AsPath::sequence([1, 64512, 1, 4_200_000_000]), "1 1", 2),
            (AsPath::sequence([65001, 65002]), "", 0),
            (mixed(), "70000 {1,2,3}", 1),
            (
                AsPath::from_segments([
                    (SegmentKind::Set, &[65001][..]),
                    (SegmentKind::Sequence, &[3]),
                ]),
                "3",
                0,
            ),
        ] {
            assert_eq!(path.without_private().to_string(), without, "{path}");
            assert_eq!(path.count(1), of_one, "{path}");
        }
    }

    #[test]
    fn questions_asked_of_a_path() {
        let set_first = AsPath::from_segments([(SegmentKind::Set, &[1, 2][..])]);
        // path, text, hops, first, origin, has_set
        let rows = [
            (AsPath::empty(), "", 0, None, None, false),
            (AsPath::sequence([1]), "1", 1, Some(1), Some(1), false),
            (
                AsPath::sequence([1, 1, 2]),
                "1 1 2",
                3,
                Some(1),
                Some(2),
                false,
            ),
            (mixed(), "65001 70000 {1,2,3}", 3, Some(65001), None, true),
            (set_first, "{1,2}", 1, None, None, true),
        ];
        for (path, text, hops, first, origin, has_set) in rows {
            assert_eq!(path.to_string(), text);
            assert_eq!(
                (
                    path.hops(),
                    path.first(),
                    path.origin(),
                    path.has_set(),
                    path.is_empty()
                ),
                (hops, first, origin, has_set, hops == 0),
                "{text}"
            );
        }
        assert!(mixed().contains(70000) && mixed().contains(3) && !mixed().contains(4));
    }

    #[test]
    fn prepending_extends_the_first_sequence_or_starts_one() {
        let full = AsPath::sequence(vec![7; 255]);
        let segments = |path: &AsPath| -> Vec<usize> {
            path.segments().map(|segment| segment.len()).collect()
        };
        // path, count, lengths of the segments
        let rows = [
            (AsPath::empty(), 1, vec![1]),
            (AsPath::sequence([2]), 3, vec![4]),
            (mixed(), 1, vec![3, 3]),
            (
                AsPath::from_segments([(SegmentKind::Set, &[1][..])]),
                2,
                vec![2, 1],
            ),
            (full.clone(), 1, vec![1, 255]),
            (full, 300, vec![255, 45, 255]),
        ];
        for (path, count, expected) in rows {
            let longer = path.prepended(9, count);
            assert_eq!(segments(&longer), expected, "{count} before {path}");
            assert_eq!(longer.hops(), path.hops() + count);
            assert!(longer.asns().take(count).all(|asn| asn == 9));
            assert!(longer.asns().skip(count).eq(path.asns()));
        }
        assert_eq!(mixed().prepended(9, 0), mixed());
    }

    #[test]
    fn empty_segments_are_left_out() {
        assert_eq!(AsPath::sequence([]), AsPath::empty());
        let segments = [(SegmentKind::Set, &[][..]), (SegmentKind::Sequence, &[1])];
        assert_eq!(AsPath::from_segments(segments), AsPath::sequence([1]));
    }
}

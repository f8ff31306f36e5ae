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
        write!(f, "AsPath({self})")
    }
}

impl Serialize for AsPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

//! What the injector sends: a made-up Internet table, serialised before any clock starts.
//!
//! The same number of prefixes gives the same octets on every machine. Nothing here sends.

use std::net::Ipv4Addr;
use std::ops::Range;
use std::sync::Arc;

use super::prefix_set::{LONGEST, PrefixId, PrefixSet};

/// Prefixes an UPDATE (and so a set of attributes), on average.
pub const PREFIXES_AN_UPDATE: f64 = 8.1;
/// Octets of the largest message (RFC 4271 section 4).
const MESSAGE: usize = 4096;
/// Octets of a message's header (RFC 4271 section 4.1).
const HEADER: usize = 19;
/// Most prefixes of one set of attributes.
const LARGEST_GROUP: usize = 400;
/// How many prefixes have which length, in a thousand: some of each, most of /24.
const LENGTHS: [(u8, u64); 9] = [
    (24, 620),
    (23, 90),
    (22, 110),
    (21, 50),
    (20, 50),
    (19, 30),
    (18, 20),
    (17, 10),
    (16, 20),
];
/// Networks that are nobody's on the Internet, or the bench's own: first octets.
const RESERVED: [u8; 8] = [0, 10, 127, 169, 172, 192, 198, 203];

/// One table: its prefixes and the messages that announce and withdraw them.
#[derive(Debug, Clone)]
pub struct Stream {
    /// The prefixes, in the order in which they are announced.
    pub prefixes: Vec<PrefixId>,
    /// Their set.
    pub set: PrefixSet,
    /// UPDATEs that announce them all, the marker last.
    pub announce: Arc<[u8]>,
    /// UPDATEs that withdraw them all, packed.
    pub withdraw: Arc<[u8]>,
    /// How many UPDATEs announce: as many as there are different sets of attributes.
    pub updates: usize,
    groups: Vec<Group>,
}

/// Prefixes that share their attributes.
#[derive(Debug, Clone)]
struct Group {
    attributes: Vec<u8>,
    /// Where in the list of prefixes.
    range: Range<usize>,
}

/// The route that shows that all before it has been dealt with: the last of each table.
pub const MARKER: PrefixId = PrefixId::new(Ipv4Addr::new(203, 0, 113, 0), LONGEST);

impl Stream {
    /// A table of `count` prefixes, at least 1, told by `asn` with `next_hop`.
    pub fn generate(count: usize, asn: u32, next_hop: Ipv4Addr) -> Stream {
        let mut random = Random(0x5eed_0000 + count as u64);
        let mut set = PrefixSet::default();
        let mut prefixes = Vec::with_capacity(count);
        let mut groups = Vec::new();
        set.insert(MARKER);
        while prefixes.len() + 1 < count {
            let start = prefixes.len();
            let size = random.group().min(count - 1 - start);
            fill(&mut prefixes, size, &mut set, &mut random);
            groups.push(Group {
                attributes: attributes(asn, next_hop, &mut random),
                range: start..prefixes.len(),
            });
        }
        groups.push(Group {
            attributes: attributes(asn, next_hop, &mut random),
            range: prefixes.len()..prefixes.len() + 1,
        });
        prefixes.push(MARKER);
        let mut announce = Vec::new();
        for group in &groups {
            update(
                &mut announce,
                &[],
                &group.attributes,
                &prefixes[group.range.clone()],
            );
        }
        let mut withdraw = Vec::new();
        withdrawals(&mut withdraw, &prefixes);
        Stream {
            updates: groups.len(),
            prefixes,
            set,
            announce: announce.into(),
            withdraw: withdraw.into(),
            groups,
        }
    }

    /// The list of prefixes, but for the marker, in parts of whole groups with about `size` prefixes
    /// each.
    pub fn parts(&self, size: usize) -> impl Iterator<Item = Range<usize>> {
        let mut groups = self.groups.iter().take(self.groups.len() - 1).peekable();
        std::iter::from_fn(move || {
            let start = groups.peek()?.range.start;
            let mut end = start;
            while let Some(group) = groups.next_if(|group| group.range.start < start + size) {
                end = group.range.end;
            }
            Some(start..end)
        })
    }

    /// UPDATEs that announce a part again, as it was.
    pub fn announce_part(&self, part: &Range<usize>) -> Vec<u8> {
        let mut octets = Vec::new();
        let first = self
            .groups
            .partition_point(|group| group.range.start < part.start);
        for group in self.groups[first..]
            .iter()
            .take_while(|group| group.range.end <= part.end)
        {
            let prefixes = &self.prefixes[group.range.clone()];
            update(&mut octets, &[], &group.attributes, prefixes);
        }
        octets
    }

    /// UPDATEs that withdraw a part.
    pub fn withdraw_part(&self, part: &Range<usize>) -> Vec<u8> {
        let mut octets = Vec::new();
        withdrawals(&mut octets, &self.prefixes[part.clone()]);
        octets
    }
}

/// An UPDATE that announces one prefix with a path that nobody else has, told apart by `variant`.
pub fn single(asn: u32, next_hop: Ipv4Addr, prefix: PrefixId, variant: u32) -> Vec<u8> {
    let mut octets = Vec::new();
    let attributes = with_path(asn, next_hop, &[64_496, 70_000 + variant % 1000], 0);
    update(&mut octets, &[], &attributes, &[prefix]);
    octets
}

/// Adds `size` prefixes that are near each other, as those of one network are.
fn fill(prefixes: &mut Vec<PrefixId>, size: usize, set: &mut PrefixSet, random: &mut Random) {
    let mut base = random.next() as u32;
    let mut last = None;
    let mut tries = 0;
    let end = prefixes.len() + size;
    while prefixes.len() < end {
        let length = random.length();
        let block = 1u32 << (32 - length);
        let address = match last {
            // The neighbour of the one before, or one somewhere in the same /13.
            Some(last) if random.below(2) == 0 => u32::wrapping_add(last, block),
            _ => (base & 0xfff8_0000) | (random.next() as u32 & 0x0007_ffff),
        };
        let address = Ipv4Addr::from_bits(address & !(block - 1));
        let prefix = PrefixId::new(address, length);
        let first = address.octets()[0];
        if first >= 224 || RESERVED.contains(&first) || !set.insert(prefix) {
            tries += 1;
            if tries % 4 == 0 {
                base = random.next() as u32;
                last = None;
            }
            continue;
        }
        last = Some(address.to_bits());
        prefixes.push(prefix);
    }
}

/// Attributes like the Internet's: paths of 2 to 6 ASes, communities on most, MED on some.
fn attributes(asn: u32, next_hop: Ipv4Addr, random: &mut Random) -> Vec<u8> {
    let transit: Vec<u32> = (0..random.below(5) + 1)
        .map(|_| {
            1_000 + random.below(60_000) as u32 + if random.below(4) == 0 { 130_000 } else { 0 }
        })
        .map(|asn| if asn == 23_456 { 3_356 } else { asn })
        .collect();
    let origin = if random.below(10) == 0 { 2 } else { 0 };
    let mut octets = with_path(asn, next_hop, &transit, origin);
    if random.below(5) == 0 {
        octets.extend_from_slice(&[0x80, 4, 4]);
        octets.extend_from_slice(&(random.below(1_000) as u32).to_be_bytes());
    }
    if random.below(50) == 0 {
        octets.extend_from_slice(&[0x40, 6, 0]);
        octets.extend_from_slice(&[0xc0, 7, 8]);
        octets.extend_from_slice(&transit[transit.len() - 1].to_be_bytes());
        octets.extend_from_slice(&[192, 0, 2, random.below(200) as u8]);
    }
    if random.below(10) < 6 {
        let count = 1 + random.below(6);
        octets.extend_from_slice(&[0xc0, 8, 4 * count as u8]);
        for _ in 0..count {
            let tag = random.below(500) as u16;
            octets.extend_from_slice(&(transit[0] as u16 & 0x7fff).to_be_bytes());
            octets.extend_from_slice(&tag.to_be_bytes());
        }
    }
    if random.below(20) == 0 {
        octets.extend_from_slice(&[0xc0, 32, 12]);
        octets.extend_from_slice(&transit[0].to_be_bytes());
        octets.extend_from_slice(&(random.below(9) as u32).to_be_bytes());
        octets.extend_from_slice(&(random.below(999) as u32).to_be_bytes());
    }
    octets
}

/// ORIGIN, AS_PATH (4-octet ASes, RFC 6793) and NEXT_HOP.
fn with_path(asn: u32, next_hop: Ipv4Addr, transit: &[u32], origin: u8) -> Vec<u8> {
    let length = transit.len() + 1;
    let mut octets = vec![0x40, 1, 1, origin, 0x40, 2];
    octets.extend_from_slice(&[2 + 4 * length as u8, 2, length as u8]);
    for asn in [asn].iter().chain(transit) {
        octets.extend_from_slice(&asn.to_be_bytes());
    }
    octets.extend_from_slice(&[0x40, 3, 4]);
    octets.extend_from_slice(&next_hop.octets());
    octets
}

/// Appends one UPDATE (RFC 4271 section 4.3).
fn update(into: &mut Vec<u8>, withdrawn: &[PrefixId], attributes: &[u8], announced: &[PrefixId]) {
    let start = into.len();
    into.extend_from_slice(&[0xff; 16]);
    into.extend_from_slice(&[0, 0, 2]);
    let mut octets = Vec::new();
    withdrawn
        .iter()
        .for_each(|prefix| prefix.write(&mut octets));
    into.extend_from_slice(&(octets.len() as u16).to_be_bytes());
    into.append(&mut octets);
    into.extend_from_slice(&(attributes.len() as u16).to_be_bytes());
    into.extend_from_slice(attributes);
    announced.iter().for_each(|prefix| prefix.write(into));
    let length = (into.len() - start) as u16;
    into[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

/// Appends UPDATEs that withdraw, as few as possible.
fn withdrawals(into: &mut Vec<u8>, prefixes: &[PrefixId]) {
    // The header and two lengths are not for prefixes, of which the longest takes 4 octets.
    let most = (MESSAGE - HEADER - 4) / 4;
    for piece in prefixes.chunks(most) {
        update(into, piece, &[], &[]);
    }
}

/// SplitMix64: enough to make up a table, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        super::prefix_set::mix(self.0)
    }

    /// 0 to `end`, without it.
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn length(&mut self) -> u8 {
        let mut left = self.below(LENGTHS.iter().map(|(_, share)| share).sum());
        for (length, share) in LENGTHS {
            match left.checked_sub(share) {
                Some(rest) => left = rest,
                None => return length,
            }
        }
        LONGEST
    }

    /// The size of a group: geometric, as few networks have much.
    fn group(&mut self) -> usize {
        let uniform = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let stop = 1.0 / PREFIXES_AN_UPDATE;
        let size = (1.0 - uniform).ln() / (1.0 - stop).ln();
        (size as usize + 1).min(LARGEST_GROUP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::wire::{self, Message};

    #[test]
    fn a_table_has_what_it_says() {
        for count in [1, 2, 10_000] {
            let stream = Stream::generate(count, 65_010, Ipv4Addr::new(10, 99, 0, 10));
            assert_eq!(stream.prefixes.len(), count);
            assert_eq!(stream.set.len(), count);
            assert_eq!(stream.prefixes.last(), Some(&MARKER));
            let mut told = PrefixSet::default();
            let (mut updates, mut octets) = (0, &stream.announce[..]);
            while let Some((message, rest)) = wire::split(octets).expect("messages") {
                let Message::Update(update) = message else {
                    panic!("{message:?}")
                };
                assert_eq!(update.withdrawn().count(), 0);
                updates += 1;
                for prefix in update.announced() {
                    assert!(told.insert(prefix.expect("a prefix")), "told once");
                }
                octets = rest;
            }
            assert_eq!(
                (updates, told.checksum()),
                (stream.updates, stream.set.checksum())
            );
            let mut octets = &stream.withdraw[..];
            while let Some((message, rest)) = wire::split(octets).expect("messages") {
                let Message::Update(update) = message else {
                    panic!("{message:?}")
                };
                for prefix in update.withdrawn() {
                    assert!(told.remove(prefix.expect("a prefix")));
                }
                octets = rest;
            }
            assert_eq!(told.len(), 0);
        }
    }

    #[test]
    fn it_looks_like_the_internet() {
        let count = 50_000;
        let stream = Stream::generate(count, 65_010, Ipv4Addr::new(10, 99, 0, 10));
        let mean = count as f64 / stream.updates as f64;
        assert!((7.0..9.2).contains(&mean), "{mean} prefixes an UPDATE");
        let long = stream
            .prefixes
            .iter()
            .filter(|prefix| prefix.length() == 24)
            .count();
        assert!((count / 2..count * 3 / 4).contains(&long), "{long} of /24");
    }

    #[test]
    fn parts_are_the_table_but_for_the_marker() {
        let stream = Stream::generate(5_000, 65_010, Ipv4Addr::new(10, 99, 0, 10));
        let parts: Vec<_> = stream.parts(300).collect();
        assert_eq!(
            parts.iter().map(ExactSizeIterator::len).sum::<usize>(),
            4_999
        );
        let whole: Vec<u8> = parts
            .iter()
            .flat_map(|part| stream.announce_part(part))
            .collect();
        assert!(stream.announce.starts_with(&whole) && whole.len() > stream.announce.len() - 200);
        let mut set = stream.set.clone();
        for part in &parts {
            assert!(
                (300..300 + LARGEST_GROUP).contains(&part.len()) || part.end == 4_999,
                "{part:?}"
            );
            let octets = stream.withdraw_part(part);
            let (message, rest) = wire::split(&octets).expect("a message").expect("whole");
            let Message::Update(update) = message else {
                panic!("{message:?}")
            };
            assert!(
                update
                    .withdrawn()
                    .all(|prefix| set.remove(prefix.expect("a prefix")))
            );
            assert!(rest.is_empty());
        }
        assert_eq!(set.len(), 1, "the marker");
    }

    #[test]
    fn the_decoder_of_the_product_reads_it() {
        let stream = Stream::generate(2_000, 65_010, Ipv4Addr::new(10, 99, 0, 10));
        let options = bgp::wire::WireOptions {
            four_octet_as: true,
            ..Default::default()
        };
        let (mut octets, mut prefixes) = (&stream.announce[..], 0);
        while !octets.is_empty() {
            let length = usize::from(u16::from_be_bytes([octets[16], octets[17]]));
            let (message, rest) = octets.split_at(length);
            let decoded = bgp::wire::Message::decode(message, &options).expect("a message");
            assert!(decoded.findings.is_empty(), "{:?}", decoded.findings);
            let bgp::wire::Message::Update(update) = decoded.message else {
                panic!("no UPDATE")
            };
            prefixes += update.nlri.len();
            octets = rest;
        }
        assert_eq!(prefixes, 2_000);
    }
}

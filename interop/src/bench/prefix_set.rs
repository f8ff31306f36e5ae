//! IPv4 prefixes up to /24 as small numbers, and sets of them: a bit each, so that a sink can tell
//! at line rate whether what has arrived is what was sent.

use std::fmt;
use std::net::Ipv4Addr;

/// The longest prefix there is here, as on the Internet.
pub const LONGEST: u8 = 24;

/// A prefix of at most 24 bits, as one number: a 1 and then its bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixId(u32);

impl PrefixId {
    /// The prefix of that length which holds the address; lengths over 24 are cut.
    pub const fn new(address: Ipv4Addr, length: u8) -> PrefixId {
        let length = if length > LONGEST { LONGEST } else { length };
        // In two steps: a shift by all 32 bits is none.
        let bits = (address.to_bits() >> (31 - length)) >> 1;
        PrefixId((1 << length) | bits)
    }

    /// Its length in bits.
    pub fn length(self) -> u8 {
        self.0.ilog2() as u8
    }

    /// Its first address.
    pub fn address(self) -> Ipv4Addr {
        let length = u32::from(self.length());
        let bits = self.0 & !(1 << length);
        Ipv4Addr::from_bits(bits.checked_shl(32 - length).unwrap_or(0))
    }

    /// Appends it as NLRI (RFC 4271 section 4.3).
    pub fn write(self, into: &mut Vec<u8>) {
        let length = self.length();
        into.push(length);
        let octets = usize::from(length.div_ceil(8));
        into.extend_from_slice(&self.address().octets()[..octets]);
    }
}

impl fmt::Display for PrefixId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length())
    }
}

impl fmt::Debug for PrefixId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of prefixes: 4 MiB, whatever is in it.
#[derive(Clone)]
pub struct PrefixSet {
    bits: Box<[u64]>,
    len: usize,
    checksum: u64,
}

impl Default for PrefixSet {
    fn default() -> Self {
        PrefixSet {
            bits: vec![0; (2 << LONGEST) / 64].into(),
            len: 0,
            checksum: 0,
        }
    }
}

impl PrefixSet {
    /// Adds one; false if it is there.
    pub fn insert(&mut self, prefix: PrefixId) -> bool {
        let (word, bit) = place(prefix);
        let word = &mut self.bits[word];
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        self.len += 1;
        self.checksum = self.checksum.wrapping_add(mix(prefix.0.into()));
        true
    }

    /// Takes one away; false if it is not there.
    pub fn remove(&mut self, prefix: PrefixId) -> bool {
        let (word, bit) = place(prefix);
        let word = &mut self.bits[word];
        if *word & bit == 0 {
            return false;
        }
        *word &= !bit;
        self.len -= 1;
        self.checksum = self.checksum.wrapping_sub(mix(prefix.0.into()));
        true
    }

    /// Whether it is there.
    pub fn contains(&self, prefix: PrefixId) -> bool {
        let (word, bit) = place(prefix);
        self.bits[word] & bit != 0
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Equal for equal sets, in whatever order they came about.
    pub fn checksum(&self) -> u64 {
        self.checksum
    }
}

impl PartialEq for PrefixSet {
    fn eq(&self, other: &Self) -> bool {
        (self.len, self.checksum) == (other.len, other.checksum)
    }
}

impl fmt::Debug for PrefixSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} prefixes, checksum {:016x}", self.len, self.checksum)
    }
}

fn place(prefix: PrefixId) -> (usize, u64) {
    ((prefix.0 / 64) as usize, 1 << (prefix.0 % 64))
}

/// The finaliser of SplitMix64: every bit of the answer depends on every bit of the question.
pub(super) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_its_number() {
        for (address, length, octets) in [
            ([0, 0, 0, 0], 0, &[0][..]),
            ([128, 0, 0, 0], 1, &[1, 128]),
            ([10, 1, 0, 0], 16, &[16, 10, 1]),
            ([10, 1, 2, 0], 23, &[23, 10, 1, 2]),
            ([223, 255, 255, 0], 24, &[24, 223, 255, 255]),
        ] {
            let id = PrefixId::new(address.into(), length);
            assert_eq!((id.address().octets(), id.length()), (address, length));
            let mut written = Vec::new();
            id.write(&mut written);
            assert_eq!(written, octets, "{id}");
        }
    }

    #[test]
    fn a_set_does_not_care_for_order_and_notices_what_is_missing() {
        let ids: Vec<PrefixId> = (0..1_000u32)
            .map(|n| PrefixId::new(Ipv4Addr::from_bits(n << 12), 20))
            .collect();
        let (mut there, mut back) = (PrefixSet::default(), PrefixSet::default());
        for (one, other) in ids.iter().zip(ids.iter().rev()) {
            assert!(there.insert(*one) && back.insert(*other));
        }
        assert_eq!(there, back);
        assert!(!there.insert(ids[3]), "a second time");
        assert!(there.remove(ids[3]) && !there.remove(ids[3]));
        assert!(there.insert(PrefixId::new(Ipv4Addr::new(1, 0, 0, 0), 24)));
        assert_eq!(there.len(), back.len());
        assert_ne!(there, back, "as many, but others");
        assert!(ids.iter().skip(4).all(|id| there.remove(*id)));
        assert_eq!(there.len(), 4);
    }
}

//! Authentication of BFD Control packets (RFC 5880 sections 4.2 to 4.4 and 6.7): the section as
//! octets, and the key that signs and verifies. Sequence numbers are the session's matter.
//!
//! MD5 and SHA1 are what the RFC has; neither is fit for anything else.

use std::fmt;

use md5::Md5;
use sha1::Sha1;
use sha1::digest::Digest as _;

use super::packet::{MANDATORY_LEN, Packet};

/// Type and length octets, key id, reserved octet, sequence number.
const DIGEST_AT: usize = 8;
const PASSWORD: u8 = 1;
const LONGEST_PASSWORD: usize = 16;

/// How a digest is made (RFC 5880 section 4.1, Auth Type 2 to 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Digest {
    /// Keyed MD5.
    KeyedMd5 = 2,
    /// MD5 with a sequence number that grows with each packet.
    MeticulousMd5 = 3,
    /// Keyed SHA1.
    KeyedSha1 = 4,
    /// SHA1 with a sequence number that grows with each packet.
    MeticulousSha1 = 5,
}

impl Digest {
    const ALL: [Digest; 4] = [
        Digest::KeyedMd5,
        Digest::MeticulousMd5,
        Digest::KeyedSha1,
        Digest::MeticulousSha1,
    ];

    /// Whether each packet needs a sequence number of its own.
    pub const fn is_meticulous(self) -> bool {
        matches!(self, Digest::MeticulousMd5 | Digest::MeticulousSha1)
    }

    /// Octets of the digest, and of the longest key.
    const fn len(self) -> usize {
        match self {
            Digest::KeyedMd5 | Digest::MeticulousMd5 => 16,
            Digest::KeyedSha1 | Digest::MeticulousSha1 => 20,
        }
    }

    fn over(self, octets: &[u8]) -> Vec<u8> {
        match self {
            Digest::KeyedMd5 | Digest::MeticulousMd5 => Md5::digest(octets).to_vec(),
            Digest::KeyedSha1 | Digest::MeticulousSha1 => Sha1::digest(octets).to_vec(),
        }
    }
}

/// The authentication section of a packet.
#[derive(Clone, PartialEq, Eq)]
pub enum Authentication {
    /// Simple Password (RFC 5880 section 4.2).
    Password {
        /// Which key.
        key_id: u8,
        /// 1 to 16 octets.
        password: Vec<u8>,
    },
    /// MD5 or SHA1 (RFC 5880 sections 4.3 and 4.4).
    Digest {
        /// Which of the four.
        digest: Digest,
        /// Which key.
        key_id: u8,
        /// Sequence number.
        sequence: u32,
        /// The digest itself: 16 octets of MD5, 20 of SHA1.
        value: Vec<u8>,
    },
}

/// A password is not shown.
impl fmt::Debug for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Authentication::Password { key_id, .. } => {
                write!(f, "Password {{ key_id: {key_id}, .. }}")
            }
            Authentication::Digest {
                digest,
                key_id,
                sequence,
                ..
            } => write!(
                f,
                "{digest:?} {{ key_id: {key_id}, sequence: {sequence}, .. }}"
            ),
        }
    }
}

/// Why a packet is not authentic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A type that RFC 5880 does not define.
    #[error("authentication type {0} is unknown")]
    UnknownType(u8),
    /// The section's length does not fit its type, or the packet.
    #[error("authentication section of type {kind} has length {length}")]
    Length {
        /// The type.
        kind: u8,
        /// Its Auth Len field.
        length: u8,
    },
    /// The packet has no section, but the session has a key.
    #[error("the packet is not authenticated, but a key is configured")]
    Missing,
    /// The packet has a section, but the session has no key.
    #[error("the packet is authenticated, but no key is configured")]
    Unexpected,
    /// The packet is authenticated in another way than the session.
    #[error("the packet is authenticated in another way than configured")]
    OtherType,
    /// The packet is signed with a key of another id.
    #[error("the packet has key id {0}, not the configured one")]
    OtherKey(u8),
    /// Wrong password or digest.
    #[error("the packet's password or digest is wrong: the keys differ")]
    Mismatch,
    /// The sequence number is not one that can come next: a replay, or too many packets lost.
    #[error("sequence number {received} cannot follow {last}")]
    Sequence {
        /// The number of the packet.
        received: u32,
        /// The number of the last good one.
        last: u32,
    },
}

impl Authentication {
    /// Reads the section; it must fill `octets`.
    pub(super) fn parse(octets: &[u8]) -> Result<Authentication, AuthError> {
        let [kind, length, key_id, rest @ ..] = octets else {
            let kind = octets.first().copied().unwrap_or_default();
            let length = octets.get(1).copied().unwrap_or_default();
            return Err(AuthError::Length { kind, length });
        };
        let (kind, length, key_id) = (*kind, *length, *key_id);
        let wrong = AuthError::Length { kind, length };
        let fits = usize::from(length) == octets.len();
        if kind == PASSWORD {
            if !fits || !(1..=LONGEST_PASSWORD).contains(&rest.len()) {
                return Err(wrong);
            }
            let password = rest.to_vec();
            return Ok(Authentication::Password { key_id, password });
        }
        let digest = Digest::ALL
            .into_iter()
            .find(|digest| *digest as u8 == kind)
            .ok_or(AuthError::UnknownType(kind))?;
        match rest {
            [_reserved, a, b, c, d, value @ ..] if fits && value.len() == digest.len() => {
                Ok(Authentication::Digest {
                    digest,
                    key_id,
                    sequence: u32::from_be_bytes([*a, *b, *c, *d]),
                    value: value.to_vec(),
                })
            }
            _ => Err(wrong),
        }
    }

    pub(super) fn encode(&self, octets: &mut Vec<u8>) {
        match self {
            Authentication::Password { key_id, password } => {
                // At most 16 octets.
                octets.extend([PASSWORD, 3 + password.len() as u8, *key_id]);
                octets.extend(password);
            }
            Authentication::Digest {
                digest,
                key_id,
                sequence,
                value,
            } => {
                octets.extend([*digest as u8, (DIGEST_AT + value.len()) as u8, *key_id, 0]);
                octets.extend(sequence.to_be_bytes());
                octets.extend(value);
            }
        }
    }
}

/// How a session authenticates its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Simple Password: readable by whoever sees the packets.
    Password,
    /// One of the digests.
    Digest(Digest),
}

impl Method {
    /// Octets of the longest key (RFC 5880 sections 4.2 to 4.4).
    pub const fn longest_key(self) -> usize {
        match self {
            Method::Password => LONGEST_PASSWORD,
            Method::Digest(digest) => digest.len(),
        }
    }
}

/// A key of a length that the method cannot take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key of {length} octets; it must have 1 to {most}")]
pub struct KeyError {
    /// Its length.
    pub length: usize,
    /// The longest there may be.
    pub most: usize,
}

/// What both ends of a session share. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    method: Method,
    id: u8,
    secret: Vec<u8>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key {{ {:?}, id: {}, .. }}", self.method, self.id)
    }
}

impl Key {
    /// A key.
    ///
    /// # Errors
    /// A secret without octets, or with more than the method takes.
    pub fn new(method: Method, id: u8, secret: &[u8]) -> Result<Key, KeyError> {
        let most = method.longest_key();
        match secret.len() {
            length if (1..=most).contains(&length) => Ok(Key {
                method,
                id,
                secret: secret.to_vec(),
            }),
            length => Err(KeyError { length, most }),
        }
    }

    /// Whether each packet needs a sequence number of its own.
    pub fn is_meticulous(&self) -> bool {
        matches!(self.method, Method::Digest(digest) if digest.is_meticulous())
    }

    /// The octets of the packet with the section that this key makes.
    pub fn sign(&self, packet: &mut Packet, sequence: u32) -> Vec<u8> {
        let Method::Digest(digest) = self.method else {
            packet.authentication = Some(Authentication::Password {
                key_id: self.id,
                password: self.secret.clone(),
            });
            return packet.to_octets();
        };
        let section = |value: Vec<u8>| {
            Some(Authentication::Digest {
                digest,
                key_id: self.id,
                sequence,
                value,
            })
        };
        // The key stands where the digest will be (RFC 5880 section 6.7.3).
        packet.authentication = section(self.padded(digest));
        let value = digest.over(&packet.to_octets());
        packet.authentication = section(value);
        packet.to_octets()
    }

    /// Checks the section of the packet that these octets are. Gives its sequence number, where
    /// the method has one: whether that is in order is for the session to say.
    ///
    /// # Errors
    /// Another type or key than this one, or a wrong password or digest.
    pub fn verify(&self, packet: &Packet, octets: &[u8]) -> Result<Option<u32>, AuthError> {
        match (packet.authentication.as_ref(), self.method) {
            (None, _) => Err(AuthError::Missing),
            (Some(Authentication::Password { key_id, password }), Method::Password) => {
                self.check_id(*key_id)?;
                match same(password, &self.secret) {
                    true => Ok(None),
                    false => Err(AuthError::Mismatch),
                }
            }
            (
                Some(Authentication::Digest {
                    digest,
                    key_id,
                    sequence,
                    value,
                }),
                Method::Digest(ours),
            ) if *digest == ours => {
                self.check_id(*key_id)?;
                let at = MANDATORY_LEN + DIGEST_AT;
                let signed = octets.get(..at).ok_or(AuthError::Mismatch)?;
                let expected = ours.over(&[signed, &self.padded(ours)].concat());
                match same(value, &expected) {
                    true => Ok(Some(*sequence)),
                    false => Err(AuthError::Mismatch),
                }
            }
            _ => Err(AuthError::OtherType),
        }
    }

    fn check_id(&self, id: u8) -> Result<(), AuthError> {
        match id == self.id {
            true => Ok(()),
            false => Err(AuthError::OtherKey(id)),
        }
    }

    fn padded(&self, digest: Digest) -> Vec<u8> {
        let mut key = self.secret.clone();
        key.resize(digest.len(), 0);
        key
    }
}

/// Equality that takes the same time wherever the difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |seen, (a, b)| seen | (a ^ b));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU8, NonZeroU32};
    use std::time::Duration;

    use super::*;
    use crate::bfd::packet::{Diagnostic, State};

    const METHODS: [Method; 5] = [
        Method::Password,
        Method::Digest(Digest::KeyedMd5),
        Method::Digest(Digest::MeticulousMd5),
        Method::Digest(Digest::KeyedSha1),
        Method::Digest(Digest::MeticulousSha1),
    ];

    fn packet() -> Packet {
        Packet {
            diagnostic: Diagnostic::NONE,
            state: State::Up,
            poll: false,
            is_final: false,
            control_plane_independent: false,
            demand: false,
            multiplier: NonZeroU8::new(3).unwrap(),
            my_discriminator: NonZeroU32::new(1).unwrap(),
            your_discriminator: NonZeroU32::new(2),
            desired_min_tx: Duration::from_millis(50),
            required_min_rx: Duration::from_millis(50),
            required_min_echo_rx: Duration::ZERO,
            authentication: None,
        }
    }

    fn signed(key: &Key) -> (Packet, Vec<u8>) {
        let octets = key.sign(&mut packet(), 7);
        (Packet::parse(&octets).unwrap(), octets)
    }

    #[test]
    fn a_signed_packet_is_authentic_until_an_octet_changes() {
        for method in METHODS {
            let key = Key::new(method, 5, b"open sesame").unwrap();
            let (packet, octets) = signed(&key);
            let sequence = (method != Method::Password).then_some(7);
            assert_eq!(key.verify(&packet, &octets), Ok(sequence), "{method:?}");
            // A password says nothing of the rest of the packet.
            let first = if method == Method::Password { 27 } else { 0 };
            for at in first..octets.len() {
                let mut octets = octets.clone();
                octets[at] ^= 0x40;
                if let Ok(packet) = Packet::parse(&octets) {
                    assert!(key.verify(&packet, &octets).is_err(), "{method:?} {at}");
                }
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_key_is_named() {
        for method in METHODS {
            let key = Key::new(method, 5, b"open sesame").unwrap();
            let (packet, octets) = signed(&key);
            let other = |method, id, secret| Key::new(method, id, secret).unwrap();
            for (other, error) in [
                (other(method, 5, b"open"), AuthError::Mismatch),
                (other(method, 6, b"open sesame"), AuthError::OtherKey(5)),
            ] {
                assert_eq!(other.verify(&packet, &octets), Err(error), "{method:?}");
            }
            for another in METHODS.into_iter().filter(|another| *another != method) {
                let other = other(another, 5, b"open sesame");
                let error = Err(AuthError::OtherType);
                assert_eq!(
                    other.verify(&packet, &octets),
                    error,
                    "{method:?} {another:?}"
                );
            }
        }
        let key = Key::new(Method::Password, 5, b"open sesame").unwrap();
        let plain = packet().to_octets();
        assert_eq!(key.verify(&packet(), &plain), Err(AuthError::Missing));
    }

    #[test]
    fn digests_are_those_of_the_algorithms() {
        // Over the whole packet with the padded key in place of the digest.
        let head = packet().to_octets();
        for (digest, length) in [(Digest::KeyedMd5, 48u8), (Digest::MeticulousSha1, 52)] {
            let key = Key::new(Method::Digest(digest), 5, b"k").unwrap();
            let (_, octets) = signed(&key);
            let mut input = head.clone();
            input[1] |= 0x04;
            input[3] = length;
            input.extend([digest as u8, length - 24, 5, 0, 0, 0, 0, 7, b'k']);
            input.resize(length.into(), 0);
            let value = match digest.len() {
                16 => Md5::digest(&input).to_vec(),
                _ => Sha1::digest(&input).to_vec(),
            };
            assert_eq!(octets[32..], value);
        }
    }

    #[test]
    fn secrets_are_bounded_and_never_shown() {
        for method in METHODS {
            let most = method.longest_key();
            for length in [0, most + 1] {
                let refused = Key::new(method, 1, &vec![b'x'; length]);
                assert_eq!(refused, Err(KeyError { length, most }));
            }
            let key = Key::new(method, 1, b"sesame").unwrap();
            let (packet, _) = signed(&key);
            assert!(!format!("{key:?}{packet:?}").contains("sesame"));
            assert!(!format!("{packet:?}").contains("115"), "octets of a secret");
        }
    }

    #[test]
    fn malformed_sections_are_named() {
        let length = |kind, length| Err(AuthError::Length { kind, length });
        for (octets, error) in [
            (&[][..], length(0, 0)),
            (&[1], length(1, 0)),
            (&[1, 3], length(1, 3)),
            (&[1, 3, 1], length(1, 3)),
            (&[1, 5, 1, b'a'], length(1, 5)),
            (
                &[
                    1, 20, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
                ],
                length(1, 20),
            ),
            (&[0, 3, 1], Err(AuthError::UnknownType(0))),
            (&[6, 3, 1], Err(AuthError::UnknownType(6))),
            (&[2, 8, 1, 0, 0, 0, 0, 1], length(2, 8)),
            (
                &[
                    4, 24, 1, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
                ],
                length(4, 24),
            ),
        ] {
            assert_eq!(Authentication::parse(octets), error, "{octets:?}");
        }
    }
}

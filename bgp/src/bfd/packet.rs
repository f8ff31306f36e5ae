//! BFD Control packets (RFC 5880 section 4): octets to a [`Packet`] and back.
//!
//! [`Packet::parse`] makes every check of section 6.8.6 that needs nothing but the packet. Whether
//! it belongs to a session, and whether it is authentic, is not decided here.

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};
use std::time::Duration;

use serde::Serialize;

use super::auth::{AuthError, Authentication};

/// The only version (RFC 5880).
pub const VERSION: u8 = 1;
/// Octets of the mandatory section.
pub const MANDATORY_LEN: usize = 24;
/// Octets of the longest packet: one with a SHA1 digest (RFC 5880 section 4.4).
pub const MAX_LEN: usize = MANDATORY_LEN + 28;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION_PRESENT: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// Names a session at one of its ends: unique there, never 0 (RFC 5880 section 6.8.1).
pub type Discriminator = NonZeroU32;

/// The state of a session (RFC 5880 section 4.1, Sta).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum State {
    /// The operator keeps it down.
    AdminDown = 0,
    /// Nothing is heard from the other end, or it does not hear us.
    #[default]
    Down = 1,
    /// The other end is heard; whether it hears us is not known yet.
    Init = 2,
    /// Both ends hear each other.
    Up = 3,
}

impl State {
    /// Every state.
    pub const ALL: [State; 4] = [State::AdminDown, State::Down, State::Init, State::Up];

    /// The name used in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::AdminDown => "admin-down",
            State::Down => "down",
            State::Init => "init",
            State::Up => "up",
        }
    }

    const fn from_bits(bits: u8) -> State {
        match bits & 3 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Why the sender last changed its state (RFC 5880 section 4.1, Diag): 0 to 31, any of which a
/// peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// 0: no diagnostic.
    pub const NONE: Diagnostic = Diagnostic(0);
    /// 1: nothing was heard for the detection time.
    pub const DETECTION_TIME_EXPIRED: Diagnostic = Diagnostic(1);
    /// 3: the other end said that it is down.
    pub const NEIGHBOR_SIGNALED_DOWN: Diagnostic = Diagnostic(3);
    /// 7: the operator took it down.
    pub const ADMINISTRATIVELY_DOWN: Diagnostic = Diagnostic(7);

    /// From the five bits of a packet; higher bits are dropped.
    pub const fn new(code: u8) -> Diagnostic {
        Diagnostic(code & 0x1f)
    }

    /// The number, 0 to 31.
    pub const fn code(self) -> u8 {
        self.0
    }

    /// The name in RFC 5880, "reserved" when it has none.
    pub const fn as_str(self) -> &'static str {
        match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            _ => "reserved",
        }
    }
}

/// `control detection time expired (1)`.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.as_str(), self.0)
    }
}

impl Serialize for Diagnostic {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A BFD Control packet. Intervals are whole microseconds, at most `u32::MAX` of them; longer ones
/// are sent as that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender last changed its state.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: asks for a packet with F.
    pub poll: bool,
    /// F: answers one with P.
    pub is_final: bool,
    /// C: the sender's BFD lives on when its control plane dies.
    pub control_plane_independent: bool,
    /// D: once up, the sender wants no periodic packets.
    pub demand: bool,
    /// How many packets may be missed before the receiver counts the sender as gone.
    pub multiplier: NonZeroU8,
    /// The sender's name of the session.
    pub my_discriminator: Discriminator,
    /// The receiver's name of the session, once the sender knows it.
    pub your_discriminator: Option<Discriminator>,
    /// How often the sender would like to send.
    pub desired_min_tx: Duration,
    /// How often the sender can receive; zero: it wants no periodic packets.
    pub required_min_rx: Duration,
    /// How often the sender reflects Echo packets; zero: it does not.
    pub required_min_echo_rx: Duration,
    /// The authentication section.
    pub authentication: Option<Authentication>,
}

/// Why octets are no BFD Control packet (RFC 5880 section 6.8.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Too few octets to hold the mandatory section.
    #[error("{0} octets are less than a BFD Control packet has")]
    Truncated(usize),
    /// A version we do not speak.
    #[error("BFD version {0}, not 1")]
    Version(u8),
    /// The Length field is less than what the packet must hold.
    #[error("length {length} is less than {least}, which its flags ask for")]
    TooShort {
        /// The field.
        length: u8,
        /// What is needed: 24, or 26 with an authentication section.
        least: u8,
    },
    /// The Length field is more than there are octets.
    #[error("length {length} is more than the {octets} octets of the datagram")]
    TooLong {
        /// The field.
        length: u8,
        /// What arrived.
        octets: usize,
    },
    /// Detect Mult is zero.
    #[error("detection multiplier 0")]
    Multiplier,
    /// The Multipoint bit is set.
    #[error("multipoint bit is set")]
    Multipoint,
    /// My Discriminator is zero.
    #[error("my discriminator is 0")]
    MyDiscriminator,
    /// Your Discriminator is zero in a state in which the sender must know it.
    #[error("your discriminator is 0 in state {0}")]
    YourDiscriminator(State),
    /// The authentication section is malformed.
    #[error(transparent)]
    Authentication(#[from] AuthError),
}

impl Packet {
    /// Reads a packet. Octets beyond its Length field are ignored.
    ///
    /// # Errors
    /// The first check of RFC 5880 section 6.8.6 that fails, in the order given there.
    pub fn parse(octets: &[u8]) -> Result<Packet, PacketError> {
        let Some((mandatory, _)) = octets.split_first_chunk::<MANDATORY_LEN>() else {
            return Err(PacketError::Truncated(octets.len()));
        };
        let [first, flags, multiplier, length, words @ ..] = mandatory;
        let version = first >> 5;
        if version != VERSION {
            return Err(PacketError::Version(version));
        }
        let authenticated = flags & AUTHENTICATION_PRESENT != 0;
        let least = if authenticated { 26 } else { 24 };
        if *length < least {
            return Err(PacketError::TooShort {
                length: *length,
                least,
            });
        }
        let Some(packet) = octets.get(..usize::from(*length)) else {
            return Err(PacketError::TooLong {
                length: *length,
                octets: octets.len(),
            });
        };
        let multiplier = NonZeroU8::new(*multiplier).ok_or(PacketError::Multiplier)?;
        if flags & MULTIPOINT != 0 {
            return Err(PacketError::Multipoint);
        }
        // Twenty octets are five words.
        let mut words = words.chunks_exact(4).map(|word| match word {
            [a, b, c, d] => u32::from_be_bytes([*a, *b, *c, *d]),
            _ => 0,
        });
        let mut word = || words.next().unwrap_or_default();
        let my_discriminator = NonZeroU32::new(word()).ok_or(PacketError::MyDiscriminator)?;
        let your_discriminator = NonZeroU32::new(word());
        let state = State::from_bits(flags >> 6);
        if your_discriminator.is_none() && !matches!(state, State::Down | State::AdminDown) {
            return Err(PacketError::YourDiscriminator(state));
        }
        let mut interval = || Duration::from_micros(word().into());
        Ok(Packet {
            diagnostic: Diagnostic::new(*first),
            state,
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            multiplier,
            my_discriminator,
            your_discriminator,
            desired_min_tx: interval(),
            required_min_rx: interval(),
            required_min_echo_rx: interval(),
            authentication: match authenticated {
                true => Some(Authentication::parse(&packet[MANDATORY_LEN..])?),
                false => None,
            },
        })
    }

    /// The octets, at most [`MAX_LEN`]. An authentication section is written as it stands; to make
    /// one that is right is the matter of [`Key::sign`](super::auth::Key::sign).
    pub fn to_octets(&self) -> Vec<u8> {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = (self.state as u8) << 6
            | flag(self.poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.authentication.is_some(), AUTHENTICATION_PRESENT)
            | flag(self.demand, DEMAND);
        let first = VERSION << 5 | self.diagnostic.code();
        let mut octets = Vec::with_capacity(MAX_LEN);
        octets.extend([first, flags, self.multiplier.get(), 0]);
        let micros = |interval: Duration| u32::try_from(interval.as_micros()).unwrap_or(u32::MAX);
        for word in [
            self.my_discriminator.get(),
            self.your_discriminator.map_or(0, NonZeroU32::get),
            micros(self.desired_min_tx),
            micros(self.required_min_rx),
            micros(self.required_min_echo_rx),
        ] {
            octets.extend(word.to_be_bytes());
        }
        if let Some(authentication) = &self.authentication {
            authentication.encode(&mut octets);
        }
        // A section is at most 28 octets.
        octets[3] = octets.len() as u8;
        octets
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bfd::auth::Digest;

    fn packet() -> Packet {
        Packet {
            diagnostic: Diagnostic::DETECTION_TIME_EXPIRED,
            state: State::Down,
            poll: false,
            is_final: false,
            control_plane_independent: false,
            demand: false,
            multiplier: NonZeroU8::new(3).unwrap(),
            my_discriminator: NonZeroU32::new(0x0102_0304).unwrap(),
            your_discriminator: None,
            desired_min_tx: Duration::from_secs(1),
            required_min_rx: Duration::from_millis(50),
            required_min_echo_rx: Duration::ZERO,
            authentication: None,
        }
    }

    const OCTETS: [u8; 24] = [
        0x21, 0x40, 3, 24, // version 1, diag 1; down; multiplier; length
        1, 2, 3, 4, // mine
        0, 0, 0, 0, // yours
        0x00, 0x0f, 0x42, 0x40, // 1 s
        0x00, 0x00, 0xc3, 0x50, // 50 ms
        0, 0, 0, 0,
    ];

    #[test]
    fn octets_and_packets_side_by_side() {
        let with = |change: fn(&mut Packet)| {
            let mut packet = packet();
            change(&mut packet);
            packet
        };
        let octets = |changes: &[(usize, u8)], tail: &[u8]| {
            let mut octets = OCTETS.to_vec();
            octets.extend(tail);
            for (at, value) in changes {
                octets[*at] = *value;
            }
            octets
        };
        for (octets, packet) in [
            (octets(&[], &[]), packet()),
            (
                octets(&[(0, 0x3f)], &[]),
                with(|p| p.diagnostic = Diagnostic::new(31)),
            ),
            (
                octets(&[(1, 0x00)], &[]),
                with(|p| p.state = State::AdminDown),
            ),
            (
                octets(&[(1, 0x80), (11, 9)], &[]),
                with(|p| {
                    p.state = State::Init;
                    p.your_discriminator = NonZeroU32::new(9);
                }),
            ),
            (
                octets(&[(1, 0xe0), (8, 9)], &[]),
                with(|p| {
                    p.state = State::Up;
                    p.poll = true;
                    p.your_discriminator = NonZeroU32::new(0x0900_0000);
                }),
            ),
            (octets(&[(1, 0x50)], &[]), with(|p| p.is_final = true)),
            (
                octets(&[(1, 0x48)], &[]),
                with(|p| p.control_plane_independent = true),
            ),
            (octets(&[(1, 0x42)], &[]), with(|p| p.demand = true)),
            (
                octets(&[(2, 255), (23, 7)], &[]),
                with(|p| {
                    p.multiplier = NonZeroU8::MAX;
                    p.required_min_echo_rx = Duration::from_micros(7);
                }),
            ),
            (
                octets(&[(1, 0x44), (3, 29)], &[1, 5, 7, b'h', b'i']),
                with(|p| {
                    p.authentication = Some(Authentication::Password {
                        key_id: 7,
                        password: b"hi".to_vec(),
                    });
                }),
            ),
            (
                octets(
                    &[(1, 0x44), (3, 48)],
                    &[
                        2, 24, 7, 0, 0, 0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                        16,
                    ],
                ),
                with(|p| {
                    p.authentication = Some(Authentication::Digest {
                        digest: Digest::KeyedMd5,
                        key_id: 7,
                        sequence: 0x102,
                        value: (1..=16).collect(),
                    });
                }),
            ),
        ] {
            assert_eq!(Packet::parse(&octets), Ok(packet.clone()), "{octets:02x?}");
            assert_eq!(packet.to_octets(), octets, "{packet:?}");
        }
    }

    #[test]
    fn each_check_of_section_6_8_6_has_its_name() {
        use PacketError as E;
        // Octets that differ from a good packet, how many there are, and what is wrong.
        type Row<'a> = (&'a [(usize, u8)], usize, PacketError);
        let rows: [Row<'_>; 13] = [
            (&[], 0, E::Truncated(0)),
            (&[], 23, E::Truncated(23)),
            (&[(0, 0x00)], 24, E::Version(0)),
            (&[(0, 0x41)], 24, E::Version(2)),
            (
                &[(3, 23)],
                24,
                E::TooShort {
                    length: 23,
                    least: 24,
                },
            ),
            (
                &[(1, 0x44), (3, 25)],
                52,
                E::TooShort {
                    length: 25,
                    least: 26,
                },
            ),
            (
                &[(3, 25)],
                24,
                E::TooLong {
                    length: 25,
                    octets: 24,
                },
            ),
            (&[(2, 0)], 24, E::Multiplier),
            (&[(1, 0x41)], 24, E::Multipoint),
            (&[(4, 0), (5, 0), (6, 0), (7, 0)], 24, E::MyDiscriminator),
            (&[(1, 0x80)], 24, E::YourDiscriminator(State::Init)),
            (&[(1, 0xc0)], 24, E::YourDiscriminator(State::Up)),
            (
                &[(1, 0x44), (3, 27), (24, 99), (25, 3)],
                27,
                E::Authentication(AuthError::UnknownType(99)),
            ),
        ];
        for (changes, length, error) in rows {
            let mut octets = OCTETS.to_vec();
            octets.resize(52, 0);
            for (at, value) in changes {
                octets[*at] = *value;
            }
            octets.truncate(length);
            assert_eq!(Packet::parse(&octets), Err(error), "{octets:02x?}");
        }
    }

    #[test]
    fn what_follows_the_packet_is_ignored() {
        let mut octets = OCTETS.to_vec();
        octets.extend([0xff; 40]);
        assert_eq!(Packet::parse(&octets), Ok(packet()));
    }

    proptest! {
        #[test]
        fn anything_is_a_packet_or_a_named_error(octets in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(packet) = Packet::parse(&octets) {
                prop_assert_eq!(Packet::parse(&packet.to_octets()), Ok(packet));
            }
        }

        /// As above, but most of these get past the first checks.
        #[test]
        fn near_packets_too(
            flags in any::<u8>(),
            length in 20u8..60,
            body in prop::collection::vec(any::<u8>(), 20..60),
        ) {
            let octets = [&[0x20, flags & !MULTIPOINT, 3, length][..], &body].concat();
            if let Ok(packet) = Packet::parse(&octets) {
                prop_assert_eq!(Packet::parse(&packet.to_octets()), Ok(packet));
            }
        }
    }
}

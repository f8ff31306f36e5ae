//! BFD packets as octets, and one session that is fed with packets right and wrong, time and
//! orders: what it sends can be read, it never spins, and it is up only if the peer said so.

#![no_main]

use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use bgp::bfd::Packet;
use bgp::bfd::auth::{Digest, Key, Method};
use bgp::bfd::packet::{Diagnostic, State};
use bgp::bfd::session::{Session, Terms};
use bgp::fsm::Jitter;
use libfuzzer_sys::fuzz_target;

/// Packets a session may want to send at one moment: an answer, something urgent.
const AT_ONCE: usize = 2;

fuzz_target!(|data: &[u8]| {
    parse(data);
    let mut input = Unstructured::new(data);
    let Ok(terms) = terms(&mut input) else { return };
    let now = Instant::now();
    let key = terms.key.clone();
    let session = Session::new(terms, NonZeroU32::MIN, Jitter::new(7), now);
    let mut driver = Driver { session, key, now };
    driver.transmit();
    while !input.is_empty() && driver.step(&mut input).is_ok() {
        driver.transmit();
    }
});

/// What is read can be written and means the same then.
fn parse(octets: &[u8]) {
    match Packet::parse(octets) {
        Ok(packet) => {
            let written = packet.to_octets();
            assert!(written.len() <= octets.len());
            assert_eq!(Packet::parse(&written), Ok(packet));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn terms(input: &mut Unstructured<'_>) -> Result<Terms> {
    let method = match input.int_in_range(0..=7u8)? {
        0 => Some(Method::Password),
        1 => Some(Method::Digest(Digest::KeyedMd5)),
        2 => Some(Method::Digest(Digest::MeticulousSha1)),
        _ => None,
    };
    Ok(Terms {
        key: method.map(|method| Key::new(method, 3, b"secret").expect("a key")),
        passive: input.arbitrary()?,
        ..pace(input)?
    })
}

/// What may change while it runs.
fn pace(input: &mut Unstructured<'_>) -> Result<Terms> {
    let interval = |input: &mut Unstructured<'_>| {
        let millis = *input.choose(&[10, 50, 300, 1000, 60_000])?;
        Ok(Duration::from_millis(millis))
    };
    Ok(Terms {
        min_tx: interval(input)?,
        min_rx: interval(input)?,
        multiplier: NonZeroU8::new(input.int_in_range(1..=5)?).expect("over zero"),
        passive: false,
        key: None,
    })
}

struct Driver {
    session: Session,
    key: Option<Key>,
    now: Instant,
}

impl Driver {
    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let before = self.session.state();
        match input.int_in_range(0..=9u8)? {
            0..=2 => {
                let time = Duration::from_micros(u64::from(input.arbitrary::<u16>()?) << 6);
                self.wait(time);
            }
            3 => {
                let down = input.arbitrary()?;
                self.session.set_admin_down(down, self.now);
                assert_eq!(self.session.state() == State::AdminDown, down);
            }
            4 => {
                let terms = Terms {
                    key: self.key.clone(),
                    ..pace(input)?
                };
                self.session.set_terms(terms, self.now);
                assert_eq!(self.session.state(), before);
            }
            5 => {
                let until = self.session.farewell(self.now);
                assert!(until.is_none_or(|until| until >= self.now));
                assert_eq!(self.session.state(), State::AdminDown);
            }
            _ => self.receive(input)?,
        }
        Ok(())
    }

    fn receive(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let before = self.session.state();
        let mut packet = packet(input)?;
        let octets = match &self.key {
            Some(key) if input.ratio(7, 8)? => {
                key.sign(&mut packet, u32::from(input.arbitrary::<u8>()?))
            }
            _ => packet.to_octets(),
        };
        let change = self.session.receive(&packet, &octets, self.now);
        let after = self.session.state();
        match change {
            Ok(Some(change)) => {
                assert_eq!((change.from, change.to), (before, after));
                assert_ne!(before, State::AdminDown, "only the operator ends that");
            }
            Ok(None) | Err(_) => assert_eq!(before, after),
        }
        if after == State::Up && before != State::Up {
            assert!(matches!(packet.state, State::Init | State::Up));
        }
        if let Some(detect_at) = self.session.detect_at() {
            assert!(detect_at > self.now, "a packet is a sign of life");
        }
        Ok(())
    }

    fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        for _ in 0..1000 {
            let next = [self.session.transmit_at(), self.session.detect_at()];
            let Some(next) = next.into_iter().flatten().min().filter(|at| *at <= until) else {
                break;
            };
            self.now = self.now.max(next);
            let before = self.session.state();
            let change = self.session.timeout(self.now);
            assert_eq!(change.is_some(), before != self.session.state());
            let detect_at = self.session.detect_at();
            assert!(
                detect_at.is_none_or(|at| at > self.now),
                "a timer is missed"
            );
            self.transmit();
        }
        self.now = until;
    }

    fn transmit(&mut self) {
        for _ in 0..AT_ONCE {
            let Some(octets) = self.session.poll_transmit(self.now) else {
                break;
            };
            let packet = Packet::parse(&octets).expect("what is sent can be read");
            assert_eq!(packet.state, self.session.state());
            assert!(!(packet.poll && packet.is_final));
            if let Some(key) = &self.key {
                assert!(key.verify(&packet, &octets).is_ok());
            }
        }
        assert_eq!(self.session.poll_transmit(self.now), None, "it talks on");
        let next = self.session.transmit_at();
        assert!(next.is_none_or(|at| at > self.now), "it spins");
    }
}

fn packet(input: &mut Unstructured<'_>) -> Result<Packet> {
    let flags: u8 = input.arbitrary()?;
    let bit = |bit: u8| flags & (1 << bit) != 0;
    let interval = |input: &mut Unstructured<'_>| {
        let micros = *input.choose(&[0, 1, 10_000, 50_000, 1_000_000, u32::MAX])?;
        Ok(Duration::from_micros(micros.into()))
    };
    Ok(Packet {
        diagnostic: Diagnostic::new(input.arbitrary()?),
        state: *input.choose(&[State::AdminDown, State::Down, State::Init, State::Up])?,
        poll: bit(0),
        is_final: bit(1),
        control_plane_independent: bit(2),
        demand: bit(3),
        multiplier: NonZeroU8::new(*input.choose(&[1, 3, 255])?).expect("over zero"),
        my_discriminator: NonZeroU32::MIN.saturating_add(input.int_in_range(0..=1)?),
        your_discriminator: NonZeroU32::new(input.int_in_range(0..=2)?),
        desired_min_tx: interval(input)?,
        required_min_rx: interval(input)?,
        required_min_echo_rx: interval(input)?,
        authentication: None,
    })
}

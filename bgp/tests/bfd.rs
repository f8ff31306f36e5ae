//! Two BFD threads over the loopback interface, and a speaker that listens to one of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bgp::bfd::auth::{Digest, Key, Method};
use bgp::bfd::{
    Bfd, Counters, Event, Lost, Path, SINGLE_HOP_PORT, SessionConfig, SessionId, SessionStatus,
    State, Terms,
};
use bgp::{BfdConfig, PeerConfig, PeerStatus, SessionState, Speaker, SpeakerConfig, Stop};
use nix::libc;
use tokio::sync::mpsc;

mod waiting;

use waiting::{PATIENCE, until};

/// An address that no other test and no other run of this test uses.
fn address(test: u8, host: u8) -> IpAddr {
    let pid = std::process::id();
    Ipv4Addr::new(127, 96 + test, (pid >> 6) as u8, (pid << 2) as u8 | host).into()
}

fn terms(interval: u64) -> Terms {
    Terms {
        min_tx: Duration::from_millis(interval),
        min_rx: Duration::from_millis(interval),
        multiplier: NonZeroU8::new(3).unwrap(),
        passive: false,
        key: None,
    }
}

struct End {
    bfd: Bfd,
    events: mpsc::Receiver<Event>,
    session: SessionId,
}

impl End {
    async fn start(local: IpAddr, peer: IpAddr, path: Path, terms: Terms) -> End {
        let seed = u64::from(std::process::id()) << 8 | u64::from(local < peer);
        let (bfd, events) = Bfd::start(seed).unwrap();
        let session = SessionConfig {
            peer,
            local: Some(local),
            interface: None,
            path,
            terms,
        };
        let session = bfd.add(session).await.unwrap();
        End {
            bfd,
            events,
            session,
        }
    }

    async fn status(&self) -> SessionStatus {
        let mut all: HashMap<_, _> = self.bfd.statuses().await;
        all.remove(&self.session).expect("the session")
    }

    async fn is(&self, state: State) -> SessionStatus {
        let what = format!("BFD {state}");
        until(&what, || self.status(), |status| status.state == state).await
    }

    /// How it was lost, as the next events tell.
    async fn lost(&mut self) -> Lost {
        let next = async {
            loop {
                let event = self.events.recv().await.expect("the thread lives");
                if let Some(lost) = event.lost {
                    return lost;
                }
            }
        };
        tokio::time::timeout(PATIENCE, next)
            .await
            .expect("it is lost")
    }
}

async fn pair(test: u8, path: Path, terms: &Terms) -> (End, End) {
    let (a, b) = (address(test, 1), address(test, 2));
    let one = End::start(a, b, path, terms.clone()).await;
    let other = End::start(b, a, path, terms.clone()).await;
    one.is(State::Up).await;
    other.is(State::Up).await;
    (one, other)
}

#[tokio::test]
async fn a_session_comes_up_agrees_and_is_taken_down_without_alarm() {
    let (mut one, other) = pair(0, Path::SingleHop, &terms(50)).await;
    let agreed = |status: &SessionStatus| {
        let intervals = (status.transmit_interval_us, status.detection_time_us);
        intervals == (50_000, Some(150_000))
    };
    let status = until("agreed", || one.status(), agreed).await;
    assert_eq!(status.remote_state, Some(State::Up));
    assert_eq!(
        status.remote_discriminator,
        Some(other.status().await.discriminator)
    );
    assert_eq!(status.error, None);
    other.bfd.set_admin_down(other.session, true);
    assert_eq!(one.lost().await, Lost::RemoteAdmin);
    other.bfd.set_admin_down(other.session, false);
    one.is(State::Up).await;
    // A session that is removed says so: nobody takes it for a failure.
    other.bfd.remove(other.session);
    assert_eq!(one.lost().await, Lost::RemoteAdmin);
}

#[tokio::test]
async fn whoever_stops_is_not_taken_for_dead() {
    let (mut one, other) = pair(1, Path::Multihop { min_ttl: 1 }, &terms(50)).await;
    other.bfd.stop().await;
    assert_eq!(one.lost().await, Lost::RemoteAdmin);
    one.is(State::Down).await;
    // So is whoever only lets go of the handle.
    let other = End::start(
        address(1, 2),
        address(1, 1),
        Path::Multihop { min_ttl: 1 },
        terms(50),
    );
    let other = other.await;
    one.is(State::Up).await;
    drop(other);
    assert_eq!(one.lost().await, Lost::RemoteAdmin);
}

#[tokio::test]
async fn terms_change_while_it_is_up() {
    let signed = Terms {
        key: Some(Key::new(Method::Digest(Digest::MeticulousSha1), 1, b"secret").unwrap()),
        ..terms(50)
    };
    let (mut one, other) = pair(2, Path::SingleHop, &signed).await;
    let slower = Terms {
        min_tx: Duration::from_millis(200),
        ..signed
    };
    one.bfd.set_terms(one.session, slower);
    let agreed = |status: &SessionStatus| status.detection_time_us == Some(600_000);
    until("the other end knows", || other.status(), agreed).await;
    let agreed = |status: &SessionStatus| status.transmit_interval_us == 200_000;
    until("we know that it does", || one.status(), agreed).await;
    while let Ok(event) = one.events.try_recv() {
        assert_eq!(event.lost, None);
    }
}

#[tokio::test]
async fn silence_is_noticed_and_garbage_is_not() {
    let (mut one, other) = pair(3, Path::SingleHop, &terms(50)).await;
    // Garbage, and packets of others, harm nobody.
    let stranger = UdpSocket::bind(SocketAddr::new(address(3, 3), 0)).unwrap();
    let target = SocketAddr::new(address(3, 1), SINGLE_HOP_PORT);
    for length in 0..600 {
        stranger.send_to(&vec![0x20; length], target).unwrap();
        // No more at once than the socket takes when its thread does not get to run.
        if length % 50 == 49 {
            let malformed = (length as u64 + 1).min(32);
            let unknown = length as u64 + 1 - malformed;
            let counted = |c: &Counters| (c.malformed, c.unknown) == (malformed, unknown);
            until("garbage counted", || one.bfd.counters(), counted).await;
        }
    }
    // It is up as long as nothing but garbage happens, and both know how fast packets come.
    let agreed = |status: &SessionStatus| {
        status.state == State::Up && status.detection_time_us == Some(150_000)
    };
    until("up and agreed", || one.status(), agreed).await;
    until("up and agreed", || other.status(), agreed).await;
    while let Ok(event) = one.events.try_recv() {
        assert_eq!(event.lost, None, "garbage has taken it down");
    }
    // As a peer with the wrong key is: it is there, and not believed.
    let key = Key::new(Method::Password, 1, b"secret").unwrap();
    let signed = Terms {
        key: Some(key),
        ..terms(50)
    };
    other.bfd.set_terms(other.session, signed);
    assert_eq!(one.lost().await, Lost::Silence(Duration::from_millis(150)));
    let says = |status: &SessionStatus| status.error.is_some();
    let status = until("says why", || one.status(), says).await;
    let error = status.error.unwrap();
    assert!(error.contains("but no key is configured"), "{error}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_and_tried_again() {
    let (a, b) = (address(4, 1), address(4, 2));
    let other_daemon = UdpSocket::bind(SocketAddr::new(a, SINGLE_HOP_PORT)).unwrap();
    let one = End::start(a, b, Path::SingleHop, terms(50)).await;
    let status = one.status().await;
    let error = status.error.unwrap();
    assert!(error.contains("is another BFD daemon running?"), "{error}");
    drop(other_daemon);
    let other = End::start(b, a, Path::SingleHop, terms(50)).await;
    one.is(State::Up).await;
    other.is(State::Up).await;
    assert_eq!(one.status().await.error, None);
}

/// Both cores, and each of them twice, are busy with ordinary threads for some seconds: whoever is
/// alive stays up, at 50 ms x 3.
async fn holds_on_a_busy_machine(test: u8) {
    let (mut one, mut other) = pair(test, Path::SingleHop, &terms(50)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let burners: Vec<_> = (0..2 * std::thread::available_parallelism().unwrap().get())
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut work = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    work = std::hint::black_box(work.wrapping_mul(31) + 1);
                }
            })
        })
        .collect();
    let enough = |status: &SessionStatus| status.packets_in >= 150;
    let status = until("150 packets", || one.status(), enough).await;
    stop.store(true, Ordering::Relaxed);
    for burner in burners {
        burner.join().unwrap();
    }
    assert_eq!((status.times_up, status.last_down), (1, None));
    for end in [&mut one, &mut other] {
        while let Ok(event) = end.events.try_recv() {
            assert_eq!(event.lost, None);
        }
    }
}

#[tokio::test]
async fn it_holds_on_a_busy_machine() {
    holds_on_a_busy_machine(5).await;
}

#[test]
fn it_holds_on_a_busy_machine_without_privileges() {
    // SAFETY: three numbers, no memory. The bare system call changes the calling thread alone, so
    // that other tests keep their privileges; the threads it starts have none.
    unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(holds_on_a_busy_machine(6));
}

const BGP_PORT: u16 = 17901;

fn speaker(asn: u32, local: IpAddr, peer: IpAddr, bfd: Option<BfdConfig>) -> Speaker {
    let peer = PeerConfig {
        port: BGP_PORT,
        local_address: Some(local),
        idle_hold: Duration::from_millis(200),
        connect_retry: Duration::from_millis(200),
        bfd,
        ..PeerConfig::new("other".parse().unwrap(), peer, 65003 - (asn - 65000))
    };
    let IpAddr::V4(router_id) = local else {
        panic!("an IPv4 address");
    };
    Speaker::start(SpeakerConfig {
        listen: vec![SocketAddr::new(local, BGP_PORT)],
        peers: vec![peer],
        ..SpeakerConfig::new(asn, router_id)
    })
    .unwrap()
}

async fn peer(speaker: &Speaker) -> PeerStatus {
    speaker.peers().await.remove(0)
}

/// Both are up, after so many BGP sessions.
async fn both_up(speaker: &Speaker, sessions: u64) {
    let up = |peer: &PeerStatus| {
        let bfd = peer.bfd.as_ref().map(|bfd| bfd.state);
        peer.state == SessionState::Established
            && bfd == Some(State::Up)
            && peer.sessions == sessions
    };
    until("BGP and BFD up", || peer(speaker), up).await;
}

#[tokio::test]
async fn bgp_ends_with_the_path_and_not_with_bfd_itself() {
    let (a, b) = (address(7, 1), address(7, 2));
    let one = speaker(65001, a, b, Some(BfdConfig::default()));
    let other = speaker(65002, b, a, None);
    // BGP does not wait for BFD, and says what is missing.
    let waits = |peer: &PeerStatus| {
        let note = |note: &String| note.contains("enable BFD for us there");
        peer.state == SessionState::Established && peer.notes.iter().any(note)
    };
    until("BGP up without BFD", || peer(&one), waits).await;

    let far = End::start(b, a, Path::SingleHop, terms(50)).await;
    both_up(&one, 1).await;
    far.bfd.set_admin_down(far.session, true);
    let down = |peer: &PeerStatus| {
        peer.bfd
            .as_ref()
            .is_some_and(|bfd| bfd.state == State::Down)
    };
    let status = until("BFD down", || peer(&one), down).await;
    assert_eq!(
        (status.state, status.sessions),
        (SessionState::Established, 1)
    );
    let lost = status.bfd.unwrap().last_down.unwrap();
    assert_eq!(lost, "the peer's operator took BFD down");
    far.bfd.set_admin_down(far.session, false);
    both_up(&one, 1).await;

    // From now on nothing that it sends is believed: as good as silence.
    let key = Key::new(Method::Password, 1, b"secret").unwrap();
    let signed = Terms {
        key: Some(key),
        ..terms(50)
    };
    far.bfd.set_terms(far.session, signed);
    let said = |peer: &PeerStatus| {
        let error = peer.last_error.as_deref().unwrap_or_default();
        error.contains("cease: BFD down (6/10)")
    };
    until("the other speaker is told", || peer(&other), said).await;
    let status = peer(&one).await;
    let error = status.last_error.unwrap();
    assert!(
        error.contains("BFD: nothing was heard from the peer for 150ms"),
        "{error}"
    );

    // It comes back by itself; and whoever stops says so to BFD as well.
    far.bfd.set_terms(far.session, terms(50));
    let up = |peer: &PeerStatus| peer.state == SessionState::Established && peer.sessions == 2;
    until("BGP is back", || peer(&one), up).await;
    both_up(&one, 2).await;
    one.stop(Stop::KeepForwarding).await;
    let admin_down = |status: &SessionStatus| status.last_down.as_deref() == Some(&lost);
    until("told that it ends on purpose", || far.status(), admin_down).await;
}

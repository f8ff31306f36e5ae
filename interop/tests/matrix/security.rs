//! Cells about who may speak.

use std::os::unix::fs::PermissionsExt;

use interop::capture::{Capture, Direction, Frames};
use interop::enter::Lab;

use super::meeting::{Failure, Terms, becomes};
use super::table::{Cell, Verdict};

const PASSWORD: &str = "correcthorse";
/// Ethernet and IPv4 without options.
const TCP_AT: usize = 14 + 20;
/// The kind and length of the TCP option of RFC 2385.
const MD5_OPTION: [u8; 2] = [19, 18];
const BGP_PORT: [u8; 2] = [0, 179];

/// TCP-MD5: the session comes up, and every segment of both sides is signed.
pub(super) fn md5(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    let mut meeting = cell.arrange(&Terms {
        neighbour: |neighbour| neighbour.password = Some(PASSWORD.to_owned()),
        peer: |peer, lab| peer.password_file = Some(password_file(lab)),
        ..Terms::default()
    })?;
    let capture = meeting.capture()?;
    meeting.start()?;
    meeting.await_established()?;
    meeting.await_learned()?;
    meeting.await_told()?;
    let frames = both_sides(&capture)?;
    let unsigned = |segment: &&[u8]| !options(segment).windows(2).any(|o| o == MD5_OPTION);
    // A refusal of a port where nobody listens yet is the kernel's own, which knows no key there.
    let reset = |segment: &&[u8]| segment.get(13).is_some_and(|flags| flags & 0x04 != 0);
    let segments = segments(&frames);
    let bare: Vec<_> = segments
        .iter()
        .filter(|s| unsigned(s) && !reset(s))
        .collect();
    assert!(bare.is_empty(), "{} of {}", bare.len(), segments.len());
    Ok(Verdict::Ok)
}

fn password_file(lab: &Lab) -> std::path::PathBuf {
    let path = lab.run().join("password");
    // All cells write the same; a failure shows when our speaker reads it.
    let _ = std::fs::write(&path, format!("{PASSWORD}\n"));
    let _ = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600));
    path
}

/// GTSM: all that both sides send has a TTL of 255.
pub(super) fn gtsm(cell: &Cell<'_>) -> Result<Verdict, Failure> {
    let mut meeting = cell.arrange(&Terms {
        neighbour: |neighbour| neighbour.ttl_security = true,
        peer: |peer, _| peer.ttl_security = Some(1),
        ..Terms::default()
    })?;
    let capture = meeting.capture()?;
    meeting.start()?;
    meeting.await_established()?;
    meeting.await_learned()?;
    let frames = both_sides(&capture)?;
    let data = |segment: &&[u8]| payload(segment) > 0;
    let ttls: Vec<u8> = packets(&frames)
        .filter(|packet| packet.get(20..).is_some_and(|segment| data(&segment)))
        .map(|packet| packet[8])
        .collect();
    assert!(ttls.iter().all(|ttl| *ttl == 255), "{ttls:?}");
    Ok(Verdict::Ok)
}

/// Waits until segments of both sides were seen.
fn both_sides(capture: &Capture) -> Result<Frames, Failure> {
    becomes("segments of both sides", || {
        let frames = capture.so_far();
        let seen = |way| {
            let of_it = frames.raw.iter().filter(|frame| frame.direction == way);
            of_it.filter(|frame| is_bgp(&frame.bytes)).count()
        };
        let (into, out) = (seen(Direction::In), seen(Direction::Out));
        Ok((into == 0 || out == 0).then(|| format!("{into} in, {out} out")))
    })?;
    Ok(capture.so_far())
}

fn is_bgp(frame: &[u8]) -> bool {
    let ports = frame.get(TCP_AT..TCP_AT + 4);
    frame.get(12..14) == Some(&[8, 0][..])
        && frame.get(23) == Some(&6)
        && ports.is_some_and(|ports| ports[..2] == BGP_PORT || ports[2..] == BGP_PORT)
}

/// The IPv4 packets of BGP.
fn packets(frames: &Frames) -> impl Iterator<Item = &[u8]> {
    let bgp = frames.raw.iter().filter(|frame| is_bgp(&frame.bytes));
    bgp.map(|frame| &frame.bytes[14..])
}

/// The TCP segments of BGP.
fn segments(frames: &Frames) -> Vec<&[u8]> {
    packets(frames)
        .filter_map(|packet| packet.get(20..))
        .collect()
}

/// The length of a segment's header, octets.
fn header(segment: &[u8]) -> usize {
    segment
        .get(12)
        .map_or(20, |offset| usize::from(offset >> 4) * 4)
}

fn options(segment: &[u8]) -> &[u8] {
    segment.get(20..header(segment)).unwrap_or_default()
}

fn payload(segment: &[u8]) -> usize {
    segment.len().saturating_sub(header(segment))
}

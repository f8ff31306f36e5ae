//! Netlink framing: splits what one `recv` gave into messages and reads acknowledgements.
//!
//! Works on bytes alone. Never trusts a length it has not checked.

use nix::errno::Errno;

pub(crate) const NLMSG_NOOP: u16 = 1;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLMSG_OVERRUN: u16 = 4;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
/// In an acknowledgement: only the header of the request is echoed.
const NLM_F_CAPPED: u16 = 0x100;
/// In an acknowledgement: attributes follow.
const NLM_F_ACK_TLVS: u16 = 0x200;

const NLMSGERR_ATTR_MSG: u16 = 1;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Length of `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;

/// One netlink message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// Splits a datagram into messages; an error is the description of what is broken.
pub(crate) fn frames(mut datagram: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, String>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let Some(frame) = split(datagram) else {
            let error = format!("{} bytes that are no netlink message", datagram.len());
            datagram = &[];
            return Some(Err(error));
        };
        let used = align(HEADER + frame.payload.len()).min(datagram.len());
        datagram = &datagram[used..];
        Some(Ok(frame))
    })
}

fn split(bytes: &[u8]) -> Option<Frame<'_>> {
    let length = u32_at(bytes, 0)? as usize;
    let payload = bytes.get(HEADER..length)?;
    Some(Frame {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        sequence: u32_at(bytes, 8)?,
        payload,
    })
}

/// The answer in an `NLMSG_ERROR` or `NLMSG_DONE` message: success, or what the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// `None` is success.
    pub(crate) errno: Option<Errno>,
    /// Extended acknowledgement text; it may come with success as a warning.
    pub(crate) text: Option<String>,
}

impl Verdict {
    /// Reads the payload of an `NLMSG_ERROR`.
    pub(crate) fn of_error(frame: &Frame<'_>) -> Verdict {
        let Some(code) = u32_at(frame.payload, 0) else {
            return Verdict {
                errno: Some(Errno::EBADMSG),
                text: None,
            };
        };
        let echoed = if frame.flags & NLM_F_CAPPED != 0 {
            HEADER
        } else {
            u32_at(frame.payload, 4).map_or(HEADER, |length| length as usize)
        };
        let attributes = (frame.flags & NLM_F_ACK_TLVS != 0)
            .then(|| {
                echoed
                    .checked_add(7)
                    .and_then(|n| frame.payload.get((n & !3)..))
            })
            .flatten();
        Verdict::new(code, attributes)
    }

    /// Reads the payload of an `NLMSG_DONE`.
    pub(crate) fn of_done(frame: &Frame<'_>) -> Verdict {
        let code = u32_at(frame.payload, 0).unwrap_or(0);
        let attributes = (frame.flags & NLM_F_ACK_TLVS != 0)
            .then(|| frame.payload.get(4..))
            .flatten();
        Verdict::new(code, attributes)
    }

    fn new(code: u32, attributes: Option<&[u8]>) -> Verdict {
        // The kernel sends a negated error number.
        let errno = code.wrapping_neg().cast_signed();
        Verdict {
            errno: (errno > 0).then(|| Errno::from_raw(errno)),
            text: attributes.and_then(message_text),
        }
    }
}

fn message_text(mut attributes: &[u8]) -> Option<String> {
    while let Some(length) = u16_at(attributes, 0).map(usize::from) {
        let kind = u16_at(attributes, 2)? & NLA_TYPE_MASK;
        let value = attributes.get(4..length)?;
        if kind == NLMSGERR_ATTR_MSG {
            let end = value.iter().position(|&b| b == 0).unwrap_or(value.len());
            return Some(String::from_utf8_lossy(&value[..end]).into_owned());
        }
        attributes = attributes.get(align(length)..)?;
    }
    None
}

/// Rounds up to the alignment of netlink messages and attributes.
pub(crate) const fn align(length: usize) -> usize {
    (length + 3) & !3
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((HEADER + payload.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(7u32.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((4 + value.len()) as u16).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    #[test]
    fn verdict_with_text_capped_or_whole() {
        for (capped, echoed) in [(true, 16usize), (false, 28)] {
            let mut payload = (-17i32).to_ne_bytes().to_vec();
            payload.extend((echoed as u32).to_ne_bytes());
            payload.resize(4 + echoed, 0);
            payload.extend(attribute(2, &[0; 4]));
            payload.extend(attribute(NLMSGERR_ATTR_MSG, b"no room\0"));
            let flags = NLM_F_ACK_TLVS | if capped { NLM_F_CAPPED } else { 0 };
            let bytes = message(NLMSG_ERROR, flags, &payload);
            let frame = frames(&bytes).next().expect("one").expect("whole");
            assert_eq!(frame.sequence, 7);
            let verdict = Verdict::of_error(&frame);
            assert_eq!(verdict.errno, Some(Errno::EEXIST));
            assert_eq!(verdict.text.as_deref(), Some("no room"));
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), flags: u16) {
            for frame in frames(&bytes).flatten() {
                let _ = Verdict::of_error(&Frame { flags, ..frame });
                let _ = Verdict::of_done(&Frame { flags, ..frame });
            }
        }
    }
}

//! The kernel's answers, without a socket: what a batch came to, and what a dump holds.
//!
//! Fed with datagrams as they arrive. Answers to other questions, left over from a call that failed,
//! are passed over.

use nix::errno::Errno;

use crate::error::Error;
use crate::frame::{
    Frame, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, Verdict, frames,
};

/// A request of a batch that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Position among the requests sent together.
    pub(crate) position: usize,
    pub(crate) errno: Errno,
    pub(crate) text: Option<String>,
}

/// The answer to requests sent together, the last of which asked for an acknowledgement. The kernel
/// answers in order, so that acknowledgement ends it.
#[derive(Debug)]
pub(crate) struct Acknowledgement {
    first: u32,
    count: usize,
    pub(crate) refusals: Vec<Refusal>,
}

impl Acknowledgement {
    /// For `count` requests numbered from `first`.
    pub(crate) fn of(first: u32, count: usize) -> Acknowledgement {
        Acknowledgement {
            first,
            count,
            refusals: Vec::new(),
        }
    }

    /// Takes a datagram in; answers whether that was all.
    pub(crate) fn feed(&mut self, datagram: &[u8]) -> Result<bool, Error> {
        for frame in frames(datagram) {
            let frame = frame.map_err(|detail| Error::decode("an acknowledgement", detail))?;
            if frame.kind == NLMSG_OVERRUN {
                return Err(Error::Overrun);
            }
            let position = frame.sequence.wrapping_sub(self.first) as usize;
            if frame.kind != NLMSG_ERROR || position >= self.count {
                continue;
            }
            let Verdict { errno, text } = Verdict::of_error(&frame);
            if let Some(errno) = errno {
                self.refusals.push(Refusal {
                    position,
                    errno,
                    text,
                });
            }
            if position + 1 == self.count {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The answer to a question: messages, and an end.
#[derive(Debug)]
pub(crate) struct Listing<T> {
    sequence: u32,
    pub(crate) found: Vec<T>,
    /// False once the kernel has said that what it lists changed meanwhile.
    pub(crate) consistent: bool,
}

impl<T> Listing<T> {
    pub(crate) fn of(sequence: u32) -> Listing<T> {
        Listing {
            sequence,
            found: Vec::new(),
            consistent: true,
        }
    }

    /// Takes a datagram in; answers with the kernel's verdict once that was all.
    pub(crate) fn feed(
        &mut self,
        datagram: &[u8],
        mut read: impl FnMut(&Frame<'_>) -> Result<Option<T>, Error>,
    ) -> Result<Option<Verdict>, Error> {
        for frame in frames(datagram) {
            let frame = frame.map_err(|detail| Error::decode("an answer", detail))?;
            if frame.kind == NLMSG_OVERRUN {
                return Err(Error::Overrun);
            }
            if frame.sequence != self.sequence {
                continue;
            }
            self.consistent &= frame.flags & NLM_F_DUMP_INTR == 0;
            match frame.kind {
                NLMSG_NOOP => {}
                NLMSG_DONE => return Ok(Some(Verdict::of_done(&frame))),
                NLMSG_ERROR => return Ok(Some(Verdict::of_error(&frame))),
                _ => self.found.extend(read(&frame)?),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{HEADER, align};

    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((HEADER + payload.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend(0u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(align(bytes.len()), 0);
        bytes
    }

    fn verdict(sequence: u32, errno: i32) -> Vec<u8> {
        let mut payload = (-errno).to_ne_bytes().to_vec();
        payload.resize(4 + HEADER, 0);
        message(NLMSG_ERROR, 0x100, sequence, &payload)
    }

    #[test]
    fn a_batch_ends_with_the_answer_to_its_last_request() {
        let mut answer = Acknowledgement::of(u32::MAX, 3);
        let stale = verdict(u32::MAX - 5, 1);
        let second = verdict(0, Errno::EEXIST as i32);
        assert!(!answer.feed(&[stale, second].concat()).expect("readable"));
        assert!(answer.feed(&verdict(1, 0)).expect("readable"));
        let refusal = Refusal {
            position: 1,
            errno: Errno::EEXIST,
            text: None,
        };
        assert_eq!(answer.refusals, [refusal]);
        // The last may be refused itself.
        let mut answer = Acknowledgement::of(7, 1);
        assert!(
            answer
                .feed(&verdict(7, Errno::EPERM as i32))
                .expect("readable")
        );
        assert_eq!(answer.refusals.len(), 1);
    }

    #[test]
    fn a_listing_says_whether_it_is_whole() {
        let read = |frame: &Frame<'_>| Ok(Some(frame.payload.to_vec()));
        for (flags, consistent) in [(0, true), (NLM_F_DUMP_INTR, false)] {
            let mut listing = Listing::of(9);
            let first = [message(24, 2, 8, b"old!"), message(24, 2, 9, b"one!")].concat();
            assert_eq!(listing.feed(&first, read).expect("readable"), None);
            let rest = [
                message(24, 2 | flags, 9, b"two!"),
                message(NLMSG_DONE, 2, 9, &[0; 4]),
            ];
            let verdict = listing
                .feed(&rest.concat(), read)
                .expect("readable")
                .expect("the end");
            assert_eq!((verdict.errno, listing.consistent), (None, consistent));
            assert_eq!(listing.found, [b"one!".to_vec(), b"two!".to_vec()]);
        }
        // The flag may come with the end alone, and the end may be a refusal.
        let mut listing = Listing::of(9);
        let end = message(NLMSG_DONE, 2 | NLM_F_DUMP_INTR, 9, &(-2i32).to_ne_bytes());
        let verdict = listing
            .feed(&end, read)
            .expect("readable")
            .expect("the end");
        assert_eq!(
            (verdict.errno, listing.consistent),
            (Some(Errno::ENOENT), false)
        );
    }

    #[test]
    fn a_broken_or_overrun_answer_is_an_error() {
        let read = |_: &Frame<'_>| Ok(Some(()));
        assert!(matches!(
            Listing::of(1).feed(&[1, 2, 3], read),
            Err(Error::Decode { .. })
        ));
        let overrun = message(NLMSG_OVERRUN, 0, 1, &[]);
        assert!(matches!(
            Listing::of(1).feed(&overrun, read),
            Err(Error::Overrun)
        ));
        assert!(matches!(
            Acknowledgement::of(1, 1).feed(&overrun),
            Err(Error::Overrun)
        ));
    }
}

//! BPF programs on the packets of a link: the `clsact` qdisc, and filters of kind `bpf` on it.
//!
//! A filter is put in place of the one with its priority and handle in one step: every packet meets
//! the old program or the new one. Only filters of chain 0 and for all protocols are made here; those
//! of others are shown, and never taken for ours.

use std::fmt;
use std::os::fd::RawFd;

use netlink_packet_route::tc::{
    TcAttribute, TcBpfFlags, TcFilterBpf, TcFilterBpfOption, TcHandle, TcHeader, TcMessage,
    TcOption,
};

use crate::attribute::{find, native, text};
use crate::error::Error;

pub(crate) const NEW_QDISC: u16 = 36;
pub(crate) const DELETE_QDISC: u16 = 37;
pub(crate) const NEW_FILTER: u16 = 44;
pub(crate) const DELETE_FILTER: u16 = 45;

const CLSACT: &str = "clsact";
/// Number of the one qdisc beside the tree (`TC_H_CLSACT`, with its own handle `ffff:`).
const CLSACT_PARENT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// `ETH_P_ALL`.
const ALL: u16 = 3;

/// Length of `struct tcmsg`.
const HEADER: usize = 20;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const CHAIN: u16 = 11;
const BPF_NAME: u16 = 7;
const BPF_FLAGS: u16 = 8;
const BPF_TAG: u16 = 10;
const BPF_ID: u16 = 11;
const DIRECT_ACTION: u32 = 1;
/// The longest name of a program, in bytes (`CLS_BPF_NAME_LEN`, with its end).
const NAME_MAX: usize = 255;

/// A queueing discipline of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    /// Index of the link.
    pub ifindex: u32,
    /// The kernel's name of its kind, such as `clsact` or `fq`.
    pub kind: String,
}

impl Qdisc {
    /// Whether filters for [`Hook`]s go on it.
    #[must_use]
    pub fn is_clsact(&self) -> bool {
        self.kind == CLSACT
    }

    /// Reads a message; `None` if it is none of a qdisc of a link.
    pub(crate) fn from_payload(payload: &[u8]) -> Option<Qdisc> {
        let (header, attributes) = split(payload)?;
        Some(Qdisc {
            ifindex: header.ifindex,
            kind: text(attributes, KIND)?.to_owned(),
        })
    }
}

/// Which packets of a link meet a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Those that come in.
    Ingress,
    /// Those that go out.
    Egress,
}

impl Hook {
    fn parent(self) -> u32 {
        match self {
            Hook::Ingress => INGRESS,
            Hook::Egress => EGRESS,
        }
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Ingress => "ingress",
            Hook::Egress => "egress",
        })
    }
}

/// What names a filter on a clsact qdisc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilterPlace {
    /// Index of the link.
    pub ifindex: u32,
    /// Which of its packets.
    pub hook: Hook,
    /// Filters are asked in ascending order; from 1.
    pub priority: u16,
    /// Number among the filters of this priority, from 1. In a report that something went: 0, all of
    /// this priority.
    pub handle: u32,
}

impl FilterPlace {
    /// The kernel would choose what is 0.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match (self.priority, self.handle) {
            (0, _) => Err(Error::FilterPlace { field: "priority" }),
            (_, 0) => Err(Error::FilterPlace { field: "handle" }),
            _ => Ok(()),
        }
    }

    /// The message that names it; its attributes begin with the kind.
    pub(crate) fn message(&self) -> TcMessage {
        let mut message = header(self.ifindex, self.handle, self.hook.parent());
        message.header.info = u32::from(self.priority) << 16 | u32::from(ALL.to_be());
        let kind = TcAttribute::Kind(TcFilterBpf::KIND.to_owned());
        message.attributes.push(kind);
        message
    }
}

impl fmt::Display for FilterPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FilterPlace {
            ifindex,
            hook,
            priority,
            handle,
        } = self;
        write!(
            f,
            "filter {priority}:{handle:x} on {hook} of link {ifindex}"
        )
    }
}

/// A program to be put on a link: it decides what becomes of each packet (`direct-action`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfFilter {
    /// Where.
    pub place: FilterPlace,
    /// File descriptor of the program; it must stay open until the request was sent.
    pub program: RawFd,
    /// Shown to people, at most 255 bytes without zeros.
    pub name: String,
}

impl BpfFilter {
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.place.check()?;
        match self.name.len() > NAME_MAX || self.name.contains('\0') {
            true => Err(Error::FilterName(self.name.clone())),
            false => Ok(()),
        }
    }

    pub(crate) fn message(&self) -> TcMessage {
        let mut message = self.place.message();
        let options = [
            // Negative only if it is none; the kernel says so.
            TcFilterBpfOption::ProgFd(self.program.cast_unsigned()),
            TcFilterBpfOption::ProgName(self.name.clone()),
            TcFilterBpfOption::Flags(TcBpfFlags::DirectAction),
        ];
        let options = options.map(TcOption::Bpf).into();
        message.attributes.push(TcAttribute::Options(options));
        message
    }
}

impl fmt::Display for BpfFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with program {}", self.place, self.name)
    }
}

/// A filter on a clsact qdisc, as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Where.
    pub place: FilterPlace,
    /// Which packets by their EtherType, or `None`: all.
    pub protocol: Option<u16>,
    /// Packets meet chain 0 unless a filter sends them elsewhere.
    pub chain: u32,
    /// The kernel's name of its kind, such as `bpf` or `flower`.
    pub kind: String,
    /// What it runs; `None` if it is not of kind `bpf`, or in a report that something went.
    pub program: Option<FilterProgram>,
}

/// What a filter of kind `bpf` runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterProgram {
    /// The name it was given with the filter.
    pub name: String,
    /// The kernel's number of the program.
    pub id: u32,
    /// Hash of its instructions.
    pub tag: [u8; 8],
    /// What it returns decides what becomes of the packet.
    pub direct_action: bool,
}

impl Filter {
    /// Reads a message; `None` if it is none of a filter on clsact.
    pub(crate) fn from_payload(payload: &[u8]) -> Option<Filter> {
        let (header, attributes) = split(payload)?;
        let hook = match header.parent {
            INGRESS => Hook::Ingress,
            EGRESS => Hook::Egress,
            _ => return None,
        };
        let kind = text(attributes, KIND)?.to_owned();
        let options = (kind == TcFilterBpf::KIND).then(|| find(attributes, OPTIONS));
        // The low half is in network order.
        let protocol = u16::from_be((header.info & 0xffff) as u16);
        Some(Filter {
            place: FilterPlace {
                ifindex: header.ifindex,
                hook,
                priority: (header.info >> 16) as u16,
                handle: header.handle,
            },
            protocol: (protocol != ALL).then_some(protocol),
            chain: native(attributes, CHAIN).unwrap_or(0),
            kind,
            program: options.flatten().and_then(FilterProgram::read),
        })
    }
}

impl FilterProgram {
    fn read(options: &[u8]) -> Option<FilterProgram> {
        Some(FilterProgram {
            name: text(options, BPF_NAME).unwrap_or_default().to_owned(),
            id: native(options, BPF_ID)?,
            tag: find(options, BPF_TAG)?.try_into().ok()?,
            direct_action: native(options, BPF_FLAGS).unwrap_or(0) & DIRECT_ACTION != 0,
        })
    }
}

/// The message that names the clsact qdisc of a link.
pub(crate) fn clsact_message(ifindex: u32) -> TcMessage {
    let mut message = header(ifindex, CLSACT_HANDLE, CLSACT_PARENT);
    let kind = TcAttribute::Kind(CLSACT.to_owned());
    message.attributes.push(kind);
    message
}

/// Asks for the filters of a hook.
pub(crate) fn filters_message(ifindex: u32, hook: Hook) -> TcMessage {
    header(ifindex, 0, hook.parent())
}

fn header(ifindex: u32, handle: u32, parent: u32) -> TcMessage {
    let header = TcHeader {
        index: ifindex.cast_signed(),
        handle: TcHandle::from(handle),
        parent: TcHandle::from(parent),
        ..TcHeader::default()
    };
    TcMessage::from_parts(header, Vec::new())
}

/// What is of use of `struct tcmsg`.
struct Header {
    ifindex: u32,
    handle: u32,
    parent: u32,
    info: u32,
}

fn split(payload: &[u8]) -> Option<(Header, &[u8])> {
    let header = payload.get(..HEADER)?;
    let at = |from: usize| {
        Some(u32::from_ne_bytes(
            header.get(from..from + 4)?.try_into().ok()?,
        ))
    };
    let header = Header {
        ifindex: at(4)?,
        handle: at(8)?,
        parent: at(12)?,
        info: at(16)?,
    };
    Some((header, payload.get(HEADER..)?))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Emitable;
    use proptest::prelude::*;

    use super::*;

    fn place(priority: u16, handle: u32) -> FilterPlace {
        FilterPlace {
            ifindex: 7,
            hook: Hook::Ingress,
            priority,
            handle,
        }
    }

    fn bytes(message: &TcMessage) -> Vec<u8> {
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        bytes
    }

    #[test]
    fn what_is_asked_names_the_filter() {
        let filter = BpfFilter {
            place: place(9, 0x1234),
            program: 5,
            name: "idc".to_owned(),
        };
        let read = Filter::from_payload(&bytes(&filter.message())).expect("a filter");
        // What we send has no number of a program yet; the kernel's answer has.
        let expected = Filter {
            place: filter.place,
            protocol: None,
            chain: 0,
            kind: "bpf".to_owned(),
            program: None,
        };
        assert_eq!(read, expected);
        assert_eq!(
            filter.to_string(),
            "filter 9:1234 on ingress of link 7 with program idc"
        );
        let qdisc = Qdisc::from_payload(&bytes(&clsact_message(7))).expect("a qdisc");
        assert!(qdisc.is_clsact() && qdisc.ifindex == 7);
        assert_eq!(Filter::from_payload(&bytes(&clsact_message(7))), None);
    }

    #[test]
    fn what_the_kernel_would_choose_or_cut_is_refused() {
        let long = "x".repeat(256);
        for (place, name, refused) in [
            (place(1, 1), "x", None),
            (place(0, 1), "x", Some("priority")),
            (place(1, 0), "x", Some("handle")),
            (place(1, 1), "x\0y", Some("name")),
            (place(1, 1), &long, Some("name")),
        ] {
            let name = name.to_owned();
            let filter = BpfFilter {
                place,
                program: 0,
                name,
            };
            let text = filter.check().map_err(|error| error.to_string());
            match refused {
                None => assert_eq!(text, Ok(())),
                Some(word) => assert!(text.clone().is_err_and(|it| it.contains(word)), "{text:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Qdisc::from_payload(&bytes), Filter::from_payload(&bytes));
        }
    }
}

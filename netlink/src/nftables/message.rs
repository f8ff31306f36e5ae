//! nf_tables messages as bytes: written, and read back. Pure; nothing here talks to the kernel.
//!
//! Numbers in nf_tables attributes are in network byte order, those of netlink in the host's.

use crate::attribute::{self, attributes, find, text};
use crate::frame::{HEADER, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, align};

/// Family of tables that see IPv4 and IPv6 (`NFPROTO_INET`).
const INET: u8 = 1;
/// High byte of the message types of nf_tables.
const SUBSYSTEM: u16 = 10;
/// Length of `struct nfgenmsg`.
const GENERIC: usize = 4;
const NESTED: u16 = 0x8000;

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = NEW_TABLE + 1;
const DELETE_TABLE: u16 = NEW_TABLE + 2;
const NEW_CHAIN: u16 = NEW_TABLE + 3;
const GET_CHAIN: u16 = NEW_TABLE + 4;
const NEW_RULE: u16 = NEW_TABLE + 6;
const GET_RULE: u16 = NEW_TABLE + 7;

/// The attribute that names the table is number 1 in messages of every kind.
const TABLE: u16 = 1;
const TABLE_FLAGS: u16 = 2;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const META_REGISTER: u16 = 1;
const META_KEY: u16 = 2;
const COMPARE_REGISTER: u16 = 1;
const COMPARE_OPERATOR: u16 = 2;
const COMPARE_DATA: u16 = 3;
const IMMEDIATE_REGISTER: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;
const COUNTER_BYTES: u16 = 1;
const COUNTER_PACKETS: u16 = 2;

/// Packets for this host (`NF_INET_LOCAL_IN`).
const LOCAL_IN: u32 = 1;
const PRIORITY_FILTER: u32 = 0;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// The first register of 16 bytes (`NFT_REG_1`); register 0 holds the verdict.
const REGISTER: u32 = 1;
const VERDICT_REGISTER: u32 = 0;
const META_IIFNAME: u32 = 6;
const EQUAL: u32 = 0;
/// An interface name is compared whole, filled up with zeros (`IFNAMSIZ`).
const NAME: usize = 16;

/// Name of the one chain in a table of ours.
const CHAIN: &str = "input";
const CHAIN_KIND: &str = "filter";

/// Messages under construction, one after the other.
#[derive(Debug, Default)]
pub(super) struct Messages {
    bytes: Vec<u8>,
    count: u32,
    first: u32,
}

impl Messages {
    /// None yet; the next is numbered `first`.
    pub(super) fn from(first: u32) -> Messages {
        Messages {
            first,
            ..Messages::default()
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    pub(super) fn begin(&mut self) {
        self.message(BATCH_BEGIN, 0, 0, SUBSYSTEM, |_| ());
    }

    pub(super) fn end(&mut self) {
        self.message(BATCH_END, 0, 0, SUBSYSTEM, |_| ());
    }

    pub(super) fn delete_table(&mut self, table: &str) {
        self.message(DELETE_TABLE, NLM_F_ACK, INET, 0, |out| {
            out.text(TABLE, table);
        });
    }

    pub(super) fn new_table(&mut self, table: &str) {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.message(NEW_TABLE, flags, INET, 0, |out| {
            out.text(TABLE, table);
            out.number(TABLE_FLAGS, 0);
        });
    }

    /// The chain on the way to this host, which accepts what no rule of it drops.
    pub(super) fn new_chain(&mut self, table: &str) {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        self.message(NEW_CHAIN, flags, INET, 0, |out| {
            out.text(TABLE, table);
            out.text(CHAIN_NAME, CHAIN);
            out.nested(CHAIN_HOOK, |out| {
                out.number(HOOK_NUMBER, LOCAL_IN);
                out.number(HOOK_PRIORITY, PRIORITY_FILTER);
            });
            out.number(CHAIN_POLICY, ACCEPT);
            out.text(CHAIN_TYPE, CHAIN_KIND);
        });
    }

    /// The rule that counts and drops what came in by the interface.
    pub(super) fn new_rule(&mut self, table: &str, interface: &str) {
        let flags = NLM_F_ACK | NLM_F_CREATE;
        self.message(NEW_RULE, flags, INET, 0, |out| {
            out.text(TABLE, table);
            out.text(RULE_CHAIN, CHAIN);
            out.nested(RULE_EXPRESSIONS, |out| {
                out.expression("meta", |out| {
                    out.number(META_KEY, META_IIFNAME);
                    out.number(META_REGISTER, REGISTER);
                });
                out.expression("cmp", |out| {
                    out.number(COMPARE_REGISTER, REGISTER);
                    out.number(COMPARE_OPERATOR, EQUAL);
                    out.nested(COMPARE_DATA, |out| {
                        out.attribute(DATA_VALUE, &padded(interface));
                    });
                });
                out.expression("counter", |_| ());
                out.expression("immediate", |out| {
                    out.number(IMMEDIATE_REGISTER, VERDICT_REGISTER);
                    out.nested(IMMEDIATE_DATA, |out| {
                        out.nested(DATA_VERDICT, |out| out.number(VERDICT_CODE, DROP));
                    });
                });
            });
        });
    }

    /// Asks for one table.
    pub(super) fn ask_table(&mut self, table: &str) {
        self.message(GET_TABLE, NLM_F_ACK, INET, 0, |out| {
            out.text(TABLE, table);
        });
    }

    /// Asks for the chains of all tables: the kernel does not filter these.
    pub(super) fn ask_chains(&mut self) {
        self.message(GET_CHAIN, crate::frame::NLM_F_DUMP, INET, 0, |_| ());
    }

    /// Asks for the rules of a table.
    pub(super) fn ask_rules(&mut self, table: &str) {
        self.message(GET_RULE, crate::frame::NLM_F_DUMP, INET, 0, |out| {
            out.text(TABLE, table);
        });
    }

    fn message(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        fill: impl FnOnce(&mut Payload),
    ) {
        let mut payload = Payload(Vec::new());
        fill(&mut payload);
        let length = HEADER + GENERIC + payload.0.len();
        let sequence = self.first.wrapping_add(self.count);
        let out = &mut self.bytes;
        // No message of ours comes near 4 GiB: names are bounded.
        out.extend((length as u32).to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        out.extend(sequence.to_ne_bytes());
        out.extend(0u32.to_ne_bytes());
        out.extend([family, 0]);
        out.extend(resource.to_be_bytes());
        out.extend(payload.0);
        self.count += 1;
    }
}

/// Attributes, each padded to the alignment of netlink.
struct Payload(Vec<u8>);

impl Payload {
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = (attribute::HEADER + value.len()) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(align(self.0.len()), 0);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Payload)) {
        let mut inner = Payload(Vec::new());
        fill(&mut inner);
        self.attribute(kind | NESTED, &inner.0);
    }

    fn expression(&mut self, name: &str, fill: impl FnOnce(&mut Payload)) {
        self.nested(LIST_ELEMENT, |out| {
            out.text(EXPRESSION_NAME, name);
            out.nested(EXPRESSION_DATA, fill);
        });
    }
}

fn padded(interface: &str) -> Vec<u8> {
    let mut name = interface.as_bytes().to_vec();
    name.resize(NAME, 0);
    name
}

/// Whether the payload is of an object in this table.
pub(super) fn is_of(payload: &[u8], table: &str) -> bool {
    text(body(payload), TABLE) == Some(table)
}

/// Whether a table is as ours are: awake.
pub(super) fn is_our_table(payload: &[u8]) -> bool {
    number(body(payload), TABLE_FLAGS).unwrap_or(0) == 0
}

/// Whether a chain is as ours are.
pub(super) fn is_our_chain(payload: &[u8]) -> bool {
    let chain = body(payload);
    let hook = find(chain, CHAIN_HOOK).unwrap_or_default();
    text(chain, CHAIN_NAME) == Some(CHAIN)
        && text(chain, CHAIN_TYPE) == Some(CHAIN_KIND)
        && number(chain, CHAIN_POLICY) == Some(ACCEPT)
        && number(hook, HOOK_NUMBER) == Some(LOCAL_IN)
        && number(hook, HOOK_PRIORITY) == Some(PRIORITY_FILTER)
}

/// The packets and bytes of a rule that is as ours are for this interface; `None` if it is not.
pub(super) fn our_rule(payload: &[u8], interface: &str) -> Option<(u64, u64)> {
    let rule = body(payload);
    let list = find(rule, RULE_EXPRESSIONS)?;
    let expressions: Vec<(&str, &[u8])> = attributes(list)
        .map(|(_, it)| Some((text(it, EXPRESSION_NAME)?, find(it, EXPRESSION_DATA)?)))
        .collect::<Option<_>>()?;
    let [
        ("meta", meta),
        ("cmp", compare),
        ("counter", counter),
        ("immediate", immediate),
    ] = expressions[..]
    else {
        return None;
    };
    let name = find(compare, COMPARE_DATA).and_then(|data| find(data, DATA_VALUE))?;
    let verdict = find(immediate, IMMEDIATE_DATA).and_then(|data| find(data, DATA_VERDICT))?;
    let same = text(rule, RULE_CHAIN) == Some(CHAIN)
        && number(meta, META_KEY) == Some(META_IIFNAME)
        && number(meta, META_REGISTER) == Some(REGISTER)
        && number(compare, COMPARE_REGISTER) == Some(REGISTER)
        && number(compare, COMPARE_OPERATOR) == Some(EQUAL)
        && name == padded(interface)
        && number(immediate, IMMEDIATE_REGISTER) == Some(VERDICT_REGISTER)
        && number(verdict, VERDICT_CODE) == Some(DROP);
    let count = |kind| Some(u64::from_be_bytes(find(counter, kind)?.try_into().ok()?));
    same.then_some((count(COUNTER_PACKETS)?, count(COUNTER_BYTES)?))
}

fn body(payload: &[u8]) -> &[u8] {
    payload.get(GENERIC..).unwrap_or_default()
}

fn number(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(bytes, kind)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frame::frames;

    #[test]
    fn a_rule_is_ours_for_its_interface_only_and_with_a_counter_only() {
        let mut messages = Messages::from(7);
        messages.new_chain("t");
        messages.new_rule("t", "ccn0");
        let frames: Vec<_> = frames(messages.bytes())
            .map(|frame| frame.expect("whole"))
            .collect();
        assert_eq!((frames[0].sequence, frames[1].sequence), (7, 8));
        assert!(is_of(frames[0].payload, "t") && !is_of(frames[0].payload, "t2"));
        assert!(is_our_chain(frames[0].payload) && !is_our_chain(frames[1].payload));
        // What we send has no counts yet; the kernel's answer has.
        assert_eq!(our_rule(frames[1].payload, "ccn0"), None);
        assert_eq!(our_rule(frames[1].payload, "ccn"), None);
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (is_of(&bytes, "t"), is_our_table(&bytes), is_our_chain(&bytes));
            prop_assert_eq!(our_rule(&bytes, "ccn0"), None);
        }
    }
}

//! Policy rules: which table a packet is looked up in.

use std::fmt;

use ipnet::IpNet;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};

use crate::route::Family;

/// A policy rule. In the form the kernel shows: `from` and `to` of length 0 are absent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    /// IPv4 or IPv6.
    pub family: Family,
    /// The smaller is asked first.
    pub priority: u32,
    /// Name of the link the packet came in by; `lo` for packets of this host.
    pub iif: Option<String>,
    /// Name of the link the packet is bound to go out by.
    pub oif: Option<String>,
    /// Source prefix.
    pub from: Option<IpNet>,
    /// Destination prefix.
    pub to: Option<IpNet>,
    /// Id of the tunnel the packet came out of; never 0.
    pub tunnel_id: Option<u64>,
    /// Mark of the packet (`skb->mark`), all of its bits; never 0.
    pub mark: Option<u32>,
    /// What to do.
    pub action: RuleAction,
    /// Ignore routes found whose prefix is this long or shorter.
    pub suppress_prefix_length: Option<u32>,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleAction {
    /// Look up in this table, and go on with the next rule when nothing is found.
    Lookup(u32),
    /// Drop in silence.
    Blackhole,
    /// Drop and answer "unreachable".
    Unreachable,
    /// Drop and answer "prohibited".
    Prohibit,
    /// Another action, by its number (`FR_ACT_*`).
    Other(u8),
}

impl Rule {
    /// A rule that matches everything and looks up in `table`.
    #[must_use]
    pub fn lookup(family: Family, priority: u32, table: u32) -> Rule {
        Rule {
            family,
            priority,
            iif: None,
            oif: None,
            from: None,
            to: None,
            tunnel_id: None,
            mark: None,
            action: RuleAction::Lookup(table),
            suppress_prefix_length: None,
            protocol: 0,
        }
    }

    /// The form in which the kernel shows it.
    #[must_use]
    pub fn normalised(mut self) -> Rule {
        self.from = self
            .from
            .filter(|net| net.prefix_len() > 0)
            .map(|net| net.trunc());
        self.to = self
            .to
            .filter(|net| net.prefix_len() > 0)
            .map(|net| net.trunc());
        self.tunnel_id = self.tunnel_id.filter(|&id| id != 0);
        self.mark = self.mark.filter(|&mark| mark != 0);
        self
    }

    pub(crate) fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = self.family.address_family();
        let list = &mut message.attributes;
        list.push(RuleAttribute::Priority(self.priority));
        list.push(RuleAttribute::Protocol(RouteProtocol::from(self.protocol)));
        message.header.action = match self.action {
            RuleAction::Lookup(table) => {
                list.push(RuleAttribute::Table(table));
                message.header.table = u8::try_from(table).unwrap_or(0);
                TO_TABLE.into()
            }
            RuleAction::Blackhole => BLACKHOLE.into(),
            RuleAction::Unreachable => UNREACHABLE.into(),
            RuleAction::Prohibit => PROHIBIT.into(),
            RuleAction::Other(number) => number.into(),
        };
        if let Some(name) = &self.iif {
            list.push(RuleAttribute::Iifname(name.clone()));
        }
        if let Some(name) = &self.oif {
            list.push(RuleAttribute::Oifname(name.clone()));
        }
        if let Some(net) = self.from {
            message.header.src_len = net.prefix_len();
            list.push(RuleAttribute::Source(net.addr()));
        }
        if let Some(net) = self.to {
            message.header.dst_len = net.prefix_len();
            list.push(RuleAttribute::Destination(net.addr()));
        }
        if let Some(id) = self.tunnel_id {
            list.push(RuleAttribute::TunId(id));
        }
        if let Some(mark) = self.mark {
            list.push(RuleAttribute::FwMark(mark));
        }
        if let Some(length) = self.suppress_prefix_length {
            list.push(RuleAttribute::SuppressPrefixLen(length));
        }
        message
    }

    pub(crate) fn from_message(message: RuleMessage) -> Option<Rule> {
        let header = &message.header;
        let family = Family::from_address_family(header.family)?;
        let mut table = u32::from(header.table);
        let mut rule = Rule::lookup(family, 0, 0);
        for attribute in message.attributes {
            match attribute {
                RuleAttribute::Priority(priority) => rule.priority = priority,
                RuleAttribute::Protocol(protocol) => rule.protocol = protocol.into(),
                RuleAttribute::Table(number) => table = number,
                RuleAttribute::Iifname(name) => rule.iif = Some(name),
                RuleAttribute::Oifname(name) => rule.oif = Some(name),
                RuleAttribute::Source(addr) => {
                    rule.from = Some(IpNet::new(addr, header.src_len).ok()?);
                }
                RuleAttribute::Destination(addr) => {
                    rule.to = Some(IpNet::new(addr, header.dst_len).ok()?);
                }
                RuleAttribute::TunId(id) => rule.tunnel_id = Some(id),
                RuleAttribute::FwMark(mark) => rule.mark = Some(mark),
                // The kernel shows "no suppression" as all ones.
                RuleAttribute::SuppressPrefixLen(length) => {
                    rule.suppress_prefix_length = (length != u32::MAX).then_some(length);
                }
                _ => {}
            }
        }
        rule.action = match u8::from(header.action) {
            TO_TABLE => RuleAction::Lookup(table),
            BLACKHOLE => RuleAction::Blackhole,
            UNREACHABLE => RuleAction::Unreachable,
            PROHIBIT => RuleAction::Prohibit,
            number => RuleAction::Other(number),
        };
        Some(rule.normalised())
    }
}

const TO_TABLE: u8 = 1;
const BLACKHOLE: u8 = 6;
const UNREACHABLE: u8 = 7;
const PROHIBIT: u8 = 8;

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}:", self.family, self.priority)?;
        if let Some(net) = self.from {
            write!(f, " from {net}")?;
        }
        if let Some(net) = self.to {
            write!(f, " to {net}")?;
        }
        if let Some(name) = &self.iif {
            write!(f, " iif {name}")?;
        }
        if let Some(name) = &self.oif {
            write!(f, " oif {name}")?;
        }
        if let Some(id) = self.tunnel_id {
            write!(f, " tun_id {id}")?;
        }
        if let Some(mark) = self.mark {
            write!(f, " fwmark {mark:#x}")?;
        }
        match self.action {
            RuleAction::Lookup(table) => write!(f, " lookup {table}")?,
            RuleAction::Other(number) => write!(f, " action {number}")?,
            action => write!(f, " {}", format!("{action:?}").to_lowercase())?,
        }
        if let Some(length) = self.suppress_prefix_length {
            write!(f, " suppress_prefixlength {length}")?;
        }
        write!(f, " proto {}", self.protocol)
    }
}

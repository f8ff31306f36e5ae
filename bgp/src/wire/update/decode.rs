//! Reading an UPDATE: every error becomes a finding with the action RFC 7606 prescribes.
//!
//! Goes on after an error as long as the routes of the message can still be told, since treating
//! it as a withdrawal needs all of them (RFC 7606 section 3 j).

use std::net::Ipv4Addr;

use nom::Parser;
use nom::combinator::rest;
use nom::multi::length_data;
use nom::number::complete::{be_u8, be_u16};

use crate::wire::as_path::AsPath;
use crate::wire::as4::{self, Width};
use crate::wire::attribute::{Aggregator, AttributeCode, AttributeFlags, Origin, UnknownAttribute};
use crate::wire::community::{Community, ExtendedCommunity};
use crate::wire::error::{Finding, Place, Reason, UpdateError, Verdict};
use crate::wire::message::WireOptions;
use crate::wire::nlri::{self, Nlri};
use crate::wire::prefix::{AfiSafi, Family};
use crate::wire::update::{MpReach, MpUnreach, NextHop, Update};

mod rules;

use rules::{CodeSet, fixed, is_host, list, malformed, specified_flags, unique};

impl Update {
    /// Reads the body of an UPDATE.
    ///
    /// # Errors
    /// All findings, if one of them resets the session.
    pub(in crate::wire) fn parse(
        body: &[u8],
        options: &WireOptions,
    ) -> Result<(Update, Vec<Finding>), UpdateError> {
        let mut reader = Reader::new(options);
        reader.read(body);
        reader.finish()
    }
}

/// One attribute as it stands in the list.
struct RawAttribute<'a> {
    flags: AttributeFlags,
    code: AttributeCode,
    value: &'a [u8],
    /// Header and value.
    octets: &'a [u8],
}

struct Reader<'o> {
    options: &'o WireOptions,
    width: Width,
    update: Update,
    findings: Vec<Finding>,
    seen: CodeSet,
    as4_path: Option<AsPath>,
    as4_aggregator: Option<Aggregator>,
    /// An MP_REACH_NLRI names routes, whether or not they could be read.
    mp_reachable: bool,
    /// The AS_PATH has an AS_SET, before an AS4_PATH replaces part of it.
    as_set: bool,
    /// The attribute list ends in octets that are no whole attribute.
    cut_short: bool,
}

impl Reader<'_> {
    fn new(options: &WireOptions) -> Reader<'_> {
        Reader {
            options,
            width: Width::of_session(options.four_octet_as),
            update: Update::default(),
            findings: Vec::new(),
            seen: CodeSet::default(),
            as4_path: None,
            as4_aggregator: None,
            mp_reachable: false,
            as_set: false,
            cut_short: false,
        }
    }

    fn find(&mut self, place: Place, reason: Reason, verdict: Verdict, octets: &[u8]) {
        self.findings.push(Finding {
            place,
            reason,
            verdict,
            octets: octets.into(),
        });
    }

    fn find_in(&mut self, attribute: &RawAttribute<'_>, reason: Reason, verdict: Verdict) {
        self.find(
            Place::Attribute(attribute.code),
            reason,
            verdict,
            attribute.octets,
        );
    }

    fn read(&mut self, body: &[u8]) {
        let Some((withdrawn, after)) = self.field(body) else {
            return;
        };
        let Some((attributes, nlri)) = self.field(after) else {
            return;
        };
        match self.nlri(Family::Ipv4Unicast, withdrawn) {
            Ok(prefixes) => self.update.withdrawn = prefixes,
            Err(reason) => self.find(Place::Withdrawn, reason, Verdict::SessionReset, &[]),
        }
        self.attributes(attributes);
        match self.nlri(Family::Ipv4Unicast, nlri) {
            Ok(prefixes) => self.update.nlri = prefixes,
            Err(reason) => self.find(Place::Nlri, reason, Verdict::SessionReset, &[]),
        }
        self.merge_as4();
        self.check_as_path();
        self.check_next_hop();
        self.check_mandatory();
        self.escalate();
    }

    fn nlri(&self, family: Family, octets: &[u8]) -> Result<Vec<Nlri>, Reason> {
        nlri::parse(
            family,
            self.options.add_path_receive.contains(family),
            octets,
        )
    }

    /// A field with a 2-octet length, and what follows it.
    fn field<'a>(&mut self, octets: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        if let Ok((after, field)) = length_data::<_, (), _>(be_u16).parse(octets) {
            return Some((field, after));
        }
        let (declared, available) = match octets {
            [high, low, after @ ..] => (u16::from_be_bytes([*high, *low]), after.len()),
            _ => (0, octets.len()),
        };
        let reason = Reason::FieldOverrun {
            declared,
            available,
        };
        self.find(Place::Lengths, reason, Verdict::SessionReset, &[]);
        None
    }

    /// The list of attributes. Stops where their lengths do not add up (RFC 7606 section 4).
    fn attributes(&mut self, list: &[u8]) {
        let mut left = list;
        while !left.is_empty() {
            let header_len = match left {
                [flags, ..] if flags & AttributeFlags::EXTENDED_LENGTH != 0 => 4,
                _ => 3,
            };
            let Some((header, after)) = left.split_at_checked(header_len) else {
                self.cut_short = true;
                let reason = Reason::HeaderTruncated(left.len());
                self.find(Place::AttributeList, reason, Verdict::TreatAsWithdraw, left);
                return;
            };
            let (flags, code) = (AttributeFlags(header[0]), AttributeCode(header[1]));
            let declared = match header {
                [_, _, high, low] => u16::from_be_bytes([*high, *low]),
                _ => u16::from(header[2]),
            };
            let Some((value, after)) = after.split_at_checked(usize::from(declared)) else {
                self.cut_short = true;
                let reason = Reason::AttributeOverrun {
                    declared,
                    available: after.len(),
                };
                // The routes of a multiprotocol attribute would be lost (section 3 j).
                let verdict = match code {
                    AttributeCode::MP_REACH_NLRI | AttributeCode::MP_UNREACH_NLRI => {
                        Verdict::SessionReset
                    }
                    _ => Verdict::TreatAsWithdraw,
                };
                self.find(Place::Attribute(code), reason, verdict, left);
                return;
            };
            let octets = &left[..header_len + value.len()];
            self.attribute(&RawAttribute {
                flags,
                code,
                value,
                octets,
            });
            left = after;
        }
    }

    fn attribute(&mut self, attribute: &RawAttribute<'_>) {
        use AttributeCode as Code;
        let code = attribute.code;
        if !self.seen.insert(code) {
            let verdict = match code {
                Code::MP_REACH_NLRI | Code::MP_UNREACH_NLRI => Verdict::SessionReset,
                _ => Verdict::AttributeDiscard,
            };
            return self.find_in(attribute, Reason::Duplicate, verdict);
        }
        // RFC 7606 sections 7.5, 7.9 and 7.10; RFC 6793 section 4.1.
        let misplaced = match code {
            Code::LOCAL_PREF | Code::ORIGINATOR_ID | Code::CLUSTER_LIST => !self.options.internal,
            Code::AS4_PATH | Code::AS4_AGGREGATOR => self.width == Width::Four,
            _ => false,
        };
        if misplaced {
            let verdict = Verdict::AttributeDiscard;
            return self.find_in(attribute, Reason::NotFromThisPeer, verdict);
        }
        let Some(expected) = specified_flags(code) else {
            return self.unknown(attribute);
        };
        let both = AttributeFlags::OPTIONAL | AttributeFlags::TRANSITIVE;
        if attribute.flags.0 & both != expected {
            // Section 3 c; of a multiprotocol attribute section 5.3, and then RFC 4760 section 7.
            let verdict = match code {
                Code::MP_REACH_NLRI | Code::MP_UNREACH_NLRI => match afi_safi(attribute.value) {
                    Ok((afi_safi, _)) => Verdict::AfiSafiDisable(afi_safi),
                    Err((_, verdict)) => verdict,
                },
                _ => Verdict::TreatAsWithdraw,
            };
            self.find_in(attribute, Reason::Flags(attribute.flags), verdict);
            // Only the routes still matter, to be withdrawn.
            if verdict == Verdict::TreatAsWithdraw {
                return;
            }
        }
        let read = match code {
            Code::MP_REACH_NLRI => self.mp_reach(attribute.value),
            Code::MP_UNREACH_NLRI => self.mp_unreach(attribute.value),
            _ => self
                .value(code, attribute.value)
                .map_err(|reason| (reason, malformed(code))),
        };
        match read {
            Err((reason, verdict)) => self.find_in(attribute, reason, verdict),
            // Known well enough to be checked, and not to be understood.
            Ok(()) if code == Code::IPV6_EXT_COMMUNITIES => self.unknown(attribute),
            Ok(()) if attribute.flags.partial() => self.update.attributes.partial.insert(code),
            Ok(()) => {}
        }
    }

    /// The value of a known attribute other than the multiprotocol ones.
    fn value(&mut self, code: AttributeCode, value: &[u8]) -> Result<(), Reason> {
        use AttributeCode as Code;
        let attributes = &mut self.update.attributes;
        match code {
            Code::ORIGIN => {
                let [octet] = fixed(value)?;
                let origin = Origin::from_octet(octet).ok_or(Reason::OriginValue(octet))?;
                attributes.origin = Some(origin);
            }
            Code::AS_PATH => {
                let path = as4::parse_path(value, self.width)?;
                self.as_set = path.has_set();
                attributes.as_path = Some(path);
            }
            Code::NEXT_HOP => attributes.next_hop = Some(Ipv4Addr::from(fixed::<4>(value)?)),
            Code::MED => attributes.med = Some(u32::from_be_bytes(fixed(value)?)),
            Code::LOCAL_PREF => attributes.local_pref = Some(u32::from_be_bytes(fixed(value)?)),
            Code::ATOMIC_AGGREGATE => {
                let [] = fixed(value)?;
                attributes.atomic_aggregate = true;
            }
            Code::AGGREGATOR => {
                attributes.aggregator = Some(as4::parse_aggregator(value, self.width)?);
            }
            Code::COMMUNITIES => {
                let communities = list(value)?.iter().copied().map(u32::from_be_bytes);
                attributes.communities = communities.map(Community).collect();
            }
            Code::ORIGINATOR_ID => {
                attributes.originator_id = Some(Ipv4Addr::from(fixed::<4>(value)?));
            }
            Code::CLUSTER_LIST => {
                let clusters = list::<4>(value)?.iter().copied();
                attributes.cluster_list = clusters.map(Ipv4Addr::from).collect();
            }
            Code::EXT_COMMUNITIES => {
                let communities = list(value)?.iter().copied();
                attributes.ext_communities = communities.map(ExtendedCommunity).collect();
            }
            Code::LARGE_COMMUNITIES => {
                attributes.large_communities = unique(list(value)?);
            }
            Code::IPV6_EXT_COMMUNITIES => {
                list::<20>(value)?;
            }
            Code::OTC => attributes.otc = Some(u32::from_be_bytes(fixed(value)?)),
            Code::AS4_PATH => self.as4_path = Some(as4::parse_as4_path(value)?),
            Code::AS4_AGGREGATOR => {
                self.as4_aggregator = Some(as4::parse_aggregator(value, Width::Four)?);
            }
            // Attributes without specified flags do not come here.
            _ => {}
        }
        Ok(())
    }

    fn unknown(&mut self, attribute: &RawAttribute<'_>) {
        if !attribute.flags.optional() {
            // RFC 4271 section 6.3, which RFC 7606 leaves alone.
            let reason = Reason::UnrecognizedWellKnown;
            return self.find_in(attribute, reason, Verdict::SessionReset);
        }
        let kept = UnknownAttribute {
            flags: AttributeFlags(
                attribute.flags.0
                    & (AttributeFlags::OPTIONAL
                        | AttributeFlags::TRANSITIVE
                        | AttributeFlags::PARTIAL),
            ),
            code: attribute.code,
            value: attribute.value.into(),
        };
        let unknown = &mut self.update.attributes.unknown;
        let at = unknown.partition_point(|other| other.code < kept.code);
        unknown.insert(at, kept);
    }

    fn mp_reach(&mut self, value: &[u8]) -> Result<(), (Reason, Verdict)> {
        let (afi_safi, after) = afi_safi(value)?;
        let disable = |reason| (reason, Verdict::AfiSafiDisable(afi_safi));
        let fields = (length_data(be_u8), be_u8, rest).parse(after);
        let Ok((_, (next_hop, _reserved, octets))) = fields.map_err(|_: nom::Err<()>| ()) else {
            self.mp_reachable = true;
            return Err(disable(Reason::MpTruncated));
        };
        self.mp_reachable = !octets.is_empty();
        let reach = match afi_safi.family() {
            Some(family) => {
                let next_hop = self.next_hop(family, next_hop).map_err(disable)?;
                let nlri = self.nlri(family, octets).map_err(disable)?;
                MpReach::Unicast {
                    family,
                    next_hop,
                    nlri,
                }
            }
            None => MpReach::Other {
                family: afi_safi,
                next_hop: next_hop.into(),
                nlri: octets.into(),
            },
        };
        self.update.mp_reach = Some(reach);
        Ok(())
    }

    fn mp_unreach(&mut self, value: &[u8]) -> Result<(), (Reason, Verdict)> {
        let (afi_safi, octets) = afi_safi(value)?;
        let disable = |reason| (reason, Verdict::AfiSafiDisable(afi_safi));
        let unreach = match afi_safi.family() {
            Some(family) => {
                let nlri = self.nlri(family, octets).map_err(disable)?;
                MpUnreach::Unicast { family, nlri }
            }
            None => MpUnreach::Other {
                family: afi_safi,
                nlri: octets.into(),
            },
        };
        self.update.mp_unreach = Some(unreach);
        Ok(())
    }

    /// RFC 4760 section 3, RFC 2545 section 3, RFC 8950 section 4: the length tells the kind.
    fn next_hop(&self, family: Family, octets: &[u8]) -> Result<NextHop, Reason> {
        let v6 = family == Family::Ipv6Unicast || self.options.ipv4_next_hop_v6;
        match (
            octets.len(),
            octets.first_chunk::<16>(),
            octets.last_chunk::<16>(),
        ) {
            (4, ..) if family == Family::Ipv4Unicast => {
                Ok(NextHop::V4(Ipv4Addr::from(fixed::<4>(octets)?)))
            }
            (16, Some(address), _) if v6 => Ok(NextHop::V6((*address).into())),
            (32, Some(global), Some(link_local)) if v6 => Ok(NextHop::V6WithLinkLocal {
                global: (*global).into(),
                link_local: (*link_local).into(),
            }),
            (length, ..) => Err(Reason::MpNextHopLength { family, length }),
        }
    }

    fn merge_as4(&mut self) {
        let attributes = &mut self.update.attributes;
        let (aggregator, as4_path_counts) =
            as4::merge_aggregator(attributes.aggregator, self.as4_aggregator);
        attributes.aggregator = aggregator;
        if let (Some(path), Some(as4_path), true) =
            (&attributes.as_path, &self.as4_path, as4_path_counts)
        {
            attributes.as_path = Some(as4::merge(path, as4_path));
        }
    }

    /// What makes a well-formed path unwelcome: an AS_SET (RFC 9774 section 3), or a first AS that
    /// is not the peer's (RFC 4271 section 6.3, RFC 7606 section 7.2).
    fn check_as_path(&mut self) {
        let place = Place::Attribute(AttributeCode::AS_PATH);
        let Some(path) = &self.update.attributes.as_path else {
            return;
        };
        if self.update.nlri.is_empty() && !self.mp_reachable {
            // It is the path of no route: not to be liked is no sign of octets gone astray.
            return;
        }
        if !self.options.allow_as_set && (self.as_set || path.has_set()) {
            self.find(place, Reason::AsSet, Verdict::TreatAsWithdraw, &[]);
            return;
        }
        if let Some(expected) = self.options.first_as
            && path.first() != Some(expected)
        {
            let reason = Reason::FirstAs {
                expected,
                first: path.first(),
            };
            self.find(place, reason, Verdict::TreatAsWithdraw, &[]);
        }
    }

    /// NEXT_HOP belongs to the NLRI field alone: without one it is ignored (RFC 4760 section 3),
    /// with one it must be a host (RFC 4271 section 6.3).
    fn check_next_hop(&mut self) {
        let Some(next_hop) = self.update.attributes.next_hop else {
            return;
        };
        if self.update.nlri.is_empty() {
            self.update.attributes.next_hop = None;
        } else if !is_host(next_hop) {
            self.update.attributes.next_hop = None;
            let flags = AttributeFlags::TRANSITIVE;
            let mut octets = vec![flags, AttributeCode::NEXT_HOP.0, 4];
            octets.extend(next_hop.octets());
            let place = Place::Attribute(AttributeCode::NEXT_HOP);
            let reason = Reason::NextHopAddress(next_hop);
            self.find(place, reason, Verdict::TreatAsWithdraw, &octets);
        }
    }

    /// RFC 7606 section 3 d. An attribute that is there but malformed has its finding already.
    fn check_mandatory(&mut self) {
        use AttributeCode as Code;
        let classic = !self.update.nlri.is_empty();
        let reachable = classic || self.mp_reachable;
        for (code, mandatory) in [
            (Code::ORIGIN, reachable),
            (Code::AS_PATH, reachable),
            (Code::NEXT_HOP, classic),
        ] {
            if mandatory && !self.seen.contains(code) {
                self.find(
                    Place::Attribute(code),
                    Reason::Missing,
                    Verdict::TreatAsWithdraw,
                    &[],
                );
            }
        }
    }

    /// Attributes without any reachable route, some of them malformed: the routes may have been
    /// lost in parsing, and withdrawing nothing is not enough (RFC 7606 section 5.2).
    fn escalate(&mut self) {
        let reachable = !self.update.nlri.is_empty() || self.mp_reachable;
        let others = self.cut_short || self.seen.any_but(AttributeCode::MP_UNREACH_NLRI);
        if reachable || !others {
            return;
        }
        for finding in &mut self.findings {
            if finding.verdict != Verdict::AttributeDiscard {
                finding.verdict = Verdict::SessionReset;
            }
        }
    }

    fn finish(self) -> Result<(Update, Vec<Finding>), UpdateError> {
        if self
            .findings
            .iter()
            .any(|finding| finding.verdict == Verdict::SessionReset)
        {
            return Err(UpdateError {
                findings: self.findings,
            });
        }
        Ok((self.update, self.findings))
    }
}

/// The family at the start of a multiprotocol attribute; without it not even the family can be
/// disabled.
fn afi_safi(value: &[u8]) -> Result<(AfiSafi, &[u8]), (Reason, Verdict)> {
    match value {
        &[high, low, safi, ref after @ ..] => Ok((
            AfiSafi {
                afi: u16::from_be_bytes([high, low]),
                safi,
            },
            after,
        )),
        _ => Err((Reason::MpTruncated, Verdict::SessionReset)),
    }
}

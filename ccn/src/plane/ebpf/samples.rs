//! Headers of packets that the programs sample: the ring they come in, and how the maps ask for them.
//!
//! The programs sample at most a thousand a second and processor; what does not fit into the ring is
//! lost and not counted.

use std::fmt;

use aya::maps::{Map, MapData, RingBuf};

use super::layout::{Globals, Mapped, Plain, Sample, TRACE_DROPS, TRACE_FORWARDED, mapped};
use super::numbers::Numbers;
use super::pins::Pins;
use crate::plane::PlaneError;
use crate::plane::traffic::Wanted;
use crate::record::LinkId;

/// Most samples that are taken at once. The ring holds fewer.
const MOST: usize = 4096;

/// Every link, in [`Globals::trace_link`].
const EVERY_LINK: u32 = u32::MAX;
/// A link that nobody has: its number is over all that are given.
const NO_SUCH_LINK: u32 = u32::MAX - 1;

/// The ring, which one reader empties.
pub(crate) struct Ring(RingBuf<MapData>);

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ring")
    }
}

impl Ring {
    /// Opens what is pinned.
    pub(crate) fn open(pins: &Pins) -> Result<Ring, PlaneError> {
        let path = pins.map("events");
        let failed = |error: &dyn std::error::Error| PlaneError::Kernel {
            action: format!("open {}", path.display()),
            detail: error.to_string(),
        };
        let data = MapData::from_pin(&path).map_err(|error| failed(&error))?;
        let map = Map::from_map_data(data).map_err(|error| failed(&error))?;
        let ring = RingBuf::try_from(map).map_err(|error| failed(&error))?;
        Ok(Ring(ring))
    }

    /// Forgets what is in it.
    pub(crate) fn clear(&mut self) {
        while self.take().len() == MOST {}
    }

    /// What has come since the last call.
    pub(crate) fn take(&mut self) -> Vec<Sample> {
        let mut samples = Vec::new();
        while samples.len() < MOST
            && let Some(item) = self.0.next()
        {
            samples.extend(Sample::read(&item));
        }
        samples
    }
}

/// What [`Globals`] say of sampling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sampling {
    what: u16,
    link: u32,
    addr: Mapped,
}

impl Sampling {
    /// No packet.
    pub(crate) const OFF: Sampling = Sampling {
        what: 0,
        link: EVERY_LINK,
        addr: [0; 16],
    };

    /// What is wanted, or more where the maps cannot say it: they take one address or all.
    pub(crate) fn of(wanted: Option<&Wanted>, links: &Numbers<LinkId>) -> Sampling {
        let Some(wanted) = wanted else {
            return Sampling::OFF;
        };
        let flag = |is_wanted: bool, flag| if is_wanted { flag } else { 0 };
        let mut addrs = wanted.addrs.iter();
        let addr = match (addrs.next(), addrs.next()) {
            (Some(only), None) => mapped(*only),
            _ => [0; 16],
        };
        Sampling {
            what: flag(wanted.drops, TRACE_DROPS) | flag(wanted.forwarded, TRACE_FORWARDED),
            link: match &wanted.link {
                None => EVERY_LINK,
                Some(link) => links.of(link).unwrap_or(NO_SUCH_LINK),
            },
            addr,
        }
    }

    /// The same with this written into it.
    pub(crate) fn written(self, globals: Globals) -> Globals {
        Globals {
            trace: self.what,
            trace_link: self.link,
            trace_addr: self.addr,
            ..globals
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn what_is_wanted_is_said_as_closely_as_the_maps_can() {
        let mut links: Numbers<LinkId> = Numbers::new(10, 0);
        let web: LinkId = "web".parse().expect("a link");
        links.number(&web);
        let number = links.of(&web).expect("a number");
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let all = [0; 16];
        let one = mapped(ip("10.1.0.11"));
        let table = [
            ((true, false, None, &[][..]), (1, EVERY_LINK, all)),
            ((false, true, Some("web"), &[]), (2, number, all)),
            ((true, true, Some("gone"), &[]), (3, NO_SUCH_LINK, all)),
            ((true, true, None, &["10.1.0.11"]), (3, EVERY_LINK, one)),
            (
                (true, true, None, &["10.1.0.11", "fd00:1::11"]),
                (3, EVERY_LINK, all),
            ),
        ];
        for ((drops, forwarded, link, addrs), (what, number, addr)) in table {
            let wanted = Wanted {
                drops,
                forwarded,
                link: link.map(|link: &str| link.parse().expect("a link")),
                addrs: addrs.iter().map(|addr| ip(addr)).collect::<BTreeSet<_>>(),
            };
            let globals = Sampling::of(Some(&wanted), &links).written(Globals::default());
            assert_eq!(
                (globals.trace, globals.trace_link, globals.trace_addr),
                (what, number, addr),
                "{wanted:?}"
            );
        }
        assert_eq!(Sampling::of(None, &links), Sampling::OFF);
    }
}

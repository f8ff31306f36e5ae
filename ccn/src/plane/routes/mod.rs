//! The `routes` plane: kernel routes with encapsulation, policy rules by tunnel id.
//!
//! One external VXLAN device serves every VNI. A rule by tunnel id and source picks the table of a
//! CCSI; a route per address encapsulates; what nothing matches is led into a device that counts it
//! under its reason. It keeps its own objects as desired and never touches those of others.
//!
//! What rules and routes cannot do: keep flow state, copy DSCP to the outer header (ECN is copied),
//! send ICMP errors to VMs whose addresses are also in another CCSI or whose VPC is not linked. What
//! they cannot either, keep VMs from the gateway's own addresses, one nftables filter does.

mod ask;
pub(crate) mod compose;
pub(crate) mod devices;
mod held;
pub(crate) mod input;
pub(crate) mod keeper;
pub(crate) mod kernel;
pub(crate) mod known;
pub(crate) mod layout;
pub(crate) mod objects;
mod own_rules;
pub(crate) mod reconcile;
pub(crate) mod sysctl;
mod translate;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use netlink::{Group, Journal, LinkStats, Netfilter, Request, Socket};

use self::devices::failed;
use self::held::Held;
use self::known::Known;
use self::layout::Reason;
use self::objects::{Key, Object, State};
use self::reconcile::reconcile;
use self::translate::{MAX_ENDPOINTS, MAX_VNIS, Translator};
use super::entry::{EntryKey, EntryValue};
use super::model::{Ingress, Packet};
use super::witness::Witness;
use super::{
    Abilities, Applied, Batch, Count, Counters, Desired, Forecast, Limit, Part, Plane, PlaneError,
    Prepared,
};
use crate::config::PlaneConfig;

/// See the module.
#[derive(Debug)]
pub struct RoutesPlane {
    config: PlaneConfig,
    sockets: Option<Sockets>,
    /// `None` until the first resync, and after a call that left the kernel's state unknown.
    held: Option<Held>,
}

/// What the kernel reports that our objects hang on.
const JOURNAL: [Group; 5] = [
    Group::Link,
    Group::Address,
    Group::Route,
    Group::Rule,
    Group::Neighbour,
];

/// The ways into the kernel, and out of it.
#[derive(Debug)]
struct Sockets {
    routes: Socket,
    journal: Journal,
    netfilter: Netfilter,
}

impl RoutesPlane {
    /// A plane with this configuration. Nothing happens until it is prepared.
    #[must_use]
    pub fn new(config: &PlaneConfig) -> RoutesPlane {
        RoutesPlane {
            config: config.clone(),
            sockets: None,
            held: None,
        }
    }

    fn sockets(&mut self) -> Result<&mut Sockets, PlaneError> {
        let sockets = match self.sockets.take() {
            Some(sockets) => sockets,
            None => Sockets {
                routes: Socket::open().map_err(|error| failed("open a netlink socket", error))?,
                journal: Journal::open(&JOURNAL, None)
                    .map_err(|error| failed("have the kernel report changes", error))?,
                netfilter: input::open()?,
            },
        };
        Ok(self.sockets.insert(sockets))
    }
}

impl Plane for RoutesPlane {
    fn name(&self) -> &'static str {
        "routes"
    }

    fn abilities(&self) -> Abilities {
        Abilities::default()
    }

    fn prepare(&mut self) -> Result<Prepared, PlaneError> {
        let config = self.config.clone();
        let Sockets {
            routes, netfilter, ..
        } = self.sockets()?;
        let (host, _) = devices::ensure(routes, netfilter, &config)?;
        devices::probe(routes, &host)?;
        let state = kernel::read(routes, host.protocol, &host.devices())?;
        let adopted = state
            .keys()
            .any(|key| matches!(key, Key::Rule(_) | Key::Route(..)));
        Ok(Prepared { adopted })
    }

    fn resync(&mut self, desired: &Desired) -> Result<Applied, PlaneError> {
        self.held = None;
        let config = self.config.clone();
        let (held, applied) = Held::resync(self.sockets()?, &config, desired)?;
        self.held = Some(held);
        Ok(applied)
    }

    fn apply(&mut self, batch: &Batch) -> Result<Applied, PlaneError> {
        // Put back only on success: after a failure nothing is known.
        let Some(mut held) = self.held.take() else {
            return Err(PlaneError::Kernel {
                action: "apply a change".to_owned(),
                detail: "the kernel's state is unknown: a resync comes first".to_owned(),
            });
        };
        let applied = held.apply(self.sockets()?, batch)?;
        self.held = Some(held);
        Ok(applied)
    }

    fn counters(&mut self) -> Result<Counters, PlaneError> {
        let device = self.config.device.clone();
        let Sockets {
            routes, netfilter, ..
        } = self.sockets()?;
        let ours = devices::ours(routes)?;
        let filtered = input::dropped(netfilter, &device)?;
        let stats = |name: &str| {
            ours.iter()
                .find(|link| link.name == name)
                .map_or(LinkStats::default(), |l| l.stats)
        };
        let vxlan = stats(&device);
        let drops = Reason::ALL.into_iter().map(|reason| {
            let stats = stats(reason.device());
            let mut count = Count {
                packets: stats.tx_packets,
                bytes: stats.tx_bytes,
            };
            if reason == input::REASON {
                count.packets += filtered.packets;
                count.bytes += filtered.bytes;
            }
            (reason.name().to_owned(), count)
        });
        Ok(Counters {
            decapsulated: Count {
                packets: vxlan.rx_packets,
                bytes: vxlan.rx_bytes,
            },
            encapsulated: Count {
                packets: vxlan.tx_packets,
                bytes: vxlan.tx_bytes,
            },
            drops: drops.collect(),
        })
    }

    fn ask(&mut self, packet: &Packet) -> Result<Option<Witness>, PlaneError> {
        let Ingress::Idc = packet.ingress else {
            return Ok(None);
        };
        let interfaces = self.config.idc_interfaces.clone();
        let Sockets { routes, .. } = self.sockets()?;
        let links = routes
            .links()
            .map_err(|error| failed("read the links", error))?;
        let index = |name: &str| links.iter().find(|link| link.name == name).map(|l| l.index);
        let drops = Reason::ALL
            .into_iter()
            .filter_map(|reason| Some((index(reason.device())?, reason)));
        let drops = drops.collect();
        let Some(idc) = interfaces.iter().find_map(|name| index(name)) else {
            return Ok(None);
        };
        ask::ask(routes, (packet.src, packet.dst), idc, &drops)
    }

    fn limits(&self) -> Vec<Limit> {
        let held = self.held.as_ref().map(|held| &held.translator);
        let limit = |name, used: usize, max| Limit {
            name,
            used: used as u64,
            max: max as u64,
        };
        vec![
            limit("vnis", held.map_or(0, Translator::vnis), MAX_VNIS),
            limit(
                "endpoints",
                held.map_or(0, Translator::endpoints),
                MAX_ENDPOINTS,
            ),
        ]
    }

    fn parts(&mut self) -> Result<Vec<Part>, PlaneError> {
        let device = self.config.device.clone();
        let Sockets {
            routes, netfilter, ..
        } = self.sockets()?;
        let present = input::line(netfilter, &device)?.is_some();
        let links = devices::ours(routes)?;
        let drops = Reason::ALL.map(|reason| Part {
            name: format!("device {}", reason.device()),
            present: links.iter().any(|link| link.name == reason.device()),
        });
        let filter = Part {
            name: format!("nftables filter for {device}"),
            present,
        };
        Ok([filter].into_iter().chain(drops).collect())
    }

    fn forecast(&self, permits: &BTreeMap<EntryKey, EntryValue>) -> Forecast {
        let held = self.held.as_ref();
        Forecast {
            objects: held.map_or_else(BTreeMap::new, |held| held.translator.forecast(permits)),
            limits: self.limits(),
        }
    }

    fn dump(&mut self) -> Result<Vec<String>, PlaneError> {
        let config = self.config.clone();
        let Sockets {
            routes, netfilter, ..
        } = self.sockets()?;
        let links = devices::ours(routes)?;
        let indices: Vec<u32> = links.iter().map(|link| link.index).collect();
        let state = kernel::read(routes, config.protocol, &indices)?;
        let mut lines: Vec<String> = state.values().map(Object::to_string).collect();
        lines.extend(
            links
                .iter()
                .map(|link| format!("link {} index {}", link.name, link.index)),
        );
        lines.extend(input::line(netfilter, &config.device)?);
        lines.sort();
        Ok(lines)
    }

    fn remove(&mut self) -> Result<(), PlaneError> {
        self.held = None;
        let config = self.config.clone();
        let Sockets {
            routes: socket,
            netfilter,
            ..
        } = self.sockets()?;
        let links = devices::ours(socket)?;
        if links.iter().any(|link| link.name == config.device) {
            sysctl::stop_forwarding(&config.device)?;
        }
        let indices: Vec<u32> = links.iter().map(|link| link.index).collect();
        let actual = kernel::read(socket, config.protocol, &indices)?;
        let steps = reconcile(&actual, &State::new());
        let mut known = Known::new(config.protocol, indices, [], actual);
        let refused = kernel::run(socket, steps, &mut known)?;
        if let Some(reason) = refused.into_values().next() {
            return Err(PlaneError::Kernel {
                action: "remove".to_owned(),
                detail: reason,
            });
        }
        for link in links {
            let request = Request::delete_link(link.index);
            socket
                .request(request)
                .map_err(|e| failed(&format!("delete {}", link.name), e))?;
        }
        // Last: while the device is there nothing else keeps VMs from this host.
        input::remove(netfilter, &config.device)
    }
}

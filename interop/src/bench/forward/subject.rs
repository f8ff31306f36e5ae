//! The subjects: what turns a stage into a gateway, and which packets it is put to.

use std::fmt;
use std::net::Ipv4Addr;

use ccn::config::PlaneConfig;
use ccn::plane::ebpf::EbpfPlane;
use ccn::plane::routes::RoutesPlane;
use ccn::plane::{Applied, Plane};
use ccn::record::Mode;
use ipnet::Ipv4Net;
use netlink::{ForwardingEntry, LinkChange, Mac, NewLink, Request};

use super::Failure;
use super::frames::{Frames, Kind, Run, Side, Tunnel, Work};
use super::shape::{self, CLASSIC, CLOUD, HOSTS, Shape, VNI};
use super::stage::{CLASSIC_ROUTER, HOST_ROUTER, IDC, Stage, VTEP, add_route_by_mac};

/// The most VMs that the `routes` plane takes, and the most VPCs.
const ROUTES: (u32, u32) = (50_000, 256);
/// The VNI that the plain VXLAN device sends with.
pub const PLAIN_VNI: u32 = 1;
/// UDP port of VXLAN.
pub const VXLAN_PORT: u16 = 4789;
/// Largest inner packet, octets.
pub const MTU: u32 = 1450;
/// MAC of every VXLAN device.
pub const MAC: Mac = Mac([0x02, 0xcc, 0x0e, 0, 0, 1]);

/// Who is put to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Who {
    /// The generator alone: the stack never sees a packet.
    Generator,
    /// The kernel's IP forwarding with one route: nothing is encapsulated.
    PlainIp,
    /// VXLAN devices with one VNI each, one route, one neighbour, one forwarding entry.
    PlainVxlan,
    /// The plane of that name.
    Routes,
    /// The plane of that name.
    Ebpf,
}

impl Who {
    /// All of them.
    pub const ALL: [Who; 5] = [
        Who::Generator,
        Who::PlainIp,
        Who::PlainVxlan,
        Who::Routes,
        Who::Ebpf,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Who::Generator => "generator",
            Who::PlainIp => "plain-ip",
            Who::PlainVxlan => "plain-vxlan",
            Who::Routes => "routes",
            Who::Ebpf => "ebpf",
        }
    }

    /// Why it cannot be put to this, if so.
    pub fn refuses(self, shape: &Shape, way: Way) -> Option<String> {
        let (vms, vpcs) = ROUTES;
        match self {
            Who::PlainIp if way == Way::VpcToVpc => {
                Some("without VPCs there is no way between them".to_owned())
            }
            Who::Routes if shape.vms > vms || shape.vpcs > vpcs => Some(format!(
                "the routes plane holds at most {vms} VMs and {vpcs} VPCs"
            )),
            Who::Routes if shape.mode == Mode::ClassicToVpc => {
                Some("the routes plane tracks no flows".to_owned())
            }
            _ => None,
        }
    }

    /// It as a plane, if it is one.
    pub fn plane(self, config: &PlaneConfig) -> Option<Box<dyn Plane>> {
        match self {
            Who::Routes => Some(Box::new(RoutesPlane::new(config))),
            Who::Ebpf => Some(Box::new(EbpfPlane::new(config))),
            Who::Generator | Who::PlainIp | Who::PlainVxlan => None,
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which way packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Way {
    /// From the IDC to a VM.
    Encapsulate,
    /// From a VM to the IDC.
    Decapsulate,
    /// From a VM to a VM of the same CCSI.
    VpcToVpc,
}

impl Way {
    /// All of them.
    pub const ALL: [Way; 3] = [Way::Encapsulate, Way::Decapsulate, Way::VpcToVpc];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Way::Encapsulate => "encapsulate",
            Way::Decapsulate => "decapsulate",
            Way::VpcToVpc => "vpc-to-vpc",
        }
    }
}

/// A subject that is ready to forward.
pub struct Standing {
    who: Who,
    shape: Shape,
    stage: Stage,
    plane: Option<Box<dyn Plane>>,
}

impl Standing {
    /// Sets it up, on a stage of this name.
    ///
    /// # Errors
    /// The kernel refuses a step, or the plane does not take all that it should hold.
    pub fn build(who: Who, stage: &str, shape: Shape) -> Result<Standing, Failure> {
        let mut standing = Standing {
            who,
            shape,
            stage: Stage::build(stage)?,
            plane: None,
        };
        match who {
            Who::Generator => {}
            Who::PlainIp => {
                standing.plain_classic()?;
                let cloud = Ipv4Net::new(CLOUD.0, CLOUD.1)?;
                let gateway = &mut standing.stage.gateway;
                gateway.add_route(cloud.into(), &[HOST_ROUTER.into()])?;
            }
            Who::PlainVxlan => standing.plain_vxlan()?,
            Who::Routes | Who::Ebpf => standing.hold()?,
        }
        Ok(standing)
    }

    /// Its stage.
    pub fn stage(&mut self) -> &mut Stage {
        &mut self.stage
    }

    /// Who it is.
    pub fn who(&self) -> Who {
        self.who
    }

    fn plain_classic(&mut self) -> Result<(), Failure> {
        let classic = Ipv4Net::new(CLASSIC.0, CLASSIC.1)?;
        let gateway = &mut self.stage.gateway;
        Ok(gateway.add_route(classic.into(), &[CLASSIC_ROUTER.into()])?)
    }

    /// One device that packets come in by, and one with another VNI that they leave by.
    fn plain_vxlan(&mut self) -> Result<(), Failure> {
        self.plain_classic()?;
        let mut add = |name, vni| {
            let device = NewLink::vxlan(name, vni, VTEP.into(), VXLAN_PORT);
            self.stage.gateway.add_link(device.mac(MAC).mtu(MTU))
        };
        add("vx-in", VNI)?;
        let out = add("vx-out", PLAIN_VNI)?.index;
        let mac = Mac(shape::mac(0)?.bytes());
        let entry = ForwardingEntry::remote(out, mac, HOSTS.into());
        let requests = [
            Request::add_forwarding_entry(entry),
            Request::change_link(LinkChange::of(out).up(true)),
        ];
        self.stage
            .gateway
            .batch("add a forwarding entry", &requests)?;
        let via = Ipv4Addr::new(169, 254, 0, 2);
        let cloud = Ipv4Net::new(CLOUD.0, CLOUD.1)?;
        add_route_by_mac(&mut self.stage.gateway, cloud, out, via, mac)?;
        Ok(())
    }

    /// Has the plane hold all of the shape.
    fn hold(&mut self) -> Result<(), Failure> {
        let (who, config, desired) = (self.who, plane_config()?, self.shape.desired()?);
        let namespace = self.stage.gateway.namespace();
        // Made there too: where a plane pins its maps depends on the namespace.
        let (plane, applied) = namespace.enter(|| {
            let mut plane = who.plane(&config).ok_or("no plane")?;
            plane.prepare()?;
            let applied = plane.resync(&desired)?;
            Ok::<_, Failure>((plane, applied))
        })??;
        self.plane = Some(plane);
        all_taken(&applied)
    }

    /// Makes packets go this way.
    ///
    /// # Errors
    /// The system refuses, or not all that was sent came through: then nothing was measured.
    pub fn run(
        &mut self,
        frames: &mut Frames,
        way: Way,
        flows: Flows,
        packets: u32,
    ) -> Result<Run, Failure> {
        let encapsulated = way != Way::Encapsulate && self.who != Who::PlainIp;
        let (link, from, to) = match way {
            Way::Encapsulate => (&self.stage.idc, Side::Classic, Side::Vm),
            Way::Decapsulate => (&self.stage.underlay, Side::Vm, Side::Classic),
            Way::VpcToVpc => (&self.stage.underlay, Side::Vm, Side::Vm),
        };
        let wanted = match way {
            Way::Decapsulate => Kind::Plain,
            Way::Encapsulate if self.who == Who::PlainIp => Kind::Plain,
            Way::Encapsulate | Way::VpcToVpc => Kind::Vxlan,
        };
        let work = Work {
            shape: self.shape,
            from,
            to,
            tunnel: encapsulated.then_some(Tunnel {
                vtep: VTEP,
                mac: MAC,
                one_vni: self.who == Who::PlainVxlan,
            }),
            mac: link.mac.ok_or("an interface without a MAC")?,
            flows: match flows {
                Flows::Any => 0,
                Flows::Of(count) | Flows::EachOf(count) => count,
            },
            in_order: matches!(flows, Flows::EachOf(_)),
            drop: self.who == Who::Generator,
        };
        let index = link.index;
        let namespace = self.stage.gateway.namespace();
        let run = namespace.enter(|| frames.run(&work, index, packets, wanted))??;
        let expected = if work.drop { 0 } else { run.made };
        if (run.sent, run.arrived) != (expected, expected) {
            let text = format!(
                "void: {} packets were made, {} given to the stack, {} came out",
                run.made, run.sent, run.arrived
            );
            return Err(text.into());
        }
        Ok(run)
    }

    /// Takes everything out of the kernel, in an order that it can bear.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn leave(mut self) -> Result<(), Failure> {
        let Some(mut plane) = self.plane.take() else {
            return Ok(());
        };
        let namespace = self.stage.gateway.namespace();
        Ok(namespace.enter(|| plane.remove())??)
    }
}

/// The configuration of a plane on a stage.
///
/// # Errors
/// None as long as the fields are those of the product.
pub fn plane_config() -> Result<PlaneConfig, Failure> {
    let fields = format!("vtep = \"{VTEP}\"\nidc_interfaces = [\"{IDC}\"]\nmtu = {MTU}\n");
    Ok(toml::from_str(&fields)?)
}

/// Whether a plane took all it was asked to hold.
///
/// # Errors
/// The first that it did not take, and why.
pub fn all_taken(applied: &Applied) -> Result<(), Failure> {
    let entries = applied.failures.iter();
    let entries = entries.map(|(key, why)| format!("{key}: {why}"));
    let learned = applied.learned_failures.iter();
    let learned = learned.map(|(prefix, why)| format!("{prefix}: {why}"));
    match entries.chain(learned).next() {
        Some(failure) => Err(failure.into()),
        None => Ok(()),
    }
}

/// Which flows packets are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flows {
    /// Of any: most are of one that was never seen.
    Any,
    /// Of one of so many.
    Of(u32),
    /// Of each of so many in turn.
    EachOf(u32),
}

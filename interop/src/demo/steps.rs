//! The steps of the demo, in their order. Each shows one thing and fails if it is not so; what it
//! says is what was seen.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bgp::Family;
use ipnet::IpNet;
use netlink::RouteFilter;
use serde_json::Value;

use super::Failure;
use super::scene::{LAB_HOST, OFFICE_HOST, Scene, fixture};
use crate::enter::Lab;
use crate::peer::Router;
use crate::process::Launch;
use crate::topology::plan;
use crate::traffic::numbered::{self, Origin, Receiver};
use crate::traffic::{http, ping};
use crate::wait::eventually;

/// How long anything may take that others do: routers, the agent, the kernel.
const SOON: Duration = Duration::from_secs(20);
/// How long an echo request waits for its reply where one is expected.
const REPLY: Duration = Duration::from_secs(2);
/// The same where none is.
const SILENCE: Duration = Duration::from_millis(300);
/// The VM that is linked, and the one with the same name and addresses in the other CCSI.
const WEB: &str = "web-1@web";
const TWIN: &str = "web-1@web-test";
/// A VM in the same CCSI as the linked one, of a VPC that is not linked.
const DB: &str = "db-1@db";
/// Packets of a flow that must arrive, and of one that must not.
const MANY: u64 = 1000;
const FEW: u64 = 100;
/// A port for numbered packets, and one for web pages.
const NUMBERED: u16 = 7000;
const HTTP: u16 = 80;

/// What a step shows.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// What was seen, in the demo's words.
    pub(super) text: String,
    /// What another program printed about it, word by word.
    pub(super) quote: Vec<String>,
}

impl Said {
    pub(super) fn only(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            quote: Vec::new(),
        }
    }

    fn quoting(text: impl Into<String>, quote: impl IntoIterator<Item = String>) -> Self {
        Self {
            text: text.into(),
            quote: quote.into_iter().collect(),
        }
    }

    /// All of it.
    pub(super) fn whole(&self) -> String {
        let parts = std::iter::once(&self.text).chain(&self.quote);
        parts.map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

/// One step.
pub(super) struct Step {
    /// Its name, stable.
    pub(super) name: &'static str,
    /// Shows it. The first step sets the stage that the others find.
    pub(super) show: fn(&Lab, &mut Option<Scene>) -> Result<Said, Failure>,
}

/// All steps.
pub(super) const STEPS: [Step; 18] = [
    step("lab", lab),
    step("import", |_, stage| import(set(stage)?)),
    step("sessions", |_, stage| sessions(set(stage)?)),
    step("before", |_, stage| before(set(stage)?)),
    step("link", |_, stage| link(set(stage)?)),
    step("at-bird", |_, stage| seen(&*set(stage)?.bird)),
    step("at-gobgp", |_, stage| seen(&*set(stage)?.gobgp)),
    step("learned", |_, stage| learned(set(stage)?)),
    step("ping", |_, stage| pings(set(stage)?, Family::Ipv4Unicast)),
    step("ping6", |_, stage| pings(set(stage)?, Family::Ipv6Unicast)),
    step("http", |_, stage| pages(set(stage)?)),
    step("isolation", |_, stage| isolation(set(stage)?)),
    step("closed", |_, stage| closed(set(stage)?)),
    step("explain", |_, stage| explain(set(stage)?)),
    step("counters", |_, stage| counters(set(stage)?)),
    step("unlink", |_, stage| unlink(set(stage)?)),
    step("withdrawn", |_, stage| withdrawn(set(stage)?)),
    step("after", |_, stage| after(set(stage)?)),
];

const fn step(
    name: &'static str,
    show: fn(&Lab, &mut Option<Scene>) -> Result<Said, Failure>,
) -> Step {
    Step { name, show }
}

fn set(stage: &mut Option<Scene>) -> Result<&mut Scene, Failure> {
    stage.as_mut().ok_or_else(|| "there is no lab".into())
}

fn lab(lab: &Lab, stage: &mut Option<Scene>) -> Result<Said, Failure> {
    let scene = stage.insert(Scene::build(lab)?);
    let text = format!(
        "{} namespaces: {}, {}, gateway, 2 hosts, {} VMs and SLBs",
        scene.nodes,
        version("bird", "BIRD")?,
        version("gobgpd", "GoBGP")?,
        scene.instances
    );
    Ok(Said::only(text))
}

/// `BIRD 2.0.12`, from `BIRD version 2.0.12`.
fn version(program: &str, called: &str) -> Result<String, Failure> {
    let finished = Launch::new(program).arg("--version").finish(SOON)?;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    let number = said
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    Ok(format!("{called} {}", number.unwrap_or("(unknown)")))
}

fn import(scene: &mut Scene) -> Result<Said, Failure> {
    let path = fixture();
    let gateway = &scene.gateway;
    gateway.ccn(["import".as_ref(), path.as_os_str()])?;
    let status = gateway.await_settled(SOON)?;
    let count = |name: &str| status["records"][name].as_u64().unwrap_or(0);
    if count("vms") == 0 || count("quarantined") != 0 {
        return Err(format!("not all records are good: {}", status["records"]).into());
    }
    Ok(Said::only(format!(
        "$ ccn import fixtures/region-small: {} VPCs, {} VMs, {} SLB, 0 in quarantine",
        count("vpcs"),
        count("vms"),
        count("slbs")
    )))
}

fn sessions(scene: &mut Scene) -> Result<Said, Failure> {
    let mut words = Vec::new();
    for router in scene.routers() {
        let session = router.await_established(plan::GATEWAY4.into(), SOON)?;
        let config = router.config();
        words.push(format!(
            "{} AS {}: {:?}",
            config.name, config.asn, session.state
        ));
    }
    eventually("the gateway has both sessions", SOON, || {
        match scene.gateway.json(["status"]) {
            Ok(status) if status["peers"]["established"] == 2 => Ok(()),
            Ok(status) => Err(status["peers"].to_string()),
            Err(error) => Err(error.to_string()),
        }
    })?;
    Ok(Said::only(format!("{} (IPv4 and IPv6)", words.join("; "))))
}

fn before(scene: &mut Scene) -> Result<Said, Failure> {
    let said = silent(scene)?;
    Ok(Said::only(format!("not linked: {said}")))
}

fn link(scene: &mut Scene) -> Result<Said, Failure> {
    let order = ["link", "web", "--classic", "office"];
    let said = scene.gateway.ccn(order)?;
    let quote = said.lines().map(str::to_owned);
    Ok(Said::quoting(format!("$ ccn {}", order.join(" ")), quote))
}

/// The subnets of the linked VPC.
fn subnets() -> Result<[IpNet; 2], Failure> {
    Ok(["10.1.0.0/24".parse()?, "fd00:1::/64".parse()?])
}

fn seen(router: &dyn Router) -> Result<Said, Failure> {
    let subnets = subnets()?;
    for subnet in subnets {
        for route in router.await_route(subnet, SOON)? {
            let next_hop: IpAddr = match subnet {
                IpNet::V4(_) => plan::GATEWAY4.into(),
                IpNet::V6(_) => plan::GATEWAY6.into(),
            };
            if route.next_hop != next_hop || route.as_path != [plan::GATEWAY_AS] {
                return Err(format!("not the route it should be: {route}").into());
            }
        }
    }
    let quote = router.show_route(subnets[0])?;
    // What BIRD and GoBGP print above the routes themselves.
    let headings = ["Table ", "Network "];
    let lines = quote
        .answer
        .lines()
        .filter(|line| !line.is_empty() && !headings.iter().any(|h| line.trim().starts_with(h)))
        .map(|line| line.replace('\t', "        "));
    Ok(Said::quoting(format!("$ {}", quote.command), lines))
}

fn learned(scene: &mut Scene) -> Result<Said, Failure> {
    let office = "10.80.1.0/24";
    let routers: Vec<IpAddr> = scene
        .routers()
        .iter()
        .map(|router| router.config().address.into())
        .collect();
    let wanted: Vec<String> = routers.iter().map(ToString::to_string).collect();
    eventually("both routers' paths are learned", SOON, || {
        let routes = scene.gateway.json(["routes"]).map_err(|e| e.to_string())?;
        let all = routes.as_array().map(Vec::as_slice).unwrap_or_default();
        let both = all.iter().any(|route| {
            let next_hops = route["next_hops"].as_array().cloned().unwrap_or_default();
            route["prefix"] == office && next_hops.iter().filter_map(Value::as_str).eq(&wanted)
        });
        both.then_some(()).ok_or_else(|| routes.to_string())
    })?;
    let prefix: IpNet = office.parse()?;
    let gateway = scene.region.gateway();
    let hops = eventually("the kernel has it with both", SOON, || {
        let routes = gateway.netlink().routes(&RouteFilter::default());
        let routes = routes.map_err(|error| error.to_string())?;
        let route = routes
            .iter()
            .find(|r| r.prefix == prefix && r.next_hops.len() == routers.len());
        route
            .map(|r| r.next_hops.len())
            .ok_or_else(|| format!("{routes:?}"))
    })?;
    Ok(Said::only(format!(
        "$ ccn routes: {office} via {}; kernel: ECMP over {hops}",
        wanted.join(" and ")
    )))
}

/// The address of this family that a classic host or an instance has.
fn address(scene: &Scene, name: &str, family: Family) -> Result<IpAddr, Failure> {
    let addrs = match scene.region.host(name) {
        Ok(host) => host.addrs(),
        Err(_) => &scene.region.instance(name)?.addrs,
    };
    addrs
        .iter()
        .copied()
        .find(|addr| addr.is_ipv4() == (family == Family::Ipv4Unicast))
        .ok_or_else(|| format!("{name} has no {family} address").into())
}

/// `web-1` for `web-1@web`, which the text says once.
fn short(name: &str) -> &str {
    name.split('@').next().unwrap_or(name)
}

fn pings(scene: &mut Scene, family: Family) -> Result<Said, Failure> {
    let mut words = Vec::new();
    for (from, to) in [(OFFICE_HOST, WEB), (WEB, OFFICE_HOST)] {
        let target = address(scene, to, family)?;
        let echo = ping::ping(&*scene.region.namespace(from)?, target, 3, REPLY)?;
        if !echo.is_perfect() {
            return Err(format!("{from} to {to}: {}", echo.said).into());
        }
        words.push(format!(
            "{} -> {target}: {} of {}",
            short(from),
            echo.received,
            echo.sent
        ));
    }
    Ok(Said::only(words.join("; ") + " answered"))
}

fn pages(scene: &mut Scene) -> Result<Said, Failure> {
    let mut words = Vec::new();
    for (from, to) in [(OFFICE_HOST, WEB), (WEB, OFFICE_HOST)] {
        let at = SocketAddr::new(address(scene, to, Family::Ipv4Unicast)?, HTTP);
        let page = short(to).to_owned();
        let server = http::Server::start(&*scene.region.namespace(to)?, at, &page)?;
        let got = http::fetch(&*scene.region.namespace(from)?, server.address(), REPLY)?;
        if got.status != 200 || got.body != page || server.requests() != 1 {
            return Err(format!("{from} got {got:?} from {to}").into());
        }
        words.push(format!(
            "http://{} says {} {:?}",
            at.ip(),
            got.status,
            got.body
        ));
    }
    Ok(Said::only(words.join("; ")))
}

fn isolation(scene: &mut Scene) -> Result<Said, Failure> {
    let to = SocketAddr::new(address(scene, WEB, Family::Ipv4Unicast)?, NUMBERED);
    let receiver = Receiver::open(&*scene.region.namespace(WEB)?, to)?;
    let other = Receiver::open(&*scene.region.namespace(TWIN)?, to)?;
    let host = scene.region.namespace(OFFICE_HOST)?;
    let report = numbered::send(&Origin::new(&host), to, &receiver, MANY)?;
    let stray = other.total();
    // Everything that ever arrived there, of whatever kind.
    let frames = scene
        .region
        .instance_node(TWIN)?
        .counters("eth0")?
        .rx_packets;
    if !report.is_perfect() || stray != 0 || frames != 0 {
        return Err(
            format!("{report}; in the other CCSI: {stray} of them, {frames} frames").into(),
        );
    }
    Ok(Said::only(format!(
        "{MANY} UDP packets to {}: prod's web-1 got {}, test's web-1 got {stray}",
        to.ip(),
        report.arrived
    )))
}

/// Who sends to whom what must not arrive.
const CLOSED: [(&str, &str, &str); 4] = [
    (DB, OFFICE_HOST, "VPC db is not linked"),
    (TWIN, OFFICE_HOST, "VPC web-test is not linked"),
    (WEB, LAB_HOST, "classic network lab is not linked"),
    (LAB_HOST, WEB, "nor is it in this direction"),
];

fn closed(scene: &mut Scene) -> Result<Said, Failure> {
    let mut words = Vec::new();
    for (from, to, why) in CLOSED {
        let at = SocketAddr::new(address(scene, to, Family::Ipv4Unicast)?, NUMBERED);
        let receiver = Receiver::open(&*scene.region.namespace(to)?, at)?;
        let origin = scene.region.namespace(from)?;
        let report = numbered::send(&Origin::new(&origin), at, &receiver, FEW)?;
        if receiver.total() != 0 || report.refused != 0 {
            return Err(format!("{from} to {to}, though {why}: {report}").into());
        }
        let name = |name: &'static str| match name.split_once('@') {
            Some((_, vpc)) => vpc,
            None => name.trim_end_matches("-host"),
        };
        words.push(format!("{} -> {}", name(from), name(to)));
    }
    let pairs = words.join(", ");
    Ok(Said::only(format!("0 of {FEW} arrive: {pairs}")))
}

fn explain(scene: &mut Scene) -> Result<Said, Failure> {
    let from = address(scene, OFFICE_HOST, Family::Ipv4Unicast)?.to_string();
    let to = address(scene, WEB, Family::Ipv4Unicast)?.to_string();
    let trace = scene.gateway.json(["explain", &from, &to])?;
    if trace["verdict"]["action"] != "encapsulate" {
        return Err(format!("not what happens: {trace}").into());
    }
    let said = scene.gateway.ccn(["explain", &from, &to])?;
    if trace["kernel"]["agrees"] != true {
        return Err(format!("the kernel does not say the same: {trace}").into());
    }
    // A screen is small: what the other lines say anyway is left out.
    let lines = said
        .lines()
        .filter(|line| {
            !["ingress ", "vm ", "host "]
                .iter()
                .any(|step| line.starts_with(step))
        })
        .map(str::to_owned);
    Ok(Said::quoting(format!("$ ccn explain {from} {to}"), lines))
}

fn counters(scene: &mut Scene) -> Result<Said, Failure> {
    let counters = scene.gateway.json(["plane", "counters"])?;
    let packets = |pointer: &str| {
        let count = counters
            .pointer(pointer)
            .and_then(|count| count["packets"].as_u64());
        count.unwrap_or(0)
    };
    let (to, from) = (packets("/encapsulated"), packets("/decapsulated"));
    let (no_link, source) = (
        packets("/drops/no-link"),
        packets("/drops/not-linked-source"),
    );
    // Three of the flows that must not arrive came from VMs, one from a classic host.
    if to < MANY || from == 0 || no_link < 3 * FEW || source < FEW {
        return Err(format!("they do not add up: {counters}").into());
    }
    Ok(Said::only(format!(
        "{to} packets to VPCs, {from} from; dropped no-link {no_link}, not-linked-source {source}"
    )))
}

fn unlink(scene: &mut Scene) -> Result<Said, Failure> {
    let said = scene.gateway.ccn(["unlink", "web"])?;
    Ok(Said::only(format!("$ ccn unlink web: {}", said.trim())))
}

fn withdrawn(scene: &mut Scene) -> Result<Said, Failure> {
    let subnets = subnets()?;
    let mut words = Vec::new();
    for router in scene.routers() {
        for subnet in subnets {
            router.await_no_route(subnet, SOON)?;
        }
        let quote = router.show_route(subnets[0])?;
        words.push(format!("{}: {}", router.config().name, quote.answer.trim()));
    }
    Ok(Said::only(words.join("; ")))
}

fn after(scene: &mut Scene) -> Result<Said, Failure> {
    Ok(Said::only(silent(scene)?))
}

/// The linked pair cannot reach each other, in either direction and family.
fn silent(scene: &mut Scene) -> Result<String, Failure> {
    let mut words = Vec::new();
    for (from, to) in [(OFFICE_HOST, WEB), (WEB, OFFICE_HOST)] {
        for family in Family::ALL {
            let target = address(scene, to, family)?;
            let echo = ping::ping(&*scene.region.namespace(from)?, target, 2, SILENCE)?;
            if echo.received != 0 {
                return Err(format!("{from} reaches {to}: {}", echo.said).into());
            }
        }
        words.push(format!("{} cannot ping {}", short(from), short(to)));
    }
    Ok(words.join(", "))
}

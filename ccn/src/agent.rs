//! The daemon on a gateway: the one place that starts tasks and owns channels.
//!
//! Its shape is the sentence it carries out: record -> inventory -> plan -> plane -> announcement,
//! and the answer back as an acknowledged generation.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bgp::{Speaker, StartError, Stop};
use netlink::{Group, Monitor};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::announce::Relearning;
use crate::api;
use crate::api::socket::SocketError;
use crate::cluster::{self, Tidings};
use crate::config::{Config, PlaneConfig, PlaneKind, StoreConfig};
use crate::controller::{AgentHandle, Controller, Facts, Parts, note, sleep_until};
use crate::doctor::{Choice, Surroundings};
use crate::drain::{self, DrainHandle, Drainer, Mark, State};
use crate::ledger::Loading;
use crate::metrics;
use crate::order::Announcing;
use crate::plane::ebpf::EbpfPlane;
use crate::plane::routes::RoutesPlane;
use crate::plane::thread::{OrderError, PlaneHandle};
use crate::plane::{Abilities, Plane};
use crate::reach::{self, Interests, Reach};
use crate::record::{Gateway, GatewayName, GroupName, Health, IdError, Role, Vtep};
use crate::reload::Reloader;
use crate::startup::Startup;
use crate::store::embedded::EmbeddedStore;
use crate::store::etcd::EtcdStore;
use crate::store::{Store, StoreError};
use crate::suspicion::{Suspect, Suspicion};
use crate::trace::Tracer;

/// Why an agent cannot start, or had to stop.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The admin socket cannot be had.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The store cannot be had, or broke.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The plane cannot work here.
    #[error("plane: {0}")]
    Plane(#[from] OrderError),
    /// The speaker cannot start.
    #[error("bgp: {0}")]
    Speaker(#[from] StartError),
    /// The address for metrics cannot be had.
    #[error(transparent)]
    Metrics(#[from] metrics::ListenError),
    /// What the configuration says cannot be registered in the store of a cluster.
    #[error("{field}: {reason}")]
    Unfit {
        /// The field.
        field: &'static str,
        /// Why.
        reason: String,
    },
    /// It cannot be known whether this gateway is drained.
    #[error("{}: whether this gateway is drained cannot be read: {source}", .path.display())]
    Drained {
        /// The file that would say so.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel cannot be watched.
    #[error("netlink: {0}")]
    Netlink(#[from] netlink::Error),
    /// The system gave no thread, signal or host name.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A part ended that never ends.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs an agent until SIGTERM or SIGINT. Forwarding stays in the kernel when it ends. Where the configuration says so
/// the gateway is drained first, and a second signal ends that.
///
/// # Errors
/// See [`AgentError`]. Nothing was announced when it could not start.
pub async fn run(config: Config, path: PathBuf) -> Result<(), AgentError> {
    let mut startup = Startup::new(Instant::now());
    let monitor = Monitor::open(
        &[
            Group::Link,
            Group::Address,
            Group::Route,
            Group::Rule,
            Group::Traffic,
        ],
        None,
    )?;
    let socket = api::socket::bind(&config.admin_socket)?;
    let _unbind = Unbind(&config.admin_socket);
    let scrapes = metrics::listen(config.metrics.as_ref()).await?;
    let (store, in_cluster) = open_store(&config.store)?;
    let (mark, drained) = drained(&config.store)?;
    note(&mut startup, "open", 1, "store");
    // While the kernel looks at our programs.
    let loading = Loading::begin(store);
    let (plane, choice) = choose_plane(&config.plane);
    let plane = PlaneHandle::spawn(plane)?;
    let abilities = plane.abilities();
    let adopted = plane.prepare().await?.adopted;
    info!(plane = plane.name(), adopted, "the plane is ready");
    note(&mut startup, "prepare", 1, "plane");
    let interests = Interests::of(&config.plane);
    let mut reach = Reach::new(interests.clone());
    let seen = reach::follow::look()?;
    let speaker = Speaker::start(config.bgp.speaker(adopted))?;
    reach::follow::tell(&mut reach, &seen, &speaker).await;
    let facts = facts(&config)?;
    let gateway = facts.gateway.clone();
    let (mut controller, agent) = Controller::new(Parts {
        relearning: relearning(&config, adopted, facts.started),
        facts,
        loading,
        plane: plane.clone(),
        speaker: speaker.clone(),
        drain: config.bgp.drain(),
        announcing: match drained {
            Some(_) => Announcing::Nothing,
            None => Announcing::Everything,
        },
        startup,
    })
    .await?;
    let terms = config.bgp.drain_terms();
    let (drainer, drain) = Drainer::new(drained, mark, terms, agent.clone(), speaker.clone());
    let reloader = Reloader::new(path, config.clone(), speaker.clone(), adopted);
    let (tracer, trace) = Tracer::new(plane);
    let agent = agent
        .with_reloader(Arc::new(reloader))
        .with_tracer(trace.clone())
        .with_drainer(drain.clone())
        .with_surroundings(Arc::new(Surroundings {
            config: config.plane.clone(),
            choice,
        }));
    if let Some(store) = in_cluster {
        let (name, own) = registration(&config, &gateway, abilities)?;
        let of_links = controller.link_reports();
        tokio::spawn(cluster::answer(store.clone(), name.clone(), agent.clone()));
        let told = Tidings {
            reports: controller.report(),
            drain: drain.reports(),
            agent: agent.clone(),
        };
        tokio::spawn(cluster::register(store, name, own, told, of_links));
    }

    let mut controller = tokio::spawn(controller.run());
    tokio::spawn(tracer.run());
    tokio::spawn(drainer.run());
    let admin = tokio::spawn(api::serve(socket, agent.clone()));
    if let Some(listener) = scrapes {
        tokio::spawn(metrics::serve(listener, agent.clone()));
    }
    let hang_up = tokio::spawn(reload_on_hang_up(agent.clone()));
    let wake = Arc::new(Notify::new());
    tokio::spawn(reach::follow::follow(reach, wake.clone(), speaker.clone()));
    let suspicion = Suspicion::new(&config.plane);
    let reached = move |event: &netlink::Event| {
        if interests.concerns(event) {
            wake.notify_one();
        }
    };
    let monitor = tokio::spawn(watch_kernel(monitor, suspicion, reached, agent));
    let ended = async {
        tokio::select! {
            result = &mut controller => match result {
                Ok(Err(error)) => AgentError::Store(error),
                _ => AgentError::Ended("the controller"),
            },
            result = hang_up => match result {
                Ok(Err(error)) => AgentError::Io(error),
                _ => AgentError::Ended("the reload"),
            },
            _ = admin => AgentError::Ended("the admin socket"),
            result = monitor => match result {
                Ok(Err(error)) => AgentError::Netlink(error),
                _ => AgentError::Ended("the kernel monitor"),
            },
        }
    };
    // Whoever is told that we are ready may stop us at once.
    let mut stop = StopSignals::new()?;
    notify(&[sd_notify::NotifyState::Ready]);
    info!(socket = %config.admin_socket.display(), "the agent is ready");
    let outcome = {
        tokio::pin!(ended);
        let outcome = tokio::select! {
            error = &mut ended => Err(error),
            () = stop.next() => Ok(()),
        };
        notify(&[sd_notify::NotifyState::Stopping]);
        if outcome.is_ok() && config.bgp.drain_on_stop {
            tokio::select! {
                () = drain_before_stop(&drain) => {}
                () = stop.next() => warn!("told to stop a second time: not drained"),
                error = &mut ended => warn!(%error, "while the gateway was drained"),
            }
        }
        outcome
    };
    info!("stopping; forwarding stays in the kernel");
    trace.stop().await;
    // What the routers said goes with their sessions; the kernel is to keep it, so the controller
    // must not hear of that any more.
    if !controller.is_finished() {
        controller.abort();
        // Cancelled, which is no news.
        let _ = controller.await;
    }
    // No Cease: routers that agreed to graceful restart keep our routes until we are back.
    speaker.stop(Stop::KeepForwarding).await;
    outcome
}

/// Takes the admin socket out of the file system when the agent ends, also when it could not start.
struct Unbind<'a>(&'a Path);

impl Drop for Unbind<'_> {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(self.0) {
            warn!(%error, "cannot remove the admin socket");
        }
    }
}

/// Takes everything of the plane out of the kernel. For when no agent runs.
///
/// # Errors
/// When an agent runs, or the kernel refuses.
pub fn remove_plane(config: &Config) -> Result<(), AgentError> {
    // Held until we are done: no agent starts meanwhile.
    let _socket = api::socket::bind(&config.admin_socket)?;
    let _unbind = Unbind(&config.admin_socket);
    // Whichever plane it was, and whatever it was switched from.
    let removed = EbpfPlane::new(&config.plane).remove();
    let removed = removed.and_then(|()| RoutesPlane::new(&config.plane).remove());
    Ok(removed.map_err(OrderError::Plane)?)
}

/// Says in the store of a cluster, if it is one, that this gateway has nothing of any link any more: whoever takes a link
/// away need not wait for its word. For when the plane is removed.
///
/// # Errors
/// When the store cannot be told.
pub async fn tell_removed(config: &Config) -> Result<(), AgentError> {
    if let StoreConfig::Etcd(etcd) = &config.store {
        let name = registered_name(&own_name(config)?)?;
        let store = EtcdStore::without_snapshot(etcd.clone());
        store.forget_gateway_everywhere(&name).await?;
    }
    Ok(())
}

/// What the kernel holds of the plane's, a line an object, whether or not an agent runs.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn dump_plane(config: &Config) -> Result<Vec<String>, AgentError> {
    let mut ebpf = EbpfPlane::new(&config.plane);
    let lines = match ebpf.is_there() {
        true => ebpf.dump(),
        false => RoutesPlane::new(&config.plane).dump(),
    };
    Ok(lines.map_err(OrderError::Plane)?)
}

/// Opens the store, its file in a folder that is made when this gateway starts for the first time. Where it is
/// that of a cluster, it is given once more as what it is.
fn open_store(config: &StoreConfig) -> Result<(Arc<dyn Store>, Option<EtcdStore>), StoreError> {
    let path = match config {
        StoreConfig::Embedded { path } => path,
        StoreConfig::Etcd(etcd) => &etcd.snapshot,
    };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| StoreError::Io {
            path: path.to_owned(),
            action: "its folder cannot be made",
            detail: error.to_string(),
        })?;
    }
    Ok(match config {
        StoreConfig::Embedded { path } => (Arc::new(EmbeddedStore::open(path)?), None),
        StoreConfig::Etcd(etcd) => {
            let store = EtcdStore::open(etcd.clone())?;
            (Arc::new(store.clone()), Some(store))
        }
    })
}

/// Where it stands that this gateway is drained, and since when it is, in seconds since 1970.
fn drained(store: &StoreConfig) -> Result<(Mark, Option<u64>), AgentError> {
    let mark = Mark::beside(match store {
        StoreConfig::Embedded { path } => path,
        StoreConfig::Etcd(etcd) => &etcd.snapshot,
    });
    let since = mark.read().map_err(|source| AgentError::Drained {
        path: mark.path().to_owned(),
        source,
    })?;
    if since.is_some() {
        warn!("this gateway is drained: nothing is announced until `ccn undrain`");
    }
    Ok((mark, since))
}

/// Has others carry what this gateway carries, before it stops.
async fn drain_before_stop(drain: &DrainHandle) {
    let usual = drain.usual();
    if drain.report().state == State::Drained {
        return;
    }
    // The service manager is patient for as long as this can take, and then some.
    let longest = (usual.longest() + Duration::from_secs(10)).as_micros();
    notify(&[
        sd_notify::NotifyState::ExtendTimeoutUsec(longest.try_into().unwrap_or(u32::MAX)),
        sd_notify::NotifyState::Status("draining before it stops"),
    ]);
    info!(
        at_most_s = usual.longest().as_secs(),
        "draining before the agent stops"
    );
    match drain.drain(usual).await {
        Ok(drain::Report {
            why_not: Some(why_not),
            ..
        }) => warn!(why_not, "stopping although the gateway is not safe to stop"),
        Ok(report) => info!(
            withdrawn = report.prefixes_withdrawn,
            "drained, safe to stop"
        ),
        Err(error) => warn!(error = error.message, "not drained"),
    }
}

/// What this gateway registers as: its name, and what of it does not change.
fn registration(
    config: &Config,
    name: &str,
    abilities: Abilities,
) -> Result<(GatewayName, Gateway), AgentError> {
    let name = registered_name(name)?;
    let vtep = Vtep::new(config.plane.vtep).map_err(|error| AgentError::Unfit {
        field: "plane.vtep",
        reason: error.to_string(),
    })?;
    let own = Gateway {
        group: config.group.clone(),
        vtep,
        router_id: config.bgp.router_id,
        asn: config.bgp.asn,
        roles: vec![Role::ClassicLink],
        generation: 0,
        health: Health::Starting,
        draining: false,
        abilities: Some(abilities),
        fullest: None,
        peers: None,
        extra: serde_json::Map::new(),
    };
    Ok((name, own))
}

fn registered_name(name: &str) -> Result<GatewayName, AgentError> {
    name.parse().map_err(|error: IdError| AgentError::Unfit {
        field: "name",
        reason: error.to_string(),
    })
}

/// The plane that is configured, or the best that works here.
fn choose_plane(config: &PlaneConfig) -> (Box<dyn Plane>, Choice) {
    let mut choice = Choice {
        auto: config.kind == PlaneKind::Auto,
        refused: None,
    };
    let mut plane = EbpfPlane::new(config);
    match config.kind {
        PlaneKind::Ebpf => {}
        PlaneKind::Routes => return (Box::new(RoutesPlane::new(config)), choice),
        // Whether it works here is known when it is ready, and that it stays.
        PlaneKind::Auto => match plane.prepare() {
            Ok(_) => info!("plane auto: ebpf, which works here"),
            Err(error) => {
                info!(%error, "plane auto: routes, since ebpf does not work here");
                choice.refused = Some(error.to_string());
                return (Box::new(RoutesPlane::new(config)), choice);
            }
        },
    }
    (Box::new(plane), choice)
}

/// What is waited for before what an earlier run has left of learned routes is taken away; nothing where it left
/// nothing.
fn relearning(config: &Config, adopted: bool, started: Instant) -> Option<Relearning> {
    if !adopted {
        return None;
    }
    let expected: BTreeSet<_> = config
        .bgp
        .peers
        .iter()
        .flat_map(|peer| {
            peer.families
                .iter()
                .map(|family| (peer.name.clone(), *family))
        })
        .collect();
    let strangers = !config.bgp.dynamic.is_empty();
    let deadline = started + config.bgp.restart_time();
    Some(Relearning::new(expected, strangers, deadline))
}

fn own_name(config: &Config) -> io::Result<String> {
    Ok(match &config.name {
        Some(name) => name.clone(),
        None => nix::unistd::gethostname()?.to_string_lossy().into_owned(),
    })
}

fn facts(config: &Config) -> io::Result<Facts> {
    let gateway = own_name(config)?;
    let group: GroupName = config.group.clone();
    let audit = config.plane.audit_interval;
    Ok(Facts {
        gateway,
        group,
        started: Instant::now(),
        audit: (audit > 0).then(|| Duration::from_secs(audit)),
    })
}

/// Asks for a comparison whenever something other than us may have changed the kernel's state, and
/// hands every event on.
async fn watch_kernel(
    mut monitor: netlink::Monitor,
    mut suspicion: Suspicion,
    hand_on: impl Fn(&netlink::Event),
    agent: AgentHandle,
) -> Result<(), netlink::Error> {
    loop {
        let due = suspicion.due();
        tokio::select! {
            event = monitor.next() => {
                let event = event?;
                suspicion.event(&event, Instant::now());
                hand_on(&event);
            }
            () = sleep_until(due) => {
                match suspicion.take(Instant::now()) {
                    Some(Suspect::Look(reason)) => agent.look(reason).await,
                    Some(Suspect::Compare(reason)) => agent.resync(reason).await,
                    None => {}
                }
            }
        }
    }
}

/// Reads the configuration again at every SIGHUP.
async fn reload_on_hang_up(agent: AgentHandle) -> io::Result<()> {
    let mut hang_up = signal(SignalKind::hangup())?;
    while hang_up.recv().await.is_some() {
        if let Err(error) = agent.reload().await {
            warn!(error = %error.message, "the configuration was not taken");
        }
    }
    Ok(())
}

/// What ends a daemon.
pub(crate) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(crate) fn new() -> io::Result<StopSignals> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Tells the service manager, where there is one.
pub(crate) fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot notify the service manager");
    }
}

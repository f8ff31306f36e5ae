//! What the admin socket holds of the controller: orders and questions, answered when done.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bgp::mrt::{DumpError, Dumped};
use bgp::{PeerError, PeerStatus, Reconfigured, Speaker};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Command, Goal, View};
use crate::announce;
use crate::api::error::{ApiError, ErrorCode};
use crate::api::{LimitView, LinkView, PeersView, PlaneDetail, PlaneView, RouteView, Status};
use crate::doctor::{self, Report, Surroundings};
use crate::drain::DrainHandle;
use crate::explain::Explanation;
use crate::ledger::LedgerHandle;
use crate::order::Announcing;
use crate::plane::thread::{OrderError, PlaneHandle};
use crate::plane::traffic::Wanted;
use crate::plane::witness::Testimony;
use crate::record::{GroupName, LinkId, RecordKey, Vni, VpcId};
use crate::reload::Reloader;
use crate::trace::{Told, TraceHandle};

/// Speaks to the controller; cheap to clone.
#[derive(Clone)]
pub struct AgentHandle {
    commands: mpsc::Sender<Command>,
    ledger: LedgerHandle,
    group: GroupName,
    plane: PlaneHandle,
    speaker: Speaker,
    reloader: Option<Arc<Reloader>>,
    tracer: Option<TraceHandle>,
    drainer: Option<DrainHandle>,
    surroundings: Option<Arc<Surroundings>>,
}

fn peer_error(error: PeerError) -> ApiError {
    let code = match error {
        PeerError::Unknown(_) => ErrorCode::NotFound,
        PeerError::Refresh(_) => ErrorCode::Refused,
        PeerError::Stopped(_) => return stopping(),
    };
    ApiError::new(code, error.to_string())
}

fn stopping() -> ApiError {
    ApiError::stopping("the agent")
}

impl AgentHandle {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        ledger: LedgerHandle,
        group: GroupName,
        plane: PlaneHandle,
        speaker: Speaker,
    ) -> Self {
        AgentHandle {
            commands,
            ledger,
            group,
            plane,
            speaker,
            reloader: None,
            tracer: None,
            drainer: None,
            surroundings: None,
        }
    }

    /// The same, able to read the configuration again.
    #[must_use]
    pub fn with_reloader(self, reloader: Arc<Reloader>) -> Self {
        AgentHandle {
            reloader: Some(reloader),
            ..self
        }
    }

    /// The same, able to tell what packets pass.
    #[must_use]
    pub fn with_tracer(self, tracer: TraceHandle) -> Self {
        AgentHandle {
            tracer: Some(tracer),
            ..self
        }
    }

    /// The same, able to drain this gateway.
    #[must_use]
    pub fn with_drainer(self, drainer: DrainHandle) -> Self {
        AgentHandle {
            drainer: Some(drainer),
            ..self
        }
    }

    /// The same, able to say what is wrong with this gateway.
    #[must_use]
    pub fn with_surroundings(self, surroundings: Arc<Surroundings>) -> Self {
        AgentHandle {
            surroundings: Some(surroundings),
            ..self
        }
    }

    /// The speaker, for what it alone knows.
    pub(super) fn speaker(&self) -> &Speaker {
        &self.speaker
    }

    /// The plane, for what it alone knows.
    #[must_use]
    pub fn plane(&self) -> &PlaneHandle {
        &self.plane
    }

    pub(super) async fn send<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .await
            .map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }

    /// Asks the controller's state.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.send(|reply| {
            Command::Ask(Box::new(move |view| {
                // A caller that hung up needs no answer.
                let _ = reply.send(question(view));
            }))
        })
        .await
    }

    /// The VPC that has each VNI, in the same order.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn vpcs_with(&self, vnis: Vec<Vni>) -> Result<Vec<Option<VpcId>>, ApiError> {
        let vpcs = move |view: &View<'_>| {
            let vpcs = vnis.iter().map(|vni| view.vpc_with_vni(*vni));
            vpcs.collect()
        };
        self.ask(vpcs).await
    }

    /// The records, and the way to change them.
    #[must_use]
    pub fn ledger(&self) -> &LedgerHandle {
        &self.ledger
    }

    /// The group that this gateway is of.
    #[must_use]
    pub fn group(&self) -> &GroupName {
        &self.group
    }

    /// Has the whole kernel state compared, for the reason given.
    pub async fn resync(&self, reason: &'static str) {
        // An agent that is stopping compares nothing.
        let _ = self.commands.send(Command::Resync(reason)).await;
    }

    /// Has the plane mend what the kernel has reported to be other than desired.
    pub async fn look(&self, reason: &'static str) {
        // An agent that is stopping mends nothing.
        let _ = self.commands.send(Command::Look(reason)).await;
    }

    pub(super) async fn wait_for(
        &self,
        link: &LinkId,
        goal: Goal,
        wait: Duration,
    ) -> Result<(), ApiError> {
        let waiting = self.send(|reply| Command::Await {
            link: link.clone(),
            goal,
            reply,
        });
        if let Ok(answer) = timeout(wait, waiting).await {
            return answer?;
        }
        let phase = {
            let link = link.clone();
            self.ask(move |view| view.link_phase(&link)).await?
        };
        let phase = phase.map_or_else(|| "gone".to_owned(), |phase| phase.to_string());
        Err(ApiError::new(
            ErrorCode::Timeout,
            format!(
                "the link {link} is stored but not done after {} ms: it is {phase}; \
                 it goes on, see `ccn links`",
                wait.as_millis()
            ),
        ))
    }

    /// Every link, with the peers that have its prefixes.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn links(&self) -> Result<Vec<LinkView>, ApiError> {
        let mut links = self.ask(|view| view.links()).await?;
        let advertised = self.speaker.advertised().await;
        let aggregates = self.speaker.aggregates().await;
        for link in &mut links {
            link.advertised_to = advertised
                .iter()
                .filter(|(_, routes)| {
                    link.announced
                        .iter()
                        .any(|prefix| announce::is_told(prefix, routes, &aggregates))
                })
                .map(|(peer, _)| peer.clone())
                .collect();
        }
        Ok(links)
    }

    /// Every peer.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, ApiError> {
        Ok(self.speaker.peers().await)
    }

    /// Takes the session with a peer down, with a text for its operator, or lets it come up.
    ///
    /// # Errors
    /// When there is no such peer, or the agent is stopping.
    pub async fn set_peer_admin(
        &self,
        name: &str,
        up: bool,
        text: Option<&str>,
    ) -> Result<(), ApiError> {
        let done = self.speaker.set_peer_admin(name, up, text).await;
        done.map_err(peer_error)
    }

    /// Asks a peer for all its routes again.
    ///
    /// # Errors
    /// When there is no such peer, it cannot be asked, or the agent is stopping.
    pub async fn refresh_peer(&self, name: &str) -> Result<(), ApiError> {
        self.speaker.refresh_peer(name).await.map_err(peer_error)
    }

    /// So much may be announced from now on. Answered when the speaker knows, with how many prefixes were announced
    /// before, and are now.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn set_announcing(&self, announcing: Announcing) -> Result<(usize, usize), ApiError> {
        self.send(|reply| Command::Announcing { announcing, reply })
            .await
    }

    /// What drains this gateway.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub fn drainer(&self) -> Result<&DrainHandle, ApiError> {
        self.drainer.as_ref().ok_or_else(stopping)
    }

    /// Reads the configuration again.
    ///
    /// # Errors
    /// See [`Reloader::reload`].
    pub async fn reload(&self) -> Result<Reconfigured, ApiError> {
        match &self.reloader {
            Some(reloader) => reloader.reload().await,
            None => Err(ApiError::new(
                ErrorCode::Internal,
                "this agent was not started from a file",
            )),
        }
    }

    /// Routes announced and learned.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn routes(&self) -> Result<Vec<RouteView>, ApiError> {
        let advertised = self.speaker.advertised().await;
        let mut routes: Vec<RouteView> = self.ask(|view| view.announced()).await?;
        for aggregate in self.speaker.aggregates().await {
            let inside = |route: &&RouteView| aggregate.prefix.contains(&route.prefix);
            let links = routes.iter().filter(inside).flat_map(|route| &route.links);
            let links: BTreeSet<LinkId> = links.cloned().collect();
            if aggregate.contributors > 0 {
                routes.push(RouteView::aggregate(
                    &aggregate,
                    links.into_iter().collect(),
                ));
            }
        }
        for route in &mut routes {
            route.peers = advertised
                .iter()
                .filter(|(_, routes)| routes.contains_key(&route.prefix))
                .map(|(peer, _)| peer.clone())
                .collect();
        }
        routes.extend(self.speaker.routes().await.iter().map(RouteView::learned));
        Ok(routes)
    }

    /// What is limited: by the plane, and by the terms of the peers.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn limits(&self) -> Result<Vec<LimitView>, ApiError> {
        let plane = self.plane.limits().await;
        let plane = plane.map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
        let mut limits: Vec<LimitView> = plane.into_iter().map(LimitView::from).collect();
        let peers = self.speaker.peers().await;
        limits.extend(peers.iter().flat_map(LimitView::of_peer));
        let groups = self.speaker.dynamic_groups().await;
        limits.extend(groups.iter().map(LimitView::of_group));
        Ok(limits)
    }

    /// What would happen to a packet, by the records and by the kernel.
    ///
    /// # Errors
    /// When it cannot be said which VPC the packet would come from, or the agent is stopping.
    pub async fn explain(
        &self,
        src: IpAddr,
        dst: IpAddr,
        vni: Option<Vni>,
    ) -> Result<Explanation, ApiError> {
        let mut explained = self.ask(move |view| view.explain(src, dst, vni)).await??;
        explained.kernel = match self.plane.ask(explained.packet).await {
            Ok(Some(says)) => Testimony::of(says, &explained.trace.verdict),
            Ok(None) => Testimony::none(format!(
                "cannot be asked by way of the plane `{}`",
                self.plane.name()
            )),
            Err(error) => Testimony::none(error.to_string()),
        };
        Ok(explained)
    }

    /// Watches packets that pass or are dropped until the receiver is dropped.
    ///
    /// # Errors
    /// There is no such link, the plane samples no packets, or the agent is stopping.
    pub async fn trace(&self, wanted: Wanted) -> Result<mpsc::Receiver<Told>, ApiError> {
        if let Some(link) = wanted.link.clone() {
            let key = RecordKey::Link(link.clone());
            if !self.ask(move |view| view.is_stored(&key)).await? {
                let message = format!("no link is called {link}; see `ccn links`");
                return Err(ApiError::new(ErrorCode::NotFound, message));
            }
        }
        match &self.tracer {
            Some(tracer) => tracer.watch(wanted).await,
            None => Err(stopping()),
        }
    }

    /// The plane in full.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or the agent is stopping.
    pub async fn plane_detail(&self) -> Result<PlaneDetail, ApiError> {
        let internal = |error: OrderError| ApiError::new(ErrorCode::Internal, error.to_string());
        let surroundings = self.surroundings.as_ref();
        let limits = self.plane.limits().await.map_err(internal)?;
        Ok(PlaneDetail {
            plane: PlaneView {
                name: self.plane.name(),
                ..self.ask(|view| view.status()).await?.plane
            },
            choice: surroundings.map(|it| it.choice.clone()),
            abilities: self.plane.abilities(),
            parts: self.plane.parts().await.map_err(internal)?,
            limits: limits.into_iter().map(LimitView::from).collect(),
        })
    }

    /// What is wrong with this gateway, asking model and kernel about so many packets.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn doctor(&self, packets: usize) -> Result<Report, ApiError> {
        let surroundings = self.surroundings.as_ref().ok_or_else(stopping)?;
        let facts = doctor::gather(self, surroundings, packets).await?;
        Ok(doctor::examine(&facts))
    }

    /// Writes every accepted route to a file of the gateway, as MRT TABLE_DUMP_V2.
    ///
    /// # Errors
    /// When the file cannot be written, or the agent is stopping.
    pub async fn dump_mrt(&self, path: PathBuf) -> Result<Dumped, ApiError> {
        self.speaker.dump_mrt(path).await.map_err(|error| {
            let code = match error {
                DumpError::File { .. } => ErrorCode::Refused,
                DumpError::Table(_) | DumpError::Stopped => ErrorCode::Internal,
            };
            ApiError::new(code, error.to_string())
        })
    }

    /// The gateway as a whole.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn status(&self) -> Result<Status, ApiError> {
        let peers = self.speaker.peers().await;
        let mut status = self.ask(|view| view.status()).await?;
        let groups = self.speaker.dynamic_groups().await;
        let refused = self.speaker.refused_connections().await;
        let hops = self.speaker.next_hops().await;
        status.peers = PeersView::new(&peers, groups, &hops, refused);
        status.plane.name = self.plane.name();
        if let Some(drainer) = &self.drainer {
            status.drain = drainer.report();
        }
        match self.plane.counters().await {
            Ok(counters) => status.counters = counters,
            Err(error) => status.plane.last_error = Some(error.to_string()),
        }
        Ok(status)
    }
}

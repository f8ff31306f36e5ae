//! The shell of [`super::Drain`]: orders from handles, answers from speaker, plane and controller, and the clock.

use std::time::{Duration, Instant};

use bgp::{PeerName, SessionState, Speaker};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::{Carrier, Counts, Drain, Mark, Output, Report, State, Terms, Ticket, Ways};
use crate::api::error::{ApiError, ErrorCode};
use crate::controller::{AgentHandle, sleep_until};
use crate::ledger::seconds_now;
use crate::plane::traffic::TwoWays;

type Reply = oneshot::Sender<Result<Report, ApiError>>;

enum Request {
    Drain(Terms, Reply),
    Undrain(Duration, Reply),
}

enum Answer {
    Announced {
        ticket: Ticket,
        before: usize,
        after: usize,
    },
    Flushed {
        ticket: Ticket,
        told: Vec<PeerName>,
        late: Vec<PeerName>,
    },
    Counted {
        ticket: Ticket,
        counts: Result<Counts, String>,
    },
}

/// Orders a drain and asks how it goes; cheap to clone.
#[derive(Debug, Clone)]
pub struct DrainHandle {
    requests: mpsc::Sender<Request>,
    reports: watch::Receiver<Report>,
    usual: Terms,
}

impl DrainHandle {
    /// How it goes.
    #[must_use]
    pub fn report(&self) -> Report {
        self.reports.borrow().clone()
    }

    /// The reports from now on.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Report> {
        self.reports.clone()
    }

    /// What holds where an order says nothing.
    #[must_use]
    pub fn usual(&self) -> Terms {
        self.usual
    }

    /// Drains the gateway; what came of it. It goes on when nobody waits any more.
    ///
    /// # Errors
    /// When it is told to serve again meanwhile, or the agent is stopping.
    pub async fn drain(&self, terms: Terms) -> Result<Report, ApiError> {
        self.order(|reply| Request::Drain(terms, reply)).await
    }

    /// Has the gateway serve again, and waits so long at most until the peers have that.
    ///
    /// # Errors
    /// When it is to be drained meanwhile, or the agent is stopping.
    pub async fn undrain(&self, wait: Duration) -> Result<Report, ApiError> {
        self.order(|reply| Request::Undrain(wait, reply)).await
    }

    async fn order(&self, request: impl FnOnce(Reply) -> Request) -> Result<Report, ApiError> {
        let (reply, answer) = oneshot::channel();
        let request = request(reply);
        self.requests
            .send(request)
            .await
            .map_err(|_| ApiError::stopping("the agent"))?;
        answer.await.map_err(|_| ApiError::stopping("the agent"))?
    }
}

/// Runs a [`Drain`].
pub struct Drainer {
    machine: Drain,
    mark: Mark,
    agent: AgentHandle,
    speaker: Speaker,
    requests: mpsc::Receiver<Request>,
    reports: watch::Sender<Report>,
    answers: mpsc::UnboundedReceiver<Answer>,
    answer: mpsc::UnboundedSender<Answer>,
    /// Who waits until it is drained, or until it serves; never both.
    waiting: Vec<Reply>,
}

impl Drainer {
    /// Of a gateway that is drained since then, in seconds since 1970, or that serves. `usual` holds where an order
    /// says nothing.
    #[must_use]
    pub fn new(
        drained: Option<u64>,
        mark: Mark,
        usual: Terms,
        agent: AgentHandle,
        speaker: Speaker,
    ) -> (Drainer, DrainHandle) {
        let machine = Drain::new(drained);
        let (sender, requests) = mpsc::channel(8);
        let (reports, told) = watch::channel(machine.report());
        // One answer for each question: bounded by what is outstanding.
        let (answer, answers) = mpsc::unbounded_channel();
        let drainer = Drainer {
            machine,
            mark,
            agent,
            speaker,
            requests,
            reports,
            answers,
            answer,
            waiting: Vec::new(),
        };
        let handle = DrainHandle {
            requests: sender,
            reports: told,
            usual,
        };
        (drainer, handle)
    }

    /// Runs until no order can come any more.
    pub async fn run(mut self) {
        loop {
            while let Some(output) = self.machine.poll(Instant::now()) {
                self.carry_out(output).await;
            }
            self.tell();
            let timeout = self.machine.next_timeout();
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.request(request),
                    None => return,
                },
                Some(answer) = self.answers.recv() => self.answered(answer),
                () = sleep_until(timeout) => {}
            }
        }
    }

    fn request(&mut self, request: Request) {
        let before = self.machine.report().state;
        let reply = match request {
            Request::Drain(terms, reply) => {
                self.machine.drain(terms, seconds_now(), Instant::now());
                if before == State::Returning {
                    self.refuse("the gateway is to be drained: see `ccn status`");
                }
                reply
            }
            Request::Undrain(wait, reply) => {
                self.machine.undrain(wait);
                if before != State::Returning {
                    self.refuse(
                        "the gateway is to serve again: `ccn undrain` was ordered meanwhile",
                    );
                }
                reply
            }
        };
        self.waiting.push(reply);
    }

    /// Who waited for the opposite of what was ordered now waits in vain.
    fn refuse(&mut self, why: &str) {
        for reply in self.waiting.drain(..) {
            // A caller that hung up needs no answer.
            let _ = reply.send(Err(ApiError::new(ErrorCode::Refused, why)));
        }
    }

    fn answered(&mut self, answer: Answer) {
        let now = Instant::now();
        match answer {
            Answer::Announced {
                ticket,
                before,
                after,
            } => self.machine.announced(ticket, before, after, now),
            Answer::Flushed { ticket, told, late } => {
                if !late.is_empty() {
                    warn!(peers = ?late, "peers have not taken everything in time");
                }
                self.machine.flushed(ticket, told, late, now);
            }
            Answer::Counted { ticket, counts } => self.machine.counted(ticket, counts, now),
        }
    }

    /// Tells whoever wants to know how it goes, and who waits for the end.
    fn tell(&mut self) {
        let report = self.machine.report();
        let is_new = self.reports.send_if_modified(|told| {
            let is_new = *told != report;
            told.clone_from(&report);
            is_new
        });
        if is_new {
            let Report { state, step, .. } = &report;
            info!(?state, ?step, "drain");
        }
        if matches!(report.state, State::Drained | State::Serving) {
            for reply in self.waiting.drain(..) {
                // A caller that hung up needs no answer.
                let _ = reply.send(Ok(report.clone()));
            }
        }
    }

    async fn carry_out(&mut self, output: Output) {
        let (agent, speaker, answer) = (
            self.agent.clone(),
            self.speaker.clone(),
            self.answer.clone(),
        );
        // The loop is gone when an answer cannot be sent, and so is who waits for it.
        match output {
            Output::Remember(since) => {
                let mark = self.mark.clone();
                let written = spawn_blocking(move || mark.write(since)).await;
                if let Err(error) = written.unwrap_or_else(|error| Err(error.into())) {
                    let path = self.mark.path().display();
                    warn!(%path, %error, "whether the gateway is drained cannot be kept over a restart");
                    self.machine.not_kept(since);
                }
            }
            Output::Mark(going) => {
                if speaker.set_graceful_shutdown(going).await.is_err() {
                    warn!("the speaker has ended");
                }
            }
            Output::Announce(announcing, ticket) => {
                tokio::spawn(async move {
                    // Without an answer the agent is stopping.
                    if let Ok((before, after)) = agent.set_announcing(announcing).await {
                        let _ = answer.send(Answer::Announced {
                            ticket,
                            before,
                            after,
                        });
                    }
                });
            }
            Output::Flush(wait, ticket) => {
                tokio::spawn(async move {
                    let late = speaker.flushed(wait).await;
                    let peers = speaker.peers().await.into_iter();
                    let told = peers
                        .filter(|peer| peer.state == SessionState::Established)
                        .map(|peer| peer.name)
                        .filter(|name| !late.contains(name));
                    let _ = answer.send(Answer::Flushed {
                        ticket,
                        told: told.collect(),
                        late,
                    });
                });
            }
            Output::Count(ticket) => {
                tokio::spawn(async move {
                    let counts = count(&agent).await.map_err(|error| error.message);
                    let _ = answer.send(Answer::Counted { ticket, counts });
                });
            }
        }
    }
}

/// What the plane has counted so far.
async fn count(agent: &AgentHandle) -> Result<Counts, ApiError> {
    let failed = |error: crate::plane::thread::OrderError| {
        ApiError::new(ErrorCode::Internal, error.to_string())
    };
    let counters = agent.plane().counters().await.map_err(failed)?;
    let traffic = agent.plane().traffic().await.map_err(failed)?;
    let traffic = traffic.unwrap_or_default();
    let vnis: Vec<_> = traffic.vpcs.keys().copied().collect();
    let names = agent.vpcs_with(vnis).await?;
    let ways = |counts: &TwoWays| Ways {
        to_vpc: counts.to_vpc.packets,
        from_vpc: counts.from_vpc.packets,
    };
    let links = traffic.links.iter();
    let links = links.map(|(link, counts)| (Carrier::Link(link.clone()), ways(counts)));
    let vpcs = traffic.vpcs.iter().zip(names).map(|((vni, counts), name)| {
        let carrier = name.map_or(Carrier::Vni(*vni), Carrier::Vpc);
        (carrier, ways(counts))
    });
    Ok(Counts {
        total: Ways {
            to_vpc: counters.encapsulated.packets,
            from_vpc: counters.decapsulated.packets,
        },
        carriers: links.chain(vpcs).collect(),
    })
}

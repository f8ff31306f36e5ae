//! Connections to the members, made when one is needed, and what their errors mean.
//!
//! A connection is with one member. One that failed is given up; the next one is with the next member, and
//! reads certificates and password again. (A balancer over all members picks the one that refuses over those
//! that are still shaking hands, each time anew.)

use std::error::Error as _;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, Identity, TlsOptions, WatchResponse,
};
use tokio::time::{Instant, sleep, timeout};

use crate::config::EtcdConfig;
use crate::store::StoreError;

/// How many attempts a request has time for when nobody answers: the next one may ask another member.
const ATTEMPTS: u32 = 3;
/// The pause between two attempts at the same request.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a connection with a stream is probed; etcd forbids less than five seconds.
const PROBE: Duration = Duration::from_secs(6);
/// How long the answer to a probe may take.
const PROBE_ANSWER: Duration = Duration::from_secs(3);
/// What etcd says where a right is missing.
const NO_RIGHT: &str = "permission denied";

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// It may succeed later, or with another member.
    Away(String),
    /// The cluster says no.
    Refused(String),
    /// It is about a revision that was compacted away.
    Compacted,
    /// The answer is larger than what is taken in.
    TooLarge,
}

impl From<Trouble> for StoreError {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Away(detail) => StoreError::Away { detail },
            Trouble::Refused(detail) => StoreError::Refused { detail },
            Trouble::Compacted => StoreError::Refused {
                detail: "what was asked for was compacted away meanwhile".to_owned(),
            },
            Trouble::TooLarge => StoreError::Refused {
                detail: "an answer is larger than what is taken in".to_owned(),
            },
        }
    }
}

/// The connection, if there is one.
#[derive(Debug)]
pub(super) struct Connection {
    config: EtcdConfig,
    open: Mutex<Option<Arc<Opened>>>,
    opening: tokio::sync::Mutex<()>,
    /// Whose turn it is among the members: anyone's at first, so that not all programs ask the same one.
    turn: AtomicUsize,
}

struct Opened(Client);

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Opened")
    }
}

/// A client, to be given back when it fails.
#[derive(Debug, Clone)]
pub(super) struct Lent(Arc<Opened>);

impl Lent {
    pub(super) fn client(&self) -> Client {
        self.0.0.clone()
    }
}

impl Connection {
    pub(super) fn new(config: EtcdConfig) -> Self {
        Connection {
            config,
            open: Mutex::new(None),
            opening: tokio::sync::Mutex::new(()),
            turn: AtomicUsize::new(RandomState::new().hash_one(()) as usize),
        }
    }

    pub(super) fn config(&self) -> &EtcdConfig {
        &self.config
    }

    /// The connection that is open, or a new one with the member whose turn it is.
    pub(super) async fn lend(&self) -> Result<Lent, Trouble> {
        let _one_at_a_time = self.opening.lock().await;
        if let Some(open) = &*self.open.lock().unwrap_or_else(PoisonError::into_inner) {
            return Ok(Lent(open.clone()));
        }
        let options = self.options().await?;
        let endpoints = &self.config.endpoints;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let Some(endpoint) = endpoints.iter().cycle().nth(turn % endpoints.len().max(1)) else {
            return Err(Trouble::Refused("no member is configured".to_owned()));
        };
        let connecting = Client::connect([endpoint.as_str()], Some(options));
        let members = u32::try_from(endpoints.len()).unwrap_or(ATTEMPTS);
        let patience = self.config.timeout / members.clamp(1, ATTEMPTS);
        let client = match timeout(patience, connecting).await {
            Ok(connected) => connected.map_err(|error| self.trouble(&error))?,
            Err(_) => return Err(self.too_slow()),
        };
        let open = Arc::new(Opened(client));
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open.clone());
        Ok(Lent(open))
    }

    /// Gives up a connection that failed, unless another one was made meanwhile.
    pub(super) fn give_up(&self, failed: &Lent) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open
            .as_ref()
            .is_some_and(|open| Arc::ptr_eq(open, &failed.0))
        {
            *open = None;
        }
    }

    /// Asks until there is an answer that another member or moment would not change, within the time that a
    /// request may take. `request` must do no harm when it is made twice.
    pub(super) async fn ask<T, F>(&self, request: impl Fn(Client) -> F) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        self.ask_within(self.config.timeout / ATTEMPTS, request)
            .await
    }

    /// [`Connection::ask`], with a time of its own for each attempt; the last one begins no later than there.
    pub(super) async fn ask_within<T, F>(
        &self,
        attempt: Duration,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let last_attempt = Instant::now() + self.config.timeout;
        loop {
            let trouble = match self.lend().await {
                Ok(lent) => match timeout(attempt, request(lent.client())).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) => {
                        let trouble = self.trouble(&error);
                        if matches!(trouble, Trouble::Away(_)) {
                            self.give_up(&lent);
                        }
                        trouble
                    }
                    Err(_) => {
                        self.give_up(&lent);
                        self.too_slow()
                    }
                },
                Err(trouble) => trouble,
            };
            if !matches!(trouble, Trouble::Away(_)) || Instant::now() + PAUSE >= last_attempt {
                return Err(trouble);
            }
            sleep(PAUSE).await;
        }
    }

    /// What an error means, and for a right that is missing: whose, and to what.
    pub(super) fn trouble(&self, error: &Error) -> Trouble {
        match trouble(error) {
            Trouble::Refused(detail) => Trouble::Refused(self.with_rights(detail)),
            other => other,
        }
    }

    /// What a watch says, unless that is its end.
    pub(super) fn unless_ended(
        &self,
        said: Option<WatchResponse>,
    ) -> Result<WatchResponse, Trouble> {
        let Some(said) = said else {
            return Err(Trouble::Away("the watch ended".to_owned()));
        };
        if said.compact_revision() > 0 {
            return Err(Trouble::Compacted);
        }
        if !said.canceled() {
            return Ok(said);
        }
        let why = format!("the watch was cancelled: {}", said.cancel_reason());
        match why.contains(NO_RIGHT) {
            true => Err(Trouble::Refused(self.with_rights(why))),
            false => Err(Trouble::Away(why)),
        }
    }

    /// These words, and if they are that a right is missing, who needs which.
    fn with_rights(&self, said: String) -> String {
        if !said.contains(NO_RIGHT) {
            return said;
        }
        let user = match &self.config.login {
            Some(login) => format!("etcd's user {}", login.user),
            None => "the user that the client's certificate names".to_owned(),
        };
        let root = &self.config.root;
        format!("{said}: {user} needs a role with readwrite on the prefix {root}")
    }

    fn too_slow(&self) -> Trouble {
        let waited = self.config.timeout.as_millis();
        Trouble::Away(format!("no answer within {waited} ms"))
    }

    async fn options(&self) -> Result<ConnectOptions, Trouble> {
        let config = self.config.clone();
        let reading = tokio::task::spawn_blocking(move || options(&config)).await;
        reading.unwrap_or_else(|error| Err(Trouble::Away(error.to_string())))
    }
}

pub(super) fn options(config: &EtcdConfig) -> Result<ConnectOptions, Trouble> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(config.timeout)
        .with_keep_alive(PROBE, PROBE_ANSWER)
        .with_keep_alive_while_idle(false)
        .with_auto_token_refresh(true)
        .with_require_leader(true);
    if let Some(tls) = &config.tls {
        let mut with =
            TlsOptions::new().ca_certificate(Certificate::from_pem(file("ca", &tls.ca)?));
        if let Some((cert, key)) = &tls.identity {
            with = with.identity(Identity::from_pem(file("cert", cert)?, file("key", key)?));
        }
        options = options.with_tls(with);
    }
    if let Some(login) = &config.login {
        let password = file("password_file", &login.password_file)?;
        let password = String::from_utf8_lossy(&password);
        options = options.with_user(&login.user, password.trim_end_matches(['\r', '\n']));
    }
    Ok(options)
}

fn file(field: &str, path: &Path) -> Result<Vec<u8>, Trouble> {
    std::fs::read(path)
        .map_err(|error| Trouble::Away(format!("store.{field}: {}: {error}", path.display())))
}

fn trouble(error: &Error) -> Trouble {
    let Error::GRpcStatus(status) = error else {
        return Trouble::Away(causes(error));
    };
    let message = status.message();
    let says = |text: &str| message.contains(text);
    // The codes are tonic's numbers; they are those of gRPC.
    match status.code() as i32 {
        // Out of range.
        11 if says("compacted") => Trouble::Compacted,
        11 if says("too large") => Trouble::TooLarge,
        // Resource exhausted.
        8 if says("larger than max") => Trouble::TooLarge,
        8 if says("space exceeded") => Trouble::Refused(message.to_owned()),
        // Invalid argument: among others a wrong password.
        3 if !says("auth store is old") => Trouble::Refused(message.to_owned()),
        // Already exists, permission denied, failed precondition, unimplemented.
        6 | 7 | 9 | 12 => Trouble::Refused(message.to_owned()),
        _ => Trouble::Away(causes(error)),
    }
}

/// An error with all that caused it, said once.
fn causes(error: &Error) -> String {
    let (mut text, mut next) = match error {
        Error::GRpcStatus(status) => (status.message().to_owned(), status.source()),
        Error::TransportError(error) => (error.to_string(), error.source()),
        other => (other.to_string(), None),
    };
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

//! What every request passes before it is looked at: who sends it, whether they may, and whether it is too much.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;

use super::identity::{Identities, Identity};
use super::limits::Buckets;
use super::serve::Peer;
use super::tally::{Tally, TurnedAway};
use crate::api::caller::{Caller, Role};
use crate::api::error::{ApiError, ErrorCode};
use crate::config::RequestLimits;

/// The gate. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    identities: Arc<RwLock<Identities>>,
    buckets: Arc<Mutex<Buckets>>,
    under_way: Arc<Semaphore>,
    tally: Tally,
}

impl Gate {
    pub(super) fn new(identities: Identities, limits: &RequestLimits, tally: Tally) -> Self {
        Gate {
            identities: Arc::new(RwLock::new(identities)),
            buckets: Arc::new(Mutex::new(Buckets::new(limits))),
            under_way: Arc::new(Semaphore::new(limits.requests)),
            tally,
        }
    }

    /// Knows others from now on.
    pub(super) fn know(&self, identities: Identities) {
        *self
            .identities
            .write()
            .unwrap_or_else(PoisonError::into_inner) = identities;
    }

    /// Who sends a request. A token that is shown counts more than a certificate.
    fn identify(&self, headers: &HeaderMap, peer: &Peer) -> Result<Identity, ApiError> {
        let identities = self
            .identities
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let refused = |why: TurnedAway, message: &str| {
            self.tally.turned_away(why);
            ApiError::new(ErrorCode::Unauthenticated, message)
        };
        if let Some(shown) = headers.get(header::AUTHORIZATION) {
            let token = shown.to_str().ok().and_then(bearer);
            let known = token.and_then(|token| identities.by_token(token));
            return known
                .cloned()
                .ok_or_else(|| refused(TurnedAway::UnknownToken, "this token is not known here"));
        }
        match &peer.name {
            Some(name) => identities.by_name(name).ok_or_else(|| {
                let message =
                    format!("the certificate of {name:?} is good, and that is no [[client]] here");
                refused(TurnedAway::UnknownCertificate, &message)
            }),
            None => Err(refused(
                TurnedAway::Nobody,
                "who are you? show a token (Authorization: Bearer ...) or a certificate",
            )),
        }
    }

    fn admit(&self, request: &Request) -> Result<Caller, Box<Response>> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .cloned()
            .unwrap_or_default();
        let Identity { name, role } = self
            .identify(request.headers(), &peer)
            .map_err(|error| Box::new(error.into_response()))?;
        let needed = needed(
            request.method(),
            request.uri().path(),
            request.uri().query(),
        );
        if role < needed {
            self.tally.turned_away(TurnedAway::Forbidden);
            let message = format!("{name} is {role}, and this takes {needed}");
            let refusal = ApiError::new(ErrorCode::Forbidden, message);
            return Err(Box::new(refusal.into_response()));
        }
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.take(&name, Instant::now()).map_err(|wait| {
            self.tally.turned_away(TurnedAway::Rate);
            let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
            let message = format!("{name} sends too many requests: come again in {seconds} s");
            Box::new(busy(message, seconds))
        })?;
        let from = peer.address;
        Ok(Caller { name, role, from })
    }
}

fn busy(message: String, seconds: u64) -> Response {
    let mut response = ApiError::new(ErrorCode::Busy, message).into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

fn bearer(shown: &str) -> Option<&str> {
    let (scheme, token) = shown.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim_ascii())
}

/// What a request takes: looking is free to all who are known, links are for operators, all else is for admins.
pub(crate) fn needed(method: &Method, path: &str, query: Option<&str>) -> Role {
    let is_rehearsal =
        query.is_some_and(|query| query.split('&').any(|part| part == "dry_run=true"));
    let is_of_links = path == "/v1/links" || path.starts_with("/v1/links/");
    match (method, is_of_links) {
        (&Method::GET | &Method::HEAD, _) => Role::Viewer,
        (&Method::POST, true) if is_rehearsal => Role::Viewer,
        (_, true) => Role::Operator,
        (_, false) => Role::Admin,
    }
}

/// Lets a request through, or answers why not.
pub(super) async fn pass(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let caller = match gate.admit(&request) {
        Ok(caller) => caller,
        Err(refusal) => return *refusal,
    };
    let Ok(_under_way) = gate.under_way.try_acquire() else {
        gate.tally.turned_away(TurnedAway::UnderWay);
        return busy("too many requests are under way: come again".to_owned(), 1);
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_needed_by_method_and_route() {
        for (method, path, query, role) in [
            (Method::GET, "/v1/links", None, Role::Viewer),
            (Method::GET, "/v1/records", None, Role::Viewer),
            (Method::POST, "/v1/links", None, Role::Operator),
            (
                Method::POST,
                "/v1/links",
                Some("wait_ms=1&dry_run=true"),
                Role::Viewer,
            ),
            (
                Method::POST,
                "/v1/links",
                Some("dry_run=false"),
                Role::Operator,
            ),
            (Method::POST, "/v1/links/web/undo", None, Role::Operator),
            (
                Method::DELETE,
                "/v1/links/web",
                Some("dry_run=true"),
                Role::Operator,
            ),
            (
                Method::POST,
                "/v1/records",
                Some("dry_run=true"),
                Role::Admin,
            ),
            (Method::PUT, "/v1/records/vpcs/web", None, Role::Admin),
            (Method::POST, "/v1/store/follow", None, Role::Admin),
            (Method::POST, "/v1/linksandmore", None, Role::Admin),
        ] {
            assert_eq!(
                needed(&method, path, query),
                role,
                "{method} {path} {query:?}"
            );
        }
    }

    #[test]
    fn a_bearer_token_is_read_as_rfc_6750_writes_it() {
        for (shown, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer  abc ", Some("abc")),
            ("Basic abc", None),
            ("abc", None),
            ("", None),
        ] {
            assert_eq!(bearer(shown), token, "{shown:?}");
        }
    }
}

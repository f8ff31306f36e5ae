//! Speaks HTTP to an agent's admin socket, or to an API server.

use std::borrow::Cow;
use std::io;
use std::path::Path;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;

use super::args::ServerArgs;
use super::reach::Place;
use crate::api::error::{ApiError, ErrorCode};
use crate::api::{IDEMPOTENCY_KEY, inquiry};
use crate::record::GatewayName;
use crate::unique;

/// Why there is no answer, or the answer that is no success.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens there, or we may not speak to it.
    #[error("cannot reach {place}: {advice}")]
    Unreachable {
        /// Who.
        place: String,
        /// Why, and what to do.
        advice: String,
    },
    /// The connection broke, or what came is not HTTP or JSON.
    #[error("{place} gave no proper answer: {detail}")]
    Garbled {
        /// Who.
        place: String,
        /// What came instead.
        detail: String,
    },
    /// The other end said no.
    #[error("{}", .0.message)]
    Api(ApiError),
}

impl ClientError {
    /// Exit code for scripts: 1 refused or failed, 3 the agent cannot be reached, 4 accepted but
    /// not done in time.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            ClientError::Unreachable { .. } | ClientError::Garbled { .. } => 3,
            ClientError::Api(error) if error.code == ErrorCode::Timeout => 4,
            ClientError::Api(_) => 1,
        }
    }
}

/// How often an order is sent that was not answered, to one API server after the other: each knows of an order
/// whether it was carried out.
const ATTEMPTS: usize = 3;

/// A client of one agent, or of API servers that serve the same cluster; a new connection for each request.
#[derive(Debug, Clone)]
pub struct Client {
    /// At least one.
    places: Vec<Place>,
    /// The gateway that is asked by way of them.
    gateway: Option<GatewayName>,
}

impl Client {
    /// A client of those whom options name: API servers, or else the agent that listens on `socket`.
    ///
    /// # Errors
    /// Names the option at fault.
    pub fn new(socket: &Path, servers: &ServerArgs) -> Result<Self, String> {
        let places = Place::of(socket, servers)?;
        let gateway = servers.gateway.clone();
        if let (Some(gateway), [Place::Socket(_)]) = (&gateway, places.as_slice()) {
            return Err(format!(
                "--gateway: {gateway} is asked by way of an API server, which --server names"
            ));
        }
        Ok(Client { places, gateway })
    }

    /// Whether API servers are talked to, and not an agent.
    #[must_use]
    pub fn is_of_servers(&self) -> bool {
        !matches!(self.places.as_slice(), [Place::Socket(_)])
    }

    /// `GET`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.send(Method::GET, path, None).await
    }

    /// `POST` with a JSON body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.garbled(e.to_string()))?;
        self.send(Method::POST, path, Some(body)).await
    }

    /// `PUT` with a JSON body, on a condition: the name and the value of a header.
    ///
    /// # Errors
    /// See [`ClientError`]; of code [`ErrorCode::Changed`] when the condition does not hold.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        condition: (&str, &str),
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| self.garbled(e.to_string()))?;
        let answer = self.answer_if(Method::PUT, path, Some(body), Some(condition));
        let body = self.whole(answer.await?).await?;
        serde_json::from_slice(&body).map_err(|e| self.garbled(e.to_string()))
    }

    /// `POST` or `DELETE` of an order, on a condition if there is one: the name and the value of a header.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn order(
        &self,
        method: Method,
        path: &str,
        condition: Option<(&str, &str)>,
    ) -> Result<Value, ClientError> {
        let body = (method != Method::DELETE).then(|| b"{}".to_vec());
        let answer = self.answer_if(method, path, body, condition);
        let body = self.whole(answer.await?).await?;
        serde_json::from_slice(&body).map_err(|e| self.garbled(e.to_string()))
    }

    /// `DELETE`
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, path: &str) -> Result<Value, ClientError> {
        self.send(Method::DELETE, path, None).await
    }

    /// `GET` of something that is no JSON.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn bytes(&self, path: &str) -> Result<Bytes, ClientError> {
        self.fetch(Method::GET, path, None).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, ClientError> {
        let body = self.fetch(method, path, body).await?;
        serde_json::from_slice(&body).map_err(|e| self.garbled(e.to_string()))
    }

    async fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Bytes, ClientError> {
        let answer = self.answer(method, path, body).await?;
        self.whole(answer).await
    }

    /// `GET` of lines that come as they happen.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lines(&self, path: &str) -> Result<Lines<'_>, ClientError> {
        Ok(Lines {
            client: self,
            body: self.answer(Method::GET, path, None).await?,
            rest: Vec::new(),
        })
    }

    async fn whole(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let collected = body.collect().await;
        Ok(collected
            .map_err(|e| self.garbled(e.to_string()))?
            .to_bytes())
    }

    /// The body of an answer that is a success. What is not answered is asked again, of the next place if there
    /// are several; an order has a name then, so that it is carried out once.
    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Incoming, ClientError> {
        self.answer_if(method, path, body, None).await
    }

    /// The same, with a header more.
    async fn answer_if(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        condition: Option<(&str, &str)>,
    ) -> Result<Incoming, ClientError> {
        let once = match (self.places.as_slice(), &method) {
            ([Place::Socket(_)], _) | (_, &Method::GET) => None,
            _ => Some(format!("ccn-{}", unique::name())),
        };
        let path = &*match &self.gateway {
            None => Cow::Borrowed(path),
            Some(gateway) if method == Method::GET || inquiry::is_order(path) => {
                let route = path.strip_prefix("/v1").unwrap_or(path);
                Cow::Owned(format!("/v1/gateways/{gateway}{route}"))
            }
            Some(gateway) => {
                let message = format!(
                    "--gateway: this is no order for {gateway} alone; orders for the cluster go without it"
                );
                let refusal = ApiError::new(ErrorCode::BadRequest, message);
                return Err(ClientError::Api(refusal));
            }
        };
        let body = Bytes::from(body.unwrap_or_default());
        let again = match self.places.as_slice() {
            [Place::Socket(_)] => 1,
            places => places.len().max(ATTEMPTS),
        };
        let mut last = self.garbled("nobody was asked".to_owned());
        for place in self.places.iter().cycle().take(again) {
            let once = once.as_deref().map(|once| (IDEMPOTENCY_KEY, once));
            let headers: Vec<(&str, &str)> = once.into_iter().chain(condition).collect();
            let asked = ask(place, &method, path, body.clone(), &headers);
            match asked.await {
                Err(error @ (ClientError::Unreachable { .. } | ClientError::Garbled { .. })) => {
                    last = error;
                }
                answered => return answered,
            }
        }
        Err(last)
    }

    fn garbled(&self, detail: String) -> ClientError {
        let places: Vec<String> = self.places.iter().map(Place::to_string).collect();
        ClientError::Garbled {
            place: places.join(" or "),
            detail,
        }
    }
}

/// One request, and the body of its answer if that is a success.
async fn ask(
    place: &Place,
    method: &Method,
    path: &str,
    body: Bytes,
    headers: &[(&str, &str)],
) -> Result<Incoming, ClientError> {
    let unreachable = |source: io::Error| ClientError::Unreachable {
        place: place.to_string(),
        advice: place.advice(&source),
    };
    let garbled = |detail: String| ClientError::Garbled {
        place: place.to_string(),
        detail,
    };
    let stream = place.connect().await.map_err(unreachable)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| garbled(e.to_string()))?;
    tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "ccn")
        .header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Place::Server(server) = place
        && let Some(token) = &server.token
    {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request
        .body(Full::new(body))
        .map_err(|e| garbled(e.to_string()))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|e| garbled(e.to_string()))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let body = response.into_body().collect().await;
    let body = body.map_err(|e| garbled(e.to_string()))?.to_bytes();
    Err(ApiError::from_body(&body).map_or_else(
        || garbled(format!("{status}: {}", String::from_utf8_lossy(&body))),
        ClientError::Api,
    ))
}

/// Lines that come as they happen.
#[derive(Debug)]
pub struct Lines<'a> {
    client: &'a Client,
    body: Incoming,
    /// What has come and is not a whole line yet.
    rest: Vec<u8>,
}

impl Lines<'_> {
    /// The next lines, as JSON; `None` when the agent has ended them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, ClientError> {
        let Some(frame) = self.body.frame().await else {
            return Ok(None);
        };
        let frame = frame.map_err(|e| self.client.garbled(e.to_string()))?;
        self.rest
            .extend_from_slice(&frame.into_data().unwrap_or_default());
        let end = self.rest.iter().rposition(|octet| *octet == b'\n');
        let whole: Vec<u8> = self.rest.drain(..end.map_or(0, |end| end + 1)).collect();
        let lines = whole.split(|octet| *octet == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                serde_json::from_slice(line).map_err(|e| self.client.garbled(e.to_string()))
            })
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

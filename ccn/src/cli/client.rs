//! Speaks HTTP to an agent's admin socket.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio::net::UnixStream;

use crate::api::error::{ApiError, ErrorCode};

/// Why there is no answer, or the answer that is no success.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens there, or we may not speak to it.
    #[error("cannot reach the agent at {}: {}", .socket.display(), advice(.source))]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or what came is not HTTP or JSON.
    #[error("the agent at {} gave no proper answer: {detail}", .socket.display())]
    Garbled {
        /// The socket.
        socket: PathBuf,
        /// What came instead.
        detail: String,
    },
    /// The agent said no.
    #[error("{}", .0.message)]
    Api(ApiError),
}

fn advice(source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::NotFound => {
            "no such socket; is `ccn agent` running? (--socket names another)".to_owned()
        }
        io::ErrorKind::ConnectionRefused => {
            "nobody listens on it; is `ccn agent` running?".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied; run as root or as a member of the socket's group".to_owned()
        }
        _ => source.to_string(),
    }
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

/// A client of one agent; a new connection for each request.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent that listens on `socket`.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Client {
            socket: socket.to_owned(),
        }
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

    /// The body of an answer that is a success.
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
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|source| ClientError::Unreachable {
                    socket: self.socket.clone(),
                    source,
                })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| self.garbled(e.to_string()))?;
        tokio::spawn(connection);
        let mut request = Request::builder();
        if let Some((name, value)) = condition {
            request = request.header(name, value);
        }
        let request = request
            .method(method)
            .uri(path)
            .header("host", "ccn")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|e| self.garbled(e.to_string()))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|e| self.garbled(e.to_string()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let body = self.whole(response.into_body()).await?;
        Err(ApiError::from_body(&body).map_or_else(
            || self.garbled(format!("{status}: {}", String::from_utf8_lossy(&body))),
            ClientError::Api,
        ))
    }

    fn garbled(&self, detail: String) -> ClientError {
        ClientError::Garbled {
            socket: self.socket.clone(),
            detail,
        }
    }
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

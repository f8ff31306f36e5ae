//! Errors as the admin socket gives them: one JSON shape, a code a script can rely on.

use axum::Json;
use axum::http::StatusCode;
use axum::http::header::ETAG;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

use super::records::{RecordView, tag};
use crate::record::RecordError;
use crate::store::StoreError;

/// What went wrong, by kind. The name in JSON is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request is not what this route takes (400).
    BadRequest,
    /// A record would be wrong by itself or beside the others (409).
    Refused,
    /// The record is not, or not any more, what the caller says it is (412).
    Changed,
    /// There is no such thing (404).
    NotFound,
    /// Nobody knows who sends this (401).
    Unauthenticated,
    /// Whoever sends this may not (403).
    Forbidden,
    /// Too many requests (429).
    Busy,
    /// No such route or method (404, 405).
    NoSuchRoute,
    /// The request is larger than the socket takes (413).
    TooLarge,
    /// Accepted and stored; not done within the time the caller gave (504).
    Timeout,
    /// Accepted and stored; the plane could not take it (507).
    PlaneRefused,
    /// The store cannot be reached, or is not the one that was seen before (503).
    Unavailable,
    /// The agent or its store failed (500).
    Internal,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [ErrorCode; 13] = [
        ErrorCode::BadRequest,
        ErrorCode::Refused,
        ErrorCode::Changed,
        ErrorCode::NotFound,
        ErrorCode::Unauthenticated,
        ErrorCode::Forbidden,
        ErrorCode::Busy,
        ErrorCode::NoSuchRoute,
        ErrorCode::TooLarge,
        ErrorCode::Timeout,
        ErrorCode::PlaneRefused,
        ErrorCode::Unavailable,
        ErrorCode::Internal,
    ];

    /// The name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::BadRequest => "bad-request",
            ErrorCode::Refused => "refused",
            ErrorCode::Changed => "changed",
            ErrorCode::NotFound => "not-found",
            ErrorCode::Unauthenticated => "unauthenticated",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::Busy => "busy",
            ErrorCode::NoSuchRoute => "no-such-route",
            ErrorCode::TooLarge => "too-large",
            ErrorCode::Timeout => "timeout",
            ErrorCode::PlaneRefused => "plane-refused",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::Internal => "internal",
        }
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
            ErrorCode::Refused => StatusCode::CONFLICT,
            ErrorCode::Changed => StatusCode::PRECONDITION_FAILED,
            ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::Busy => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::NotFound | ErrorCode::NoSuchRoute => StatusCode::NOT_FOUND,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorCode::PlaneRefused => StatusCode::INSUFFICIENT_STORAGE,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// One record, field and reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Fault {
    /// Key of the record, for example `vpcs/web`.
    pub key: String,
    /// Field at fault, for example `subnets[1]`.
    pub field: String,
    /// Kind of the reason; the name is stable.
    pub code: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl From<&RecordError> for Fault {
    fn from(error: &RecordError) -> Self {
        Fault {
            key: error.key.clone(),
            field: error.field.clone(),
            code: error.reason.code().to_owned(),
            reason: error.reason.to_string(),
        }
    }
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "ErrorDetail")]
pub struct ApiError {
    /// See [`ErrorCode`].
    pub code: ErrorCode,
    /// For people, in one line.
    pub message: String,
    /// Every record at fault; empty when no record is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
    /// The record as it is, where it is not what the caller says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<Box<RecordView>>,
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match error.is_passing() {
            true => ErrorCode::Unavailable,
            false => ErrorCode::Internal,
        };
        ApiError::new(code, error.to_string())
    }
}

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(rename = "Error")]
pub(super) struct ErrorBody {
    error: ApiError,
}

impl ApiError {
    /// An error without records.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError {
            code,
            message: message.into(),
            faults: Vec::new(),
            present: None,
        }
    }

    /// Nobody is there any more to carry it out.
    #[must_use]
    pub fn stopping(who: &str) -> Self {
        ApiError::new(ErrorCode::Internal, format!("{who} is stopping"))
    }

    /// Records that were refused; nothing was changed.
    #[must_use]
    pub fn refused(errors: &[RecordError]) -> Self {
        let faults: Vec<Fault> = errors.iter().map(Fault::from).collect();
        let message = match faults.as_slice() {
            [] => "refused".to_owned(),
            [one] => format!("{}: {}: {}", one.key, one.field, one.reason),
            [first, rest @ ..] => {
                let more = rest.len();
                format!(
                    "{}: {}: {} (and {more} more)",
                    first.key, first.field, first.reason
                )
            }
        };
        ApiError {
            code: ErrorCode::Refused,
            message,
            faults,
            present: None,
        }
    }

    /// Reads the body of an answer.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Option<ApiError> {
        serde_json::from_slice::<ErrorBody>(body)
            .ok()
            .map(|body| body.error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let present = self.present.as_ref().map(|now| tag(now.generation));
        let mut answer = (self.code.status(), Json(ErrorBody { error: self })).into_response();
        if let Some(tag) = present.and_then(|tag| tag.parse().ok()) {
            answer.headers_mut().insert(ETAG, tag);
        }
        answer
    }
}

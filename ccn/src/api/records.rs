//! Single records: `/v1/records/{key}`, with their generation as the ETag.
//!
//! `If-Match` has a change made only as long as the record is the one that was seen, `If-None-Match: *` only when
//! there is none.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{ApiError, ErrorCode, Fault};
use super::office::{Office, Terms};
use super::orders::{Ordered, Removed};
use super::{Answer, body};
use crate::ledger::records::{self, Condition, Expected};
use crate::record::{Kind, RecordKey};
use crate::store::Generation;

/// A record as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RecordView {
    /// For example `vpcs/web`.
    pub key: String,
    /// The generation that changed it last.
    pub generation: Generation,
    /// The record; a text when it is no JSON.
    pub value: Value,
    /// What is wrong with it, so that it is ignored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<Fault>,
}

/// A record that is not there any more.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub(super) struct Deleted {
    /// Its key.
    key: RecordKey,
    /// The generation that deleted it.
    generation: Generation,
    /// `removed`
    state: Removed,
}

/// A generation as the tag of a record.
pub(super) fn tag(generation: Generation) -> String {
    format!("\"{generation}\"")
}

pub(super) fn routes<O: Office>() -> Router<O> {
    let record = get(record::<O>)
        .put(put_record::<O>)
        .delete(delete_record::<O>);
    Router::new().route("/v1/records/{*key}", record)
}

/// The key of a record that may be changed here.
fn record_key(text: &str) -> Result<RecordKey, ApiError> {
    let key: RecordKey = text
        .parse()
        .map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("key: {error}")))?;
    let hint = match key.kind() {
        Kind::Link => {
            "links have orders of their own: `ccn link`, `unlink`, `enable`, `disable` (/v1/links)"
        }
        Kind::Gateway => "a gateway registers itself: see `ccn gateways` (/v1/gateways)",
        Kind::Vpc | Kind::Ccsi | Kind::Classic | Kind::Vm | Kind::Slb => return Ok(key),
    };
    Err(ApiError::new(ErrorCode::Refused, format!("{key}: {hint}")))
}

/// What a request expects of the record.
pub(super) fn expected(headers: &HeaderMap) -> Result<Expected, ApiError> {
    let value = |name: HeaderName| -> Result<Option<&str>, ApiError> {
        let mut values = headers.get_all(&name).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(one), None) => match one.to_str() {
                Ok(text) => Ok(Some(text.trim())),
                Err(error) => Err(bad(&name, error.to_string())),
            },
            (Some(_), Some(_)) => Err(bad(&name, "is there twice")),
        }
    };
    match (value(IF_MATCH)?, value(IF_NONE_MATCH)?) {
        (None, None) => Ok(Expected::Anything),
        (Some("*"), None) => Ok(Expected::There),
        (None, Some("*")) => Ok(Expected::Absent),
        (Some(tag), None) => generation(tag)
            .map(Expected::Generation)
            .ok_or_else(|| bad(&IF_MATCH, "takes one generation in quotes, or *")),
        (None, Some(_)) => Err(bad(&IF_NONE_MATCH, "takes *, nothing else")),
        (Some(_), Some(_)) => Err(bad(&IF_MATCH, "and if-none-match exclude each other")),
    }
}

fn bad(header: &HeaderName, why: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, format!("{header} {why}"))
}

fn generation(tag: &str) -> Option<Generation> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    let is_plain = digits.bytes().all(|octet| octet.is_ascii_digit());
    digits.parse().ok().filter(|_| is_plain)
}

fn tagged(view: RecordView) -> Response {
    ([(ETAG, tag(view.generation))], Json(view)).into_response()
}

async fn record<O: Office>(
    State(office): State<O>,
    Path(key): Path<String>,
) -> Result<Response, ApiError> {
    Ok(tagged(office.ledger().record(record_key(&key)?).await?))
}

/// What is to be changed, on which terms.
fn asked(key: &str, headers: &HeaderMap, ordered: Ordered) -> Result<(RecordKey, Terms), ApiError> {
    let (key, expected) = (record_key(key)?, expected(headers)?);
    let only_if = Some(Condition {
        key: key.clone(),
        expected,
    });
    let terms = Terms {
        only_if,
        ..ordered.terms
    };
    Ok((key, terms))
}

async fn put_record<O: Office>(
    State(office): State<O>,
    Path(key): Path<String>,
    headers: HeaderMap,
    ordered: Ordered,
    value: Result<Json<Value>, JsonRejection>,
) -> Result<Response, ApiError> {
    let (key, terms) = asked(&key, &headers, ordered)?;
    let make = records::put(&key, body(value)?)?;
    office.change(make, terms).await?;
    Ok(tagged(office.ledger().record_put(&key).await?))
}

async fn delete_record<O: Office>(
    State(office): State<O>,
    Path(key): Path<String>,
    headers: HeaderMap,
    ordered: Ordered,
) -> Answer<Deleted> {
    let (key, terms) = asked(&key, &headers, ordered)?;
    let deleted = office.change(records::delete(key.clone()), terms).await;
    let made = deleted.map_err(|error| records::still_needed(&key, error))?;
    Ok(Json(Deleted {
        key,
        generation: made.generation,
        state: Removed::Removed,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_headers_expect() {
        let said = |headers: &[(HeaderName, &str)]| {
            let pairs = headers.iter();
            let pairs = pairs.map(|(name, value)| (name.clone(), value.parse().unwrap()));
            // Unlike inserting, this keeps what comes twice.
            let mut map = HeaderMap::new();
            for (name, value) in pairs {
                map.append(name, value);
            }
            expected(&map).map_err(|error| error.message)
        };
        let (if_match, if_none) = (IF_MATCH, IF_NONE_MATCH);
        for (headers, meant) in [
            (vec![], Expected::Anything),
            (vec![(if_match.clone(), "*")], Expected::There),
            (vec![(if_match.clone(), "\"12\"")], Expected::Generation(12)),
            (vec![(if_none.clone(), "*")], Expected::Absent),
        ] {
            assert_eq!(said(&headers), Ok(meant), "{headers:?}");
        }
        for wrong in [
            "12",
            "\"\"",
            "\"+1\"",
            "W/\"12\"",
            "\"1\", \"2\"",
            "\"x\"",
            "\"99999999999999999999\"",
        ] {
            let error = said(&[(if_match.clone(), wrong)]).expect_err(wrong);
            assert!(error.starts_with("if-match "), "{error}");
        }
        for headers in [
            vec![(if_none.clone(), "\"12\"")],
            vec![(if_none.clone(), "*"), (if_match.clone(), "*")],
            vec![(if_match.clone(), "*"), (if_match.clone(), "*")],
        ] {
            assert!(said(&headers).is_err(), "{headers:?}");
        }
    }
}

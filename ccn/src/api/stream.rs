//! Imports of any length: records come as lines of JSON, are stored part by part, and each part is answered with a line
//! when it is stored.
//!
//! What is named comes before what names it, as `ccn export` writes it. No more than a part is held. What has been stored stays when a later line is wrong: the answer says how many
//! records that are, and the rest may be sent again.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde::Serialize;

use super::error::{ApiError, ErrorCode};
use super::office::{Office, Terms};
use super::{MAX_REQUEST, RecordChange};
use crate::store::{Change, Generation};

/// Octets of a part's lines.
const PART: usize = MAX_REQUEST / 2;
/// Lines of the answer that may wait for the caller.
const AHEAD: usize = 64;

/// A line of the answer.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Imported {
    /// Records of the request that are stored so far.
    imported: usize,
    /// The generation of the last of them; absent: none is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<Generation>,
    /// That was all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    done: bool,
    /// Why the rest is not stored; the last line, then.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError>,
}

/// Whether a request brings lines.
pub(super) fn is_of_lines(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    ["application/jsonl", "application/x-ndjson"].contains(&kind)
}

/// Stores what comes. What is wrong with the first part is answered as with any request.
pub(super) async fn import<O: Office>(
    office: O,
    terms: Terms,
    body: Body,
) -> Result<Response, ApiError> {
    let mut importing = Importing {
        office,
        terms,
        lines: Lines::of(body),
        parts: 0,
        imported: 0,
        generation: None,
    };
    let more = importing.part().await?;
    let (mut sender, answer) = Channel::<Bytes, serde_json::Error>::new(AHEAD);
    tokio::spawn(async move {
        let mut more = Ok(more);
        loop {
            let is_last = !matches!(more, Ok(true));
            let line = importing.line(more);
            let Ok(mut text) = serde_json::to_vec(&line) else {
                return;
            };
            text.push(b'\n');
            // Whoever hung up has sent all that comes: no more is read.
            if sender.send_data(text.into()).await.is_err() || is_last {
                return;
            }
            more = importing.part().await;
        }
    });
    let kind = [(header::CONTENT_TYPE, "application/jsonl")];
    Ok((kind, Body::new(answer)).into_response())
}

/// An import under way.
struct Importing<O> {
    office: O,
    terms: Terms,
    lines: Lines,
    parts: usize,
    imported: usize,
    generation: Option<Generation>,
}

impl<O: Office> Importing<O> {
    /// Stores the next part; whether there is more.
    async fn part(&mut self) -> Result<bool, ApiError> {
        let (changes, more) = self.lines.part().await?;
        let count = changes.len();
        if count > 0 {
            let terms = Terms {
                // The same lines make the same parts, so that what is sent again is not stored again.
                once: self
                    .terms
                    .once
                    .as_ref()
                    .map(|once| format!("{once}.{}", self.parts)),
                ..self.terms.clone()
            };
            let make = Arc::new(move |_: &_| Ok(changes.clone()));
            let made = self.office.change(make, terms).await?;
            self.generation = Some(made.generation);
        }
        self.parts += 1;
        self.imported += count;
        Ok(more)
    }

    fn line(&self, more: Result<bool, ApiError>) -> Imported {
        Imported {
            imported: self.imported,
            generation: self.generation,
            done: matches!(more, Ok(false)),
            error: more.err(),
        }
    }
}

/// The lines of a body.
struct Lines {
    body: Body,
    /// What has come and is no whole line yet, or belongs to the next part.
    rest: BytesMut,
    /// Lines before that.
    number: usize,
    ended: bool,
}

impl Lines {
    fn of(body: Body) -> Lines {
        Lines {
            body,
            rest: BytesMut::new(),
            number: 0,
            ended: false,
        }
    }

    /// The changes of the next part, and whether there is more.
    async fn part(&mut self) -> Result<(Vec<Change>, bool), ApiError> {
        let mut changes = Vec::new();
        let mut octets = 0;
        while octets < PART {
            let Some(line) = self.line().await? else {
                return Ok((changes, false));
            };
            octets += line.len() + 1;
            if !line.trim_ascii().is_empty() {
                changes.push(self.change(&line)?);
            }
        }
        Ok((changes, true))
    }

    fn change(&self, line: &[u8]) -> Result<Change, ApiError> {
        let number = self.number;
        let named = |error: ApiError| ApiError {
            message: format!("line {number}: {}", error.message),
            ..error
        };
        let change: RecordChange = serde_json::from_slice(line)
            .map_err(|error| named(ApiError::new(ErrorCode::BadRequest, error.to_string())))?;
        change.parse().map_err(named)
    }

    /// The next line, without its end.
    async fn line(&mut self) -> Result<Option<BytesMut>, ApiError> {
        let mut searched = 0;
        loop {
            let end = self.rest[searched..]
                .iter()
                .position(|octet| *octet == b'\n');
            if let Some(end) = end {
                let mut line = self.rest.split_to(searched + end + 1);
                line.truncate(searched + end);
                self.number += 1;
                return Ok(Some(line));
            }
            if self.ended {
                let line = self.rest.split();
                self.number += 1;
                return Ok((!line.is_empty()).then_some(line));
            }
            searched = self.rest.len();
            if searched > MAX_REQUEST {
                let message = format!("line {}: is over {MAX_REQUEST} bytes", self.number + 1);
                return Err(ApiError::new(ErrorCode::TooLarge, message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    let data = frame.into_data().unwrap_or_default();
                    self.rest.extend_from_slice(&data);
                }
                Some(Err(error)) => {
                    let message = format!("after line {}: {error}", self.number);
                    return Err(ApiError::new(ErrorCode::BadRequest, message));
                }
                None => self.ended = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> String {
        format!("{{\"key\":\"vpcs/v{number}\",\"value\":{{\"vni\":{number},\"subnets\":[]}}}}")
    }

    /// What a body is read as: the keys of each part; or why not.
    async fn read(body: Body) -> Result<Vec<Vec<String>>, String> {
        let mut lines = Lines::of(body);
        let mut parts = Vec::new();
        loop {
            let (changes, more) = lines.part().await.map_err(|error| error.message)?;
            parts.push(
                changes
                    .iter()
                    .map(|change| change.key().to_owned())
                    .collect(),
            );
            if !more {
                return Ok(parts);
            }
        }
    }

    #[tokio::test]
    async fn lines_are_read_however_they_come() {
        let text = format!("{}\n\n{}\r\n{}", line(1), line(2), line(3));
        let expected = vec![vec!["vpcs/v1", "vpcs/v2", "vpcs/v3"]];
        assert_eq!(read(Body::from(text.clone())).await.unwrap(), expected);
        // An octet at a time.
        let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(4);
        tokio::spawn(async move {
            for octet in text.into_bytes() {
                let _ = sender.send_data(vec![octet].into()).await;
            }
        });
        assert_eq!(read(Body::new(body)).await.unwrap(), expected);
        assert_eq!(read(Body::empty()).await.unwrap(), [[""; 0]]);
    }

    #[tokio::test]
    async fn parts_are_of_bounded_size_and_in_order() {
        let each = line(1).len() + 1;
        let count = 3 * PART / each;
        let text: Vec<String> = (1..=count).map(|_| line(1)).collect();
        let parts = read(Body::from(text.join("\n"))).await.unwrap();
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), count);
        assert!(parts.iter().all(|part| part.len() * each <= PART + each));
        assert!(parts.len() >= 3);
    }

    #[tokio::test]
    async fn a_line_that_is_wrong_is_named() {
        let good = line(1);
        for (text, says) in [
            (format!("{good}\nnonsense"), "line 2: expected"),
            (
                format!("{good}\n{good}\n{{\"key\":\"vpcs\",\"value\":1}}"),
                "line 3: key:",
            ),
            (
                "{\"key\":\"vpcs/a\",\"value\":{\"vni\":0,\"subnets\":[]}}".to_owned(),
                "line 1: vpcs/a: vni",
            ),
            ("x".repeat(MAX_REQUEST + 2), "line 1: is over"),
        ] {
            let error = read(Body::from(text)).await.unwrap_err();
            assert!(error.starts_with(says), "{error}");
        }
        let (sender, body) = Channel::<Bytes, std::io::Error>::new(4);
        sender.abort(std::io::Error::other("hung up"));
        let error = read(Body::new(body)).await.unwrap_err();
        assert!(error.starts_with("after line 0: "), "{error}");
    }
}

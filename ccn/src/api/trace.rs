//! Packets as they pass or are dropped: JSON lines without an end, until the caller goes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::UNIX_EPOCH;

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use hyper::body::Frame;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::error::{ApiError, ErrorCode};
use super::query;
use crate::controller::AgentHandle;
use crate::plane::traffic::{Header, Sampled, Wanted};
use crate::record::{LinkId, Record, RecordKey};
use crate::trace::Told;

/// Packets that are written to the caller at once.
const AT_ONCE: usize = 256;

pub(super) fn routes() -> Router<AgentHandle> {
    Router::new().route("/v1/trace", get(trace))
}

#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TraceQuery {
    link: Option<LinkId>,
    /// An address, or `VPC/VM`.
    vm: Option<String>,
    #[serde(default)]
    drops: bool,
}

async fn trace(
    State(agent): State<AgentHandle>,
    wanted: Result<Query<TraceQuery>, QueryRejection>,
) -> Result<impl IntoResponse, ApiError> {
    let TraceQuery { link, vm, drops } = query(wanted)?;
    let wanted = Wanted {
        drops: true,
        forwarded: !drops,
        link,
        addrs: match vm {
            Some(vm) => addresses(&agent, vm).await?,
            None => BTreeSet::new(),
        },
    };
    let told = agent.trace(wanted).await?;
    let body = Body::new(Lines(told));
    Ok(([(header::CONTENT_TYPE, "application/jsonl")], body))
}

/// The addresses of a VM; or one address, whoever has it.
async fn addresses(agent: &AgentHandle, vm: String) -> Result<BTreeSet<IpAddr>, ApiError> {
    if let Ok(addr) = vm.parse() {
        return Ok(BTreeSet::from([addr]));
    }
    let key: Option<RecordKey> = format!("vms/{vm}").parse().ok();
    let Some(key) = key else {
        let message = format!("vm: {vm:?} is neither an address nor VPC/VM");
        return Err(ApiError::new(ErrorCode::BadRequest, message));
    };
    match agent.ask(move |view| view.inventory().record(&key)).await? {
        Some(Record::Vm(vm)) => Ok(vm.addrs.into_iter().collect()),
        _ => Err(ApiError::new(
            ErrorCode::NotFound,
            format!("there is no VM {vm}; see `ccn vms`"),
        )),
    }
}

/// One line.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Line {
    Packet {
        /// Microseconds since 1970 UTC.
        unix_us: u64,
        /// `forward` or `drop`.
        verdict: &'static str,
        /// Why it was dropped.
        reason: Option<&'static str>,
        #[serde(flatten)]
        header: Header,
    },
    Missed {
        /// Packets that are not told, since the caller did not keep up.
        missed: u64,
    },
}

impl From<Told> for Line {
    fn from(told: Told) -> Line {
        match told {
            Told::Missed(missed) => Line::Missed { missed },
            Told::Packet(Sampled { at, reason, header }) => Line::Packet {
                unix_us: at
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| since.as_micros() as u64),
                verdict: if reason.is_some() { "drop" } else { "forward" },
                reason,
                header,
            },
        }
    }
}

/// What a watcher is told, as the body of an answer.
struct Lines(mpsc::Receiver<Told>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = serde_json::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut told = Vec::new();
        match self.0.poll_recv_many(context, &mut told, AT_ONCE) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(0) => return Poll::Ready(None),
            Poll::Ready(_) => {}
        }
        let mut text = Vec::new();
        for told in told {
            if let Err(error) = serde_json::to_writer(&mut text, &Line::from(told)) {
                return Poll::Ready(Some(Err(error)));
            }
            text.push(b'\n');
        }
        Poll::Ready(Some(Ok(Frame::data(text.into()))))
    }
}

//! The table of routes.

use axum::http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::Server;
use crate::api::bgp::{Down, DrainQuery};
use crate::api::error::Fault;
use crate::api::orders::{ExplainQuery, Gone, ImportAnswer, ImportOrder, VmFilter, Wait};
use crate::api::records::{Deleted, RecordView};
use crate::api::stream::Imported;
use crate::api::trace::TraceQuery;
use crate::api::traffic::{DropView, TrafficView};
use crate::api::{
    DoctorQuery, DumpOrder, GatewayView, LimitView, LinkPlan, LinkView, PlaneDetail, RecordChange,
    RouteView, Status, VmView, VpcView,
};
use crate::apiserver::{GoneGateway, ServerStatus};
use crate::explain::Explanation;
use crate::link::orders::LinkOrder;
use crate::record::{Ccsi, Classic, Slb, Vm, Vpc};
use crate::{doctor, drain, plane};

/// Writes a schema.
type Of = fn(&mut SchemaGenerator) -> Schema;

/// What a success is answered with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// JSON.
    Json(Of),
    /// How the server is doing: each kind of server has its own.
    Status,
    /// Lines of JSON.
    Lines(Of),
    /// A word.
    Text,
}

/// A route.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// As axum has it.
    pub(super) path: &'static str,
    /// A name of its own.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    at: &'static [Server],
    pub(super) query: Option<Of>,
    pub(super) body: Option<Of>,
    /// It may come as lines instead, of these, and is then answered with lines of those.
    pub(super) lines: Option<(Of, Of)>,
    pub(super) answer: Answer,
    /// It may be named, so that it is carried out once.
    pub(super) is_order: bool,
    pub(super) takes_dry_run: bool,
    /// It may be bound to what was seen.
    pub(super) is_conditional: bool,
    /// The answer tells the generation of what it shows.
    pub(super) is_tagged: bool,
    /// Everybody may ask.
    pub(super) is_open: bool,
}

impl Route {
    pub(super) fn is_of(&self, server: Server) -> bool {
        self.at.contains(&server)
    }

    /// As OpenAPI has it.
    pub(super) fn documented_path(&self) -> String {
        self.path.replace("{*", "{")
    }

    /// What stands in braces in the path.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        let parts = self.path.split('/');
        let names = parts.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        names.map(|name| name.trim_start_matches('*'))
    }

    fn new(method: Method, path: &'static str, id: &'static str, summary: &'static str) -> Route {
        Route {
            method,
            path,
            id,
            summary,
            at: &[Server::Agent, Server::ApiServer],
            query: None,
            body: None,
            lines: None,
            answer: Answer::Json(an_object),
            is_order: false,
            takes_dry_run: false,
            is_conditional: false,
            is_tagged: false,
            is_open: false,
        }
    }

    fn get(path: &'static str, id: &'static str, summary: &'static str) -> Route {
        Route::new(Method::GET, path, id, summary)
    }

    fn post(path: &'static str, id: &'static str, summary: &'static str) -> Route {
        Route::new(Method::POST, path, id, summary)
    }

    fn at_agents(self) -> Route {
        Route {
            at: &[Server::Agent],
            ..self
        }
    }

    fn at_api_servers(self) -> Route {
        Route {
            at: &[Server::ApiServer],
            ..self
        }
    }

    fn asks(self, query: Of) -> Route {
        Route {
            query: Some(query),
            ..self
        }
    }

    fn takes(self, body: Of) -> Route {
        Route {
            body: Some(body),
            ..self
        }
    }

    fn or_lines(self, lines: Of, answers: Of) -> Route {
        Route {
            lines: Some((lines, answers)),
            ..self
        }
    }

    fn answers(self, of: Of) -> Route {
        Route {
            answer: Answer::Json(of),
            ..self
        }
    }

    fn answers_so(self, answer: Answer) -> Route {
        Route { answer, ..self }
    }

    /// An order, which waits until it is done.
    fn order(self) -> Route {
        Route {
            is_order: true,
            query: Some(fields::<Wait>),
            ..self
        }
    }

    fn with_dry_run(self) -> Route {
        Route {
            takes_dry_run: true,
            ..self
        }
    }

    fn conditional(self) -> Route {
        Route {
            is_conditional: true,
            ..self
        }
    }

    fn tagged(self) -> Route {
        Route {
            is_tagged: true,
            ..self
        }
    }

    fn open(self) -> Route {
        Route {
            is_open: true,
            ..self
        }
    }
}

fn of<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
    schemas.subschema_for::<T>()
}

/// The fields of a query themselves.
fn fields<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
    T::json_schema(schemas)
}

fn an_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "description": "What that route answers." })
}

fn either<A: JsonSchema, B: JsonSchema>(schemas: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [of::<A>(schemas), of::<B>(schemas)] })
}

fn link_or_gone_or_plan(schemas: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [of::<LinkView>(schemas), of::<Gone>(schemas), of::<LinkPlan>(schemas)] })
}

fn record(schemas: &mut SchemaGenerator) -> Schema {
    let kinds = [
        of::<Vpc>(schemas),
        of::<Vm>(schemas),
        of::<Slb>(schemas),
        of::<Ccsi>(schemas),
        of::<Classic>(schemas),
    ];
    json_schema!({
        "description": "The record of the key's kind: vpcs, vms, slbs, ccsis, classic.",
        "anyOf": kinds,
    })
}

pub(super) fn status_of(server: Server) -> Of {
    match server {
        Server::Agent => of::<Status>,
        Server::ApiServer => of::<ServerStatus>,
    }
}

/// All of them, of agents and of API servers.
pub(super) fn all() -> Vec<Route> {
    vec![
    Route::get("/healthz", "isAlive", "Whether the server is alive")
        .answers_so(Answer::Text)
        .at_api_servers()
        .open(),
    Route::get(super::PATH, "describe", "This document").answers(an_object),
    Route::get("/v1/status", "status", "How the server is doing").answers_so(Answer::Status),
    Route::get("/v1/links", "links", "Every link, and how far it has come")
        .answers(of::<Vec<LinkView>>),
    Route::post(
        "/v1/links",
        "link",
        "Link a VPC, and wait until that is verified and announced",
    )
    .order()
    .with_dry_run()
    .conditional()
    .tagged()
    .takes(of::<LinkOrder>)
    .answers(either::<LinkView, LinkPlan>),
    Route::get("/v1/links/{link}", "oneLink", "One link")
        .answers(of::<LinkView>)
        .tagged(),
    Route::new(
        Method::DELETE,
        "/v1/links/{link}",
        "unlink",
        "Undo a link, and wait until nothing of it forwards any more",
    )
    .order()
    .conditional()
    .tagged()
    .answers(either::<LinkView, Gone>),
    Route::post(
        "/v1/links/{link}/disable",
        "disable",
        "Take a link out of service and keep it; waits until nothing of it forwards any more",
    )
    .order()
    .conditional()
    .tagged()
    .answers(of::<LinkView>),
    Route::post(
        "/v1/links/{link}/enable",
        "enable",
        "Bring a disabled link back, and wait until it is announced",
    )
    .order()
    .conditional()
    .tagged()
    .answers(of::<LinkView>),
    Route::post(
        "/v1/links/{link}/confirm",
        "confirm",
        "Let the last change of a link stand, which was made with confirm_ms",
    )
    .order()
    .conditional()
    .tagged()
    .answers(either::<LinkView, Gone>),
    Route::post(
        "/v1/links/{link}/undo",
        "undo",
        "Take the last change of a link back; once more brings it back",
    )
    .order()
    .with_dry_run()
    .conditional()
    .tagged()
    .answers(link_or_gone_or_plan),
    Route::get("/v1/vpcs", "vpcs", "VPCs, with VNI, subnets and CCSI").answers(of::<Vec<VpcView>>),
    Route::get(
        "/v1/vms",
        "vms",
        "VMs, with addresses, MAC and the VTEP of the host",
    )
    .asks(fields::<VmFilter>)
    .answers(of::<Vec<VmView>>),
    Route::get(
        "/v1/gateways",
        "gateways",
        "Gateways that are registered in the store of the cluster",
    )
    .answers(of::<Vec<GatewayView>>),
    Route::new(
        Method::DELETE,
        "/v1/gateways/{gateway}",
        "forgetGateway",
        "Count no longer with a gateway that is gone and will not be back: orders that take a link away wait for it no \
         more",
    )
    .answers(of::<GoneGateway>)
    .at_api_servers(),
    Route::get(
        "/v1/gateways/{gateway}/{*route}",
        "askGateway",
        "What the admin socket of one gateway answers at /v1/{route}, asked by way of the store",
    )
    .answers(anything)
    .at_api_servers(),
    Route::post(
        "/v1/gateways/{gateway}/{*route}",
        "orderGateway",
        "Has one gateway do what its admin socket does at /v1/{route}: drain, undrain, reload, peers/{peer}/up, \
         down and refresh; after 8 s the answer to a drain is how it goes",
    )
    .takes(anything)
    .answers(anything)
    .at_api_servers(),
    Route::get(
        "/v1/quarantine",
        "quarantine",
        "Records that are wrong and therefore ignored, with the reason",
    )
    .answers(of::<Vec<Fault>>),
    Route::get(
        "/v1/explain",
        "explain",
        "What would happen to a packet, and why",
    )
    .asks(fields::<ExplainQuery>)
    .answers(of::<Explanation>),
    Route::get("/v1/records", "export", "Every record of the region")
        .answers_so(Answer::Lines(of::<RecordChange>)),
    Route::post(
            "/v1/records",
            "import",
            "Change records: all of them, or none; those of lines part by part",
        )
        .order()
        .takes(of::<ImportOrder>)
        .or_lines(of::<RecordChange>, of::<Imported>)
    .answers(of::<ImportAnswer>),
    Route::get(
        "/v1/records/{*key}",
        "record",
        "One record; its key has slashes",
    )
    .answers(of::<RecordView>)
    .tagged(),
    Route::new(
        Method::PUT,
        "/v1/records/{*key}",
        "putRecord",
        "Put one record",
    )
    .order()
    .conditional()
    .tagged()
    .takes(record)
    .answers(of::<RecordView>),
    Route::new(
        Method::DELETE,
        "/v1/records/{*key}",
        "deleteRecord",
        "Delete one record",
    )
    .order()
    .conditional()
    .answers(of::<Deleted>),
    Route::post(
        "/v1/store/follow",
        "followStore",
        "Take what a store that went back holds now",
    )
    .order(),
    Route::get(
        "/v1/routes",
        "routes",
        "Routes: announced to the IDC, and learned from it",
    )
    .answers(of::<Vec<RouteView>>)
    .at_agents(),
    Route::get(
        "/v1/limits",
        "limits",
        "What is limited, and how full it is",
    )
    .answers(of::<Vec<LimitView>>)
    .at_agents(),
    Route::get(
        "/v1/doctor",
        "doctor",
        "What is wrong with this gateway, why it matters, and what to do",
    )
    .asks(fields::<DoctorQuery>)
    .answers(of::<doctor::Report>)
    .at_agents(),
    Route::post(
        "/v1/mrt/dump",
        "dumpMrt",
        "Write the routing table to a file (RFC 6396)",
    )
    .takes(of::<DumpOrder>)
    .answers(of::<bgp::mrt::Dumped>)
    .at_agents(),
    Route::get("/v1/plane", "plane", "The plane in full")
        .answers(of::<PlaneDetail>)
        .at_agents(),
    Route::get(
        "/v1/plane/dump",
        "dumpPlane",
        "What the kernel holds of the plane, a line an object",
    )
    .answers(of::<Vec<String>>)
    .at_agents(),
    Route::get(
        "/v1/plane/counters",
        "planeCounters",
        "What was forwarded, and dropped by reason",
    )
    .answers(of::<plane::Counters>)
    .at_agents(),
    Route::get("/v1/traffic", "traffic", "Counts of links and VPCs")
        .answers(of::<TrafficView>)
        .at_agents(),
    Route::get(
        "/v1/drops",
        "drops",
        "What was dropped, by reason, and the last packet of each",
    )
    .answers(of::<Vec<DropView>>)
    .at_agents(),
    Route::get(
        "/v1/trace",
        "trace",
        "Packets as they pass and are dropped, until the caller goes",
    )
    .asks(fields::<TraceQuery>)
    .answers_so(Answer::Lines(an_object))
    .at_agents(),
    Route::get(
        "/v1/peers",
        "peers",
        "BGP peers, and what was exchanged with each",
    )
    .answers(of::<Vec<bgp::PeerStatus>>)
    .at_agents(),
    Route::get("/v1/peers/{peer}", "peer", "One peer in full")
        .answers(of::<bgp::PeerStatus>)
        .at_agents(),
    Route::post(
        "/v1/peers/{peer}/up",
        "peerUp",
        "Let the session with a peer come up",
    )
    .at_agents(),
    Route::post(
        "/v1/peers/{peer}/down",
        "peerDown",
        "Take the session with a peer down (RFC 9003)",
    )
    .takes(of::<Down>)
    .at_agents(),
    Route::post(
        "/v1/peers/{peer}/refresh",
        "peerRefresh",
        "Ask a peer for its routes again (RFC 2918)",
    )
    .at_agents(),
    Route::get(
        "/v1/drain",
        "howItDrains",
        "Whether this gateway is drained, and how that went",
    )
    .answers(of::<drain::Report>)
    .at_agents(),
    Route::post(
        "/v1/drain",
        "drain",
        "Have other gateways carry what this one carries, and say when it is safe to stop",
    )
    .asks(fields::<DrainQuery>)
    .answers(of::<drain::Report>)
    .at_agents(),
    Route::post(
        "/v1/undrain",
        "undrain",
        "Have a drained gateway announce and serve again",
    )
    .asks(fields::<Wait>)
    .answers(of::<drain::Report>)
    .at_agents(),
    Route::post(
        "/v1/reload",
        "reload",
        "Have the agent read its configuration again; sessions that do not change stay up",
    )
    .answers(of::<bgp::Reconfigured>)
    .at_agents(),
    ]
}

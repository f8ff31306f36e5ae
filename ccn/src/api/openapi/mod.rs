//! What the routes take and answer, as an OpenAPI 3.1 document: made of the table of routes and of the types that are
//! read and written, so that it says what is so.

mod routes;

use std::collections::BTreeMap;

use axum::Json;
use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::error::ErrorBody;
#[cfg(test)]
use super::error::ErrorCode;
use super::orders::IDEMPOTENCY_KEY;
use crate::apiserver::needed;
use routes::{Answer, Route};

/// The path at which a server tells its own.
pub(crate) const PATH: &str = "/v1/openapi.json";

/// Lines of JSON.
const LINES: &str = "application/jsonl";

/// Whose routes a document is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// An agent, at its admin socket.
    Agent,
    /// An API server.
    ApiServer,
}

/// What the document says of the server as a whole.
impl Server {
    fn title(self) -> &'static str {
        match self {
            Server::Agent => "CCN gateway: admin socket",
            Server::ApiServer => "CCN gateway: API server",
        }
    }

    fn description(self) -> &'static str {
        match self {
            Server::Agent => {
                "HTTP over the agent's Unix socket (`admin_socket`, /run/ccn/agent.sock). Whoever may open it may do \
                 everything."
            }
            Server::ApiServer => {
                "HTTP over TLS, for a cluster of gateways. `x-role` is the role that an operation takes; each role \
                 may what those before it may: viewer, operator, admin."
            }
        }
    }
}

/// Serves the document about one's own routes.
pub(super) async fn of_agent() -> Json<Value> {
    Json(document(Server::Agent))
}

/// As [`of_agent`].
pub(crate) async fn of_api_server() -> Json<Value> {
    Json(document(Server::ApiServer))
}

/// Writes the schemas of what is read, and of what is written: a field with a default may be left out in one and is
/// always there in the other.
struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Schemas {
    fn new() -> Schemas {
        let settings = |settings: SchemaSettings| {
            let place = |settings: &mut SchemaSettings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            };
            settings.with(place).into_generator()
        };
        Schemas {
            read: settings(SchemaSettings::draft2020_12()),
            written: settings(SchemaSettings::draft2020_12().for_serialize()),
        }
    }

    /// Every type that was named, by name.
    fn definitions(mut self) -> BTreeMap<String, Value> {
        let read = self.read.take_definitions(true);
        let written = self.written.take_definitions(true);
        read.into_iter().chain(written).collect()
    }
}

/// The document about the routes of a server.
#[must_use]
pub fn document(server: Server) -> Value {
    let mut schemas = Schemas::new();
    let error = schemas.written.subschema_for::<ErrorBody>();
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in routes::all().iter().filter(|route| route.is_of(server)) {
        let operation = operation(route, server, &mut schemas);
        let path = paths.entry(route.documented_path()).or_default();
        path.insert(route.method.as_str().to_lowercase(), operation);
    }
    let mut components = json!({
        "schemas": schemas.definitions(),
        "responses": {
            "Error": {
                "description": "It is refused, or failed; `error.code` says why.",
                "content": { "application/json": { "schema": error } },
            },
        },
    });
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": server.title(),
            "description": server.description(),
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "paths": paths,
    });
    if server == Server::ApiServer {
        components["securitySchemes"] = json!({
            "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "A token of the server's configuration ([[token]]).",
            },
            "certificate": {
                "type": "mutualTLS",
                "description": "A certificate that `client_ca` signed; its common name is that of a [[client]].",
            },
        });
        document["security"] = json!([{ "token": [] }, { "certificate": [] }]);
    }
    document["components"] = components;
    document
}

fn operation(route: &Route, server: Server, schemas: &mut Schemas) -> Value {
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "responses": responses(route, server, schemas),
    });
    let parameters = parameters(route, schemas);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = route.body {
        let schema = body(&mut schemas.read);
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": schema } },
        });
    }
    if let Some((lines, _)) = route.lines {
        let schema = lines(&mut schemas.read);
        operation["requestBody"]["content"][LINES] = json!({ "schema": schema });
    }
    if server == Server::ApiServer {
        match route.is_open {
            // Whether it is alive is told to everybody.
            true => operation["security"] = json!([{}]),
            false => {
                operation["x-role"] = json!(needed(&route.method, route.path, None));
                let rehearsed = needed(&route.method, route.path, Some("dry_run=true"));
                if route.takes_dry_run && operation["x-role"] != json!(rehearsed) {
                    operation["x-role-of-a-dry-run"] = json!(rehearsed);
                }
            }
        }
    }
    operation
}

/// What may be in the path, the query and the headers.
fn parameters(route: &Route, schemas: &mut Schemas) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    for name in route.names() {
        all.push(json!({
            "name": name,
            "in": "path",
            "required": true,
            "schema": { "type": "string" },
        }));
    }
    if let Some(query) = route.query {
        let schema: Value = query(&mut schemas.read).into();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            if name == "dry_run" && !route.takes_dry_run {
                continue;
            }
            let mut schema = schema.clone();
            let description = schema
                .as_object_mut()
                .and_then(|schema| schema.remove("description"));
            let mut parameter = json!({
                "name": name,
                "in": "query",
                "required": required.contains(&json!(name)),
                "schema": schema,
            });
            if let Some(description) = description {
                parameter["description"] = description;
            }
            all.push(parameter);
        }
    }
    let mut header = |name: &str, description: &str| {
        all.push(json!({
            "name": name,
            "in": "header",
            "required": false,
            "description": description,
            "schema": { "type": "string" },
        }));
    };
    if route.is_order {
        let description = "A name of the caller's, 1 to 128 letters, digits and `-_.:`: an order of this name is \
                           carried out once, however often it comes.";
        header(IDEMPOTENCY_KEY, description);
    }
    if route.is_conditional {
        header(
            "if-match",
            "The ETag that was seen, or `*`: nothing is changed unless it is still so (412).",
        );
        header(
            "if-none-match",
            "`*`: nothing is changed unless there is none (412).",
        );
    }
    all
}

fn responses(route: &Route, server: Server, schemas: &mut Schemas) -> Value {
    let mut done = json!({ "description": "It is done, or told." });
    let (kind, schema): (&str, Option<Schema>) = match route.answer {
        Answer::Json(of) => ("application/json", Some(of(&mut schemas.written))),
        Answer::Status => {
            let of = routes::status_of(server);
            ("application/json", Some(of(&mut schemas.written)))
        }
        Answer::Lines(of) => {
            done["description"] = json!("Lines, each of them JSON with this schema.");
            (LINES, Some(of(&mut schemas.written)))
        }
        Answer::Text => ("text/plain", None),
    };
    done["content"] = json!({ kind: {} });
    if let Some(schema) = schema {
        done["content"][kind]["schema"] = schema.into();
    }
    if let Some((_, answers)) = route.lines {
        let schema = answers(&mut schemas.written);
        done["content"][LINES] = json!({ "schema": schema });
    }
    if route.is_tagged {
        done["headers"] = json!({
            "etag": {
                "description": "The generation that changed it last, in quotes.",
                "schema": { "type": "string" },
            },
        });
    }
    let mut responses = Map::from_iter([("200".to_owned(), done)]);
    if !route.is_open {
        responses.insert(
            "default".to_owned(),
            json!({ "$ref": "#/components/responses/Error" }),
        );
    }
    responses.into()
}

/// Every code that an error may have, with its HTTP status.
#[cfg(test)]
fn codes() -> impl Iterator<Item = (&'static str, u16)> {
    let all = ErrorCode::ALL.into_iter();
    all.map(|code| (code.name(), code.status().as_u16()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    const BOTH: [Server; 2] = [Server::Agent, Server::ApiServer];

    /// Everything in a value, and where it stands.
    fn all<'v>(value: &'v Value, look: &mut impl FnMut(&'v Value)) {
        look(value);
        match value {
            Value::Array(items) => items.iter().for_each(|item| all(item, look)),
            Value::Object(fields) => fields.values().for_each(|field| all(field, look)),
            _ => {}
        }
    }

    #[test]
    fn what_is_referred_to_is_there() {
        for server in BOTH {
            let document = document(server);
            let mut references = BTreeSet::new();
            all(&document, &mut |value| {
                references.extend(value.get("$ref").and_then(Value::as_str));
            });
            assert!(references.len() > 10, "{references:?}");
            for reference in references {
                let place = reference
                    .strip_prefix('#')
                    .expect("a place in the document");
                assert!(document.pointer(place).is_some(), "{reference}");
            }
        }
    }

    #[test]
    fn operations_have_names_of_their_own_and_declare_what_is_in_their_path() {
        for server in BOTH {
            let document = document(server);
            let mut names = BTreeSet::new();
            for (path, operations) in document["paths"].as_object().unwrap() {
                let in_path: Vec<&str> = path
                    .split('/')
                    .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
                    .collect();
                for (method, operation) in operations.as_object().unwrap() {
                    let name = operation["operationId"].as_str().unwrap();
                    assert!(names.insert(name.to_owned()), "{name} is there twice");
                    let parameters = operation["parameters"].as_array();
                    let declared: Vec<&str> = parameters
                        .into_iter()
                        .flatten()
                        .filter(|parameter| parameter["in"] == "path")
                        .map(|parameter| parameter["name"].as_str().unwrap())
                        .collect();
                    assert_eq!(declared, in_path, "{method} {path}");
                }
            }
        }
    }

    /// A schema that is read and written under one name says the same both times, but for what may be left out.
    #[test]
    fn names_of_schemas_are_of_one_type_each() {
        let mut schemas = Schemas::new();
        for route in &routes::all() {
            operation(route, Server::Agent, &mut schemas);
        }
        let read = schemas.read.take_definitions(true);
        let written = schemas.written.take_definitions(true);
        for (name, read) in read {
            if let Some(written) = written.get(&name) {
                assert_eq!(&read, written, "{name}");
            }
            assert!(
                !name.ends_with(|end: char| end.is_ascii_digit()),
                "{name} has a namesake"
            );
        }
    }

    #[test]
    fn every_code_of_errors_is_named() {
        let document = document(Server::ApiServer);
        let schema = &document["components"]["schemas"]["ErrorCode"];
        let mut named = BTreeSet::new();
        all(schema, &mut |value| {
            let list = value.get("enum").and_then(Value::as_array);
            named.extend(list.into_iter().flatten().filter_map(Value::as_str));
            named.extend(value.get("const").and_then(Value::as_str));
        });
        let codes: BTreeSet<&str> = codes().map(|(name, _)| name).collect();
        assert_eq!(named, codes, "{schema}");
    }

    /// What is written behind `.route(` somewhere is in the table, and nothing else is.
    #[test]
    fn every_route_is_in_the_table() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut registered = BTreeSet::new();
        for folder in ["api", "apiserver"] {
            for entry in fs::read_dir(source.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if !path.is_file() {
                    continue;
                }
                let text = fs::read_to_string(&path).unwrap();
                let (text, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
                let routes = text.split(".route(").skip(1);
                registered.extend(routes.filter_map(|after| {
                    let after = after.trim_start();
                    match after.strip_prefix('"') {
                        Some(path) => Some(path.split('"').next()?.to_owned()),
                        None => after.starts_with("openapi::PATH").then(|| PATH.to_owned()),
                    }
                }));
            }
        }
        let listed: BTreeSet<String> = routes::all()
            .iter()
            .map(|route| route.path.to_owned())
            .collect();
        assert_eq!(registered, listed);
    }

    #[test]
    fn roles_are_those_of_the_gate() {
        let document = document(Server::ApiServer);
        for (path, method, role, rehearsed) in [
            ("/v1/links", "get", "viewer", Value::Null),
            ("/v1/links", "post", "operator", json!("viewer")),
            ("/v1/records/{key}", "put", "admin", Value::Null),
        ] {
            let operation = &document["paths"][path][method];
            assert_eq!(operation["x-role"], role, "{path} {method}");
            assert_eq!(
                operation["x-role-of-a-dry-run"], rehearsed,
                "{path} {method}"
            );
        }
    }
}

//! The document that `rpc.discover` returns: [OpenRPC](https://spec.open-rpc.org), generated from the tables of
//! methods, parameters and result types. Nothing in it is written twice.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::{error::code, method::Method, params, types};

/// Version of the specification that the document follows.
pub const OPENRPC: &str = "1.3.2";

/// The document of a daemon of version `version`.
pub fn document(version: &str) -> Value {
    let settings = SchemaSettings::draft07().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let methods: Vec<Value> = Method::ALL.iter().map(|&m| method(m, &mut generator)).collect();
    let topics = json!([
        topic::<types::Stats>("stats", "Once a second", &mut generator),
        topic::<types::Event>("event", "Something happened", &mut generator),
        topic::<types::Keyframe>("keyframe", "A key frame was generated", &mut generator),
    ]);
    let schemas = generator.take_definitions(true);
    json!({
        "openrpc": OPENRPC,
        "info": {
            "title": "keyframed",
            "version": version,
            "description": "Control plane of keyframed: JSON-RPC 2.0 over a ZeroMQ ROUTER socket, parameters by name.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "methods": methods,
        "components": {"schemas": schemas},
        // An extension: OpenRPC has no word for what a server publishes.
        "x-topics": topics,
    })
}

fn method(method: Method, generator: &mut SchemaGenerator) -> Value {
    let params: Vec<Value> = params::of(method)
        .iter()
        .map(|spec| {
            json!({
                "name": spec.name,
                "description": format!("{}: {}.", spec.doc, spec.allowed()),
                "required": spec.required,
                "schema": spec.schema(),
            })
        })
        .collect();
    let (name, schema) = result(method, generator);
    json!({
        "name": method.name(),
        "summary": method.summary(),
        "paramStructure": "by-name",
        "params": params,
        "result": {"name": name, "schema": schema},
        "errors": errors(method),
    })
}

/// Name and schema of what a method returns.
fn result(method: Method, generator: &mut SchemaGenerator) -> (&'static str, Value) {
    fn of<T: JsonSchema>(name: &'static str, generator: &mut SchemaGenerator) -> (&'static str, Value) {
        (name, generator.subschema_for::<T>().to_value())
    }
    match method {
        Method::Status => of::<types::Status>("status", generator),
        Method::ParamsGet | Method::ParamsSet => of::<types::Params>("params", generator),
        Method::ReferenceSet => of::<types::Reference>("reference", generator),
        Method::ReferenceList => of::<Vec<types::Reference>>("references", generator),
        Method::PipelineList => of::<Vec<types::PipelineInfo>>("pipelines", generator),
        Method::PipelineSwitch => of::<types::PipelineInfo>("pipeline", generator),
        Method::Snapshot => of::<types::Snapshot>("snapshot", generator),
        Method::Reload => of::<types::Reloaded>("reloaded", generator),
        Method::Pause | Method::Resume | Method::Shutdown => ("nothing", json!({"type": "null"})),
        Method::Discover => ("openrpc", json!({"type": "object", "description": "This document."})),
    }
}

fn errors(method: Method) -> Vec<Value> {
    let mut errors = vec![json!({"code": code::INVALID_PARAMS, "message": "Invalid params"})];
    let answered_at_once = matches!(method, Method::Status | Method::ParamsGet | Method::Discover);
    if !answered_at_once {
        errors.push(json!({"code": code::FAILED, "message": "It could not be done; nothing changed"}));
        errors.push(json!({"code": code::INTERNAL_ERROR, "message": "Internal error"}));
    }
    errors
}

fn topic<T: JsonSchema>(name: &str, description: &str, generator: &mut SchemaGenerator) -> Value {
    let mut topic = Map::new();
    topic.insert("name".into(), name.into());
    topic.insert("description".into(), description.into());
    topic.insert("schema".into(), generator.subschema_for::<T>().to_value());
    Value::Object(topic)
}

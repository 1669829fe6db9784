//! The table of methods and parameters: what it lets through, what it refuses, and the OpenRPC document made of it.

use std::collections::BTreeSet;

use keyframed_control::{
    Method, code,
    message::Params,
    openrpc, params,
    types::{self, MaxQuality},
};
use serde_json::{Value, json};

#[track_caller]
fn check(method: Method, given: Value) -> Result<Value, (i64, String)> {
    let Value::Object(mut given) = given else { panic!("an object is needed") };
    params::check(method, &mut given).map(|()| Value::Object(given)).map_err(|e| (e.code, e.message))
}

#[track_caller]
fn refused(method: Method, given: Value, words: &[&str]) {
    let (code, message) = check(method, given).unwrap_err();
    assert_eq!(code, code::INVALID_PARAMS, "{message}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

#[test]
fn ends_of_ranges_are_allowed_and_what_is_beyond_is_named() {
    for spec in params::SETTINGS {
        let set = |value: Value| json!({ spec.name: value });
        match spec.kind {
            params::Kind::Number { min, max } => {
                for inside in [min, max, (min + max) / 2.] {
                    check(Method::ParamsSet, set(json!(inside))).unwrap();
                }
                for outside in [min - 0.001, max + 0.001, 1e300] {
                    refused(
                        Method::ParamsSet,
                        set(json!(outside)),
                        &[spec.name, &format!("from {min} to {max}")],
                    );
                }
            }
            params::Kind::Integer { min, max } => {
                for inside in [min, max] {
                    check(Method::ParamsSet, set(json!(inside))).unwrap();
                }
                refused(Method::ParamsSet, set(json!(-1)), &[spec.name, "a whole number"]);
                refused(Method::ParamsSet, set(json!(1.5)), &[spec.name, "not 1.5"]);
            }
            params::Kind::Choice(words) => {
                for word in words {
                    check(Method::ParamsSet, set(json!(word))).unwrap();
                }
                refused(Method::ParamsSet, set(json!("x")), &[spec.name, "\"film\""]);
            }
            params::Kind::Text => {}
        }
        for wrong in [json!(true), json!([]), json!({}), json!("text")] {
            refused(Method::ParamsSet, set(wrong), &[spec.name]);
        }
        assert_eq!(check(Method::ParamsSet, set(Value::Null)).is_ok(), spec.nullable, "{}", spec.name);
    }
    // 2.0 is as whole as 2.
    assert_eq!(check(Method::ParamsSet, json!({"steps": 2.0})), Ok(json!({"steps": 2})));
    refused(Method::ParamsSet, json!({"window_frames": 1u64 << 32}), &["window_frames"]);
}

#[test]
fn names_are_checked_with_a_suggestion() {
    refused(Method::ParamsSet, json!({"lamda": 0.1}), &["\"lamda\"", "did you mean `lambda`"]);
    refused(Method::ParamsSet, json!({"target-key-rate": 1}), &["did you mean `target_key_rate_hz`"]);
    refused(Method::ParamsSet, json!({"xyzzy": 1}), &["takes `lambda`, "]);
    refused(Method::Status, json!({"verbose": true}), &["takes none"]);
    refused(Method::PipelineSwitch, json!({}), &["`name` is missing"]);
    refused(Method::PipelineSwitch, json!({"name": ""}), &["1 to 4096 bytes"]);
    refused(Method::ReferenceSet, json!({}), &["exactly one of `name` and `path`"]);
    refused(Method::ReferenceSet, json!({"name": "a", "path": "b"}), &["exactly one"]);
    refused(Method::ParamsSet, json!({}), &["nothing to set"]);
    let long = "x".repeat(100_000);
    let (_, message) = check(Method::ParamsSet, json!({ &long: 1 })).unwrap_err();
    assert!(message.len() < 500, "{} bytes", message.len());
}

#[test]
fn misspelt_methods_are_recognised() {
    let message = "params.gte".parse::<Method>().unwrap_err().message;
    assert_eq!(message, "Method not found: \"params.gte\"; did you mean \"params.get\"?");
}

#[test]
fn settings_are_those_of_the_result() {
    let one = types::Params {
        lambda: 0.01,
        window_frames: 12,
        target_key_rate_hz: 0.,
        steps: None,
        guidance_scale: None,
        lora_scale: None,
        context_frames: None,
        seed: 0,
        latency_ms: 1,
        max_quality: MaxQuality::Film,
    };
    let Ok(Value::Object(all)) = serde_json::to_value(one) else { panic!("an object") };
    let names = |all: &Params| all.keys().cloned().collect::<BTreeSet<_>>();
    let table: BTreeSet<String> = params::SETTINGS.iter().map(|s| s.name.to_owned()).collect();
    assert_eq!(names(&all), table);
    for spec in params::SETTINGS {
        assert_eq!(all[spec.name].is_null(), spec.nullable, "{}: what `null` stands for", spec.name);
    }
}

/// Members that an object of the OpenRPC meta-schema may and must have; `x-` is free.
#[track_caller]
fn object(value: &Value, must: &[&str], may: &[&str]) {
    let members = value.as_object().unwrap_or_else(|| panic!("{value} is no object"));
    for name in must {
        assert!(members.contains_key(*name), "no {name} in {value}");
    }
    for name in members.keys() {
        let known = must.contains(&name.as_str()) || may.contains(&name.as_str()) || name.starts_with("x-");
        assert!(known, "{name} in {value}");
    }
}

/// Every `$ref` points at something in the document.
fn references(value: &Value, document: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(pointer)) = members.get("$ref") {
                let target = pointer.strip_prefix('#').and_then(|p| document.pointer(p));
                assert!(target.is_some(), "{pointer} points nowhere");
            }
            members.values().for_each(|v| references(v, document));
        }
        Value::Array(all) => all.iter().for_each(|v| references(v, document)),
        _ => {}
    }
}

#[test]
fn the_document_follows_the_openrpc_meta_schema() {
    let document = openrpc::document("1.2.3");
    object(&document, &["openrpc", "info", "methods"], &["servers", "components", "externalDocs", "$schema"]);
    assert!(document["openrpc"].as_str().unwrap().starts_with("1."));
    object(
        &document["info"],
        &["title", "version"],
        &["description", "termsOfService", "contact", "license"],
    );
    object(
        &document["components"],
        &[],
        &["schemas", "links", "errors", "examples", "examplePairings", "contentDescriptors", "tags"],
    );
    let methods = document["methods"].as_array().unwrap();
    let names: Vec<&str> = methods.iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(names, Method::ALL.iter().map(|m| m.name()).collect::<Vec<_>>());
    for method in methods {
        let may =
            ["description", "summary", "servers", "tags", "paramStructure", "errors", "links", "examples"];
        object(method, &["name", "params", "result"], &may);
        assert_eq!(method["paramStructure"], "by-name");
        assert!(!method["summary"].as_str().unwrap().is_empty());
        let descriptors = method["params"].as_array().unwrap().iter().chain([&method["result"]]);
        for descriptor in descriptors {
            object(descriptor, &["name", "schema"], &["description", "summary", "required", "deprecated"]);
        }
        for error in method["errors"].as_array().unwrap() {
            object(error, &["code", "message"], &["data"]);
            assert!(error["code"].is_i64() && error["message"].is_string());
        }
    }
    references(&document, &document);
    assert!(document["components"]["schemas"]["Status"]["properties"]["outputs"].is_object());
    assert_eq!(document["x-topics"].as_array().unwrap().len(), 3);
}

//! The codec against the examples of the specification, and against what it must refuse.

use keyframed_control::{
    Call, ErrorObject, Id, Incoming, Method, Notification, Params, Reply, Request, Response, code,
    parse_reply, parse_request,
};
use serde_json::{Value, json};

/// A server with the specification's methods, those of them that take no or named parameters.
fn serve(text: &str) -> Option<Value> {
    let run = |method: &str, params: &Params| match method {
        "subtract" => match (params["minuend"].as_i64(), params["subtrahend"].as_i64()) {
            (Some(a), Some(b)) => Ok(json!(a - b)),
            _ => Err(ErrorObject::invalid_params("`minuend` and `subtrahend` must be numbers")),
        },
        "get_data" => Ok(json!(["hello", 5])),
        other => Err(ErrorObject::method_not_found(other)),
    };
    let reply = parse_request(text.as_bytes()).answer(|call| match call {
        Call::Request(r) => Some(Response { outcome: run(&r.method, &r.params), id: r.id }),
        Call::Notification(_) => None,
    });
    reply.map(|r| serde_json::to_value(r).unwrap())
}

/// Replaces each error's text, which the specification leaves open in practice, by its first words.
fn headline(mut value: Value) -> Value {
    let all = match &mut value {
        Value::Array(all) => all.iter_mut().collect::<Vec<_>>(),
        one => vec![one],
    };
    for response in all {
        if let Some(message) = response.pointer_mut("/error/message") {
            let words = message.as_str().unwrap().split(':').next().unwrap().to_owned();
            *message = words.into();
        }
    }
    value
}

#[track_caller]
fn check(sent: &str, back: Value) {
    assert_eq!(serve(sent).map(headline), Some(back), "{sent}");
}

fn error(id: Value, code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": id})
}

/// Found by fuzzing: such a number came back as another one.
#[test]
fn ids_that_would_not_come_back_as_they_were_are_refused() {
    for id in ["1.5", "1e3", "233333333333333333333333333333333333333333", "18446744073709551616"] {
        check(
            &format!(r#"{{"jsonrpc": "2.0", "method": "get_data", "id": {id}}}"#),
            error(Value::Null, code::INVALID_REQUEST, "Invalid request"),
        );
    }
    for id in ["18446744073709551615", "-9223372036854775808"] {
        let reply = serve(&format!(r#"{{"jsonrpc": "2.0", "method": "get_data", "id": {id}}}"#)).unwrap();
        assert_eq!(reply["id"].to_string(), id);
    }
}

#[test]
fn examples_of_the_specification() {
    // rpc call with named parameters
    check(
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}"#,
        json!({"jsonrpc": "2.0", "result": 19, "id": 3}),
    );
    // a notification
    assert_eq!(serve(r#"{"jsonrpc": "2.0", "method": "foobar"}"#), None);
    // rpc call of non-existent method
    check(
        r#"{"jsonrpc": "2.0", "method": "foobar", "id": "1"}"#,
        error(json!("1"), code::METHOD_NOT_FOUND, "Method not found"),
    );
    // rpc call with invalid JSON
    check(
        r#"{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]"#,
        error(json!(null), code::PARSE_ERROR, "Parse error"),
    );
    // rpc call with invalid Request object
    check(
        r#"{"jsonrpc": "2.0", "method": 1, "params": "bar"}"#,
        error(json!(null), code::INVALID_REQUEST, "Invalid request"),
    );
    // rpc call Batch, invalid JSON
    check(
        r#"[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method"]"#,
        error(json!(null), code::PARSE_ERROR, "Parse error"),
    );
    // rpc call with an empty Array
    check("[]", error(json!(null), code::INVALID_REQUEST, "Invalid request"));
    // rpc call with an invalid Batch (but not empty), with invalid Batch
    let invalid = error(json!(null), code::INVALID_REQUEST, "Invalid request");
    check("[1]", json!([invalid]));
    check("[1,2,3]", json!([invalid, invalid, invalid]));
    // rpc call Batch, its calls by name
    check(
        r#"[
            {"jsonrpc": "2.0", "method": "notify_hello", "params": {"n": 7}},
            {"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": "2"},
            {"foo": "boo"},
            {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
            {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
        ]"#,
        json!([
            {"jsonrpc": "2.0", "result": 19, "id": "2"},
            invalid,
            error(json!("5"), code::METHOD_NOT_FOUND, "Method not found"),
            {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
        ]),
    );
    // rpc call Batch (all notifications)
    assert_eq!(serve(r#"[{"jsonrpc": "2.0", "method": "a"}, {"jsonrpc": "2.0", "method": "b"}]"#), None);
    // rpc call with positional parameters: ours go by name
    check(
        r#"{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}"#,
        error(json!(1), code::INVALID_PARAMS, "Invalid params"),
    );
}

#[test]
fn notifications_are_never_answered_and_no_parameters_may_be_an_empty_list() {
    assert_eq!(serve(r#"{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23]}"#), None);
    assert_eq!(serve(r#"[{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23]}]"#), None);
    check(
        r#"{"jsonrpc": "2.0", "method": "get_data", "params": [], "id": 1}"#,
        json!({"jsonrpc": "2.0", "result": ["hello", 5], "id": 1}),
    );
    // What is no request is answered, for nobody can tell what it was meant as.
    check(
        r#"{"jsonrpc": "2.0", "method": "get_data", "params": "bar"}"#,
        error(json!(null), code::INVALID_REQUEST, "Invalid request"),
    );
    check(
        r#"{"jsonrpc": "2.0", "method": "get_data", "params": [1], "colour": 1}"#,
        error(json!(null), code::INVALID_REQUEST, "Invalid request"),
    );
}

#[test]
fn refusals_say_precisely_what_is_wrong() {
    for (text, id, words) in [
        (r#"{"jsonrpc": "1.0", "method": "status", "id": 1}"#, Id::from(1), "`jsonrpc` is \"1.0\""),
        (r#"{"jsonrpc": 2.0, "method": "status", "id": 1}"#, Id::from(1), "`jsonrpc` is 2.0"),
        (r#"{"method": "status", "id": "x"}"#, Id::from("x"), "no `jsonrpc`"),
        (r#"{"jsonrpc": "2.0", "id": 1}"#, Id::from(1), "no `method`"),
        (r#"{"jsonrpc": "2.0", "method": null, "id": 1}"#, Id::from(1), "`method` is null"),
        (r#"{"jsonrpc": "2.0", "method": "status", "id": {}}"#, Id::Null, "`id` is an object"),
        (r#"{"jsonrpc": "2.0", "method": "status", "id": true}"#, Id::Null, "`id` is a boolean"),
        (
            r#"{"jsonrpc": "2.0", "method": "status", "params": 1, "id": 1}"#,
            Id::from(1),
            "`params` is a number",
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "status", "params": null, "id": 1}"#,
            Id::from(1),
            "`params` is null",
        ),
        (
            r#"{"jsonrpc": "2.0", "method": "status", "parms": {}, "id": 1}"#,
            Id::from(1),
            "unknown member \"parms\"",
        ),
        ("\"status\"", Id::Null, "a string instead of an object"),
        ("", Id::Null, "EOF"),
        ("{} {}", Id::Null, "trailing characters at line 1 column 4"),
        ("\u{feff}{}", Id::Null, "column 1"),
    ] {
        let Incoming::Single(Err(Some(Response { id: got, outcome: Err(error) }))) =
            parse_request(text.as_bytes())
        else {
            panic!("{text} was accepted");
        };
        assert_eq!(got, id, "{text}");
        assert!(error.message.contains(words), "{text}: {error}");
    }
    assert!(matches!(parse_request(b"\xff\xfe"), Incoming::Single(Err(_))));
    // Deep nesting is refused, not followed until the stack ends.
    let deep = "[".repeat(100_000);
    assert!(matches!(parse_request(deep.as_bytes()), Incoming::Single(Err(_))));
}

#[test]
fn calls_come_back_as_they_were_sent() {
    let params = json!({"lambda": 0.01, "name": "a\u{1f600}\n"}).as_object().cloned().unwrap();
    for params in [Params::new(), params] {
        for id in [Id::from(u64::MAX), Id::from("x"), Id::Null, Id::Number((-3).into())] {
            let request = Request { id, method: Method::ParamsSet.name().into(), params: params.clone() };
            let text = serde_json::to_vec(&request).unwrap();
            assert_eq!(parse_request(&text), Incoming::Single(Ok(Call::Request(request))));
        }
        let notification = Notification { method: "pause".into(), params };
        let text = serde_json::to_vec(&[&notification]).unwrap();
        assert_eq!(parse_request(&text), Incoming::Batch(vec![Ok(Call::Notification(notification))]));
    }
}

#[test]
fn replies_come_back_as_they_were_sent() {
    let good = Response { id: Id::from(1), outcome: Ok(Value::Null) };
    let error =
        ErrorObject { data: Some(json!({"param": "lambda"})), ..ErrorObject::invalid_params("`lambda`") };
    let bad = Response { id: Id::Null, outcome: Err(error) };
    for reply in [Reply::Single(good.clone()), Reply::Single(bad.clone()), Reply::Batch(vec![good, bad])] {
        assert_eq!(parse_reply(&serde_json::to_vec(&reply).unwrap()), Ok(reply));
    }
    for (text, words) in [
        (r#"{"jsonrpc": "2.0", "id": 1}"#, "exactly one"),
        (r#"{"jsonrpc": "2.0", "result": 1, "error": {"code": 1, "message": ""}, "id": 1}"#, "exactly one"),
        (r#"{"jsonrpc": "2.0", "result": 1}"#, "no `id`"),
        (r#"{"jsonrpc": "2.0", "error": {"code": "1", "message": ""}, "id": 1}"#, "`error`: invalid type"),
        (r#"{"jsonrpc": "2.0", "error": {"code": 1}, "id": 1}"#, "missing field `message`"),
        (r#"{"result": 1, "id": 1}"#, "no `jsonrpc`"),
        ("[]", "empty batch"),
        ("nonsense", "Parse error"),
    ] {
        let error = parse_reply(text.as_bytes()).unwrap_err();
        assert!(error.message.contains(words), "{text}: {error}");
    }
}

#[test]
fn methods_have_the_names_of_the_design() {
    let names: Vec<&str> = Method::ALL.iter().map(|m| m.name()).collect();
    let want = "status params.get params.set reference.set reference.list pipeline.list pipeline.switch \
                pause resume snapshot reload shutdown rpc.discover";
    assert_eq!(names.join(" "), want);
    for &method in Method::ALL {
        assert_eq!(method.name().parse(), Ok(method));
    }
    assert_eq!("Status".parse::<Method>().unwrap_err().code, code::METHOD_NOT_FOUND);
}

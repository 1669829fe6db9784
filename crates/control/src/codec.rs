//! From text to messages. Anything wrong becomes the response that the specification asks for.

use serde_json::{Map, Value};

use crate::{
    error::{ErrorObject, code},
    message::{Id, Notification, Params, Reply, Request, Response},
    suggest,
};

/// Most calls in a batch: an answer is larger than a call, and a client must not be able to ask for much with little.
pub const MAX_BATCH: usize = 64;

/// One well-formed call.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// Wants a response.
    Request(Request),
    /// Wants none.
    Notification(Notification),
}

/// A call that is not carried out: the response to send as it is, or `None` if it was a notification, which gets none.
pub type Refused = Option<Response>;

/// What a server makes of one text.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A single call.
    Single(Result<Call, Refused>),
    /// A batch, never empty. The responses go back as one array, or not at all if there are none.
    Batch(Vec<Result<Call, Refused>>),
}

impl Incoming {
    /// Carries out every call with `handle`, and gathers what to send back: `None` if all were notifications.
    pub fn answer(self, mut handle: impl FnMut(Call) -> Option<Response>) -> Option<Reply> {
        let mut one = |call: Result<Call, Refused>| match call {
            Ok(call) => handle(call),
            Err(refused) => refused,
        };
        match self {
            Self::Single(call) => one(call).map(Reply::Single),
            Self::Batch(calls) => {
                let responses: Vec<Response> = calls.into_iter().filter_map(one).collect();
                (!responses.is_empty()).then_some(Reply::Batch(responses))
            }
        }
    }
}

/// Reads what a client sent.
pub fn parse_request(text: &[u8]) -> Incoming {
    let refuse = |id, error| Err(Some(Response { id, outcome: Err(error) }));
    match serde_json::from_slice(text) {
        Err(e) => Incoming::Single(refuse(Id::Null, ErrorObject::parse(e))),
        Ok(Value::Array(calls)) if calls.is_empty() => {
            Incoming::Single(refuse(Id::Null, ErrorObject::invalid_request("an empty batch")))
        }
        Ok(Value::Array(calls)) if calls.len() > MAX_BATCH => {
            let why = format!("a batch of {} calls; at most {MAX_BATCH}", calls.len());
            Incoming::Single(refuse(Id::Null, ErrorObject::invalid_request(why)))
        }
        Ok(Value::Array(calls)) => Incoming::Batch(calls.into_iter().map(call).collect()),
        Ok(value) => Incoming::Single(call(value)),
    }
}

/// Reads what a server sent.
///
/// # Errors
/// What is wrong with it, as the error that a server would have sent.
pub fn parse_reply(text: &[u8]) -> Result<Reply, ErrorObject> {
    match serde_json::from_slice(text).map_err(ErrorObject::parse)? {
        Value::Array(all) if all.is_empty() => Err(ErrorObject::invalid_request("an empty batch")),
        Value::Array(all) => Ok(Reply::Batch(all.into_iter().map(response).collect::<Result<_, _>>()?)),
        value => response(value).map(Reply::Single),
    }
}

fn call(value: Value) -> Result<Call, Refused> {
    let Value::Object(mut members) = value else {
        let error = ErrorObject::invalid_request(format!("{} instead of an object", kind(&value)));
        return Err(Some(Response { id: Id::Null, outcome: Err(error) }));
    };
    // First the id, so that whatever else is wrong can be answered under it.
    let id = members.remove("id").map(id).transpose();
    let answer_to = id.as_ref().ok().and_then(Option::as_ref).unwrap_or(&Id::Null).clone();
    let is_notification = matches!(id, Ok(None));
    let checked = id.and_then(|id| {
        check_version(&mut members)?;
        let method = method(&mut members)?;
        let params = params(&mut members);
        check_rest(&members)?;
        let params = params?;
        Ok(match id {
            Some(id) => Call::Request(Request { id, method, params }),
            None => Call::Notification(Notification { method, params }),
        })
    });
    checked.map_err(|error| {
        // What is no request at all may have been meant as one, so it is answered; a notification never is.
        let silent = is_notification && error.code == code::INVALID_PARAMS;
        (!silent).then_some(Response { id: answer_to, outcome: Err(error) })
    })
}

fn response(value: Value) -> Result<Response, ErrorObject> {
    let Value::Object(mut members) = value else {
        return Err(ErrorObject::invalid_request(format!("{} instead of an object", kind(&value))));
    };
    check_version(&mut members)?;
    let id = members.remove("id").ok_or_else(|| ErrorObject::invalid_request("no `id`")).and_then(id)?;
    let outcome = match (members.remove("result"), members.remove("error")) {
        (Some(result), None) => Ok(result),
        (None, Some(error)) => {
            let bad = |e| ErrorObject::invalid_request(format!("`error`: {e}"));
            Err(serde_json::from_value(error).map_err(bad)?)
        }
        _ => return Err(ErrorObject::invalid_request("not exactly one of `result` and `error`")),
    };
    check_rest(&members)?;
    Ok(Response { id, outcome })
}

fn id(value: Value) -> Result<Id, ErrorObject> {
    match value {
        Value::Null => Ok(Id::Null),
        // Others do not come back as they were: floating-point numbers stand for them.
        Value::Number(n) if n.is_i64() || n.is_u64() => Ok(Id::Number(n)),
        Value::Number(_) => Err(ErrorObject::invalid_request(
            "`id` is a number, but no whole one of 64 bits; strings may be anything",
        )),
        Value::String(s) => Ok(Id::String(s)),
        other => Err(ErrorObject::invalid_request(format!("`id` is {}", kind(&other)))),
    }
}

fn check_version(members: &mut Map<String, Value>) -> Result<(), ErrorObject> {
    match members.remove("jsonrpc") {
        Some(Value::String(version)) if version == "2.0" => Ok(()),
        Some(Value::String(other)) => {
            let why = format!("`jsonrpc` is {} instead of \"2.0\"", suggest::shown(&other));
            Err(ErrorObject::invalid_request(why))
        }
        Some(Value::Number(n)) => {
            Err(ErrorObject::invalid_request(format!("`jsonrpc` is {n} instead of the string \"2.0\"")))
        }
        Some(other) => {
            Err(ErrorObject::invalid_request(format!("`jsonrpc` is {} instead of \"2.0\"", kind(&other))))
        }
        None => Err(ErrorObject::invalid_request("no `jsonrpc`")),
    }
}

fn method(members: &mut Map<String, Value>) -> Result<String, ErrorObject> {
    match members.remove("method") {
        Some(Value::String(name)) => Ok(name),
        Some(other) => {
            Err(ErrorObject::invalid_request(format!("`method` is {} instead of a string", kind(&other))))
        }
        None => Err(ErrorObject::invalid_request("no `method`")),
    }
}

fn params(members: &mut Map<String, Value>) -> Result<Params, ErrorObject> {
    match members.remove("params") {
        None => Ok(Params::new()),
        Some(Value::Object(params)) => Ok(params),
        Some(Value::Array(none)) if none.is_empty() => Ok(Params::new()),
        Some(Value::Array(_)) => Err(ErrorObject::invalid_params("by position; give them by name")),
        Some(other) => {
            Err(ErrorObject::invalid_request(format!("`params` is {} instead of an object", kind(&other))))
        }
    }
}

/// A misspelt member would otherwise pass unnoticed.
fn check_rest(members: &Map<String, Value>) -> Result<(), ErrorObject> {
    match members.keys().next() {
        Some(name) => Err(ErrorObject::invalid_request(format!("unknown member {}", suggest::shown(name)))),
        None => Ok(()),
    }
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

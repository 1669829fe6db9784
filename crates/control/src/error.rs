//! Errors as the protocol carries them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{method::Method, suggest};

/// Error codes. Those from -32768 to -32000 belong to the specification.
pub mod code {
    /// The text is not JSON.
    pub const PARSE_ERROR: i64 = -32700;
    /// The JSON is not a request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i64 = -32601;
    /// The method does not take these parameters.
    pub const INVALID_PARAMS: i64 = -32602;
    /// The method failed for a reason of its own.
    pub const INTERNAL_ERROR: i64 = -32603;
    /// The method could not do it: the message says why. Nothing changed.
    pub const FAILED: i64 = -32000;
    /// The client did not show the token, or a wrong one.
    pub const UNAUTHORIZED: i64 = -32001;
    /// The answer would be too large.
    pub const TOO_LARGE: i64 = -32002;
}

/// The `error` member of a response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
#[serde(deny_unknown_fields)]
pub struct ErrorObject {
    /// What kind of error: see [`code`].
    pub code: i64,
    /// One sentence for people.
    pub message: String,
    /// Details for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

impl ErrorObject {
    /// An error without details.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// The text is not JSON; `why` says where.
    pub fn parse(why: impl std::fmt::Display) -> Self {
        Self::new(code::PARSE_ERROR, format!("Parse error: {why}"))
    }

    /// The JSON is not a request; `why` says what is wrong with it.
    pub fn invalid_request(why: impl std::fmt::Display) -> Self {
        Self::new(code::INVALID_REQUEST, format!("Invalid request: {why}"))
    }

    /// There is no method of this name.
    pub fn method_not_found(name: &str) -> Self {
        let known = Method::ALL.iter().map(|m| m.name());
        let hint =
            suggest::closest(name, known).map(|m| format!("; did you mean {m:?}?")).unwrap_or_default();
        let name = suggest::shown(name);
        Self::new(code::METHOD_NOT_FOUND, format!("Method not found: {name}{hint}"))
    }

    /// The parameters do not fit the method; `why` names the one.
    pub fn invalid_params(why: impl std::fmt::Display) -> Self {
        Self::new(code::INVALID_PARAMS, format!("Invalid params: {why}"))
    }

    /// The method could not do it; `why` says what stands in the way. Nothing changed.
    pub fn failed(why: impl std::fmt::Display) -> Self {
        Self::new(code::FAILED, why.to_string())
    }

    /// A bug, or the daemon is going away.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        Self::new(code::INTERNAL_ERROR, format!("Internal error: {why}"))
    }
}

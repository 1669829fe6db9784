//! Messages. Serializing one gives its JSON; reading goes through [`codec`](crate::codec), which checks more than
//! shapes and says precisely what is wrong.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Map, Number, Value};

use crate::error::ErrorObject;

/// Parameters by name.
pub type Params = Map<String, Value>;

/// What ties a response to its request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// A whole number of 64 bits.
    Number(Number),
    /// A string.
    String(String),
    /// `null`: in a response to something whose id could not be read.
    Null,
}

impl From<u64> for Id {
    fn from(n: u64) -> Self {
        Self::Number(n.into())
    }
}

impl From<&str> for Id {
    fn from(s: &str) -> Self {
        Self::String(s.into())
    }
}

/// A call that wants a response.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Comes back in the response.
    pub id: Id,
    /// Name of the method, known or not.
    pub method: String,
    /// Its parameters, empty where there are none.
    pub params: Params,
}

/// A call that wants no response, whatever happens.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// Name of the method, known or not.
    pub method: String,
    /// Its parameters, empty where there are none.
    pub params: Params,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    /// The request's id.
    pub id: Id,
    /// What the method returned, or why it did not.
    pub outcome: Result<Value, ErrorObject>,
}

/// What a server sends back for one text: a response, or those of a batch in any order.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// To a single request.
    Single(Response),
    /// To a batch; never empty.
    Batch(Vec<Response>),
}

const VERSION: &str = "2.0";

impl Serialize for Request {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        call(serializer, Some(&self.id), &self.method, &self.params)
    }
}

impl Serialize for Notification {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        call(serializer, None, &self.method, &self.params)
    }
}

fn call<S: Serializer>(
    serializer: S,
    id: Option<&Id>,
    method: &str,
    params: &Params,
) -> Result<S::Ok, S::Error> {
    let mut out = serializer.serialize_struct("Call", 4)?;
    out.serialize_field("jsonrpc", VERSION)?;
    out.serialize_field("method", method)?;
    if !params.is_empty() {
        out.serialize_field("params", params)?;
    }
    if let Some(id) = id {
        out.serialize_field("id", id)?;
    }
    out.end()
}

impl Serialize for Response {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Response", 3)?;
        out.serialize_field("jsonrpc", VERSION)?;
        match &self.outcome {
            Ok(result) => out.serialize_field("result", result)?,
            Err(error) => out.serialize_field("error", error)?,
        }
        out.serialize_field("id", &self.id)?;
        out.end()
    }
}

//! One request after the other to the daemon.

use std::{fmt, time::Duration};

use keyframed_control::{ErrorObject, Id, Method, Reply, Request, message::Params, parse_reply};
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};
use zeromq::{DealerSocket, Socket as _, SocketOptions, SocketRecv as _, SocketSend as _, ZmqMessage};

use crate::endpoint::HOW_TO_START;

/// Why there is no result.
#[derive(Debug)]
pub enum Failure {
    /// The daemon said no.
    Refused(ErrorObject),
    /// Nobody answered, or not in time.
    Silent(String),
    /// Something on this side, such as a file that cannot be written.
    Here(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(error) => f.write_str(&error.message),
            Self::Silent(why) | Self::Here(why) => f.write_str(why),
        }
    }
}

/// A connection to the daemon.
pub struct Client {
    socket: DealerSocket,
    endpoint: String,
    token: Option<String>,
    limit: Duration,
    last: u64,
}

impl Client {
    /// Connects. `limit` is for this, and for each call.
    ///
    /// # Errors
    /// Nobody answers there.
    pub async fn connect(endpoint: String, token: Option<String>, limit: Duration) -> Result<Self, Failure> {
        let silent = |why: &dyn fmt::Display| {
            Failure::Silent(format!("no keyframed answers at {endpoint}: {why}\n{HOW_TO_START}"))
        };
        let mut options = SocketOptions::default();
        options.connect_timeout(limit);
        let mut socket = DealerSocket::with_options(options);
        match timeout(limit, socket.connect(&endpoint)).await {
            Ok(Ok(())) => Ok(Self { socket, endpoint, token, limit, last: 0 }),
            Ok(Err(error)) => Err(silent(&error)),
            Err(_) => Err(silent(&format!("nothing within {} ms", limit.as_millis()))),
        }
    }

    /// Calls a method and waits for its result.
    ///
    /// # Errors
    /// The daemon's error, or silence.
    pub async fn call(&mut self, method: Method, params: Params) -> Result<Value, Failure> {
        self.last += 1;
        let id = Id::from(self.last);
        let request = Request { id: id.clone(), method: method.name().into(), params };
        let text = serde_json::to_vec(&request).map_err(|e| Failure::Here(e.to_string()))?;
        let mut message = ZmqMessage::from(text);
        if let Some(token) = &self.token {
            message.push_front(token.clone().into());
        }
        let deadline = Instant::now() + self.limit;
        let lost = |why: &dyn fmt::Display| {
            Failure::Silent(format!("the connection to {} broke: {why}", self.endpoint))
        };
        self.socket.send(message).await.map_err(|e| lost(&e))?;
        loop {
            let reply = match timeout_at(deadline, self.socket.recv()).await {
                Ok(reply) => reply.map_err(|e| lost(&e))?,
                Err(_) => {
                    let why = format!(
                        "{} did not answer {method} within {} ms (see --timeout-ms)",
                        self.endpoint,
                        self.limit.as_millis()
                    );
                    return Err(Failure::Silent(why));
                }
            };
            let Some(text) = reply.iter().next_back() else { continue };
            let reply = parse_reply(text);
            match reply.map_err(|e| Failure::Silent(format!("{} is no keyframed: {e}", self.endpoint)))? {
                // An error without an id is about something the daemon could not read: ours.
                Reply::Single(r) if r.id == id || r.id == Id::Null => {
                    return r.outcome.map_err(Failure::Refused);
                }
                // An answer to an earlier call that was given up.
                Reply::Single(_) | Reply::Batch(_) => {}
            }
        }
    }
}

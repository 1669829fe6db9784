//! From calls to the daemon and back.

use std::{future::Future, time::Duration};

use keyframed_control::{
    Call, ErrorObject, Id, Method, Response, message::Params, openrpc, params, types::Status,
};
use serde_json::Value;
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use crate::{
    config::mask::masked,
    daemon::handle::{Answer, Choice, Command, Handle},
};

/// For the daemon to answer a command. Far more than any takes: a client must not wait for ever if it hangs.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Carries out calls; cheap to clone.
#[derive(Debug, Clone)]
pub struct Methods {
    handle: Handle,
    document: std::sync::Arc<Value>,
}

/// What a call came to.
type Outcome = Result<Value, ErrorObject>;

/// A call that was passed on: whom to answer, if anybody, and what may still have to be waited for.
pub struct Begun {
    id: Option<Id>,
    method: String,
    rest: Rest,
}

enum Rest {
    Done(Outcome),
    Waits(std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>),
}

impl Methods {
    /// For the daemon behind `handle`.
    pub fn new(handle: Handle) -> Self {
        Self { handle, document: openrpc::document(env!("CARGO_PKG_VERSION")).into() }
    }

    /// Passes a call on. The order of calls to this is the order in which the daemon carries them out.
    pub async fn begin(&self, call: Call) -> Begun {
        let (id, method, mut params) = match call {
            Call::Request(r) => (Some(r.id), r.method, r.params),
            Call::Notification(n) => (None, n.method, n.params),
        };
        let rest = match checked(&method, &mut params) {
            Ok(known) => {
                metrics::counter!("keyframed_control_requests_total", "method" => known.name()).increment(1);
                self.dispatch(known, params).await
            }
            Err(error) => Rest::Done(Err(error)),
        };
        Begun { id, method, rest }
    }

    async fn dispatch(&self, method: Method, mut params: Params) -> Rest {
        use Command as C;
        match method {
            Method::Status => Rest::Done(status(&self.handle.status)),
            Method::ParamsGet => Rest::Done(newest(&self.handle.params)),
            Method::Discover => Rest::Done(Ok(Value::clone(&self.document))),
            Method::ParamsSet => self.command(|answer| C::ParamsSet(params, answer)).await,
            Method::ReferenceSet => {
                let text = |v: Option<Value>| v.and_then(|v| v.as_str().map(str::to_owned));
                let choice = match (text(params.remove("name")), text(params.remove("path"))) {
                    (Some(name), _) => Choice::Name(name),
                    (None, path) => Choice::Path(path.unwrap_or_default().into()),
                };
                self.command(|answer| C::ReferenceSet(choice, answer)).await
            }
            Method::ReferenceList => self.command(C::ReferenceList).await,
            Method::PipelineList => self.command(C::PipelineList).await,
            Method::PipelineSwitch => {
                let name = params.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                self.command(|answer| C::PipelineSwitch(name, answer)).await
            }
            Method::Pause => self.command(C::Pause).await,
            Method::Resume => self.command(C::Resume).await,
            Method::Snapshot => self.command(C::Snapshot).await,
            Method::Reload => self.command(C::Reload).await,
            Method::Shutdown => self.command(C::Shutdown).await,
        }
    }

    /// Puts a command into the daemon's queue; its answer is waited for later.
    async fn command<T>(&self, make: impl FnOnce(Answer<T>) -> Command) -> Rest
    where
        T: serde::Serialize + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        match timeout(ANSWER_TIMEOUT, self.handle.commands.send(make(answer))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Rest::Done(Err(going_away())),
            Err(_) => return Rest::Done(Err(hangs())),
        }
        Rest::Waits(Box::pin(async move {
            match timeout(ANSWER_TIMEOUT, answered).await {
                Ok(Ok(answer)) => answer.and_then(|t| json(&t)),
                Ok(Err(_)) => Err(going_away()),
                Err(_) => Err(hangs()),
            }
        }))
    }
}

impl Begun {
    /// Waits for the outcome: `None` for a notification.
    pub async fn finish(self) -> Option<Response> {
        let outcome = match self.rest {
            Rest::Done(outcome) => outcome,
            Rest::Waits(outcome) => outcome.await,
        };
        if let Err(error) = &outcome {
            tracing::debug!(method = self.method, "refused: {error}");
        }
        self.id.map(|id| Response { id, outcome })
    }
}

fn checked(method: &str, params: &mut Params) -> Result<Method, ErrorObject> {
    let method: Method = method.parse()?;
    params::check(method, params)?;
    Ok(method)
}

fn newest<T: serde::Serialize>(watched: &watch::Receiver<T>) -> Outcome {
    json(&*watched.borrow())
}

/// As the daemon publishes it, but for secrets in what GStreamer gave as reasons.
fn status(watched: &watch::Receiver<Status>) -> Outcome {
    let mut status = watched.borrow().clone();
    for part in status.outputs.iter_mut().chain([&mut status.source]) {
        part.last_error = part.last_error.as_deref().map(masked);
    }
    json(&status)
}

fn json<T: serde::Serialize>(value: &T) -> Outcome {
    serde_json::to_value(value).map_err(ErrorObject::internal)
}

fn going_away() -> ErrorObject {
    ErrorObject::failed("the daemon is shutting down")
}

fn hangs() -> ErrorObject {
    ErrorObject::internal(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))
}

//! The ROUTER socket. A client's requests never meet another's: each connection has a task of its own, and what
//! answers a request is the connection it came from.

use std::io;

use bytes::Bytes;
use keyframed_control::{Call, ErrorObject, Id, Incoming, Reply, Response, code, parse_request};
use subtle::ConstantTimeEq as _;
use tokio::{sync::watch, task::JoinSet};

use super::{
    ended,
    link::{Link, Stream},
    methods::{Begun, Methods},
    zmtp::{self, Event, MAX_MESSAGE, MAX_PARTS},
};
use crate::config::resolved::Token;

/// Requests of one client that are carried out at the same time. Further ones wait in its socket.
const MAX_UNDERWAY: usize = 8;
/// Most bytes in an answer to a batch: some methods return pictures.
const MAX_REPLY: usize = 32 * 1024 * 1024;

/// Serves one client until it closes.
///
/// # Errors
/// Why the connection was ended from this side.
pub async fn serve(
    stream: Box<dyn Stream>,
    methods: Methods,
    token: Option<Token>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let link = tokio::select! {
        link = Link::accept(stream, "ROUTER", &["REQ", "DEALER", "ROUTER"]) => link?,
        () = ended(&mut stopped) => return Ok(()),
    };
    Client { link, methods, token, underway: JoinSet::new(), batch: false }.run(&mut stopped).await
}

struct Client {
    link: Link,
    methods: Methods,
    token: Option<Token>,
    /// Answers that are waited for; `None` where there is nothing to say.
    underway: JoinSet<Option<Bytes>>,
    /// Whether a batch is among them: its calls go one after the other, and what follows waits for its end.
    batch: bool,
}

impl Client {
    async fn run(mut self, stopped: &mut watch::Receiver<bool>) -> io::Result<()> {
        loop {
            let free = self.underway.len() < MAX_UNDERWAY && !self.batch;
            tokio::select! {
                event = self.link.receive(), if free => match event? {
                    None => return Ok(()),
                    Some(event) => self.take(event).await?,
                },
                Some(done) = self.underway.join_next() => {
                    self.batch = self.batch && !self.underway.is_empty();
                    if let Ok(Some(reply)) = done {
                        self.link.send(reply).await?;
                    }
                }
                () = ended(stopped), if self.underway.is_empty() => return Ok(()),
            }
        }
    }

    async fn take(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Message(parts) => match open(parts, self.token.as_ref()) {
                Ok((envelope, request)) => self.begin(envelope, &request).await,
                Err((envelope, error)) => self.link.send(refusal(envelope, error)).await,
            },
            Event::TooLarge { parts, bytes, last } => {
                let why = format!(
                    "a message of {bytes} bytes or more; at most {MAX_MESSAGE} bytes in {MAX_PARTS} parts are read"
                );
                // Without the last part it is unknown what was meant as what: an envelope has its end in it.
                let end = parts.iter().position(Bytes::is_empty).map_or(0, |i| i + 1);
                let envelope = parts.into_iter().take(end).collect();
                self.link.send(refusal(envelope, ErrorObject::invalid_request(&why))).await?;
                if last { Err(io::Error::other(why)) } else { Ok(()) }
            }
            Event::Command(name, body) if name == "PING" => self.link.send(zmtp::pong(&body)).await,
            Event::Command(..) => Ok(()),
        }
    }

    /// Passes the calls of one message on, in order, and leaves waiting for answers to a task.
    async fn begin(&mut self, envelope: Vec<Bytes>, request: &[u8]) -> io::Result<()> {
        match parse_request(request) {
            Incoming::Single(Ok(call)) => {
                let begun = self.methods.begin(call).await;
                self.underway
                    .spawn(async move { begun.finish().await.map(|r| seal(envelope, &Reply::Single(r))) });
            }
            Incoming::Single(Err(response)) => {
                self.link.send(seal(envelope, &Reply::Single(response))).await?
            }
            Incoming::Batch(calls) => {
                let methods = self.methods.clone();
                self.batch = true;
                self.underway.spawn(async move {
                    let responses = batch(methods, calls).await;
                    (!responses.is_empty()).then(|| seal(envelope, &Reply::Batch(responses)))
                });
            }
        }
        Ok(())
    }
}

/// One call after the other, so that each sees what those before it did.
async fn batch(methods: Methods, calls: Vec<Result<Call, Response>>) -> Vec<Response> {
    let mut responses = Vec::new();
    let mut bytes = 0;
    for call in calls {
        let response = match call {
            Ok(Call::Request(r)) if bytes > MAX_REPLY => {
                let why =
                    format!("the batch's answer exceeds {MAX_REPLY} bytes; this call was not carried out");
                Some(Response { id: r.id, outcome: Err(ErrorObject::new(code::TOO_LARGE, why)) })
            }
            Ok(call) => Begun::finish(methods.begin(call).await).await,
            Err(response) => Some(response),
        };
        bytes += response.as_ref().map_or(0, size);
        responses.extend(response);
    }
    responses
}

/// Bytes of a response, nearly: texts are what can be long.
fn size(response: &Response) -> usize {
    fn of(value: &serde_json::Value) -> usize {
        match value {
            serde_json::Value::String(s) => s.len(),
            serde_json::Value::Array(all) => all.iter().map(of).sum(),
            serde_json::Value::Object(all) => all.iter().map(|(k, v)| k.len() + 8 + of(v)).sum(),
            _ => 16,
        }
    }
    response.outcome.as_ref().map_or(128, of)
}

type Opened = Result<(Vec<Bytes>, Bytes), (Vec<Bytes>, ErrorObject)>;

/// Takes a message apart: what comes before and with an empty part is the envelope, and goes back as it came; then
/// comes the token, if any, then the request. A DEALER needs no envelope.
fn open(mut parts: Vec<Bytes>, token: Option<&Token>) -> Opened {
    let last = parts.len().saturating_sub(1);
    let end = parts[..last].iter().position(Bytes::is_empty).map_or(0, |i| i + 1);
    let mut rest = parts.split_off(end);
    let envelope = parts;
    let request = rest.pop().unwrap_or_default();
    if rest.len() > 1 {
        let why = format!("{} parts; a token and a request are the most", rest.len() + 1);
        return Err((envelope, ErrorObject::invalid_request(why)));
    }
    match (token, rest.first()) {
        (None, _) => Ok((envelope, request)),
        (Some(token), Some(shown)) if shows(token, shown) => Ok((envelope, request)),
        (Some(_), shown) => {
            let why = match shown {
                Some(_) => "Unauthorized: this is not the daemon's token",
                None => "Unauthorized: over TCP the token is needed, as a message part before the request",
            };
            Err((envelope, ErrorObject::new(code::UNAUTHORIZED, why)))
        }
    }
}

/// Whether the token is right; the time that this takes does not tell how much of it is.
pub fn shows(token: &Token, shown: &[u8]) -> bool {
    token.0.as_bytes().ct_eq(shown).into()
}

fn refusal(envelope: Vec<Bytes>, error: ErrorObject) -> Bytes {
    seal(envelope, &Reply::Single(Response { id: Id::Null, outcome: Err(error) }))
}

fn seal(mut envelope: Vec<Bytes>, reply: &Reply) -> Bytes {
    // Our own types: they have no map keys or numbers that JSON lacks.
    envelope.push(serde_json::to_vec(reply).unwrap_or_default().into());
    zmtp::message(&envelope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(all: &[&'static str]) -> Vec<Bytes> {
        all.iter().map(|p| Bytes::from_static(p.as_bytes())).collect()
    }

    #[test]
    fn envelopes_of_all_clients_are_understood() {
        for (message, envelope) in [
            (&["{}"][..], &[][..]),
            (&["", "{}"], &[""]),
            (&["hop", "", "{}"], &["hop", ""]),
            (&[""], &[]),
            (&["", ""], &[""]),
        ] {
            let (got, request) = open(parts(message), None).unwrap();
            assert_eq!(got, parts(envelope), "{message:?}");
            assert_eq!(request, *message.last().unwrap());
        }
        assert!(open(parts(&["a", "b", "{}"]), None).is_err());
    }

    #[test]
    fn tokens_are_asked_for() {
        let token = Token("secret".into());
        for message in [&["secret", "{}"][..], &["", "secret", "{}"], &["hop", "", "secret", "{}"]] {
            assert!(open(parts(message), Some(&token)).is_ok(), "{message:?}");
        }
        for message in
            [&["{}"][..], &["", "{}"], &["secre", "{}"], &["", "secret2", "{}"], &["secret", "", "{}"]]
        {
            let (_, error) = open(parts(message), Some(&token)).unwrap_err();
            assert_eq!(error.code, code::UNAUTHORIZED, "{message:?}");
        }
        // Where none is asked for, one does no harm.
        assert!(open(parts(&["secret", "{}"]), None).is_ok());
    }
}

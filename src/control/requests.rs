//! The ROUTER socket. A client's requests never meet another's: each connection has a task of its own, and what
//! answers a request is the connection it came from.

use std::{collections::VecDeque, io, time::Duration};

use bytes::Bytes;
use keyframed_control::{
    Call, ErrorObject, Id, Incoming, Reply, Response, code,
    codec::Refused,
    parse_request,
    zmtp::{self, Event, MAX_MESSAGE, MAX_PARTS},
};
use subtle::ConstantTimeEq as _;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    budget::{self, Budget, Share},
    ended,
    link::{Link, Stream},
    methods::Methods,
};
use crate::config::resolved::Token;

/// Requests of one client that are carried out at the same time.
const MAX_UNDERWAY: usize = 8;
/// Requests of one client that were read and wait for their turn. Further ones wait in its socket; while there is room
/// here, a PING behind them is seen.
const MAX_WAITING: usize = 64;
/// Bytes of those.
const MAX_WAITING_BYTES: usize = MAX_MESSAGE;
/// Most bytes in an answer to a batch: some methods return pictures.
const MAX_REPLY: usize = 32 * 1024 * 1024;
/// For a client to show the token, where one is asked for.
pub const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// What all clients share; cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    pub methods: Methods,
    pub budget: Budget,
}

/// Serves one client until it closes.
///
/// # Errors
/// Why the connection was ended from this side.
pub async fn serve(
    stream: Box<dyn Stream>,
    service: Service,
    token: Option<Token>,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let link = tokio::select! {
        link = Link::accept(stream, "ROUTER", &["REQ", "DEALER", "ROUTER"]) => link?,
        () = ended(&mut stopped) => return Ok(()),
    };
    let stranger = token.is_some().then(|| Instant::now() + TOKEN_TIMEOUT);
    let client = Client {
        link,
        service,
        token,
        stranger,
        waiting: VecDeque::new(),
        underway: JoinSet::new(),
        batch: false,
    };
    client.run(&mut stopped).await
}

struct Client {
    link: Link,
    service: Service,
    token: Option<Token>,
    /// Until when the token must be shown; `None` when it was, or need not be.
    stranger: Option<Instant>,
    /// Requests that were read and are not begun: envelope and text.
    waiting: VecDeque<(Vec<Bytes>, Bytes)>,
    /// Answers that are waited for; `None` where there is nothing to say.
    underway: JoinSet<Option<Sealed>>,
    /// Whether a batch is among them: its calls go one after the other, and what follows waits for its end.
    batch: bool,
}

/// An answer as it goes on the wire, and its share of the budget until it is there.
struct Sealed {
    wire: Bytes,
    _shares: Vec<Share>,
}

impl Client {
    async fn run(mut self, stopped: &mut watch::Receiver<bool>) -> io::Result<()> {
        loop {
            self.begin_waiting().await?;
            let has_room = self.waiting.len() < MAX_WAITING
                && self.waiting.iter().map(|(_, text)| text.len()).sum::<usize>() < MAX_WAITING_BYTES;
            let overdue = self.stranger;
            tokio::select! {
                event = self.link.receive(), if has_room => match event? {
                    None => return Ok(()),
                    Some(event) => self.take(event).await?,
                },
                Some(done) = self.underway.join_next() => {
                    self.batch = self.batch && !self.underway.is_empty();
                    if let Ok(Some(sealed)) = done {
                        self.link.send(sealed.wire).await?;
                    }
                }
                () = sleep_until(overdue.unwrap_or_else(Instant::now)), if overdue.is_some() => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no token"));
                }
                () = ended(stopped), if self.underway.is_empty() => return Ok(()),
            }
        }
    }

    /// Begins what waits, in order, as far as it may.
    async fn begin_waiting(&mut self) -> io::Result<()> {
        while self.underway.len() < MAX_UNDERWAY && !self.batch {
            let Some((envelope, request)) = self.waiting.pop_front() else { return Ok(()) };
            self.begin(envelope, &request).await?;
        }
        Ok(())
    }

    async fn take(&mut self, event: Event) -> io::Result<()> {
        match event {
            Event::Message(parts) => match open(parts, self.token.as_ref()) {
                Ok(opened) => {
                    self.stranger = None;
                    self.waiting.push_back(opened);
                    Ok(())
                }
                Err(Unopened { envelope, error, last }) => {
                    let why = error.message.clone();
                    self.link.send(refusal(envelope, error)).await?;
                    if last { Err(io::Error::other(why)) } else { Ok(()) }
                }
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
        let Service { methods, budget } = self.service.clone();
        match parse_request(request) {
            Incoming::Single(Ok(call)) => {
                let begun = methods.begin(call).await;
                self.underway.spawn(async move {
                    let (response, share) = budget.charge(begun.finish().await?);
                    Some(Sealed { wire: seal(envelope, &Reply::Single(response)), _shares: vec![share] })
                });
            }
            Incoming::Single(Err(Some(response))) => {
                self.link.send(seal(envelope, &Reply::Single(response))).await?
            }
            Incoming::Single(Err(None)) => {}
            Incoming::Batch(calls) => {
                self.batch = true;
                self.underway.spawn(async move {
                    let (responses, shares) = batch(methods, budget, calls).await;
                    (!responses.is_empty())
                        .then(|| Sealed { wire: seal(envelope, &Reply::Batch(responses)), _shares: shares })
                });
            }
        }
        Ok(())
    }
}

/// One call after the other, so that each sees what those before it did.
async fn batch(
    methods: Methods,
    budget: Budget,
    calls: Vec<Result<Call, Refused>>,
) -> (Vec<Response>, Vec<Share>) {
    let (mut responses, mut shares, mut bytes) = (Vec::new(), Vec::new(), 0);
    for call in calls {
        let response = match call {
            Ok(Call::Request(r)) if bytes > MAX_REPLY => {
                let why =
                    format!("the batch's answer exceeds {MAX_REPLY} bytes; this call was not carried out");
                Some(Response { id: r.id, outcome: Err(ErrorObject::new(code::TOO_LARGE, why)) })
            }
            Ok(call) => methods.begin(call).await.finish().await,
            Err(refused) => refused,
        };
        let Some((response, share)) = response.map(|response| budget.charge(response)) else { continue };
        bytes += budget::size(&response);
        responses.push(response);
        shares.push(share);
    }
    (responses, shares)
}

/// A message that is no request from somebody who may ask.
#[derive(Debug)]
struct Unopened {
    envelope: Vec<Bytes>,
    error: ErrorObject,
    /// Whether the connection ends with it: whoever guesses at the token shall not do so fast.
    last: bool,
}

/// Takes a message apart: what comes before and with an empty part is the envelope, and goes back as it came; then
/// comes the token, if any, then the request. A DEALER needs no envelope.
fn open(mut parts: Vec<Bytes>, token: Option<&Token>) -> Result<(Vec<Bytes>, Bytes), Unopened> {
    let last = parts.len().saturating_sub(1);
    let end = parts[..last].iter().position(Bytes::is_empty).map_or(0, |i| i + 1);
    let mut rest = parts.split_off(end);
    let envelope = parts;
    let request = rest.pop().unwrap_or_default();
    if rest.len() > 1 {
        let why = format!("{} parts; a token and a request are the most", rest.len() + 1);
        return Err(Unopened { envelope, error: ErrorObject::invalid_request(why), last: false });
    }
    match (token, rest.first()) {
        (None, _) => Ok((envelope, request)),
        (Some(token), Some(shown)) if shows(token, shown) => Ok((envelope, request)),
        (Some(_), shown) => {
            let why = match shown {
                Some(_) => "Unauthorized: this is not the daemon's token",
                None => "Unauthorized: over TCP the token is needed, as a message part before the request",
            };
            let error = ErrorObject::new(code::UNAUTHORIZED, why);
            Err(Unopened { envelope, error, last: shown.is_some() })
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
            let unopened = open(parts(message), Some(&token)).unwrap_err();
            assert_eq!(unopened.error.code, code::UNAUTHORIZED, "{message:?}");
            let shown = message.iter().any(|part| part.starts_with("secre") && message[0] != "secret");
            assert_eq!(unopened.last, shown, "{message:?}");
        }
        // Where none is asked for, one does no harm.
        assert!(open(parts(&["secret", "{}"]), None).is_ok());
    }
}

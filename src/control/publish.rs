//! The PUB socket. Telemetry is encoded once, and each subscriber takes it from a shared ring: one that reads too
//! slowly misses the oldest and holds nobody up.

use std::{future::pending, io};

use bytes::Bytes;
use keyframed_control::zmtp::{self, Event};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{Instant, sleep_until},
};

use super::{
    link::{Link, Stream},
    requests::{TOKEN_TIMEOUT, shows},
};
use crate::{config::resolved::Token, daemon::handle::Telemetry};

/// Messages that a subscriber may be behind.
const RING: usize = 256;
/// Most subscriptions of one subscriber.
const MAX_SUBSCRIPTIONS: usize = 64;
/// Longest topic in a subscription.
const MAX_TOPIC: usize = 512;
/// What a subscription that shows the token begins with.
const TOKEN_TOPIC: &[u8] = b"token:";

/// A message: its topic, and what goes on the wire.
#[derive(Debug, Clone)]
pub struct Published {
    topic: &'static str,
    wire: Bytes,
}

/// Where [`forward`] sends to and subscribers listen.
pub fn ring() -> broadcast::Sender<Published> {
    broadcast::channel(RING).0
}

/// Encodes telemetry for subscribers, until the daemon is gone.
pub async fn forward(mut telemetry: broadcast::Receiver<Telemetry>, to: broadcast::Sender<Published>) {
    loop {
        match telemetry.recv().await {
            Ok(_) if to.receiver_count() == 0 => {}
            Ok(told) => {
                if let Some(published) = encode(&told) {
                    let _ = to.send(published);
                }
            }
            Err(RecvError::Lagged(n)) => tracing::debug!("{n} telemetry messages were missed"),
            Err(RecvError::Closed) => return,
        }
    }
}

fn encode(told: &Telemetry) -> Option<Published> {
    let (topic, json) = match told {
        Telemetry::Stats(stats) => ("stats", serde_json::to_vec(stats)),
        Telemetry::Event(event) => ("event", serde_json::to_vec(event)),
        Telemetry::Keyframe(keyframe) => ("keyframe", serde_json::to_vec(keyframe)),
    };
    let json = json.ok()?;
    Some(Published { topic, wire: zmtp::message(&[Bytes::from_static(topic.as_bytes()), json.into()]) })
}

/// Serves one subscriber until it closes.
///
/// # Errors
/// Why the connection was ended from this side.
pub async fn serve(
    stream: Box<dyn Stream>,
    mut published: broadcast::Receiver<Published>,
    token: Option<Token>,
) -> io::Result<()> {
    let mut link = Link::accept(stream, "PUB", &["SUB", "XSUB"]).await?;
    let mut wanted = Subscriptions { topics: Vec::new(), token };
    let deadline = Instant::now() + TOKEN_TIMEOUT;
    loop {
        let is_stranger = wanted.token.is_some();
        let overdue = async { if is_stranger { sleep_until(deadline).await } else { pending().await } };
        tokio::select! {
            event = link.receive() => match event? {
                None => return Ok(()),
                Some(Event::Command(name, body)) if name == "PING" => link.send(zmtp::pong(&body)).await?,
                Some(event) => wanted.take(event)?,
            },
            told = published.recv() => match told {
                Ok(message) if wanted.has(message.topic) => link.send(message.wire).await?,
                Ok(_) => {}
                Err(RecvError::Lagged(n)) => tracing::debug!("a subscriber missed {n} messages"),
                Err(RecvError::Closed) => return Ok(()),
            },
            () = overdue => return Err(io::Error::new(io::ErrorKind::TimedOut, "no token")),
        }
    }
}

/// What a subscriber wants, and whether it may have it.
struct Subscriptions {
    topics: Vec<Bytes>,
    /// Still to be shown.
    token: Option<Token>,
}

impl Subscriptions {
    fn has(&self, topic: &str) -> bool {
        self.token.is_none() && self.topics.iter().any(|t| topic.as_bytes().starts_with(t))
    }

    /// A subscription or its end: a message in ZMTP 3.0, a command in 3.1. A SUB socket sends nothing else, so
    /// this is also where it shows a token.
    fn take(&mut self, event: Event) -> io::Result<()> {
        let (add, topic) = match event {
            Event::Message(parts) => match parts.first().and_then(|p| p.split_first()) {
                Some((1, _)) => (true, parts[0].slice(1..)),
                Some((0, _)) => (false, parts[0].slice(1..)),
                _ => return Ok(()),
            },
            Event::Command(name, topic) if name == "SUBSCRIBE" => (true, topic),
            Event::Command(name, topic) if name == "CANCEL" => (false, topic),
            Event::Command(..) => return Ok(()),
            Event::TooLarge { .. } => return Err(io::Error::other("a subscription over the limits")),
        };
        // No topic of ours begins so; where no token is asked for (any more) it is shown in vain.
        if topic.starts_with(TOKEN_TOPIC) {
            return match &self.token {
                Some(token) if add && shows(token, &topic[TOKEN_TOPIC.len()..]) => {
                    self.token = None;
                    Ok(())
                }
                Some(_) if add => Err(io::Error::other("a wrong token")),
                _ => Ok(()),
            };
        }
        if !add {
            if let Some(at) = self.topics.iter().position(|t| *t == topic) {
                self.topics.swap_remove(at);
            }
            return Ok(());
        }
        if self.topics.len() == MAX_SUBSCRIPTIONS || topic.len() > MAX_TOPIC {
            return Err(io::Error::other("too many or too long subscriptions"));
        }
        self.topics.push(topic);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: &'static [u8]) -> Event {
        Event::Message(vec![Bytes::from_static(bytes)])
    }

    #[test]
    fn topics_are_prefixes_and_can_be_cancelled() {
        let mut wanted = Subscriptions { topics: Vec::new(), token: None };
        assert!(!wanted.has("stats"));
        wanted.take(message(b"\x01st")).unwrap();
        assert!(wanted.has("stats") && !wanted.has("event"));
        wanted.take(Event::Command("SUBSCRIBE".into(), "".into())).unwrap();
        assert!(wanted.has("event"));
        wanted.take(message(b"\x00")).unwrap();
        wanted.take(Event::Command("CANCEL".into(), "st".into())).unwrap();
        assert!(!wanted.has("stats") && !wanted.has("event"));
        wanted.take(message(b"nonsense")).unwrap();
        for _ in 0..MAX_SUBSCRIPTIONS {
            wanted.take(message(b"\x01a")).unwrap();
        }
        assert!(wanted.take(message(b"\x01a")).is_err());
    }

    #[test]
    fn nothing_is_told_before_the_token_is_shown() {
        let mut wanted = Subscriptions { topics: Vec::new(), token: Some(Token("secret".into())) };
        wanted.take(message(b"\x01")).unwrap();
        assert!(!wanted.has("stats"));
        assert!(wanted.take(message(b"\x01token:secre")).is_err());
        wanted.take(message(b"\x01token:secret")).unwrap();
        assert!(wanted.has("stats"));
        // A client that shows it again, as one does that has several sockets' code, loses nothing.
        wanted.take(message(b"\x01token:other")).unwrap();
        assert!(wanted.has("stats"));
    }

    #[test]
    fn a_token_that_nobody_asked_for_is_dropped() {
        let mut wanted = Subscriptions { topics: Vec::new(), token: None };
        let long = [&b"\x01token:"[..], &[b'x'; 4000]].concat();
        for _ in 0..2 * MAX_SUBSCRIPTIONS {
            wanted.take(Event::Message(vec![long.clone().into()])).unwrap();
        }
        wanted.take(message(b"\x00token:secret")).unwrap();
        assert!(wanted.topics.is_empty());
    }
}

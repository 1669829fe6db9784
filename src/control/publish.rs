//! The PUB socket. Telemetry is encoded once, and each subscriber takes it from a shared ring: one that reads too
//! slowly misses the oldest and holds nobody up.

use std::io;

use bytes::Bytes;
use tokio::sync::broadcast::{self, error::RecvError};

use super::{
    link::{Link, Stream},
    requests::shows,
    zmtp::{self, Event},
};
use crate::{config::resolved::Token, daemon::handle::Telemetry};

/// Messages that a subscriber may be behind.
const RING: usize = 256;
/// Most subscriptions of one subscriber.
const MAX_SUBSCRIPTIONS: usize = 64;
/// Longest topic or token in a subscription.
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
    loop {
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
        if !add {
            if let Some(at) = self.topics.iter().position(|t| *t == topic) {
                self.topics.swap_remove(at);
            }
            return Ok(());
        }
        if let (Some(token), Some(shown)) = (&self.token, topic.strip_prefix(TOKEN_TOPIC)) {
            if !shows(token, shown) {
                return Err(io::Error::other("a wrong token"));
            }
            self.token = None;
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
    }
}

//! One connection: handshake, events in, bytes out. Everything has a time limit, so that a client that goes silent
//! half-way or does not read cannot hold anything for long.

use std::{
    future::{Future, pending},
    io,
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use keyframed_control::zmtp::{self, Decoder, Event};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep_until, timeout},
};

/// For greeting and handshake together.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// From a message's first byte to its last.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// For a client to take some bytes.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);
/// For a client to take all of what is sent at once: one that takes a byte now and then holds it no longer than this.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(60);
/// Read at once.
const CHUNK: usize = 8 * 1024;

/// Any stream socket.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection after its handshake.
pub struct Link {
    stream: Box<dyn Stream>,
    decoder: Decoder,
    /// Until when the message under way must be whole.
    deadline: Option<Instant>,
}

impl Link {
    /// Shakes hands as a socket of type `ours` that talks to those of `theirs`.
    ///
    /// # Errors
    /// The client is gone, too slow, or something else than a ZeroMQ socket of such a type.
    pub async fn accept(stream: Box<dyn Stream>, ours: &str, theirs: &[&str]) -> io::Result<Self> {
        let mut link = Self { stream, decoder: Decoder::default(), deadline: None };
        timeout(HANDSHAKE_TIMEOUT, link.handshake(ours, theirs))
            .await
            .map_err(|_| late("no handshake"))?
            .map(|()| link)
    }

    async fn handshake(&mut self, ours: &str, theirs: &[&str]) -> io::Result<()> {
        self.stream.write_all(&zmtp::greeting()).await?;
        let mut greeting = BytesMut::with_capacity(zmtp::GREETING);
        while greeting.len() < zmtp::GREETING {
            let missing = zmtp::GREETING - greeting.len();
            let mut rest = (&mut greeting).limit(missing);
            if self.stream.read_buf(&mut rest).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            zmtp::check_greeting(&greeting).map_err(io::Error::other)?;
        }
        self.stream.write_all(&zmtp::ready(ours)).await?;
        let Some(Event::Command(name, body)) = self.receive().await? else {
            return Err(io::Error::other("no READY"));
        };
        if name != "READY" {
            return Err(io::Error::other("a command other than READY"));
        }
        let theirs_is = zmtp::socket_type(body).map_err(io::Error::other)?;
        if theirs.iter().any(|t| t.as_bytes() == theirs_is) {
            return Ok(());
        }
        let why = format!("this is a {ours} socket, for {}", theirs.join(", "));
        self.stream.write_all(&zmtp::error(&why)).await?;
        Err(io::Error::other(why))
    }

    /// The next event; `None` when the client has closed. Can be dropped and called again without loss.
    ///
    /// # Errors
    /// The client broke the protocol, took too long, or the connection failed.
    pub async fn receive(&mut self) -> io::Result<Option<Event>> {
        loop {
            if let Some(event) = self.decoder.next_event().map_err(io::Error::other)? {
                self.deadline = None;
                return Ok(Some(event));
            }
            if !self.decoder.is_partial() {
                self.deadline = None;
            } else if self.deadline.is_none() {
                self.deadline = Some(Instant::now() + MESSAGE_TIMEOUT);
            }
            let overdue = async {
                match self.deadline {
                    Some(at) => sleep_until(at).await,
                    None => pending().await,
                }
            };
            let buffer = self.decoder.buffer();
            buffer.reserve(CHUNK);
            let mut room = buffer.limit(CHUNK);
            tokio::select! {
                read = self.stream.read_buf(&mut room) => {
                    if read? == 0 {
                        return Ok(None);
                    }
                }
                () = overdue => return Err(late("a message without an end")),
            }
        }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The client takes nothing or takes too little for too long, or the connection failed.
    pub async fn send(&mut self, bytes: Bytes) -> io::Result<()> {
        within(SEND_TIMEOUT, self.send_all(bytes)).await
    }

    async fn send_all(&mut self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = timeout(STALL_TIMEOUT, self.stream.write(&bytes))
                .await
                .map_err(|_| late("it does not read"))??;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let _ = bytes.split_to(sent);
        }
        Ok(())
    }
}

async fn within(limit: Duration, sent: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    timeout(limit, sent).await.map_err(|_| late("it reads too slowly"))?
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_takes_a_byte_now_and_then_is_not_waited_for() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut link = Link { stream: Box::new(near), decoder: Decoder::default(), deadline: None };
        let dripping = tokio::spawn(async move {
            let mut taken = 0;
            while far.read_u8().await.is_ok() {
                taken += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            taken
        });
        // Never without progress for long, and yet without an end.
        let sent = within(Duration::from_millis(500), link.send_all(vec![0; 1 << 20].into())).await;
        assert_eq!(sent.unwrap_err().to_string(), "it reads too slowly");
        drop(link);
        assert!(dripping.await.unwrap() > 1);
    }
}

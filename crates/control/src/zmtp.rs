//! The part of [ZMTP 3.0](https://rfc.zeromq.org/spec/23/) that a server needs: greeting, NULL handshake, frames.
//!
//! The decoder does no input or output: it takes bytes and gives events, and never holds more than [`MAX_MESSAGE`]
//! bytes of a message, whatever its headers announce. (`zeromq` 0.7 reserves what a header announces, queues 100,000
//! messages a peer and waits for a full queue while it holds the peer's lock; none of it can be configured.)

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Most bytes in a message, all parts together. Requests are small.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Most parts in a message: an envelope of a few hops, a token, a request.
pub const MAX_PARTS: usize = 16;
/// A message too large is read and thrown away up to here, so that its sender can be told. Beyond: it is told at
/// once, and the connection ends.
pub const MAX_SKIPPED: u64 = 1 << 30;
/// Length of a greeting.
pub const GREETING: usize = 64;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// What a connection brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole message.
    Message(Vec<Bytes>),
    /// A command: name and body.
    Command(Bytes, Bytes),
    /// A message over the limits; the parts before the one that broke them, and its size as far as it is known.
    TooLarge {
        /// Parts that were kept.
        parts: Vec<Bytes>,
        /// Bytes announced.
        bytes: u64,
        /// Whether the connection cannot go on.
        last: bool,
    },
}

/// A peer that does not speak the protocol; the connection is closed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not ZMTP: {0}")]
pub struct Violation(&'static str);

/// From bytes to events, after the greeting.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Bytes not yet understood: never more than a header and a frame within the limits.
    buffer: BytesMut,
    /// Parts of the message that is under way.
    parts: Vec<Bytes>,
    /// Bytes of that message announced so far.
    bytes: u64,
    /// Bytes of the present frame still to be thrown away.
    skip: u64,
    /// The frame whose body is awaited: flags and length.
    frame: Option<(u8, usize)>,
    /// The message under way broke a limit.
    too_large: bool,
    /// The frame that is being skipped is the message's last.
    skip_ends: bool,
}

impl Decoder {
    /// Where to put bytes from the socket.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Whether a message or command has begun that is not whole yet.
    pub fn is_partial(&self) -> bool {
        !self.buffer.is_empty() || self.frame.is_some() || !self.parts.is_empty() || self.too_large
    }

    /// The next event, or `None` until there are more bytes.
    ///
    /// # Errors
    /// The bytes cannot be ZMTP.
    pub fn next_event(&mut self) -> Result<Option<Event>, Violation> {
        loop {
            if self.too_large {
                let thrown = self.skip.min(self.buffer.len() as u64);
                self.buffer.advance(thrown as usize);
                self.skip -= thrown;
                if self.skip > 0 {
                    return Ok(None);
                }
                if self.skip_ends {
                    return Ok(Some(self.give_up(false)));
                }
            }
            let Some((flags, len)) = self.frame else {
                match self.header()? {
                    Some((flags, len)) => {
                        if let Some(event) = self.begin(flags, len)? {
                            return Ok(Some(event));
                        }
                        continue;
                    }
                    None => return Ok(None),
                }
            };
            let Some(body) = self.buffer.get(..len) else { return Ok(None) };
            // A copy, so that a small part does not keep a large read buffer alive.
            let body = Bytes::copy_from_slice(body);
            self.frame = None;
            self.buffer.advance(len);
            if flags & COMMAND != 0 {
                return command(body).map(Some);
            }
            self.parts.push(body);
            if flags & MORE == 0 {
                self.bytes = 0;
                return Ok(Some(Event::Message(std::mem::take(&mut self.parts))));
            }
        }
    }

    /// Flags and length of the next frame.
    fn header(&mut self) -> Result<Option<(u8, u64)>, Violation> {
        let Some(&flags) = self.buffer.first() else { return Ok(None) };
        if flags & !(MORE | LONG | COMMAND) != 0 || flags & (COMMAND | MORE) == COMMAND | MORE {
            return Err(Violation("reserved bits in a frame's flags"));
        }
        let size = if flags & LONG != 0 { 9 } else { 2 };
        if self.buffer.len() < size {
            return Ok(None);
        }
        self.buffer.advance(1);
        let len = if flags & LONG != 0 { self.buffer.get_u64() } else { u64::from(self.buffer.get_u8()) };
        Ok(Some((flags, len)))
    }

    /// Decides what becomes of a frame before any of its body is stored.
    fn begin(&mut self, flags: u8, len: u64) -> Result<Option<Event>, Violation> {
        if len > i64::MAX as u64 {
            return Err(Violation("a frame of more than 2^63 bytes"));
        }
        if flags & COMMAND != 0 {
            if !self.parts.is_empty() || self.too_large {
                return Err(Violation("a command inside a message"));
            }
            if len > MAX_MESSAGE as u64 {
                return Err(Violation("a command that is too long"));
            }
            self.frame = Some((flags, len as usize));
            return Ok(None);
        }
        self.bytes = self.bytes.saturating_add(len);
        if self.too_large || self.bytes > MAX_MESSAGE as u64 || self.parts.len() == MAX_PARTS {
            self.too_large = true;
            self.skip = len;
            self.skip_ends = flags & MORE == 0;
            return Ok((self.bytes > MAX_SKIPPED).then(|| self.give_up(true)));
        }
        self.frame = Some((flags, len as usize));
        Ok(None)
    }

    fn give_up(&mut self, last: bool) -> Event {
        let event = Event::TooLarge { parts: std::mem::take(&mut self.parts), bytes: self.bytes, last };
        (self.bytes, self.skip, self.too_large, self.skip_ends) = (0, 0, false, false);
        event
    }
}

fn command(mut body: Bytes) -> Result<Event, Violation> {
    let name = short(&mut body).ok_or(Violation("a command without a name"))?;
    Ok(Event::Command(name, body))
}

/// Text with its length in one byte before it.
fn short(from: &mut Bytes) -> Option<Bytes> {
    let len = usize::from(*from.first()?);
    (from.len() > len).then(|| {
        from.advance(1);
        from.split_to(len)
    })
}

/// The greeting that we send: version 3.0, mechanism NULL.
pub fn greeting() -> [u8; GREETING] {
    let mut out = [0; GREETING];
    out[0] = 0xff;
    out[9] = 0x7f;
    out[10] = 3;
    out[12..16].copy_from_slice(b"NULL");
    out
}

/// Checks as much of a peer's greeting as has come.
///
/// # Errors
/// It is none, or not one that we can talk to.
pub fn check_greeting(so_far: &[u8]) -> Result<(), Violation> {
    if so_far.first().is_some_and(|b| *b != 0xff) || so_far.get(9).is_some_and(|b| *b != 0x7f) {
        return Err(Violation("no greeting"));
    }
    if so_far.get(10).is_some_and(|major| *major < 3) {
        return Err(Violation("a version before 3.0"));
    }
    if so_far.get(12..32).is_some_and(|name| name != b"NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0") {
        return Err(Violation("a security mechanism other than NULL"));
    }
    Ok(())
}

/// The socket type in a READY command's properties.
///
/// # Errors
/// The properties are malformed, or there is no type among them.
pub fn socket_type(mut properties: Bytes) -> Result<Bytes, Violation> {
    let malformed = Violation("malformed properties in READY");
    while !properties.is_empty() {
        let Some(name) = short(&mut properties) else { return Err(malformed) };
        let Some(len) = properties.try_get_u32().ok().filter(|n| *n as usize <= properties.len()) else {
            return Err(malformed);
        };
        let value = properties.split_to(len as usize);
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            return Ok(value);
        }
    }
    Err(Violation("no socket type in READY"))
}

/// A READY command for a socket of type `name`.
pub fn ready(name: &str) -> Bytes {
    let mut body = BytesMut::new();
    for word in ["READY", "Socket-Type"] {
        body.put_u8(word.len() as u8);
        body.put_slice(word.as_bytes());
    }
    body.put_u32(name.len() as u32);
    body.put_slice(name.as_bytes());
    let mut out = BytesMut::new();
    frame(&mut out, COMMAND, &body);
    out.freeze()
}

/// An ERROR command, the last thing that a peer hears.
pub fn error(reason: &str) -> Bytes {
    let mut body = BytesMut::from(&b"\x05ERROR"[..]);
    let length = reason.len().min(255);
    body.put_u8(length as u8);
    body.extend(reason.bytes().take(length));
    let mut out = BytesMut::new();
    frame(&mut out, COMMAND, &body);
    out.freeze()
}

/// The answer to a PING: it carries the PING's context, which follows two bytes of time-to-live.
pub fn pong(ping: &Bytes) -> Bytes {
    let mut body = BytesMut::from(&b"\x04PONG"[..]);
    body.put_slice(ping.get(2..18.min(ping.len())).unwrap_or_default());
    let mut out = BytesMut::new();
    frame(&mut out, COMMAND, &body);
    out.freeze()
}

/// A message of these parts, as it goes on the wire.
pub fn message(parts: &[Bytes]) -> Bytes {
    let mut out = BytesMut::with_capacity(parts.iter().map(|p| p.len() + 9).sum());
    for (i, part) in parts.iter().enumerate() {
        frame(&mut out, if i + 1 < parts.len() { MORE } else { 0 }, part);
    }
    out.freeze()
}

fn frame(out: &mut BytesMut, flags: u8, body: &[u8]) {
    match u8::try_from(body.len()) {
        Ok(len) => out.put_slice(&[flags, len]),
        Err(_) => {
            out.put_u8(flags | LONG);
            out.put_u64(body.len() as u64);
        }
    }
    out.put_slice(body);
}

#[cfg(test)]
#[path = "zmtp_tests.rs"]
mod tests;

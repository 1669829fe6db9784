//! A client that speaks as much ZMTP as it likes.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// Bytes before anything else: version 3.0, mechanism NULL.
pub fn greeting() -> Vec<u8> {
    let mut out = vec![0; 64];
    out[0] = 0xff;
    out[9] = 0x7f;
    out[10] = 3;
    out[12..16].copy_from_slice(b"NULL");
    out
}

/// A frame's header and body.
pub fn frame(flags: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![flags | 2];
    out.extend((body.len() as u64).to_be_bytes());
    out.extend(body);
    out
}

/// The READY command of a socket of this type.
pub fn ready(kind: &str) -> Vec<u8> {
    let mut body = b"\x05READY\x0bSocket-Type".to_vec();
    body.extend((kind.len() as u32).to_be_bytes());
    body.extend(kind.as_bytes());
    frame(4, &body)
}

/// A connection after the handshake.
pub struct Raw(pub UnixStream);

impl Raw {
    /// Connects and shakes hands as a DEALER.
    pub fn dealer(socket: &Path) -> std::io::Result<Self> {
        let mut stream = Self::silent(socket)?;
        stream.write_all(&greeting())?;
        stream.write_all(&ready("DEALER"))?;
        let mut hello = [0; 64];
        stream.read_exact(&mut hello)?;
        let mut raw = Self(stream);
        raw.frame()?;
        Ok(raw)
    }

    /// Connects, and that is all.
    pub fn silent(socket: &Path) -> std::io::Result<UnixStream> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(stream)
    }

    /// Sends a message of one part.
    pub fn send(&mut self, body: &[u8]) -> std::io::Result<()> {
        self.0.write_all(&frame(0, body))
    }

    /// The body of the next frame.
    pub fn frame(&mut self) -> std::io::Result<Vec<u8>> {
        let mut flags = [0];
        self.0.read_exact(&mut flags)?;
        let len = if flags[0] & 2 == 0 {
            let mut len = [0];
            self.0.read_exact(&mut len)?;
            u64::from(len[0])
        } else {
            let mut len = [0; 8];
            self.0.read_exact(&mut len)?;
            u64::from_be_bytes(len)
        };
        let mut body = vec![0; len as usize];
        self.0.read_exact(&mut body)?;
        Ok(body)
    }

    /// Waits until the daemon closes.
    pub fn closed(stream: &mut UnixStream) -> bool {
        let mut rest = [0; 4096];
        loop {
            match stream.read(&mut rest) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) => return e.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
    }
}

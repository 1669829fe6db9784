//! Addresses: from the configuration's text to sockets that listen.

use std::{
    fs,
    io::{self, ErrorKind},
    net::SocketAddr,
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that wait to be taken. A burst of clients must not be refused.
const BACKLOG: i32 = 1024;

/// A ZeroMQ endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `ipc://` and a path.
    Ipc(PathBuf),
    /// `tcp://` and an address.
    Tcp(SocketAddr),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ipc(path) => write!(f, "ipc://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

impl std::str::FromStr for Endpoint {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        if let Some(path) = text.strip_prefix("ipc://") {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                bail!("endpoint {text:?}: the path after ipc:// must be absolute");
            }
            return Ok(Self::Ipc(path));
        }
        match text.strip_prefix("tcp://").map(str::parse) {
            Some(Ok(address)) => Ok(Self::Tcp(address)),
            Some(Err(_)) => {
                bail!("endpoint {text:?}: after tcp:// an address and a port, such as 127.0.0.1:5750")
            }
            None => bail!("endpoint {text:?} begins with neither ipc:// nor tcp://"),
        }
    }
}

/// A socket that listens; its file is removed when this is dropped.
#[derive(Debug)]
pub struct Listening {
    /// Non-blocking.
    pub socket: Socket,
    /// Where.
    pub endpoint: Endpoint,
    file: Option<SocketFile>,
}

impl Listening {
    /// Whether clients can still find it: a socket's file may have been removed, alone or with its folder.
    pub fn is_reachable(&self) -> bool {
        self.file.as_ref().is_none_or(SocketFile::is_there)
    }
}

impl Endpoint {
    /// Listens here. `mode` is for the socket's file.
    ///
    /// # Errors
    /// What stands in the way, and what to do about it.
    pub fn listen(&self, mode: u32) -> anyhow::Result<Listening> {
        let (socket, file) = match self {
            Self::Ipc(path) => {
                let (socket, file) = listen_ipc(path, mode)?;
                (socket, Some(file))
            }
            Self::Tcp(address) => {
                let socket = listen_tcp(*address).map_err(|e| tcp_error(*address, e))?;
                (socket, None)
            }
        };
        socket.set_nonblocking(true).with_context(|| format!("listening at {self}"))?;
        Ok(Listening { socket, endpoint: self.clone(), file })
    }
}

fn listen_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A daemon that starts anew must not wait for the old one's closed connections to time out.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn tcp_error(address: SocketAddr, error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::AddrInUse => anyhow::anyhow!(
            "tcp://{address} is in use: another program (or another keyframed) listens there; choose another port"
        ),
        ErrorKind::PermissionDenied => {
            anyhow::anyhow!(
                "tcp://{address}: no permission; ports below 1024 are for root, choose a higher one"
            )
        }
        ErrorKind::AddrNotAvailable => {
            anyhow::anyhow!(
                "tcp://{address}: this machine has no such address; 0.0.0.0 stands for all it has"
            )
        }
        _ => anyhow::Error::new(error).context(format!("listening at tcp://{address}")),
    }
}

fn listen_ipc(path: &Path, mode: u32) -> anyhow::Result<(Socket, SocketFile)> {
    let at = || format!("ipc://{}", path.display());
    let Some(folder) = path.parent().filter(|_| path.file_name().is_some()) else {
        bail!("{}: a path to a file is needed", at());
    };
    let address = SockAddr::unix(path).map_err(|_| {
        anyhow::anyhow!("{}: the path is too long for a socket (107 bytes are the most)", at())
    })?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(folder)
        .with_context(|| format!("{}: the folder {} cannot be made", at(), folder.display()))?;
    refuse_strangers_folder(folder).with_context(at)?;

    // Two daemons that start at once: one looks, removes and binds at a time.
    let lock = fs::File::open(folder).with_context(|| format!("{}: opening its folder", at()))?;
    flock(&lock, FlockOperation::LockExclusive).with_context(|| format!("{}: locking its folder", at()))?;
    remove_stale(path).with_context(at)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).with_context(at)?;
    socket.bind(&address).with_context(|| format!("{}: the socket cannot be made", at()))?;
    let file = SocketFile::new(path).with_context(at)?;
    // Nobody can connect before `listen`: by then the permissions are right.
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(at)?;
    socket.listen(BACKLOG).with_context(at)?;
    Ok((socket, file))
}

/// In a folder such as `/tmp` anybody can make the folder that we are about to use, and then put a socket of his own
/// in the place of ours.
fn refuse_strangers_folder(folder: &Path) -> anyhow::Result<()> {
    let shared =
        folder.parent().and_then(|p| fs::metadata(p).ok()).is_some_and(|m| m.mode() & 0o1002 == 0o1002);
    let owner = fs::symlink_metadata(folder)?.uid();
    if shared && owner != rustix::process::geteuid().as_raw() {
        bail!(
            "the folder {} belongs to another user (id {owner}); choose another endpoint",
            folder.display()
        );
    }
    Ok(())
}

/// Removes what a dead daemon left behind.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
        Ok(found) if !found.file_type().is_socket() => {
            bail!("there is a file of that name that is no socket; remove it or choose another path")
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => bail!("another keyframed answers there; stop it, or give this one another endpoint"),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).context("a dead daemon's socket cannot be removed")
        }
        // Gone meanwhile.
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        Err(e) => {
            Err(anyhow::Error::new(e)
                .context("a socket is there, and it cannot be told whether it is in use"))
        }
    }
}

/// A socket's file, removed on drop if it is still the one that was made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    id: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.into(), id: identity(path)? })
    }

    fn is_there(&self) -> bool {
        identity(&self.path).is_ok_and(|id| id == self.id)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_there()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("{} cannot be removed: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|m| (m.dev(), m.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_shown() {
        for text in ["ipc:///run/keyframed/control.sock", "tcp://127.0.0.1:5750", "tcp://[::1]:5750"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["ipc://here", "tcp://localhost", "inproc://x", "", "/run/x.sock"] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_socket_file_is_made_kept_from_others_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/folder/control.sock");
        let endpoint = Endpoint::Ipc(path.clone());
        let first = endpoint.listen(0o660).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let second = endpoint.listen(0o660).unwrap_err();
        assert!(format!("{second:#}").contains("another keyframed answers there"), "{second:#}");
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced_and_a_strangers_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listening = Endpoint::Ipc(path.clone()).listen(0o600).unwrap();
        // A file that took its place meanwhile is somebody else's.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(listening);
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let error = Endpoint::Ipc(path.clone()).listen(0o600).unwrap_err();
        assert!(format!("{error:#}").contains("no socket"), "{error:#}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_port_in_use_and_a_path_too_long_are_said_plainly() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let error = Endpoint::Tcp(taken.local_addr().unwrap()).listen(0).unwrap_err().to_string();
        assert!(error.contains("is in use"), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let error = Endpoint::Ipc(folder.path().join("x".repeat(120))).listen(0).unwrap_err().to_string();
        assert!(error.contains("too long"), "{error}");
    }
}

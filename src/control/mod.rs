//! The control plane: JSON-RPC 2.0 on a ROUTER socket, telemetry on a PUB socket.
//!
//! It runs on a thread of its own, so that a request is answered at once whatever the daemon is busy with. Each
//! connection is a task with bounded memory; there are at most [`MAX_CLIENTS`] of them at each endpoint, and what
//! they may have on the way to them is bounded for all together.

mod budget;
mod endpoint;
mod link;
mod methods;
mod publish;
mod requests;

use std::{
    future::Future,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use self::{
    budget::Budget,
    endpoint::{Endpoint, Listening},
    link::Stream,
    methods::Methods,
    publish::Published,
};
use crate::{
    config::resolved::{Control, Token},
    daemon::handle::Handle,
};

/// Most clients of an endpoint; further ones are turned away. Each has places of its own, so that those who come over
/// the network cannot keep local ones out.
pub const MAX_CLIENTS: usize = 1024;
/// For answers that are under way when the daemon ends.
const FAREWELL: Duration = Duration::from_millis(500);
/// After a failure to let a client in.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often it is looked whether a socket's file is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Sockets that listen, not served yet: what can go wrong has gone wrong by now.
#[derive(Debug)]
pub struct Sockets {
    requests: Vec<Door>,
    telemetry: Vec<Door>,
    budget: Budget,
}

/// A socket, and what it asks of those who come in.
#[derive(Debug)]
struct Door {
    listening: Listening,
    token: Option<Token>,
    /// Of the socket's file.
    mode: u32,
}

/// Listens at all endpoints of the configuration.
///
/// # Errors
/// An endpoint is malformed or in use, or a token is missing where one is needed.
pub fn bind(config: &Control) -> anyhow::Result<Sockets> {
    raise_file_limit();
    let door = |endpoint: Endpoint| -> anyhow::Result<Door> {
        let token = match endpoint {
            Endpoint::Ipc(_) => None,
            Endpoint::Tcp(address) if config.token.is_none() && !address.ip().is_loopback() => {
                bail!("{endpoint}: beyond this machine a token is required; set `token_file` in [control]")
            }
            Endpoint::Tcp(_) => config.token.clone(),
        };
        Ok(Door { listening: endpoint.listen(config.mode)?, token, mode: config.mode })
    };
    let doors = |endpoint: &str, tcp: Option<_>| -> anyhow::Result<Vec<Door>> {
        let mut doors = vec![door(endpoint.parse()?)?];
        doors.extend(tcp.map(|address| door(Endpoint::Tcp(address))).transpose()?);
        Ok(doors)
    };
    Ok(Sockets {
        requests: doors(&config.endpoint, config.tcp).context("control socket")?,
        telemetry: doors(&config.telemetry_endpoint, config.telemetry_tcp).context("telemetry socket")?,
        budget: Budget::of(budget::MOST),
    })
}

impl Sockets {
    /// Serves clients until `shutdown`; then the sockets' files are removed.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub async fn serve(self, handle: Handle, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let (stop, stopped) = watch::channel(false);
        let (done, finished) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                let result = runtime.block_on(self.run(handle, stopped));
                // With it go all tasks, and with them the sockets' files.
                drop(runtime);
                let _ = done.send(result);
            })
            .context("the control thread cannot be started")?;
        let mut finished = finished;
        tokio::select! {
            () = shutdown => {}
            early = &mut finished => return early.context("the control thread ended")?,
        }
        let _ = stop.send(true);
        finished.await.context("the control thread ended")?
    }

    async fn run(self, handle: Handle, mut stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
        let ring = publish::ring();
        let mut background = JoinSet::new();
        background.spawn(publish::forward(handle.telemetry.subscribe(), ring.clone()));
        for door in self.telemetry {
            background.spawn(door.serve(Service::Telemetry(ring.clone()), stopped.clone()));
        }
        let mut requests = JoinSet::new();
        let service = requests::Service { methods: Methods::new(handle), budget: self.budget };
        let service = Service::Requests(service, stopped.clone());
        for door in self.requests {
            requests.spawn(door.serve(service.clone(), stopped.clone()));
        }
        // The sender lives as long as `serve` is polled.
        ended(&mut stopped).await;
        // Answers under way, above all that to `shutdown`, still get out.
        let _ = timeout(FAREWELL, async { while requests.join_next().await.is_some() {} }).await;
        Ok(())
    }
}

/// Waits for the end.
async fn ended(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// What clients of a socket get.
#[derive(Clone)]
enum Service {
    Requests(requests::Service, watch::Receiver<bool>),
    Telemetry(broadcast::Sender<Published>),
}

impl Service {
    /// Serves one client; it keeps its place until it is gone.
    async fn client(self, stream: Box<dyn Stream>, token: Option<Token>, _place: OwnedSemaphorePermit) {
        let name = self.name();
        metrics::counter!("keyframed_control_clients_total", "socket" => name).increment(1);
        let result = match self {
            Self::Requests(service, stopped) => requests::serve(stream, service, token, stopped).await,
            Self::Telemetry(ring) => publish::serve(stream, ring.subscribe(), token).await,
        };
        if let Err(error) = result {
            tracing::debug!(socket = name, "a client's connection was ended: {error}");
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Requests(..) => "requests",
            Self::Telemetry(_) => "telemetry",
        }
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Door {
    /// Lets clients in until the end, and waits for those inside.
    async fn serve(mut self, service: Service, mut stopped: watch::Receiver<bool>) {
        let room = Arc::new(Semaphore::new(MAX_CLIENTS));
        let mut listener = match self.listener() {
            Ok(listener) => listener,
            Err(error) => return tracing::error!("{} cannot be served: {error}", self.listening.endpoint),
        };
        let mut clients = JoinSet::new();
        let (mut refused, mut removed) = (Refused::default(), Refused::default());
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok(stream) => match room.clone().try_acquire_owned() {
                        Ok(place) => {
                            clients.spawn(service.clone().client(stream, self.token.clone(), place));
                        }
                        Err(_) => refused.tell(&self, service.name(), &format!("{MAX_CLIENTS} are the most")),
                    },
                    Err(error) => {
                        // Out of file handles, mostly: some time must pass, or this would spin.
                        refused.tell(&self, service.name(), &error.to_string());
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                _ = look.tick() => match self.mended() {
                    Ok(None) => {}
                    Ok(Some(new)) => listener = new,
                    Err(error) => removed.warn(&format!("clients no longer find the socket: {error:#}")),
                },
                // Finished clients are forgotten.
                Some(_) = clients.join_next() => {}
                () = ended(&mut stopped) => break,
            }
        }
        drop(listener);
        while clients.join_next().await.is_some() {}
    }

    /// A listener in the place of one whose file is gone. Those who are inside stay.
    fn mended(&mut self) -> anyhow::Result<Option<Listener>> {
        if self.listening.is_reachable() {
            return Ok(None);
        }
        self.listening = self.listening.endpoint.listen(self.mode)?;
        tracing::warn!("{}: the socket had been removed; it is there again", self.listening.endpoint);
        Ok(Some(self.listener()?))
    }

    fn listener(&self) -> io::Result<Listener> {
        let socket = self.listening.socket.try_clone()?;
        Ok(match self.listening.endpoint {
            Endpoint::Tcp(_) => Listener::Tcp(TcpListener::from_std(socket.into())?),
            Endpoint::Ipc(_) => Listener::Unix(UnixListener::from_std(socket.into())?),
        })
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
            Self::Tcp(listener) => {
                let stream = listener.accept().await?.0;
                prepare(&stream);
                Box::new(stream)
            }
        })
    }
}

/// Answers go out at once, and a client whose machine is gone is noticed.
fn prepare(stream: &TcpStream) {
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(30)).with_interval(Duration::from_secs(10));
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Says that clients are turned away, but not for each of them.
#[derive(Default)]
struct Refused {
    last: Option<Instant>,
}

impl Refused {
    fn tell(&mut self, door: &Door, socket: &'static str, why: &str) {
        metrics::counter!("keyframed_control_clients_refused_total", "socket" => socket).increment(1);
        self.warn(&format!("{}: clients are turned away: {why}", door.listening.endpoint));
    }

    fn warn(&mut self, text: &str) {
        if self.last.is_none_or(|at| at.elapsed() > Duration::from_secs(60)) {
            self.last = Some(Instant::now());
            tracing::warn!("{text}");
        }
    }
}

/// Every client takes a file handle; the usual soft limit of 1024 would be too few for all of them.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(u64::MAX).min(16 * MAX_CLIENTS as u64);
    if limit.current.is_some_and(|now| now < wanted) {
        limit.current = Some(wanted);
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

#[cfg(test)]
mod tests;

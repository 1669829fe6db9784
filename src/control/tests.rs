//! The sockets in this process, with a supervisor as small as can be: what a real daemon cannot be made to do at
//! will (to be slow, to have gone away) is tried here. tests/control.rs has the real one, and foreign clients.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use keyframed_control::types::{
    Event, InBetweens, Level, MaxQuality, Params, PartState, PartStatus, Reloaded, Showing, Snapshot, Stats,
    Status,
};
use keyframed_control::zmtp;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
    sync::{Notify, broadcast, mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use zeromq::{DealerSocket, ReqSocket, Socket as _, SocketRecv as _, SocketSend as _, SubSocket, ZmqMessage};

use super::*;
use crate::daemon::handle::{Command, Telemetry};

mod limits;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a folder of its own, and what steers it from behind.
struct Server {
    folder: tempfile::TempDir,
    telemetry: broadcast::Sender<Telemetry>,
    /// Lets `reload` be answered.
    reload: Arc<Notify>,
    stop: watch::Sender<bool>,
    done: JoinHandle<anyhow::Result<()>>,
}

fn params() -> Params {
    Params {
        lambda: 0.01,
        window_frames: 12,
        target_key_rate_hz: 0.,
        steps: None,
        guidance_scale: None,
        lora_scale: None,
        context_frames: None,
        seed: 0,
        latency_ms: 500,
        max_quality: MaxQuality::Film,
    }
}

fn status() -> Status {
    let source = PartStatus {
        name: "figure".into(),
        kind: "test-figure".into(),
        state: PartState::Running,
        frames: 1,
        dropped: 0,
        restarts: 0,
        last_error: None,
    };
    Status {
        version: "0".into(),
        pid: 1,
        uptime_secs: 1.,
        pipeline: "figure".into(),
        model: "mini".into(),
        loaded: true,
        reference: None,
        paused: false,
        showing: Showing::Live,
        source,
        outputs: Vec::new(),
        stats: Stats { in_betweens: InBetweens::default(), ..Stats::default() },
    }
}

/// Carries out the commands that the tests need; `reload` waits until it is let go.
async fn supervise(
    mut commands: mpsc::Receiver<Command>,
    params: watch::Sender<Params>,
    reload: Arc<Notify>,
) {
    while let Some(command) = commands.recv().await {
        match command {
            Command::ParamsSet(patch, answer) => {
                let mut all = serde_json::to_value(*params.borrow()).unwrap();
                all.as_object_mut().unwrap().extend(patch);
                let new: Params = serde_json::from_value(all).unwrap();
                params.send_replace(new);
                let _ = answer.send(Ok(new));
            }
            Command::Reload(answer) => {
                let reload = reload.clone();
                tokio::spawn(async move {
                    reload.notified().await;
                    let _ = answer.send(Ok(Reloaded::default()));
                });
            }
            Command::Snapshot(answer) => {
                let png_base64 = "x".repeat(2_000_000);
                let _ = answer.send(Ok(Snapshot { width: 1, height: 1, showing: Showing::Live, png_base64 }));
            }
            Command::Shutdown(answer) => {
                let _ = answer.send(Ok(()));
                return;
            }
            // Its sender is dropped: that is how a daemon looks that dies.
            _ => {}
        }
    }
}

impl Server {
    async fn start() -> Self {
        Self::start_at(None, budget::MOST).await
    }

    /// One that listens for requests at this TCP address, too, and wants the token `secret` there; and that holds so many
    /// bytes of answers.
    async fn start_at(tcp: Option<SocketAddr>, bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ipc = |name: &str| format!("ipc://{}", folder.path().join(name).display());
        let control = Control {
            endpoint: ipc("control.sock"),
            telemetry_endpoint: ipc("telemetry.sock"),
            tcp,
            telemetry_tcp: None,
            token: tcp.map(|_| Token("secret".into())),
            mode: 0o600,
        };
        let (commands, received) = mpsc::channel(16);
        let (params_sender, params) = watch::channel(params());
        let (_, status) = watch::channel(status());
        let (telemetry, _) = broadcast::channel(16);
        let reload = Arc::new(Notify::new());
        tokio::spawn(supervise(received, params_sender, reload.clone()));
        let handle = Handle { commands, status, params, telemetry: telemetry.clone() };
        let (stop, mut stopped) = watch::channel(false);
        let sockets = Sockets { budget: Budget::of(bytes), ..bind(&control).unwrap() };
        let done = tokio::spawn(sockets.serve(handle, async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
        Self { folder, telemetry, reload, stop, done }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn dealer(&self) -> DealerSocket {
        let mut socket = DealerSocket::new();
        socket.connect(&endpoint(&self.path("control.sock"))).await.unwrap();
        socket
    }

    /// A client of the test's own, after the handshake.
    async fn raw(&self, socket: &str, kind: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.path(socket)).await.unwrap();
        shake_hands(&mut stream, kind, if socket.starts_with("control") { "ROUTER" } else { "PUB" }).await;
        stream
    }

    async fn end(self) {
        self.stop.send_replace(true);
        timeout(PATIENCE, self.done).await.unwrap().unwrap().unwrap();
        assert!(!self.folder.path().join("control.sock").exists());
        assert!(!self.folder.path().join("telemetry.sock").exists());
    }
}

async fn shake_hands(stream: &mut impl Stream, ours: &str, theirs: &str) {
    stream.write_all(&zmtp::greeting()).await.unwrap();
    stream.write_all(&zmtp::ready(ours)).await.unwrap();
    let mut hello = vec![0; zmtp::GREETING + zmtp::ready(theirs).len()];
    stream.read_exact(&mut hello).await.unwrap();
}

fn endpoint(path: &Path) -> String {
    format!("ipc://{}", path.display())
}

fn request(id: u64, method: &str, params: Value) -> Vec<u8> {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string().into_bytes()
}

async fn receive(socket: &mut DealerSocket) -> Value {
    let message = timeout(PATIENCE, socket.recv()).await.expect("an answer").unwrap();
    serde_json::from_slice(message.get(0).unwrap()).unwrap()
}

async fn call(socket: &mut DealerSocket, id: u64, method: &str, params: Value) -> Value {
    socket.send(request(id, method, params).into()).await.unwrap();
    receive(socket).await
}

#[tokio::test(flavor = "multi_thread")]
async fn req_and_dealer_are_answered_alike_and_changes_are_seen() {
    let server = Server::start().await;
    let mut dealer = server.dealer().await;
    let set = call(&mut dealer, 1, "params.set", json!({"lambda": 0.5, "steps": null})).await;
    assert_eq!((set["id"].as_u64(), set["result"]["lambda"].as_f64()), (Some(1), Some(0.5)));
    let mut req = ReqSocket::new();
    req.connect(&endpoint(&server.path("control.sock"))).await.unwrap();
    req.send(request(2, "params.get", json!({})).into()).await.unwrap();
    let got = timeout(PATIENCE, req.recv()).await.unwrap().unwrap();
    let got: Value = serde_json::from_slice(got.get(0).unwrap()).unwrap();
    assert_eq!(got["result"]["lambda"], 0.5);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_command_stops_neither_others_nor_its_own_client() {
    let server = Server::start().await;
    let (mut slow, mut other) = (server.dealer().await, server.dealer().await);
    slow.send(request(1, "reload", json!({})).into()).await.unwrap();
    assert_eq!(call(&mut slow, 2, "status", json!({})).await["id"], 2);
    assert_eq!(call(&mut other, 3, "params.set", json!({"seed": 7})).await["result"]["seed"], 7);
    server.reload.notify_one();
    assert_eq!(receive(&mut slow).await["id"], 1);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_carried_out_in_order_and_notifications_are_silent() {
    let server = Server::start().await;
    let mut dealer = server.dealer().await;
    let batch = json!([
        {"jsonrpc": "2.0", "method": "params.set", "params": {"seed": 1}},
        {"jsonrpc": "2.0", "id": "a", "method": "params.get"},
        {"jsonrpc": "2.0", "id": "b", "method": "params.set", "params": {"seed": 2, "lambda": 7}},
        {"jsonrpc": "2.0", "method": "nonsense"},
        {"jsonrpc": "2.0", "id": "c", "method": "params.get"},
    ]);
    dealer.send(batch.to_string().into_bytes().into()).await.unwrap();
    let replies = receive(&mut dealer).await;
    assert_eq!(replies.as_array().unwrap().len(), 3);
    assert_eq!(replies[0]["result"]["seed"], 1);
    assert_eq!(replies[1]["error"]["data"]["param"], "lambda");
    assert_eq!(replies[2]["result"]["seed"], 1, "a refused change changes nothing");
    let silent = json!({"jsonrpc": "2.0", "method": "params.set", "params": [1]});
    dealer.send(silent.to_string().into_bytes().into()).await.unwrap();
    assert!(call(&mut dealer, 6, "params.get", json!([])).await["result"].is_object());
    // What follows a batch waits for its end.
    let again = json!([{"jsonrpc": "2.0", "method": "params.set", "params": {"seed": 9}}]);
    dealer.send(again.to_string().into_bytes().into()).await.unwrap();
    assert_eq!(call(&mut dealer, 5, "params.get", json!({})).await["result"]["seed"], 9);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_goes_away_is_said_and_shutdown_is_answered() {
    let server = Server::start().await;
    let mut dealer = server.dealer().await;
    let lost = call(&mut dealer, 1, "pipeline.list", json!({})).await;
    assert_eq!(lost["error"]["message"], "the daemon is shutting down");
    dealer.send(request(2, "shutdown", json!({})).into()).await.unwrap();
    let answer = receive(&mut dealer).await;
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 2, "result": null}));
    let gone = call(&mut dealer, 3, "pause", json!({})).await;
    assert_eq!(gone["error"]["message"], "the daemon is shutting down");
    assert!(call(&mut dealer, 4, "status", json!({})).await["result"].is_object());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_under_way_get_out_at_the_end() {
    let server = Server::start().await;
    let mut dealer = server.dealer().await;
    dealer.send(request(1, "reload", json!({})).into()).await.unwrap();
    assert!(call(&mut dealer, 2, "status", json!({})).await["result"].is_object());
    server.stop.send_replace(true);
    server.reload.notify_one();
    assert_eq!(receive(&mut dealer).await["id"], 1);
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_reaches_those_who_want_it_and_the_slow_miss_some() {
    let server = Server::start().await;
    let mut quick = SubSocket::new();
    quick.connect(&endpoint(&server.path("telemetry.sock"))).await.unwrap();
    quick.subscribe("event").await.unwrap();
    let mut deaf = server.raw("telemetry.sock", "SUB").await;
    deaf.write_all(&zmtp::message(&[Bytes::from_static(b"\x01")])).await.unwrap();
    let event = |i: u32| {
        let message = "x".repeat(10_000);
        Event { uptime_secs: i.into(), level: Level::Info, kind: "test".into(), part: None, message }
    };
    let first = async {
        loop {
            let _ = server.telemetry.send(Telemetry::Event(event(0)));
            if let Ok(message) = timeout(Duration::from_millis(100), quick.recv()).await {
                return message.unwrap();
            }
        }
    };
    let first: ZmqMessage = timeout(PATIENCE, first).await.expect("telemetry");
    assert_eq!(first.len(), 2);
    assert_eq!(&first.get(0).unwrap()[..], b"event");
    // Far more than fits between the two: the one that does not read holds up neither sender nor the other.
    for i in 1..2000 {
        let _ = server.telemetry.send(Telemetry::Stats(Stats::default()));
        let _ = server.telemetry.send(Telemetry::Event(event(i)));
        let seen = async {
            loop {
                let message = quick.recv().await.unwrap();
                let got: Event = serde_json::from_slice(message.get(1).unwrap()).unwrap();
                if got.uptime_secs == f64::from(i) {
                    return;
                }
            }
        };
        timeout(PATIENCE, seen).await.expect("every event");
    }
    server.end().await;
}

#[test]
fn tcp_beyond_this_machine_needs_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let mut control = Control {
        endpoint: endpoint(&folder.path().join("c.sock")),
        telemetry_endpoint: endpoint(&folder.path().join("t.sock")),
        tcp: Some("0.0.0.0:0".parse().unwrap()),
        telemetry_tcp: None,
        token: None,
        mode: 0o600,
    };
    let error = format!("{:#}", bind(&control).unwrap_err());
    assert!(error.contains("token_file"), "{error}");
    control.token = Some(Token("secret".into()));
    bind(&control).unwrap();
    (control.tcp, control.telemetry_tcp) = (None, Some("0.0.0.0:0".parse().unwrap()));
    control.token = None;
    assert!(bind(&control).is_err());
}

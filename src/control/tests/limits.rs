//! What clients cannot do to the daemon and to each other.

use super::*;

/// The next frame: its flags and what is in it.
async fn frame(stream: &mut impl Stream) -> (u8, Vec<u8>) {
    let frame = async {
        let flags = stream.read_u8().await.unwrap();
        let len = match flags & 2 {
            0 => u64::from(stream.read_u8().await.unwrap()),
            _ => stream.read_u64().await.unwrap(),
        };
        let mut body = vec![0; len as usize];
        stream.read_exact(&mut body).await.unwrap();
        (flags, body)
    };
    timeout(PATIENCE, frame).await.expect("a frame")
}

/// A message of one part from a stream after its handshake.
async fn receive_raw(stream: &mut impl Stream) -> Value {
    let (flags, body) = frame(stream).await;
    assert!(flags == 0 || flags == 2, "a frame with flags {flags}");
    serde_json::from_slice(&body).unwrap()
}

/// Whether the server closes the connection, within a few times what it waits itself.
async fn is_closed(stream: &mut impl Stream) -> bool {
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ping_is_answered_whatever_is_under_way() {
    let server = Server::start().await;
    let ping = b"\x04\x0c\x04PING\x00\x00hello";
    let batch = json!([{"jsonrpc": "2.0", "id": 1, "method": "reload"}]).to_string().into_bytes();
    let eight: Vec<_> = (0..8).map(|i| request(i, "reload", json!({}))).collect();
    for requests in [vec![batch], eight] {
        let count = requests.len();
        let mut client = server.raw("control.sock", "DEALER").await;
        for request in requests {
            client.write_all(&zmtp::message(&[request.into()])).await.unwrap();
        }
        // These wait behind what is under way, and the PING behind them does not.
        for i in 100..110 {
            let waits = Bytes::from(request(i, "status", json!({})));
            client.write_all(&zmtp::message(&[waits])).await.unwrap();
        }
        client.write_all(ping).await.unwrap();
        // Beside a batch there is room for other calls: they may be answered first.
        let id = |reply: &Value| reply.get("id").and_then(Value::as_u64);
        let mut ids = Vec::new();
        loop {
            match frame(&mut client).await {
                (4, command) => break assert_eq!(command, b"\x04PONGhello"),
                (_, body) => ids.push(id(&serde_json::from_slice(&body).unwrap())),
            }
        }
        while ids.len() < count + 10 {
            server.reload.notify_one();
            let reply = receive_raw(&mut client).await;
            ids.push(id(&reply));
        }
        assert_eq!(ids.iter().filter(|id| id.is_some_and(|id| id >= 100)).count(), 10, "{ids:?}");
    }
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_takes_have_a_bound() {
    // One picture.
    let server = Server::start_at(None, 3_000_000).await;
    let mut dealer = server.dealer().await;
    let mut deaf = server.raw("control.sock", "DEALER").await;
    deaf.write_all(&zmtp::message(&[request(0, "snapshot", json!({})).into()])).await.unwrap();
    // Its answer is under way, and more of it is left than fits into the socket.
    deaf.read_u8().await.unwrap();
    let refused = call(&mut dealer, 1, "snapshot", json!({})).await["error"].clone();
    assert_eq!(refused["code"], keyframed_control::code::TOO_LARGE, "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("try again"), "{refused}");
    // Small answers always get through.
    assert!(call(&mut dealer, 2, "status", json!({})).await["result"].is_object());
    drop(deaf);
    let mercy = async { while call(&mut dealer, 3, "snapshot", json!({})).await["error"].is_object() {} };
    timeout(PATIENCE, mercy).await.expect("room again");
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_from_the_network_are_sent_away_and_keep_nobody_out() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::start_at(Some(port), budget::MOST).await;
    let connect = async || {
        let mut stream = TcpStream::connect(port).await.unwrap();
        shake_hands(&mut stream, "DEALER", "ROUTER").await;
        stream
    };
    let mut known = connect().await;
    let ask = |token: &'static str| {
        let request = Bytes::from(request(1, "status", json!({})));
        zmtp::message(&[Bytes::from_static(token.as_bytes()), request])
    };
    known.write_all(&ask("secret")).await.unwrap();
    assert!(receive_raw(&mut known).await["result"].is_object());
    let mut guessing = connect().await;
    guessing.write_all(&ask("wrong")).await.unwrap();
    let told = receive_raw(&mut guessing).await;
    assert_eq!(told["error"]["code"], keyframed_control::code::UNAUTHORIZED);
    assert!(is_closed(&mut guessing).await);

    // Every place that the network has; the local socket has its own.
    let mut silent = Vec::new();
    for _ in 0..MAX_CLIENTS - 1 {
        silent.push(TcpStream::connect(port).await.unwrap());
    }
    let mut local = server.dealer().await;
    assert!(call(&mut local, 1, "status", json!({})).await["result"].is_object());
    // Some of them shake hands, ask without a token and would stay.
    for stream in silent.iter_mut().step_by(64) {
        shake_hands(stream, "DEALER", "ROUTER").await;
        stream.write_all(&zmtp::message(&[request(1, "status", json!({})).into()])).await.unwrap();
        let told = receive_raw(stream).await;
        assert!(told["error"]["message"].as_str().unwrap().contains("token is needed"), "{told}");
    }
    for stream in &mut silent {
        assert!(is_closed(stream).await, "a stranger is kept");
    }
    // Who has shown it stays.
    known.write_all(&ask("secret")).await.unwrap();
    assert!(receive_raw(&mut known).await["result"].is_object());
    server.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_dropped_and_holds_up_nobody() {
    let server = Server::start().await;
    let mut deaf = server.raw("control.sock", "DEALER").await;
    for i in 0..20 {
        let request = Bytes::from(request(i, "snapshot", json!({})));
        deaf.write_all(&zmtp::message(&[request])).await.unwrap();
    }
    let mut dealer = server.dealer().await;
    for i in 0..20 {
        assert_eq!(call(&mut dealer, i, "status", json!({})).await["id"], i);
    }
    // After the time limit its connection is closed: what was on the way can be read, and then there is an end.
    sleep(link::STALL_TIMEOUT + Duration::from_secs(1)).await;
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, deaf.read_to_end(&mut rest)).await.expect("the connection is closed");
    assert!(read.is_err() || rest.len() < 20 * 2_000_000, "{} bytes", rest.len());
    server.end().await;
}

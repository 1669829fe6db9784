//! What the tests say to OBS: version 5 of obs-websocket's protocol, without events.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use gst::glib;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// A connection that has been identified.
pub struct Client {
    socket: WebSocket<TcpStream>,
    requests: u64,
}

impl Client {
    /// Connects and says hello. `None` while nobody answers there yet.
    pub fn connect(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://{address}"), stream).ok()?;
        let mut client = Self { socket, requests: 0 };
        let hello = client.receive();
        assert_eq!(hello["op"], 0, "{hello}");
        client.send(1, json!({ "rpcVersion": 1, "eventSubscriptions": 0 }));
        let identified = client.receive();
        assert_eq!(identified["op"], 2, "{identified}");
        Some(client)
    }

    /// Sends a request and waits for its answer.
    #[track_caller]
    pub fn request(&mut self, kind: &str, data: Value) -> Value {
        let (status, data) = self.try_request(kind, data);
        assert_eq!(status["result"], true, "{kind}: {status}");
        data
    }

    /// As `request`, if it may fail: status and answer.
    #[track_caller]
    pub fn try_request(&mut self, kind: &str, data: Value) -> (Value, Value) {
        self.requests += 1;
        let id = self.requests.to_string();
        self.send(6, json!({ "requestType": kind, "requestId": id, "requestData": data }));
        let mut answer = self.receive();
        assert_eq!((&answer["op"], &answer["d"]["requestId"]), (&json!(7), &json!(id)), "{answer}");
        (answer["d"]["requestStatus"].take(), answer["d"]["responseData"].take())
    }

    /// What a source shows now, as PNG; `None` while it has no picture yet.
    #[track_caller]
    pub fn screenshot(&mut self, source: &str) -> Option<Vec<u8>> {
        let (status, data) =
            self.try_request("GetSourceScreenshot", json!({ "sourceName": source, "imageFormat": "png" }));
        // 702: a source without size, so without picture.
        if status["code"] == 702 {
            return None;
        }
        assert_eq!(status["result"], true, "{status}");
        let (_, png) = data["imageData"].as_str().unwrap().split_once("base64,").unwrap();
        Some(glib::base64_decode(png))
    }

    /// Adds a Media Source to the scene, in its own place, with these settings of its dialogue.
    #[track_caller]
    pub fn add_media(&mut self, name: &str, place: u32, mut settings: Value) {
        settings["is_local_file"] = false.into();
        settings["reconnect_delay_sec"] = 1.into();
        let input = json!({
            "sceneName": "Scene", "inputName": name, "inputKind": "ffmpeg_source", "inputSettings": settings,
        });
        let item = self.request("CreateInput", input)["sceneItemId"].take();
        let transform = json!({
            "positionX": 320 * place, "positionY": 20,
            "boundsType": "OBS_BOUNDS_SCALE_INNER", "boundsWidth": 320, "boundsHeight": 320,
        });
        let place = json!({ "sceneName": "Scene", "sceneItemId": item, "sceneItemTransform": transform });
        self.request("SetSceneItemTransform", place);
    }

    fn send(&mut self, op: u8, d: Value) {
        self.socket.send(Message::text(json!({ "op": op, "d": d }).to_string())).unwrap();
    }

    fn receive(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.socket.read().unwrap() {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }
}

//! What comes from the daemon. Whatever breaks, a second later it is tried again.

use std::{convert::Infallible, time::Duration};

use keyframed_control::{Method, message::Params, types::Status};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use zeromq::{Socket as _, SocketRecv as _, SubSocket, ZmqMessage};

use super::state::News;
use crate::{
    cli::Options,
    client::Client,
    endpoint::{self, telemetry_beside},
};

/// Between two looks at the state, and between two tries to find a daemon.
const PAUSE: Duration = Duration::from_secs(1);

/// Feeds the dashboard until it no longer listens.
pub async fn run(options: &Options, telemetry: Option<&str>, to: mpsc::Sender<News>) {
    loop {
        let Err(why) = session(options, telemetry, &to).await;
        if to.send(News::Lost(why)).await.is_err() {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// One daemon, until it is gone.
async fn session(
    options: &Options,
    telemetry: Option<&str>,
    to: &mpsc::Sender<News>,
) -> Result<Infallible, String> {
    let limit = Duration::from_millis(options.timeout_ms.max(1));
    let place = endpoint::find(options.endpoint.as_deref())?;
    let token = options.token().map_err(|e| e.to_string())?;
    let telemetry = telemetry.map(str::to_owned).or_else(|| telemetry_beside(&place));
    let mut client = Client::connect(place, token.clone(), limit).await.map_err(|e| e.to_string())?;
    let mut published = match telemetry {
        Some(endpoint) => Some(subscribe(&endpoint, token, limit).await?),
        None => None,
    };
    let mut tick = interval(PAUSE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let news = tokio::select! {
            message = next(&mut published) => read(&message?),
            _ = tick.tick() => {
                let status = client.call(Method::Status, Params::new()).await.map_err(|e| e.to_string())?;
                let status: Status = serde_json::from_value(status).map_err(|e| e.to_string())?;
                Some(News::Status(Box::new(status)))
            }
        };
        if let Some(news) = news {
            to.send(news).await.map_err(|e| e.to_string())?;
        }
    }
}

async fn subscribe(endpoint: &str, token: Option<String>, limit: Duration) -> Result<SubSocket, String> {
    let failed = |why: &dyn std::fmt::Display| format!("telemetry at {endpoint}: {why}");
    let mut socket = SubSocket::new();
    match timeout(limit, socket.connect(endpoint)).await {
        Ok(connected) => connected.map_err(|e| failed(&e))?,
        Err(_) => return Err(failed(&"nobody answers")),
    }
    if let Some(token) = token {
        socket.subscribe(&format!("token:{token}")).await.map_err(|e| failed(&e))?;
    }
    for topic in ["stats", "event"] {
        socket.subscribe(topic).await.map_err(|e| failed(&e))?;
    }
    Ok(socket)
}

/// The next message; never, without telemetry.
async fn next(published: &mut Option<SubSocket>) -> Result<ZmqMessage, String> {
    match published {
        Some(socket) => socket.recv().await.map_err(|e| e.to_string()),
        None => std::future::pending().await,
    }
}

fn read(message: &ZmqMessage) -> Option<News> {
    fn json<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
        serde_json::from_slice(text).ok()
    }
    let (topic, text) = (message.get(0)?, message.get(1)?);
    match &topic[..] {
        b"stats" => json(text).map(|stats| News::Stats(Box::new(stats))),
        b"event" => json(text).map(News::Event),
        _ => None,
    }
}

//! Figures for Prometheus, at an HTTP address of the configuration's choice.
//!
//! The exporter's own server has no limits (a client that sends nothing keeps its connection for ever), so it only
//! renders; the few lines of HTTP that a scraper needs are here.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use keyframed_control::types::{Keyframe, PartState, PartStatus, Showing, Stats, Status};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, broadcast::error::RecvError},
    time::timeout,
};

use crate::daemon::handle::{Handle, Telemetry};

/// Scrapers at the same time.
const MAX_SCRAPERS: usize = 16;
/// For a scraper to ask and to take the answer.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// After so long a gauge that nobody sets is gone.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Longest request.
const MAX_REQUEST: usize = 8 * 1024;
/// Bounds of the histogram of key frame latencies, seconds.
const BUCKETS: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1., 2., 5., 10.];

/// Listens, and gathers from now on what is counted anywhere in the program.
#[derive(Debug)]
pub struct Exporter {
    listener: std::net::TcpListener,
    figures: Figures,
}

/// What was counted.
#[derive(Clone)]
struct Figures(PrometheusHandle);

impl std::fmt::Debug for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Figures(…)")
    }
}

/// Takes the address.
///
/// # Errors
/// It is in use or not this machine's.
pub fn bind(address: SocketAddr) -> anyhow::Result<Exporter> {
    let what = || format!("metrics at http://{address} (`listen` in [metrics])");
    let listener = std::net::TcpListener::bind(address).with_context(what)?;
    listener.set_nonblocking(true).with_context(what)?;
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("keyframed_keyframe_latency_seconds".into()), &BUCKETS)
        .context("metrics")?
        // Gauges are set once a second. What is no longer set belongs to an output that is no longer there.
        .idle_timeout(MetricKindMask::GAUGE, Some(FORGOTTEN))
        .build_recorder();
    let figures = Figures(recorder.handle());
    // A second exporter in one process (tests) finds the first's recorder in place.
    let _ = metrics::set_global_recorder(recorder);
    describe();
    Ok(Exporter { listener, figures })
}

impl Exporter {
    /// Serves scrapers until `shutdown`.
    ///
    /// # Errors
    /// The listener cannot be used.
    pub async fn serve(self, handle: Handle, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        let listener = TcpListener::from_std(self.listener).context("metrics")?;
        tokio::select! {
            () = accept(listener, self.figures.clone()) => {}
            () = record(handle, &self.figures) => {}
            () = shutdown => {}
        }
        Ok(())
    }
}

async fn accept(listener: TcpListener, figures: Figures) {
    let room = Arc::new(Semaphore::new(MAX_SCRAPERS));
    loop {
        let place = room.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let figures = figures.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let _ = timeout(SCRAPE_TIMEOUT, answer(stream, &figures)).await;
                });
            }
            Err(error) => {
                tracing::debug!("metrics: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One request, one answer, and the connection is closed.
async fn answer(mut stream: TcpStream, figures: &Figures) -> std::io::Result<()> {
    let mut request = Vec::with_capacity(1024);
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        if request.len() >= MAX_REQUEST || stream.read_buf(&mut request).await? == 0 {
            break;
        }
    }
    let (status, body) = match first_line(&request) {
        Some(("GET" | "HEAD", "/metrics" | "/")) => ("200 OK", figures.0.render()),
        Some(("GET" | "HEAD", _)) => ("404 Not Found", "The figures are at /metrics\n".into()),
        Some(_) => ("405 Method Not Allowed", "Only GET\n".into()),
        None => ("400 Bad Request", "No HTTP request\n".into()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if !request.starts_with(b"HEAD ") {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

/// Method and path.
fn first_line(request: &[u8]) -> Option<(&str, &str)> {
    let line = request.split(|b| *b == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    version.starts_with("HTTP/1.").then(|| (method, target.split('?').next().unwrap_or(target)))
}

/// Keeps the figures up to date until the daemon is gone.
async fn record(handle: Handle, figures: &Figures) {
    let mut telemetry = handle.telemetry.subscribe();
    loop {
        match telemetry.recv().await {
            Ok(Telemetry::Stats(stats)) => {
                record_stats(&stats);
                record_status(&handle.status.borrow());
                // Samples wait in memory until this or a scrape.
                figures.0.run_upkeep();
            }
            Ok(Telemetry::Keyframe(keyframe)) => record_keyframe(&keyframe),
            // Events count themselves.
            Ok(Telemetry::Event(_)) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn describe() {
    let counters = [
        ("keyframed_input_frames_total", "Pose frames received"),
        ("keyframed_output_frames_total", "Frames sent to the outputs"),
        ("keyframed_key_poses_total", "Key poses selected"),
        ("keyframed_key_frames_total", "Key frames generated"),
        ("keyframed_key_frames_failed_total", "Key frames that could not be made"),
        ("keyframed_in_betweens_total", "In-betweens, by rung of the quality ladder"),
        ("keyframed_repeated_frames_total", "Output frames that repeat a picture"),
        ("keyframed_late_frames_total", "Output frames that came a tick or more late"),
        ("keyframed_dropped_total", "Key poses and output ticks given up"),
        ("keyframed_source_frames_total", "Frames taken from a source since it was configured"),
        ("keyframed_source_restarts_total", "Times a source was opened again"),
        ("keyframed_output_part_frames_total", "Frames given to an output since it was configured"),
        ("keyframed_output_part_dropped_total", "Frames that an output was too slow for"),
        ("keyframed_output_part_restarts_total", "Times an output was opened again"),
        ("keyframed_events_total", "Events, by kind and level"),
        ("keyframed_control_requests_total", "Requests on the control socket, by method"),
        ("keyframed_control_clients_total", "Clients that were let in, by socket"),
        ("keyframed_control_clients_refused_total", "Clients that were turned away, by socket"),
    ];
    for (name, text) in counters {
        describe_counter!(name, Unit::Count, text);
    }
    let seconds = [
        ("keyframed_uptime_seconds", "Time since the daemon's start"),
        (
            "keyframed_latency_seconds",
            "From a pose's arrival to the output frame that shows it, by percentile",
        ),
        ("keyframed_generate_seconds", "Time that the last key frame took"),
        ("keyframed_queue_age_seconds", "Age of the oldest frame waiting, by queue"),
    ];
    for (name, text) in seconds {
        describe_gauge!(name, Unit::Seconds, text);
    }
    let gauges = [
        ("keyframed_output_rate_hertz", "Output frames a second over the last second"),
        ("keyframed_input_rate_hertz", "Pose frames a second over the last second"),
        ("keyframed_key_ratio", "Share of pose frames that became key poses, over the last second"),
        ("keyframed_lambda", "Threshold in force on the mean squared error between pose frames"),
        ("keyframed_rung", "1 for the rung of the quality ladder in force, 0 for the others"),
        ("keyframed_queue_frames", "Frames waiting now, by queue"),
        ("keyframed_source_running", "1 while a source gives frames, else 0"),
        ("keyframed_output_running", "1 while an output takes frames, else 0"),
        ("keyframed_showing", "1 for what the outputs carry (live, held, slate), 0 for the others"),
        ("keyframed_paused", "1 while generating is paused, else 0"),
        ("keyframed_model_loaded", "1 once the model is loaded, else 0"),
    ];
    for (name, text) in gauges {
        describe_gauge!(name, text);
    }
    describe_histogram!(
        "keyframed_keyframe_latency_seconds",
        Unit::Seconds,
        "From a key pose's arrival to its key frame"
    );
}

fn record_stats(s: &Stats) {
    counter!("keyframed_input_frames_total").absolute(s.frames_in);
    counter!("keyframed_output_frames_total").absolute(s.frames_out);
    counter!("keyframed_key_poses_total").absolute(s.key_poses);
    counter!("keyframed_key_frames_total").absolute(s.key_frames);
    counter!("keyframed_key_frames_failed_total").absolute(s.failed);
    for (rung, n) in
        [("film", s.in_betweens.film), ("warp", s.in_betweens.warp), ("crossfade", s.in_betweens.crossfade)]
    {
        counter!("keyframed_in_betweens_total", "rung" => rung).absolute(n);
    }
    counter!("keyframed_repeated_frames_total").absolute(s.repeated);
    counter!("keyframed_late_frames_total").absolute(s.late);
    counter!("keyframed_dropped_total").absolute(s.dropped);
    gauge!("keyframed_uptime_seconds").set(s.uptime_secs);
    gauge!("keyframed_output_rate_hertz").set(s.output_rate_hz);
    gauge!("keyframed_input_rate_hertz").set(s.input_rate_hz);
    gauge!("keyframed_key_ratio").set(s.key_ratio);
    gauge!("keyframed_lambda").set(s.lambda);
    gauge!("keyframed_generate_seconds").set(s.generate_ms / 1e3);
    one_of("keyframed_rung", "rung", &["film", "warp", "crossfade", "repeat"], &s.rung);
    if let Some(latency) = s.latency_ms {
        // Not `quantile`: that label belongs to summaries.
        for (percentile, ms) in [("50", latency.p50), ("95", latency.p95), ("99", latency.p99)] {
            gauge!("keyframed_latency_seconds", "percentile" => percentile).set(ms / 1e3);
        }
    }
    for (queue, frames) in &s.queue_frames {
        gauge!("keyframed_queue_frames", "queue" => queue.clone()).set(*frames as f64);
    }
    for (queue, ms) in &s.queue_age_ms {
        gauge!("keyframed_queue_age_seconds", "queue" => queue.clone()).set(ms / 1e3);
    }
}

fn record_status(s: &Status) {
    gauge!("keyframed_paused").set(f64::from(u8::from(s.paused)));
    gauge!("keyframed_model_loaded").set(f64::from(u8::from(s.loaded)));
    let showing = match s.showing {
        Showing::Live => "live",
        Showing::Held => "held",
        Showing::Slate => "slate",
    };
    one_of("keyframed_showing", "picture", &["live", "held", "slate"], showing);
    let name = s.source.name.clone();
    counter!("keyframed_source_frames_total", "source" => name.clone()).absolute(s.source.frames);
    counter!("keyframed_source_restarts_total", "source" => name.clone()).absolute(s.source.restarts);
    gauge!("keyframed_source_running", "source" => name).set(running(&s.source));
    for output in &s.outputs {
        let labels = [("output", output.name.clone()), ("kind", output.kind.clone())];
        counter!("keyframed_output_part_frames_total", &labels).absolute(output.frames);
        counter!("keyframed_output_part_dropped_total", &labels).absolute(output.dropped);
        counter!("keyframed_output_part_restarts_total", &labels).absolute(output.restarts);
        gauge!("keyframed_output_running", &labels).set(running(output));
    }
}

fn record_keyframe(k: &Keyframe) {
    histogram!("keyframed_keyframe_latency_seconds").record(k.latency_ms / 1e3);
}

fn running(part: &PartStatus) -> f64 {
    f64::from(u8::from(part.state == PartState::Running))
}

/// A gauge for each word: 1 for the one that holds.
fn one_of(metric: &'static str, label: &'static str, words: &[&'static str], holds: &str) {
    for &word in words {
        gauge!(metric, label => word).set(f64::from(u8::from(word == holds)));
    }
}

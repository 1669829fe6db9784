//! What source and output pipes do alike, with pipelines made for the purpose.

use super::*;
use crate::media::{
    backoff::Backoff,
    pipe::{Handle, Shared},
    role::{End, Role},
    runner,
};

/// Runs a `gst-launch-1.0` line.
struct Line {
    line: &'static str,
    /// Fails so long after it was opened.
    fails_after: Duration,
    /// Counts as running so long after it was opened.
    runs_after: Duration,
    opened: Arc<Mutex<Vec<(Instant, gst::Pipeline)>>>,
}

impl Line {
    fn since(&self) -> Duration {
        lock(&self.opened).last().map_or(Duration::ZERO, |(opened, _)| opened.elapsed())
    }
}

impl Role for Line {
    fn build(&mut self) -> anyhow::Result<gst::Pipeline> {
        let pipeline = gst::parse::launch(self.line)?.downcast::<gst::Pipeline>().unwrap();
        lock(&self.opened).push((Instant::now(), pipeline.clone()));
        Ok(pipeline)
    }

    fn message(&mut self, _: &gst::Pipeline, _: &gst::Message) -> Option<End> {
        None
    }

    fn is_running(&self, _: &gst::Pipeline) -> bool {
        self.since() >= self.runs_after
    }

    fn settle(&self, _: bool) -> Duration {
        Duration::ZERO
    }

    fn check(&mut self, _: Instant) -> Option<End> {
        (self.since() >= self.fails_after).then(|| End::Retry(PipeChange::Failed("as told".into())))
    }
}

const NEVER: Duration = Duration::from_secs(3600);

/// A line that is run, and what is known of it.
struct Run {
    /// Stops it when dropped.
    _handle: Handle,
    events: Events,
    opened: Arc<Mutex<Vec<(Instant, gst::Pipeline)>>>,
}

impl Run {
    fn start(line: &'static str, runs_after: Duration, fails_after: Duration, backoff: Backoff) -> Self {
        init();
        let (sender, events) = mpsc::channel(64);
        let opened = Arc::new(Mutex::new(vec![]));
        let role = Line { line, fails_after, runs_after, opened: opened.clone() };
        let handle = runner::start("test".into(), Shared::new("test", sender), role, backoff).unwrap();
        Self { _handle: handle, events: Events(events), opened }
    }

    /// Times between one opening and the next.
    #[track_caller]
    fn gaps(&self, count: usize) -> Vec<Duration> {
        let times: Vec<_> = eventually("attempts", || {
            let opened = lock(&self.opened);
            (opened.len() > count).then(|| opened.iter().map(|(opened, _)| *opened).collect())
        });
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

fn backoff(good_run: u64) -> Backoff {
    Backoff::new((Duration::from_millis(100), NEVER)).with_good_run(Duration::from_millis(good_run))
}

const LINE: &str = "videotestsrc is-live=true ! fakesink";

#[test]
fn time_before_it_ran_is_no_good_run() {
    // As a server that takes the connection and then never answers.
    let run = Run::start(LINE, NEVER, Duration::from_millis(400), backoff(200));
    let gaps = run.gaps(5);
    eprintln!("{gaps:?}");
    assert!(gaps[4] >= Duration::from_millis(400 + 1600), "{gaps:?}");
}

#[test]
fn a_good_run_is_one_that_ran() {
    let run = Run::start(LINE, Duration::ZERO, Duration::from_millis(400), backoff(200));
    // With pauses that double, the last would take days.
    eprintln!("{:?}", run.gaps(20));
}

#[test]
fn sinks_learn_of_a_changed_latency() {
    let line = "videotestsrc is-live=true ! video/x-raw,format=RGB,width=64,height=64,framerate=15/1 \
                ! filminterpolate name=delay latency=0 max-quality=repeat ! video/x-raw,framerate=15/1 \
                ! fakesink name=sink sync=true";
    let mut run = Run::start(line, Duration::ZERO, NEVER, backoff(200));
    run.events.running();
    let pipeline = lock(&run.opened)[0].1.clone();
    let [delay, sink] = ["delay", "sink"].map(|name| pipeline.by_name(name).unwrap());
    let latency = || {
        let mut query = gst::query::Latency::new();
        assert!(sink.query(&mut query));
        query.result().1
    };
    eventually("the first frames", || {
        let stats = sink.property::<gst::Structure>("stats");
        (stats.get::<u64>("rendered").unwrap() > 2).then_some(())
    });
    let before = latency();
    let configured = || sink.static_pad("sink").unwrap().downcast::<gst::Pad>().unwrap();
    let spread = Arc::new(Mutex::new(gst::ClockTime::ZERO));
    configured().add_probe(gst::PadProbeType::EVENT_UPSTREAM, {
        let spread = spread.clone();
        move |_, info| {
            if let Some(gst::PadProbeData::Event(event)) = &info.data
                && let gst::EventView::Latency(event) = event.view()
            {
                *lock(&spread) = event.latency();
            }
            gst::PadProbeReturn::Ok
        }
    });
    delay.set_property("latency", 300_000_000u64);
    let spread = eventually("latency", || Some(*lock(&spread)).filter(|latency| !latency.is_zero()));
    assert!(spread >= before + gst::ClockTime::from_mseconds(300), "{before} {spread}");
}

#[test]
fn warnings_are_logged_once() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Log {
        fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
            lock(&self.0).write(text)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    // For this whole program: the pipe's thread is another. No other test of it reads the log.
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let mut run = Run::start(LINE, Duration::ZERO, NEVER, backoff(200));
    run.events.running();
    let pipeline = lock(&run.opened)[0].1.clone();
    let warn = |text: &str| {
        let source = pipeline.iterate_sources().into_iter().next().unwrap().unwrap();
        gst::element_warning!(source, gst::ResourceError::Busy, ("{text}"));
    };
    for text in ["The first.", "The first.", "The first.", "The second."] {
        warn(text);
    }
    let text = eventually("the second warning", || {
        let text = String::from_utf8_lossy(&lock(&log.0)).into_owned();
        text.contains("The second").then_some(text)
    });
    assert_eq!(text.matches("The first").count(), 1, "{text}");
    assert!(text.contains("WARN") && text.contains("test: The second (videotestsrc)"), "{text}");
}

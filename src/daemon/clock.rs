//! One running time for the whole daemon: all pipelines but the sources' run on it, so that a timestamp means the
//! same in each of them and one that is started anew falls in with the others.

use gst::prelude::*;
use keyframed_engine::Nanos;

/// The clock of all pipelines: the system's, which nobody sets.
pub fn clock() -> gst::Clock {
    gst::SystemClock::obtain()
}

/// Where running time starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// Time of [`clock`] at running time 0.
    pub base_time: gst::ClockTime,
}

impl Base {
    /// Running time starts now.
    pub fn start() -> Self {
        Self { base_time: clock().time() }
    }

    /// Running time.
    pub fn now(self) -> Nanos {
        clock().time().saturating_sub(self.base_time).nseconds()
    }

    /// Makes the pipeline run on this running time, whatever clocks its elements offer and whenever it is started.
    pub fn apply(self, pipeline: &gst::Pipeline) {
        pipeline.use_clock(Some(&clock()));
        // None: going to PLAYING shall not choose a base time.
        pipeline.set_start_time(gst::ClockTime::NONE);
        pipeline.set_base_time(self.base_time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_started_late_is_on_time() {
        gst::init().unwrap();
        let base = Base::start();
        let earlier = base.now();
        std::thread::sleep(std::time::Duration::from_millis(20));
        let pipeline =
            gst::parse::launch("fakesrc is-live=true do-timestamp=true num-buffers=3 ! appsink name=sink")
                .unwrap()
                .downcast::<gst::Pipeline>()
                .unwrap();
        base.apply(&pipeline);
        pipeline.set_state(gst::State::Playing).unwrap();
        let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
        let sample = sink.pull_sample().unwrap();
        let pts = sample.buffer().unwrap().dts_or_pts().unwrap().nseconds();
        pipeline.set_state(gst::State::Null).unwrap();
        assert!(earlier < pts && pts <= base.now(), "{earlier} < {pts}");
    }
}

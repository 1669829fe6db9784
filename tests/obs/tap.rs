//! When the daemon sent what: a viewer without delay of its own.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use gst::prelude::*;

use crate::timecode;

/// Side of the pictures.
const SIDE: usize = 256;

/// Times at which frames of a pose were sent, by the pose's time: how many, and when first.
type Sent = Arc<Mutex<BTreeMap<u32, (u32, u32)>>>;

/// Reads the daemon's frames from shared memory.
pub struct Tap {
    pipeline: gst::Element,
    sent: Sent,
}

impl Tap {
    /// What the daemon's configuration says of it.
    pub fn output(socket: &Path) -> String {
        format!("[outputs.tap]\nkind = \"shm\"\nsocket_path = \"{}\"\ntimecode = true\n", socket.display())
    }

    pub fn open(socket: &Path) -> Self {
        let line = format!(
            "shmsrc is-live=true socket-path={} ! video/x-raw,format=RGB,width={SIDE},height={SIDE},framerate=15/1 \
             ! appsink name=sink sync=false",
            socket.display()
        );
        let pipeline = gst::parse::launch(&line).unwrap();
        let sink = pipeline.downcast_ref::<gst::Bin>().unwrap().by_name("sink").unwrap();
        let sent = Sent::default();
        let noted = sent.clone();
        let note = move |sink: &gst_app::AppSink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let now = super::now();
            let pixels = sample.buffer().and_then(|buffer| buffer.map_readable().ok());
            let shape = timecode::Shape { width: SIDE, height: SIDE, stride: 3 * SIDE };
            if let Some(pose) = pixels.and_then(|pixels| timecode::read(&pixels, shape)) {
                noted.lock().unwrap().entry(pose).or_insert((0, now)).0 += 1;
            }
            Ok(gst::FlowSuccess::Ok)
        };
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(note).build();
        sink.downcast::<gst_app::AppSink>().unwrap().set_callbacks(callbacks);
        pipeline.set_state(gst::State::Playing).unwrap();
        Self { pipeline, sent }
    }

    /// When the frame of this pose was sent, if there was one only: of several nobody knows which was seen.
    pub fn sent_once(&self, pose: u32) -> Option<u32> {
        let (count, first) = *self.sent.lock().unwrap().get(&pose)?;
        (count == 1).then_some(first)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

//! Offline: every tick is made, in order, on the streaming thread.
use std::{collections::VecDeque, time::Instant};

use gst::{prelude::*, subclass::prelude::*};
use keyframed_engine::{EngineError, Frame, Nanos, Rung, Tick, Timeline, What};

use super::{
    film::Loaded,
    imp::{CAT, FilmInterpolate},
    output::Picture,
    rungs::Made,
    state::{Key, Mode, Offline, State},
};

impl Offline {
    pub fn new(rate: keyframed_engine::Rate) -> Self {
        Self { timeline: Timeline::new(rate), keys: VecDeque::with_capacity(3), last: 0 }
    }

    /// Takes a key frame.
    pub fn key(&mut self, pts: Nanos, key: Key) -> Result<(), EngineError> {
        let number = self.timeline.key(pts)?;
        self.keys.push_back((number, key));
        self.last = pts;
        Ok(())
    }

    fn find(&self, number: u64) -> Option<Key> {
        self.keys.iter().find(|(n, _)| *n == number).map(|(_, key)| key.clone())
    }

    /// The next tick that is decided, and the key frames it shows.
    fn next(&mut self) -> Option<(Tick, Key, Option<Key>)> {
        let tick = self.timeline.next_tick()?;
        let (first, second) = match tick.what {
            What::Key(a) | What::Repeat(a) => (a, None),
            What::Between { a, b, .. } => (a, Some(b)),
        };
        while self.keys.len() > 1 && self.keys[0].0 < first {
            self.keys.pop_front();
        }
        Some((tick, self.find(first)?, second.and_then(|b| self.find(b))))
    }
}

impl State {
    /// Starts a timeline with the rate of `key`. One that runs at another rate ends at its last key frame, up to
    /// which all its ticks are out, and the new one begins there.
    pub fn offline_for(&mut self, key: &Key) -> Result<&mut Offline, EngineError> {
        let stale = match &self.mode {
            Mode::Offline(offline) => {
                offline.keys.back().is_some_and(|(_, last)| last.out.rate != key.out.rate)
            }
            _ => true,
        };
        if stale {
            let last = match &mut self.mode {
                Mode::Offline(offline) => offline.keys.pop_back().map(|(_, last)| (offline.last, last)),
                _ => None,
            };
            self.retire();
            let mut offline = Offline::new(key.out.rate);
            if let Some((pts, last)) = last {
                offline.key(pts, Key { out: key.out.clone(), ..last })?;
            }
            self.mode = Mode::Offline(Box::new(offline));
        }
        match &mut self.mode {
            Mode::Offline(offline) => Ok(offline),
            _ => Err(EngineError::Ended),
        }
    }
}

impl FilmInterpolate {
    /// Makes and sends all ticks that are decided by now.
    pub(super) fn drain_offline(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        loop {
            let next = match &mut self.state().as_mut().ok_or(gst::FlowError::Flushing)?.mode {
                Mode::Offline(offline) => offline.next(),
                _ => None,
            };
            let Some((tick, a, b)) = next else { return Ok(gst::FlowSuccess::Ok) };
            let picture = self.make_offline(&tick, a, b)?;
            self.push_picture(picture, None)?;
        }
    }

    /// The output is to be the same in every run: no ladder, and no picture made in a cheaper way than asked for.
    fn make_offline(&self, tick: &Tick, a: Key, b: Option<Key>) -> Result<Picture, gst::FlowError> {
        let mut frame = a.frame.clone();
        if let (What::Between { t, .. }, Some(b)) = (tick.what, b)
            && a.fits(&b)
        {
            let made = self.make_best(&a.frame, &b.frame, t);
            if let Some(state) = self.state().as_mut() {
                state.rungs.count(&made);
            }
            if let Some(trouble) = made.trouble {
                gst::element_imp_error!(self, gst::StreamError::Failed, ("Interpolation failed: {trouble}"));
                return Err(gst::FlowError::Error);
            }
            frame = made.frame;
        }
        Ok(Picture { pts: tick.pts, duration: tick.duration, frame, out: a.out })
    }

    /// An in-between at `max-quality`, FILM waited for if it must be.
    fn make_best(&self, a: &Frame, b: &Frame, t: f32) -> Made {
        let (_, best) = self.asked();
        let mut trouble = None;
        if best == Rung::Film {
            let mut film = self.film();
            self.want_film(&mut film);
            let loaded = film.wait(|| self.sinkpad.pad_flags().contains(gst::PadFlags::FLUSHING));
            let started = Instant::now();
            let made = film.make(a, b, t);
            drop(film);
            if let Some(Loaded::Absent(trouble)) = loaded {
                self.report_no_film(trouble);
            }
            match made {
                Some(Ok(frame)) => {
                    return Made { frame, rung: best, cost: started.elapsed(), trouble: None };
                }
                Some(Err(err)) => trouble = Some(err),
                None => {}
            }
        }
        let made = self.light().make(best, a, b, t);
        Made { trouble: trouble.or(made.trouble), ..made }
    }

    /// The end of the stream: everything that is left.
    pub(super) fn finish_offline(&self) -> Result<gst::FlowSuccess, gst::FlowError> {
        if let Some(state) = self.state().as_mut() {
            let end = state.end;
            if let Mode::Offline(offline) = &mut state.mode
                && let Err(err) = offline.timeline.finish(end)
            {
                gst::debug!(CAT, imp = self, "Nothing to finish: {err}");
            }
        }
        self.drain_offline()
    }
}

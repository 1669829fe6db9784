//! Stage 1: which pose frames become key poses.
//!
//! The rule of FasterVD (IJCAI-24), online: after key pose P_a, the next pose frame with MSE(P_a, P) ≥ λ is a key
//! pose; the first frame is one, and the last. A window of W frames bounds the wait. [`Rule`] is that rule over
//! plain numbers; [`Selector`] measures the numbers on pictures.

use ringbuf::{
    HeapRb,
    traits::{Consumer, Observer, RingBuffer},
};

use crate::{
    error::EngineError,
    frame::{Frame, Nanos, SECOND, Timed},
    rate::{LambdaControl, Turn, interval_of},
    thumbnail::Thumbnail,
};

/// Settings of stage 1.
#[derive(Debug, Clone, PartialEq)]
pub struct SelectConfig {
    /// λ: a pose frame at this MSE or more from the last key pose is a key pose. Pixel values in [0, 1], measured on
    /// 256×256 copies. At 0 every frame is one. With a `target_key_rate`, only where λ starts.
    pub lambda: f64,
    /// W: this many frames after the last key pose (or hold), the newest frame is selected whatever its MSE. At
    /// least 1.
    pub window: u32,
    /// A pose with MSE below this from the last key pose *has not changed at all*: at the window's end the key
    /// frame is held and nothing generated.
    ///
    /// The default 2e-5 is what an encoder can add to a still picture: decoded clips of one at x264's default quality
    /// differ by up to 1.5e-5 where a new group of pictures starts. The picture moved by one pixel of 512 differs by
    /// 5e-4. Streams of lower quality (1e-4 at 200 kbit/s) may want more; unencoded ones can do with 0.
    pub still_epsilon: f64,
    /// Key poses a second that λ should follow the motion to give; 0 keeps λ fixed, unless that gives more than
    /// can be [sustained](Selector::set_sustained).
    pub target_key_rate: f64,
}

impl Default for SelectConfig {
    /// λ = 0.01 (keeps 30 to 55 % of real clips at 25 frames a second), W = 5, for live use (a fifth of a second at
    /// that rate), fixed λ.
    fn default() -> Self {
        Self { lambda: 0.01, window: 5, still_epsilon: 2e-5, target_key_rate: 0.0 }
    }
}

impl SelectConfig {
    fn check(&self) -> Result<(), EngineError> {
        let bad = |text: String| Err(EngineError::BadSetting(text));
        match self {
            c if !(0.0..=1.0).contains(&c.lambda) => bad(format!("lambda {} is not in 0 to 1", c.lambda)),
            c if c.window == 0 => bad("window must be at least 1 frame".into()),
            c if !(0.0..=1.0).contains(&c.still_epsilon) => {
                bad(format!("still epsilon {} is not in 0 to 1", c.still_epsilon))
            }
            c if !(c.target_key_rate >= 0.0 && c.target_key_rate.is_finite()) => {
                bad(format!("target key rate {} is not 0 or more", c.target_key_rate))
            }
            _ => Ok(()),
        }
    }
}

/// Why a pose frame became a key pose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyReason {
    /// The first frame of the stream.
    First,
    /// Its MSE from the last key pose reached λ.
    Motion,
    /// W frames passed since the last key pose.
    Window,
    /// The last frame of the stream.
    Last,
}

impl KeyReason {
    /// All reasons, in the order of [`SelectStats::key`].
    pub const ALL: [Self; 4] = [Self::First, Self::Motion, Self::Window, Self::Last];

    /// One lower-case word for statistics and marks on buffers.
    pub fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Motion => "motion",
            Self::Window => "window",
            Self::Last => "last",
        }
    }
}

/// What becomes of a pose frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is a key pose: generate a key frame.
    Key(KeyReason),
    /// The pose has not changed for W frames: the last key frame is valid up to this frame, generate nothing.
    Hold,
    /// Not needed.
    Skip,
}

/// Counts of stage 1 since the start, and where it stands now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SelectStats {
    /// Pose frames seen.
    pub input: u64,
    /// Key poses by reason, as [`KeyReason::ALL`].
    pub key: [u64; 4],
    /// Holds.
    pub held: u64,
    /// Frames neither key nor hold. A frame that the end of the stream turns into a key pose no longer counts.
    pub skipped: u64,
    /// λ in force.
    pub lambda: f64,
}

impl SelectStats {
    /// Key poses for any reason.
    pub fn keys(&self) -> u64 {
        self.key.iter().sum()
    }

    /// Key poses for one reason.
    pub fn by_reason(&self, reason: KeyReason) -> u64 {
        self.key[reason as usize]
    }

    /// Key poses per pose frame, 0 to 1; 0 before the first.
    pub fn key_ratio(&self) -> f64 {
        if self.input == 0 { 0.0 } else { self.keys() as f64 / self.input as f64 }
    }
}

/// The selection rule over measured numbers: who measures, and on what, is the caller's business.
#[derive(Debug, Clone)]
pub struct Rule {
    config: SelectConfig,
    /// λ in force: the configured one, or what rate control last asked for.
    lambda: f64,
    /// Frames since the last key pose or hold.
    since: u32,
    /// MSE from the last key pose of the last frame if that frame was skipped: the end of the stream decides on it.
    pending: Option<f64>,
    stats: SelectStats,
}

impl Rule {
    /// A rule before its first frame.
    ///
    /// # Errors
    /// [`EngineError::BadSetting`] names a setting outside its range.
    pub fn new(config: SelectConfig) -> Result<Self, EngineError> {
        config.check()?;
        let lambda = config.lambda;
        let stats = SelectStats { lambda, ..Default::default() };
        Ok(Self { config, lambda, since: 0, pending: None, stats })
    }

    /// Decides on the next frame, `mse` away from the last key pose. The first frame's is ignored.
    pub fn decide(&mut self, mse: f64) -> Decision {
        self.decide_if(mse, true)
    }

    /// As [`decide`](Self::decide); while the generator is not `free` no motion makes a key pose, which would only grow
    /// old in front of it. The first frame that finds it free is further along.
    fn decide_if(&mut self, mse: f64, free: bool) -> Decision {
        self.since += 1;
        let decision = if self.stats.input == 0 {
            Decision::Key(KeyReason::First)
        } else if free && mse >= self.lambda {
            Decision::Key(KeyReason::Motion)
        } else if self.since < self.config.window {
            Decision::Skip
        } else if mse < self.config.still_epsilon {
            Decision::Hold
        } else {
            Decision::Key(KeyReason::Window)
        };
        self.stats.input += 1;
        self.count(decision);
        self.pending = (decision == Decision::Skip).then_some(mse);
        decision
    }

    /// At the end of the stream, decides again on a last frame that was skipped: a key pose, or a hold if unchanged.
    /// `None` if the last frame was already key or hold, or there was none.
    pub fn finish(&mut self) -> Option<Decision> {
        let mse = self.pending.take()?;
        self.stats.skipped -= 1;
        let unchanged = mse < self.config.still_epsilon;
        let decision = if unchanged { Decision::Hold } else { Decision::Key(KeyReason::Last) };
        self.count(decision);
        Some(decision)
    }

    fn count(&mut self, decision: Decision) {
        match decision {
            Decision::Key(reason) => self.stats.key[reason as usize] += 1,
            Decision::Hold => self.stats.held += 1,
            Decision::Skip => {
                self.stats.skipped += 1;
                return;
            }
        }
        self.since = 0;
    }

    /// Counts so far.
    pub fn stats(&self) -> SelectStats {
        self.stats
    }

    /// λ in force.
    pub fn lambda(&self) -> f64 {
        self.lambda
    }

    /// Changes λ from the next frame on; the value is taken as it is.
    pub fn set_lambda(&mut self, lambda: f64) {
        self.lambda = lambda;
        self.stats.lambda = lambda;
    }
}

/// Stage 1: sees every pose frame in order and answers what becomes of it.
pub struct Selector {
    rule: Rule,
    /// Thumbnail of the last key pose; MSE is always measured against it.
    key: Option<Thumbnail>,
    /// The sliding window: thumbnails of the last W frames, for the statistics that rate control follows.
    /// Filled only while there is control.
    recent: HeapRb<Timed<Thumbnail>>,
    /// Present while there is a target key rate or a known limit.
    control: Option<LambdaControl>,
    /// The shortest time between key poses that what comes behind can sustain; 0 if that is not known.
    sustained: Nanos,
    /// When it will be free.
    turn: Turn,
    /// Time of the last frame.
    last: Nanos,
}

impl Selector {
    /// A selector before its first frame.
    ///
    /// # Errors
    /// [`EngineError::BadSetting`] names a setting outside its range.
    pub fn new(config: SelectConfig) -> Result<Self, EngineError> {
        let control =
            interval_of(config.target_key_rate).map(|every| LambdaControl::new(every, config.lambda));
        let recent = HeapRb::new(config.window.clamp(1, MAX_RECENT) as usize);
        let rule = Rule::new(config)?;
        Ok(Self { rule, key: None, recent, control, sustained: 0, turn: Turn::default(), last: 0 })
    }

    /// Decides on the next pose frame.
    pub fn push(&mut self, pose: &Frame, pts: Nanos) -> Decision {
        self.push_thumbnail(Thumbnail::new(pose), pts)
    }

    /// As [`push`](Self::push), for a caller that has the thumbnail already.
    pub fn push_thumbnail(&mut self, pose: Thumbnail, pts: Nanos) -> Decision {
        self.notice_gap(pts);
        self.steer(&pose, pts);
        let mse = self.key.as_ref().map_or(0.0, |key| key.mse(&pose));
        let step = pts.saturating_sub(self.last);
        let free = self.turn.is_near(pts, step);
        let decision = self.rule.decide_if(mse, free);
        self.last = pts;
        if self.control.is_some() {
            self.recent.push_overwrite(Timed::new(pts, pose.clone()));
        }
        if let Decision::Key(_) = decision {
            self.key = Some(pose);
            self.turn.take(pts, step, self.sustained);
            if let Some(control) = &mut self.control {
                control.selected();
            }
        }
        decision
    }

    /// How far a pose got while no frames came, or from another stretch of time, says nothing of the motion.
    fn notice_gap(&mut self, pts: Nanos) {
        if pts < self.last {
            self.turn = Turn::default();
        }
        let Some(control) = &mut self.control else { return };
        let longest = MOST_APART.max(control.interval());
        if pts < self.last || pts - self.last > longest {
            self.recent.clear();
            self.turn = Turn::default();
            control.interrupted();
        }
    }

    /// λ follows the motion: how far the pose got from where it was one wanted key interval ago.
    fn steer(&mut self, pose: &Thumbnail, pts: Nanos) {
        let Some(control) = &mut self.control else { return };
        let interval = control.interval();
        // The youngest frame at least one interval old, else the oldest there is.
        let then = self
            .recent
            .iter()
            .rev()
            .find(|r| r.pts.saturating_add(interval) <= pts)
            .or_else(|| self.recent.iter().next());
        if let Some(then) = then {
            control.observe(then.item.mse(pose), pts.saturating_sub(then.pts), pts);
            // Without a target the user's λ stands, and control only raises it.
            let config = &self.rule.config;
            let floor = if config.target_key_rate > 0.0 { 0.0 } else { config.lambda };
            control.rest_at(floor);
            // Where every frame could be a key pose there is nothing to hold back.
            let all = floor > 0.0 && interval <= pts.saturating_sub(self.last);
            let turns = self.sustained >= interval;
            let eased = control.lambda() * if turns { EASED } else { 1.0 };
            let lambda = if all { floor } else { eased.max(floor) };
            self.rule.set_lambda(lambda);
        }
    }

    /// At the end of the stream: the decision, with its time, that replaces a `Skip` answered to the last frame.
    /// `None` if that frame was already key or hold, or there was none. The caller must keep the last frame's
    /// picture until then.
    pub fn finish(&mut self) -> Option<Timed<Decision>> {
        let decision = self.rule.finish()?;
        Some(Timed::new(self.last, decision))
    }

    /// Key poses should come no more often than every `interval`: what the generator sustains. λ is raised as far
    /// as that needs, whether it is fixed or follows a target, and none comes for its motion before its
    /// [turn](Turn). Motion is looked at over W frames at most, so λ helps little beyond; nothing ever comes later
    /// than W frames for it.
    pub fn set_sustained(&mut self, interval: Nanos) {
        self.sustained = interval;
        self.adopt();
    }

    /// The time between key poses to aim at, if any.
    fn wanted(&self, config: &SelectConfig) -> Option<Nanos> {
        let target = interval_of(config.target_key_rate);
        let sustained = (self.sustained > 0).then_some(self.sustained);
        target.max(sustained)
    }

    /// Lets the control aim at what is wanted now.
    fn adopt(&mut self) {
        let config = &self.rule.config;
        match (self.wanted(config), &mut self.control) {
            (Some(every), Some(control)) => control.set_interval(every),
            (Some(every), None) => self.control = Some(LambdaControl::new(every, config.lambda)),
            (None, _) => self.control = None,
        }
    }

    /// Forgets the stream, as after a flush: the next frame is a first one. Settings stay, counts start again.
    pub fn reset(&mut self) {
        let config = self.rule.config.clone();
        self.key = None;
        self.recent.clear();
        self.turn = Turn::default();
        self.control = self.wanted(&config).map(|every| LambdaControl::new(every, config.lambda));
        let lambda = config.lambda;
        let stats = SelectStats { lambda, ..Default::default() };
        self.rule = Rule { config, lambda, since: 0, pending: None, stats };
    }

    /// Changes the settings between two frames of a running stream.
    ///
    /// # Errors
    /// [`EngineError::BadSetting`] names a setting outside its range; the old settings stay in force.
    pub fn configure(&mut self, config: SelectConfig) -> Result<(), EngineError> {
        config.check()?;
        let old = &self.rule.config;
        if (config.target_key_rate, config.lambda) != (old.target_key_rate, old.lambda) {
            self.control = self.wanted(&config).map(|every| LambdaControl::new(every, config.lambda));
            self.rule.set_lambda(config.lambda);
        }
        let len = config.window.clamp(1, MAX_RECENT) as usize;
        if len != self.recent.capacity().get() || self.control.is_none() {
            self.recent = HeapRb::new(len);
        }
        self.rule.config = config;
        Ok(())
    }

    /// The settings in force.
    pub fn config(&self) -> &SelectConfig {
        &self.rule.config
    }

    /// Counts so far.
    pub fn stats(&self) -> SelectStats {
        self.rule.stats()
    }
}

/// Where turns hold key poses back, λ may be a little lower than what gives as many: no turn passes unused because λ
/// was not quite reached when it came.
const EASED: f64 = 0.75;

/// Pose frames further apart than this, and than the wanted time between key poses, are not of one stretch of motion.
const MOST_APART: Nanos = 2 * SECOND;

/// Most thumbnails kept for rate control, whatever W: 64 of them take 12 MiB.
const MAX_RECENT: u32 = 64;

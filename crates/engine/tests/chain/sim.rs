//! Selector, mailbox, generator and pacer in one loop of simulated nanoseconds, with the load feedback that the
//! elements have. Only the generator is simulated: it takes the time that it is told to.

use keyframed_engine::{
    Decision, Mailbox, Nanos, Pacer, Policy, Poll, Selector, Thumbnail, Timed, pace::Output, rate::Capacity,
    select::Rule,
};

/// A pose frame: when it comes, which time it says it is of, and which pose it shows.
#[derive(Debug, Clone, Copy)]
pub struct Input {
    pub at: Nanos,
    pub pts: Nanos,
    pub pose: usize,
}

/// Stage 1, as the chain needs it.
pub trait Select {
    fn decide(&mut self, input: &Input) -> Decision;
    fn sustain(&mut self, every: Nanos);
    fn lambda(&self) -> f64;
}

/// The real one, over a film of poses that is played forwards and backwards.
pub struct Filmed<'a> {
    pub selector: Selector,
    pub film: &'a [Thumbnail],
}

impl Select for Filmed<'_> {
    fn decide(&mut self, input: &Input) -> Decision {
        let turn = 2 * self.film.len() - 2;
        let at = input.pose % turn;
        let pose = &self.film[at.min(turn - at)];
        self.selector.push_thumbnail(pose.clone(), input.pts)
    }

    fn sustain(&mut self, every: Nanos) {
        self.selector.set_sustained(every);
    }

    fn lambda(&self) -> f64 {
        self.selector.stats().lambda
    }
}

/// The rule alone over poses on a line: a day of it takes a second.
pub struct Plain {
    pub rule: Rule,
    pub key: f64,
}

impl Select for Plain {
    fn decide(&mut self, input: &Input) -> Decision {
        let pose = (input.pose as f64 * 0.37).sin();
        let decision = self.rule.decide((pose - self.key).powi(2));
        if let Decision::Key(_) = decision {
            self.key = pose;
        }
        decision
    }

    fn sustain(&mut self, _every: Nanos) {}

    fn lambda(&self) -> f64 {
        self.rule.lambda()
    }
}

/// A key frame and its way here.
#[derive(Debug, Clone, Copy)]
pub struct KeyFrame {
    pub pts: Nanos,
    /// When its key pose was selected, taken by the generator, and done.
    pub offered: Nanos,
    pub taken: Nanos,
    pub done: Nanos,
    /// Where the pacer put it, if it had a use for it.
    pub at: Option<Nanos>,
}

/// What the mailbox carries: a key pose, holds before it and after it.
#[derive(Debug, Clone, Copy, Default)]
struct Job {
    before: Option<Nanos>,
    pose: Option<(Nanos, Nanos)>,
    after: Option<Nanos>,
}

/// What happened, but for the output.
#[derive(Debug, Default)]
pub struct Log {
    pub decisions: Vec<(Nanos, Decision)>,
    pub key_frames: Vec<KeyFrame>,
    pub replaced: u64,
    /// When upstream was told how often key poses may come, and how often.
    pub told: Vec<(Nanos, Nanos)>,
    /// λ after each pose frame.
    pub lambdas: Vec<f64>,
}

impl Log {
    /// Times at which key poses were selected.
    pub fn keys(&self) -> impl Iterator<Item = Nanos> {
        self.decisions.iter().filter(|d| matches!(d.1, Decision::Key(_))).map(|d| d.0)
    }
}

/// Gets an output, the time it left, and the key frames so far.
pub type Watch<'a> = dyn FnMut(Nanos, &Output<Nanos>, &[KeyFrame]) + 'a;

pub struct Chain<'a> {
    pub select: &'a mut dyn Select,
    pub pacer: Pacer<Nanos>,
    /// How long the key frame begun at this time takes.
    pub service: &'a dyn Fn(Nanos) -> Nanos,
    /// When the pacing thread does not run: from, to; in order and apart.
    pub asleep: &'a [(Nanos, Nanos)],
    /// Sees every output.
    pub emitted: &'a mut Watch<'a>,
}

impl Chain<'_> {
    /// Plays all input and goes on until `end`.
    pub fn run(mut self, input: impl IntoIterator<Item = Input>, end: Nanos) -> Log {
        let (mailbox, mut capacity) = (Mailbox::new(Policy::Replace), Capacity::default());
        let mut log = Log::default();
        let mut input = input.into_iter().peekable();
        let mut busy: Option<(KeyFrame, Job)> = None;
        let mut now = 0;
        while now <= end {
            while let Some(frame) = input.next_if(|frame| frame.at <= now) {
                self.offer(&frame, &mailbox, &mut log);
            }
            while busy.is_none()
                && let Some(job) = mailbox.try_recv()
            {
                busy = self.begin(job.item, now);
            }
            if let Some((done, job)) = busy.take_if(|(key_frame, _)| key_frame.done <= now) {
                self.finish(done, job, &mut capacity, &mut log);
                continue;
            }
            let wake = self.pace(now, &log.key_frames);
            let next = [input.peek().map(|i| i.at), busy.as_ref().map(|b| b.0.done), wake];
            let Some(next) = next.into_iter().flatten().min() else { break };
            assert!(next > now, "the loop must go on");
            now = next;
        }
        log
    }

    /// A pose frame comes to stage 1, and what leaves it goes to the mailbox.
    fn offer(&mut self, frame: &Input, mailbox: &Mailbox<Job>, log: &mut Log) {
        let decision = self.select.decide(frame);
        log.decisions.push((frame.at, decision));
        log.lambdas.push(self.select.lambda());
        let (pose, hold) = match decision {
            Decision::Key(_) => (Some((frame.pts, frame.at)), None),
            Decision::Hold => (None, Some(frame.pts)),
            Decision::Skip => return,
        };
        let mut before = None;
        let waited = mailbox.amend(|job| {
            before = job.before;
            if hold.is_some() {
                *(if job.pose.is_some() { &mut job.after } else { &mut job.before }) = hold;
            }
        });
        if pose.is_some() || !waited {
            let job = Job { before: hold.or(before), pose, after: None };
            let replaced = mailbox.send(job, frame.at).unwrap();
            log.replaced += u64::from(replaced.is_some_and(|job| job.pose.is_some()));
        }
    }

    /// The generator takes a job; a hold alone passes at once.
    fn begin(&mut self, job: Job, now: Nanos) -> Option<(KeyFrame, Job)> {
        if let Some(until) = job.before {
            self.pacer.hold(until);
        }
        let (pts, offered) = job.pose?;
        let done = now + (self.service)(now).max(1);
        Some((KeyFrame { pts, offered, taken: now, done, at: None }, job))
    }

    /// A key frame is there.
    fn finish(&mut self, mut key_frame: KeyFrame, job: Job, capacity: &mut Capacity, log: &mut Log) {
        key_frame.at = self.pacer.key(Timed::new(key_frame.pts, key_frame.pts)).ok();
        if let Some(until) = job.after {
            self.pacer.hold(until);
        }
        // The first also waits for what is prepared once.
        if !log.key_frames.is_empty()
            && let Some(every) = capacity.observe(key_frame.done - key_frame.taken)
        {
            log.told.push((key_frame.done, every));
            self.select.sustain(every);
        }
        log.key_frames.push(key_frame);
    }

    /// Lets the pacer do what is due; answers when to come again.
    fn pace(&mut self, now: Nanos, key_frames: &[KeyFrame]) -> Option<Nanos> {
        while let Some((_, to)) = self.asleep.first().filter(|(from, _)| *from <= now) {
            if now < *to {
                return Some(*to);
            }
            self.asleep = &self.asleep[1..];
        }
        loop {
            match self.pacer.poll(now) {
                Poll::Emit(output) => (self.emitted)(now, &output, key_frames),
                Poll::Wait(due) => {
                    assert!(due > now, "a wait must lie ahead");
                    return Some(due);
                }
                Poll::Idle | Poll::Done => return None,
            }
        }
    }
}

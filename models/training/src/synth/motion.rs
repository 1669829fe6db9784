//! Motions: poses as continuous functions of time.

use std::f32::consts::{PI, TAU};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::math::{lerp, smoothstep};
use super::pose::{Arm, Leg, Pose, stride};

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// On the spot, arms swinging.
    Walk,
    /// From one striking pose to the next, on the beat.
    Dance,
    /// One hand waves.
    Wave,
    /// Round and round.
    Spin,
    /// Looks to one side, then to the other.
    Turn,
    /// Down and up again.
    Sit,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Walk, Self::Dance, Self::Wave, Self::Spin, Self::Turn, Self::Sit];
}

/// An action with its own tempo, size and direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Motion {
    /// What is done.
    pub action: Action,
    /// Cycles per second.
    pub tempo: f32,
    /// Size of the movements, 1 is usual.
    pub reach: f32,
    /// Direction that the figure faces, radians.
    pub yaw: f32,
    /// Left and right exchanged.
    pub mirrored: bool,
    /// Poses that a dance goes through.
    steps: Vec<Pose>,
}

impl Motion {
    /// The action as most people would do it; `seed` picks the dance.
    pub fn new(action: Action, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let steps = (0..8).map(|_| dance_step(&mut rng)).collect();
        let tempo = match action {
            Action::Walk => 0.9,
            Action::Dance => 1.4,
            Action::Wave => 1.3,
            Action::Spin => 0.3,
            Action::Turn | Action::Sit => 0.25,
        };
        Self { action, tempo, reach: 1.0, yaw: 0.0, mirrored: false, steps }
    }

    /// Any action in any tempo.
    pub fn random(rng: &mut impl Rng) -> Self {
        let action = Action::ALL[rng.random_range(0..Action::ALL.len())];
        let mut motion = Self::new(action, rng.random());
        motion.tempo *= rng.random_range(0.7..1.4);
        motion.reach = rng.random_range(0.6..1.25);
        motion.yaw =
            if rng.random::<f32>() < 0.75 { rng.random_range(-0.7..0.7) } else { rng.random_range(-PI..PI) };
        motion.mirrored = rng.random();
        motion
    }

    /// The pose at a time in seconds.
    pub fn pose(&self, t_seconds: f32) -> Pose {
        let phase = t_seconds * self.tempo * TAU;
        let mut pose = match self.action {
            Action::Walk => walk(phase, self.reach),
            Action::Dance => self.dance(t_seconds * self.tempo),
            Action::Wave => wave(phase, self.reach),
            Action::Spin => Pose { yaw: phase, ..sway(phase * 3.0, self.reach) },
            Action::Turn => turn(phase, self.reach),
            Action::Sit => sit(phase, self.reach),
        };
        pose.yaw += self.yaw;
        if self.mirrored { mirror(pose) } else { pose }
    }

    fn dance(&self, beat: f32) -> Pose {
        let count = self.steps.len();
        let index = beat.rem_euclid(count as f32);
        let step = index as usize % count;
        let t = smoothstep(0.0, 1.0, index.fract());
        let mut pose = Pose::mix(&self.steps[step], &self.steps[(step + 1) % count], t);
        let bounce = (beat * TAU).sin() * 0.12 * self.reach;
        for leg in &mut pose.legs {
            leg.lift += 0.12 + bounce;
            leg.knee += 0.25 + 2.0 * bounce;
        }
        pose
    }
}

fn dance_step(rng: &mut impl Rng) -> Pose {
    let mut pose = Pose::random(rng);
    pose.yaw = rng.random_range(-0.9..0.9);
    for leg in &mut pose.legs {
        leg.lift *= 0.6;
        leg.knee *= 0.6;
    }
    pose
}

fn walk(phase: f32, reach: f32) -> Pose {
    let swing = |offset: f32| {
        let s = (phase + offset).sin() * reach;
        Arm { dir: [0.16, -0.45 * s, -1.0], elbow: 0.45 + 0.3 * s.max(0.0), ..Arm::default() }
    };
    Pose {
        // Arms swing against the legs.
        arms: [swing(PI), swing(0.0)],
        legs: stride(phase, 0.5 * reach, 0.0),
        spine: [0.04, 0.03 * phase.sin(), -0.1 * reach * phase.sin()],
        head: [0.02 * (2.0 * phase).sin(), 0.0, 0.06 * phase.sin()],
        lean: [0.03, 0.0],
        ..Pose::default()
    }
}

fn sway(phase: f32, reach: f32) -> Pose {
    let s = phase.sin() * reach;
    let arm = |side: f32| Arm {
        dir: [0.6 + 0.1 * side * s, -0.2, -0.8 + 0.25 * side * s],
        elbow: 0.6 + 0.2 * side * s,
        ..Arm::default()
    };
    Pose {
        arms: [arm(1.0), arm(-1.0)],
        spine: [0.02, 0.06 * s, 0.05 * s],
        head: [0.03 * s, 0.04 * s, 0.0],
        shift: [0.012 * s, 0.0],
        ..Pose::default()
    }
}

fn wave(phase: f32, reach: f32) -> Pose {
    let s = phase.sin() * reach;
    let mut pose = sway(phase * 0.5, 0.5 * reach);
    pose.arms[0] =
        Arm { dir: [0.9, -0.3, 0.25], twist: -0.9, elbow: 1.5 + 0.45 * s, wrist: [0.2 * s, 0.0], curl: 0.05 };
    pose.arms[1] = Arm::default();
    pose.head[1] += 0.08;
    pose
}

fn turn(phase: f32, reach: f32) -> Pose {
    let s = phase.sin();
    let mut pose = sway(phase * 2.0, 0.6 * reach);
    pose.yaw = 1.2 * reach * s;
    pose.head[2] = 0.25 * (phase + 0.6).sin();
    pose.spine[2] = 0.15 * (phase + 0.3).sin();
    pose
}

fn sit(phase: f32, reach: f32) -> Pose {
    let down = smoothstep(0.1, 0.9, 0.5 - 0.5 * phase.cos()) * reach.min(1.0);
    let leg = Leg { lift: 1.45 * down, spread: 0.12 * down, knee: 1.5 * down + 0.03 };
    let arm = Arm {
        dir: [lerp(0.25, 0.15, down), -0.55 * down, -1.0],
        elbow: lerp(0.35, 0.9, down),
        ..Arm::default()
    };
    Pose { arms: [arm; 2], legs: [leg; 2], spine: [0.18 * (down * PI).sin(), 0.0, 0.0], ..Pose::default() }
}

fn mirror(pose: Pose) -> Pose {
    let flip = |v: [f32; 3]| [v[0], -v[1], -v[2]];
    Pose {
        arms: [pose.arms[1], pose.arms[0]],
        legs: [pose.legs[1], pose.legs[0]],
        spine: flip(pose.spine),
        head: flip(pose.head),
        yaw: -pose.yaw,
        lean: [pose.lean[0], -pose.lean[1]],
        shift: [-pose.shift[0], pose.shift[1]],
    }
}

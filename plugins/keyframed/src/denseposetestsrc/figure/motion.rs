//! What the figure does: joint angles as a function of time, one function per pattern.
//!
//! Angles are radians. A motion is a pure function of (pattern, seed, time), so a stream can be
//! produced at any rate and restarted anywhere with the same pictures.
use std::f32::consts::{PI, TAU};

/// A repeating movement of the figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// Walks on the spot, turning slowly to the left and right.
    Walk,
    /// Dances: squats, sways and swings both arms.
    Dance,
    /// Stands and waves the right hand.
    Wave,
    /// Turns about its own axis.
    Spin,
    /// Does not move at all.
    Still,
}

/// One arm: shoulder, elbow and wrist.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Arm {
    /// Upper arm forwards.
    pub flex: f32,
    /// Upper arm away from the body.
    pub abduct: f32,
    /// Turn about the upper arm's axis, outwards positive.
    pub outward: f32,
    /// Elbow bend.
    pub elbow: f32,
    /// Turn of the hand about the forearm's axis, palm forwards positive.
    pub palm: f32,
}

/// One leg: hip, knee and ankle.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Leg {
    /// Thigh forwards.
    pub flex: f32,
    /// Thigh away from the body.
    pub abduct: f32,
    /// Turn about the thigh's axis, toes outwards positive.
    pub outward: f32,
    /// Knee bend.
    pub knee: f32,
    /// Toes up positive.
    pub ankle: f32,
}

/// All joint angles of the figure at one instant. Index 0 of a pair is the figure's right side.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pose {
    /// Sideways place of the pelvis, metres.
    pub shift: f32,
    /// Facing: 0 is towards the viewer, positive turns to the picture's right.
    pub yaw: f32,
    /// Pelvis lean: (forwards, sideways, turn).
    pub pelvis: [f32; 3],
    /// Spine bend relative to the pelvis: (forwards, sideways, turn).
    pub spine: [f32; 3],
    /// Head relative to the chest: (forwards, sideways, turn).
    pub head: [f32; 3],
    /// Arms: right, left.
    pub arms: [Arm; 2],
    /// Legs: right, left.
    pub legs: [Leg; 2],
}

/// The seed's choices: everybody moves a little differently.
#[derive(Debug, Clone, Copy)]
pub struct Temper {
    /// Speed of the movement, about 1.
    tempo: f32,
    /// Size of the movement, about 1.
    reach: f32,
    /// Where in the cycle the movement starts, radians.
    phase: f32,
    /// Free phases for secondary movements, radians.
    free: [f32; 4],
    /// Breadth of the body, about 1.
    pub breadth: f32,
}

impl Temper {
    /// The choices of a seed.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        let mut unit = move || {
            // SplitMix64: one multiplication chain per number, good for seeds that differ by one.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
        };
        Self {
            tempo: 0.9 + 0.2 * unit(),
            reach: 0.9 + 0.2 * unit(),
            phase: TAU * unit(),
            free: [unit(), unit(), unit(), unit()].map(|u| TAU * u),
            breadth: 0.93 + 0.14 * unit(),
        }
    }

    /// Angle of a wave of `hz` at `t` seconds. Computed in f64: a stream may run for weeks.
    fn angle(&self, hz: f64, t: f64) -> f32 {
        let turns = (hz * f64::from(self.tempo) * t).fract();
        (turns * std::f64::consts::TAU) as f32 + self.phase
    }
}

/// The pose of `motion` at `t` seconds.
pub fn pose(motion: Motion, temper: &Temper, t: f64) -> Pose {
    match motion {
        Motion::Walk => walk(temper, t),
        Motion::Dance => dance(temper, t),
        Motion::Wave => wave(temper, t),
        Motion::Spin => spin(temper, t),
        Motion::Still => stand(temper),
    }
}

/// A relaxed stance, arms hanging a little off the body; the start of every other pattern.
fn stand(temper: &Temper) -> Pose {
    let loose = 0.04 * temper.free[0].sin();
    let arm = Arm { flex: 0.04, abduct: 0.22 + loose, outward: 0.1, elbow: 0.22, palm: 0.2 };
    let leg = Leg { flex: 0.02, abduct: 0.07, outward: 0.2, knee: 0.04, ankle: 0.02 };
    Pose { arms: [arm; 2], legs: [leg; 2], ..Pose::default() }
}

fn walk(temper: &Temper, t: f64) -> Pose {
    let stride = temper.angle(0.85, t);
    let turn = temper.angle(0.11, t) - temper.phase;
    let mut pose = stand(temper);
    pose.yaw = 0.75 * turn.sin();
    pose.pelvis = [0.04, 0.04 * stride.cos(), 0.10 * stride.sin()];
    pose.spine = [0.03, -0.05 * stride.cos(), -0.22 * stride.sin()];
    pose.head = [-0.04, 0.01 * stride.cos(), 0.12 * stride.sin()];
    for (side, (arm, leg)) in pose.arms.iter_mut().zip(&mut pose.legs).enumerate() {
        // The left leg goes with the right arm.
        let phase = stride + PI * side as f32;
        let swing = phase.sin();
        leg.flex = 0.10 + 0.48 * temper.reach * swing;
        leg.knee = 0.10 + 0.95 * (phase + 0.35).cos().max(0.).powi(2);
        leg.ankle = 0.12 * swing;
        leg.abduct = 0.03;
        leg.outward = 0.08;
        arm.flex = -0.05 - 0.55 * temper.reach * swing;
        arm.elbow = 0.45 - 0.25 * swing;
        arm.abduct = 0.14;
    }
    pose
}

fn dance(temper: &Temper, t: f64) -> Pose {
    let beat = temper.angle(0.9, t);
    let bar = temper.angle(0.45, t);
    let phrase = temper.angle(0.115, t) - temper.phase;
    let dip = 0.5 + 0.5 * (beat + temper.free[0]).sin();
    let sway = bar.sin();
    let mut pose = stand(temper);
    pose.shift = 0.09 * temper.reach * sway;
    pose.yaw = 0.9 * phrase.sin() + 0.25 * bar.cos();
    pose.pelvis = [0.05 + 0.15 * dip, 0.12 * sway, 0.15 * bar.cos()];
    pose.spine = [0.05 * dip, -0.22 * sway, -0.3 * bar.cos()];
    pose.head = [0.1 * dip - 0.1, 0.18 * sway, 0.2 * (bar + temper.free[1]).sin()];
    for (side, (arm, leg)) in pose.arms.iter_mut().zip(&mut pose.legs).enumerate() {
        let opposite = PI * side as f32;
        let lift = 0.5 + 0.5 * (bar + opposite).sin();
        leg.flex = 0.12 + 0.75 * dip * temper.reach;
        leg.knee = 0.15 + 1.25 * dip * temper.reach;
        leg.ankle = 0.1 + 0.45 * dip;
        leg.abduct = 0.14 + 0.05 * sway * if side == 0 { 1. } else { -1. };
        leg.outward = 0.3;
        arm.flex = 0.25 + 0.75 * lift * temper.reach;
        arm.abduct = 0.35 + 0.75 * (0.5 + 0.5 * (bar + opposite + temper.free[2]).cos());
        arm.elbow = 1.0 + 0.75 * (beat + opposite + temper.free[3]).sin();
        arm.outward = 0.5 * (bar + opposite).cos();
        arm.palm = 0.3;
    }
    pose
}

fn wave(temper: &Temper, t: f64) -> Pose {
    let swing = temper.angle(1.3, t).sin();
    let breath = temper.angle(0.25, t).sin();
    let mut pose = stand(temper);
    pose.yaw = 0.12 * breath;
    pose.spine = [0., 0.05 + 0.03 * swing, 0.05 * breath];
    pose.head = [0., -0.06, 0.15 * breath];
    pose.arms[0] = Arm {
        flex: 0.1,
        abduct: 1.35 + 0.08 * swing,
        outward: PI / 2. - 0.1,
        elbow: 1.45 + 0.5 * temper.reach * swing,
        palm: 1.3,
    };
    pose
}

fn spin(temper: &Temper, t: f64) -> Pose {
    let turn = temper.angle(0.25, t);
    let mut pose = stand(temper);
    pose.yaw = turn.rem_euclid(TAU);
    for arm in &mut pose.arms {
        arm.abduct = 0.55 + 0.1 * temper.reach * (2. * turn).sin();
        arm.elbow = 0.3;
    }
    pose
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn still_is_constant_and_the_rest_moves() {
        let temper = Temper::new(7);
        assert_eq!(pose(Motion::Still, &temper, 0.), pose(Motion::Still, &temper, 12.5));
        for motion in [Motion::Walk, Motion::Dance, Motion::Wave, Motion::Spin] {
            assert_ne!(pose(motion, &temper, 0.), pose(motion, &temper, 0.2), "{motion:?}");
        }
    }

    #[test]
    fn seeds_differ_and_repeat() {
        let at = |seed| pose(Motion::Dance, &Temper::new(seed), 1.);
        assert_eq!(at(3), at(3));
        assert_ne!(at(3), at(4));
    }

    #[test]
    fn long_streams_stay_smooth() {
        // After a year one frame must still move the figure by no more than one frame's worth.
        let (temper, year) = (Temper::new(0), 365. * 86400.);
        let (a, b) = (pose(Motion::Spin, &temper, year), pose(Motion::Spin, &temper, year + 1. / 60.));
        let turned = (b.yaw - a.yaw).rem_euclid(TAU);
        assert!((0.01..0.05).contains(&turned), "turned {turned}");
    }
}

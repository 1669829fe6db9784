//! Where every bone is for a pose: a chain of joints from the pelvis outwards, feet on the floor.
use super::{
    body::*,
    math::{Frame, Rot, V3, v3},
    motion::{Arm, Leg, Pose},
};

/// The bones' places in the world for `pose`, the lower foot standing on y = 0.
pub fn frames(pose: &Pose, breadth: f32) -> [Frame; BONES] {
    let mut bones = [Frame { rot: Rot::ID, at: V3::default() }; BONES];
    let pelvis = Frame { rot: Rot::y(pose.yaw) * tilt(pose.pelvis), at: v3(pose.shift, HIP.y, 0.) };
    let chest = pelvis.child(v3(0., SPINE_Y - HIP.y, 0.), tilt(pose.spine));
    bones[PELVIS] = pelvis;
    bones[CHEST] = chest;
    bones[HEAD] = chest.child(v3(0., NECK_Y - SPINE_Y, -0.005), tilt(pose.head));
    for side in 0..2 {
        let sign = if side == 1 { 1. } else { -1. };
        arm(&mut bones, &chest, &pose.arms[side], side, sign, breadth);
        leg(&mut bones, &pelvis, &pose.legs[side], side, sign);
    }
    stand_on_floor(&mut bones);
    bones
}

/// Lean forwards, sideways (towards the figure's left), turn.
fn tilt([forwards, sideways, turn]: [f32; 3]) -> Rot {
    Rot::y(turn) * Rot::z(-sideways) * Rot::x(forwards)
}

/// The turn of a limb that hangs down at rest: away from the body, forwards, about its own axis.
fn swing(sign: f32, abduct: f32, flex: f32, outward: f32) -> Rot {
    Rot::z(sign * abduct) * Rot::x(-flex) * Rot::y(sign * outward)
}

fn arm(bones: &mut [Frame; BONES], chest: &Frame, arm: &Arm, side: usize, sign: f32, breadth: f32) {
    // The collarbone lifts the shoulder when the arm goes up.
    let lift = 0.035 * (1. - (arm.abduct.cos() * arm.flex.cos())).min(1.);
    let shoulder =
        v3(sign * SHOULDER.x * breadth, SHOULDER.y - SPINE_Y + lift, SHOULDER.z + 0.02 * arm.flex.sin());
    let upper = chest.child(shoulder, swing(sign, arm.abduct, arm.flex, arm.outward));
    let fore = upper.child(v3(0., -UPPER_ARM_LEN, 0.), Rot::x(-arm.elbow));
    bones[UPPER_ARM + side] = upper;
    bones[FOREARM + side] = fore;
    bones[HAND + side] = fore.child(v3(0., -FOREARM_LEN, 0.), Rot::y(sign * arm.palm) * Rot::x(-0.1));
}

fn leg(bones: &mut [Frame; BONES], pelvis: &Frame, leg: &Leg, side: usize, sign: f32) {
    let thigh = pelvis.child(v3(sign * HIP.x, 0., HIP.z), swing(sign, leg.abduct, leg.flex, leg.outward));
    let shin = thigh.child(v3(0., -THIGH_LEN, 0.), Rot::x(leg.knee));
    bones[THIGH + side] = thigh;
    bones[SHIN + side] = shin;
    bones[FOOT + side] = shin.child(v3(0., -SHIN_LEN, 0.), Rot::x(-leg.ankle));
}

/// Lifts or lowers the whole figure: which foot bears the weight follows from the pose.
fn stand_on_floor(bones: &mut [Frame; BONES]) {
    let sole = [v3(0., -ANKLE_Y, -0.05), v3(0., -ANKLE_Y, 0.15)];
    let lowest =
        (FOOT..FOOT + 2).flat_map(|foot| sole.map(|p| bones[foot].apply(p).y)).fold(f32::INFINITY, f32::min);
    for bone in bones {
        bone.at.y -= lowest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::denseposetestsrc::figure::motion::{Motion, Temper, pose};

    #[test]
    fn a_foot_is_always_on_the_floor() {
        let temper = Temper::new(1);
        for frame in 0..200 {
            let bones = frames(&pose(Motion::Dance, &temper, f64::from(frame) * 0.1), 1.);
            let sole = v3(0., -ANKLE_Y, 0.15);
            let heel = v3(0., -ANKLE_Y, -0.05);
            let low = [FOOT, FOOT + 1]
                .map(|f| bones[f].apply(sole).y.min(bones[f].apply(heel).y))
                .into_iter()
                .fold(f32::MAX, f32::min);
            assert!(low.abs() < 1e-4, "frame {frame}: {low}");
        }
    }

    #[test]
    fn raising_the_right_arm_moves_the_hand_up_on_the_figures_right() {
        let bones = frames(&pose(Motion::Wave, &Temper::new(0), 0.), 1.);
        let (right, left) = (bones[HAND].at, bones[HAND + 1].at);
        assert!(right.x < -0.2 && left.x > 0.15, "{right:?} {left:?}");
        assert!(right.y > bones[HEAD].at.y && left.y < 1.0, "{right:?} {left:?}");
    }
}

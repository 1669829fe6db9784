//! Which part of the head is hair, how far it stands off, and the face below it.

use super::math::{V3, mix, scale, smoothstep};
use super::person::{Beard, Colour, Face, HairStyle};

/// Hairline of the forehead and height of the nape, metres on the neutral body, and thickness.
fn cut(style: HairStyle) -> Option<(f32, f32, f32)> {
    Some(match style {
        HairStyle::Bald => return None,
        HairStyle::Buzz => (0.758, 0.665, 0.004),
        HairStyle::Short => (0.754, 0.655, 0.014),
        HairStyle::Quiff => (0.757, 0.66, 0.014),
        HairStyle::Afro => (0.752, 0.635, 0.05),
        HairStyle::Bob => (0.748, 0.6, 0.024),
        HairStyle::Long => (0.75, 0.575, 0.018),
        HairStyle::Ponytail | HairStyle::Bun => (0.755, 0.65, 0.011),
    })
}

/// Positive inside the hair: about the distance from its border, metres.
pub(super) fn hair_depth(face: &Face, p: V3) -> f32 {
    let x = p[0].abs();
    let Some((line, nape, _)) = cut(face.style) else { return -1.0 };
    let crown = p[2] - line - 0.12 * x;
    let back = (p[1] + 0.052).min(p[2] - nape);
    let mut depth = crown.max(back);
    if matches!(face.style, HairStyle::Long | HairStyle::Bob | HairStyle::Afro) {
        let low = if face.style == HairStyle::Afro { 0.66 } else { nape };
        depth = depth.max((x - 0.056).min(p[1] + 0.105).min(p[2] - low));
    }
    depth
}

/// How far hair or a cap stands off the skull at a place of the neutral body, metres.
pub(super) fn hair_volume(face: &Face, p: V3) -> f32 {
    let mut volume = 0.0;
    if let Some((_, _, thickness)) = cut(face.style) {
        let fade = if face.style == HairStyle::Afro { 0.05 } else { 0.025 };
        volume = thickness * smoothstep(0.0, fade, hair_depth(face, p));
        if face.style == HairStyle::Quiff {
            volume += 0.035 * smoothstep(0.755, 0.8, p[2]) * smoothstep(0.03, -0.08, p[1]);
        }
    }
    if face.cap.is_some() {
        volume = volume.min(0.012).max(0.016 * smoothstep(CAP_EDGE - 0.004, CAP_EDGE + 0.008, p[2]));
    }
    volume
}

/// Lower edge of a cap.
pub(super) const CAP_EDGE: f32 = 0.748;

/// Colour of a place on the head or neck.
pub(super) fn paint_head(face: &Face, p: V3) -> Colour {
    if let Some(cap) = face.cap.filter(|_| p[2] > CAP_EDGE) {
        return if p[2] < CAP_EDGE + 0.012 { scale(cap, 0.75) } else { cap };
    }
    let depth = hair_depth(face, p);
    if depth > 0.0 {
        return strands(face, p);
    }
    let mut colour = face.skin;
    // The neck lies in the chin's shadow.
    let shade = smoothstep(0.6, 0.57, p[2]) * smoothstep(-0.1, -0.07, p[1]);
    colour = scale(colour, 1.0 - 0.14 * shade);
    if p[1] < -0.055 {
        colour = front(face, p, colour);
    } else if face.beard == Beard::Full && p[1] < -0.03 && p[2] < 0.66 && p[2] > 0.612 {
        colour = mix(colour, face.hair, 0.9);
    }
    colour
}

/// Hair is a little darker towards the nape and in broad locks.
fn strands(face: &Face, p: V3) -> Colour {
    let lock = (p[0] * 95.0 + p[1] * 40.0).sin() * 0.05;
    let height = smoothstep(0.6, 0.8, p[2]) * 0.16;
    scale(face.hair, 0.86 + height + lock).map(|c| c.min(1.0))
}

fn front(face: &Face, p: V3, skin: Colour) -> Colour {
    let x = p[0].abs();
    let z = p[2];
    let mut colour = skin;
    let blush = ((x - 0.045) / 0.022).hypot((z - 0.662) / 0.018);
    colour = mix(colour, [0.95, 0.45, 0.42], 0.22 * smoothstep(1.0, 0.2, blush));
    let nose = (p[0] / 0.013).hypot((z - 0.662) / 0.011);
    if nose < 1.0 {
        colour = mix(colour, scale(skin, 0.72), 0.8);
    }
    let mouth = mouth(face, p);
    if face.beard != Beard::None && !matches!(mouth, Some(c) if c != face.lips) {
        colour = beard(face, p, colour);
    }
    if let Some(mouth) = mouth {
        colour = mouth;
    }
    eye(face, x, z, colour)
}

/// Lips, and teeth in a broad smile.
fn mouth(face: &Face, p: V3) -> Option<Colour> {
    let across = p[0] / face.mouth;
    let centre = 0.628 + 0.011 * face.smile * across * across;
    let half = (0.0085 + 0.004 * face.smile) * (1.0 - across * across).max(0.0).sqrt();
    let off = p[2] - centre;
    if across.abs() > 1.0 || off.abs() > half {
        return None;
    }
    if face.smile > 0.55 && off.abs() < half - 0.0045 && across.abs() < 0.8 {
        return Some([0.97, 0.96, 0.94]);
    }
    Some(face.lips)
}

fn beard(face: &Face, p: V3, skin: Colour) -> Colour {
    let x = p[0].abs();
    let lip = p[2] > 0.634 && p[2] < 0.652 && x < 0.042;
    let jaw = p[2] > 0.6 || p[1] < -0.085;
    let chin = jaw && p[2] < 0.63 + 0.55 * (x - 0.032).max(0.0) && p[2] > 0.565;
    let full = face.beard == Beard::Full && chin;
    if full || lip { mix(skin, face.hair, 0.92) } else { skin }
}

const LASH: Colour = [0.14, 0.1, 0.1];

/// Eyes, brows and glasses; bold, as they must survive an eightfold smaller latent.
fn eye(face: &Face, x: f32, z: f32, skin: Colour) -> Colour {
    let (cx, cz) = (0.0345, 0.697);
    let (rx, rz) = (0.0245 * face.eyes, 0.0195 * face.eyes);
    let (ex, ez) = ((x - cx) / rx, (z - cz) / rz);
    let mut colour = skin;
    let inside = ex.hypot(ez);
    if inside < 1.0 {
        colour = [0.98, 0.98, 0.98];
        let iris = ((x - cx + 0.001) / (0.0125 * face.eyes)).hypot((z - cz) / (0.0145 * face.eyes));
        if iris < 1.0 {
            colour = face.iris;
        }
        if iris < 0.55 {
            colour = [0.04, 0.04, 0.05];
        }
        // The upper lid's shadow holds the eye together at small sizes.
        if ez > 0.74 {
            colour = LASH;
        }
    } else if inside < 1.17 && ez > 0.2 {
        colour = LASH;
    }
    let brow = cz + rz + 0.0145 + face.brow * (x - cx);
    if (z - brow).abs() < 0.005 && (x - cx - 0.002).abs() < 0.023 {
        colour = mix(scale(face.hair, 0.8), [0.1, 0.07, 0.06], 0.35);
    }
    if let Some(frame) = face.glasses {
        let ring = ((x - cx) / (rx + 0.006)).hypot((z - cz + 0.001) / (rz + 0.008));
        if (0.88..1.12).contains(&ring) || (x < 0.009 && (z - cz - 0.004).abs() < 0.004) {
            colour = frame;
        }
    }
    colour
}

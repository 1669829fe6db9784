//! What a figure looks like: face, hair, clothes, background, light.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::backdrop::Backdrop;
use super::math::V3;
use super::rig::Rig;

/// Linear-looking sRGB in 0..1.
pub type Colour = [f32; 3];

/// Cut of the hair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HairStyle {
    /// None.
    Bald,
    /// A thin layer.
    Buzz,
    /// Covers the ears' upper edge.
    Short,
    /// A high quiff.
    Quiff,
    /// A ball.
    Afro,
    /// To the jaw.
    Bob,
    /// Over the shoulders.
    Long,
    /// Tied behind.
    Ponytail,
    /// A knot on top.
    Bun,
}

/// Hair of the chin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beard {
    /// None.
    None,
    /// Upper lip only.
    Moustache,
    /// Chin, cheeks and lip.
    Full,
}

/// Head and skin.
#[derive(Clone, Debug, PartialEq)]
pub struct Face {
    /// Skin.
    pub skin: Colour,
    /// Hair, brows and beard.
    pub hair: Colour,
    /// Cut.
    pub style: HairStyle,
    /// Iris.
    pub iris: Colour,
    /// Size of the eyes, 1 is already one and a half times life.
    pub eyes: f32,
    /// Slant of the brows: negative is friendly.
    pub brow: f32,
    /// Lips.
    pub lips: Colour,
    /// Half width of the mouth, metres.
    pub mouth: f32,
    /// How far the mouth's corners rise: 0 straight, 1 a broad smile.
    pub smile: f32,
    /// Chin hair.
    pub beard: Beard,
    /// Frame colour of glasses.
    pub glasses: Option<Colour>,
    /// Colour of a cap.
    pub cap: Option<Colour>,
}

/// Print of the upper garment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Print {
    /// One colour.
    Plain,
    /// Horizontal bands, height of a pair in metres.
    Stripes(f32),
    /// Vertical bands, width of a pair in metres.
    Bars(f32),
    /// One band across the chest.
    Band,
    /// Lower half in the second colour.
    Halves,
    /// Sleeves in the second colour.
    Raglan,
    /// Squares, metres.
    Checks(f32),
    /// Dots, distance in metres.
    Dots(f32),
    /// A sign on the chest.
    Logo(Logo),
    /// Open jacket of the first colour over a shirt of the second.
    Jacket,
}

/// Sign on the chest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logo {
    /// Disc.
    Disc,
    /// Square.
    Square,
    /// Diamond.
    Diamond,
    /// Heart.
    Heart,
    /// Star.
    Star,
    /// Ring.
    Ring,
}

/// What covers chest and arms.
#[derive(Clone, Debug, PartialEq)]
pub struct Top {
    /// First colour.
    pub colour: Colour,
    /// Second colour.
    pub second: Colour,
    /// Print.
    pub print: Print,
    /// Place of the sleeve's end along the arm: 0 none, 1 the wrist.
    pub sleeve: f32,
    /// Lower edge, metres above the navel plane of the neutral body.
    pub hem: f32,
    /// Depth of the neckline, metres; negative is a collar.
    pub neckline: f32,
    /// Distance from the body, metres.
    pub volume: f32,
}

/// What covers the legs.
#[derive(Clone, Debug, PartialEq)]
pub struct Bottom {
    /// Colour.
    pub colour: Colour,
    /// Lower edge, z of the neutral body: -0.75 is the ankle, -0.35 the knee.
    pub hem: f32,
    /// A skirt hangs freely.
    pub skirt: bool,
    /// Distance from the body, metres.
    pub volume: f32,
    /// Stripe along the side.
    pub stripe: Option<Colour>,
    /// Bib and straps (dungarees).
    pub bib: bool,
    /// Belt.
    pub belt: Option<Colour>,
}

/// Shoes or boots.
#[derive(Clone, Debug, PartialEq)]
pub struct Shoes {
    /// Upper.
    pub colour: Colour,
    /// Sole.
    pub sole: Colour,
    /// Upper edge, z of the neutral body.
    pub top: f32,
}

/// Where light comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Light {
    /// Direction to the light.
    pub dir: V3,
    /// Brightness in shadow, 0..1.
    pub shadow: f32,
    /// Tint of the lit side.
    pub tint: Colour,
}

/// A character with background and light: everything that a reference picture fixes.
#[derive(Clone, Debug, PartialEq)]
pub struct Person {
    /// Head and skin.
    pub face: Face,
    /// Upper garment.
    pub top: Top,
    /// Lower garment.
    pub bottom: Bottom,
    /// Shoes.
    pub shoes: Shoes,
    /// Scarf round the neck.
    pub scarf: Option<Colour>,
    /// Background, the same in every picture of this person.
    pub backdrop: Backdrop,
    /// Light, likewise.
    pub light: Light,
    /// Bodies that suit best; any other works.
    pub feminine: bool,
}

/// Colour from hue, saturation and value, each 0..1.
pub fn hsv(h: f32, s: f32, v: f32) -> Colour {
    let channel = |n: f32| {
        let k = (n + h.rem_euclid(1.0) * 6.0).rem_euclid(6.0);
        v - v * s * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

/// Sum of channel differences.
pub(super) fn contrast(a: Colour, b: Colour) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum()
}

fn pick<T: Copy>(rng: &mut impl Rng, from: &[T]) -> T {
    *from.choose(rng).unwrap_or(&from[0])
}

fn chance(rng: &mut impl Rng, p: f32) -> bool {
    rng.random::<f32>() < p
}

/// A clear cloth colour: vivid, pastel, dark or grey.
fn cloth(rng: &mut impl Rng) -> Colour {
    let hue = rng.random();
    match rng.random_range(0..10) {
        0..5 => hsv(hue, rng.random_range(0.65..0.95), rng.random_range(0.6..0.95)),
        5..7 => hsv(hue, rng.random_range(0.3..0.5), rng.random_range(0.85..0.98)),
        7..8 => hsv(hue, rng.random_range(0.5..0.9), rng.random_range(0.25..0.45)),
        8..9 => [rng.random_range(0.88..0.97); 3],
        _ => [rng.random_range(0.1..0.5); 3],
    }
}

/// A cloth colour well apart from another.
fn cloth_apart(rng: &mut impl Rng, from: Colour) -> Colour {
    for _ in 0..12 {
        let colour = cloth(rng);
        if contrast(colour, from) > 0.7 {
            return colour;
        }
    }
    from.map(|c| if c > 0.5 { c - 0.4 } else { c + 0.4 })
}

const SKIN: [Colour; 7] = [
    [1.0, 0.87, 0.77],
    [0.97, 0.8, 0.67],
    [0.92, 0.72, 0.56],
    [0.82, 0.6, 0.43],
    [0.68, 0.47, 0.33],
    [0.53, 0.35, 0.24],
    [0.4, 0.26, 0.18],
];
const HAIR: [Colour; 8] = [
    [0.09, 0.08, 0.09],
    [0.2, 0.12, 0.07],
    [0.38, 0.23, 0.12],
    [0.55, 0.36, 0.18],
    [0.9, 0.74, 0.4],
    [0.76, 0.3, 0.1],
    [0.72, 0.72, 0.75],
    [0.95, 0.93, 0.88],
];
const IRIS: [Colour; 5] =
    [[0.28, 0.16, 0.08], [0.15, 0.4, 0.8], [0.15, 0.5, 0.28], [0.08, 0.08, 0.1], [0.4, 0.32, 0.15]];
const LIPS: [Colour; 4] = [[0.8, 0.33, 0.33], [0.66, 0.22, 0.24], [0.88, 0.28, 0.4], [0.55, 0.2, 0.2]];
const DENIM: [Colour; 6] = [
    [0.16, 0.22, 0.42],
    [0.12, 0.12, 0.15],
    [0.6, 0.52, 0.38],
    [0.32, 0.46, 0.68],
    [0.35, 0.36, 0.4],
    [0.93, 0.92, 0.9],
];

impl Face {
    fn random(rng: &mut impl Rng, female: bool) -> Self {
        use HairStyle::{Afro, Bald, Bob, Bun, Buzz, Long, Ponytail, Quiff, Short};
        let (a, b) = (pick(rng, &SKIN), pick(rng, &SKIN));
        let skin = if chance(rng, 0.04) {
            hsv(rng.random(), rng.random_range(0.3..0.55), rng.random_range(0.6..0.95))
        } else {
            super::math::mix(a, b, 0.3)
        };
        let style = if female {
            pick(rng, &[Long, Long, Long, Bob, Bob, Ponytail, Bun, Short, Afro, Quiff])
        } else {
            pick(rng, &[Short, Short, Short, Quiff, Quiff, Buzz, Afro, Bald, Long, Bun])
        };
        let mut hair = pick(rng, &HAIR);
        if chance(rng, 0.16) || contrast(hair, skin) < 0.25 {
            hair = hsv(rng.random(), rng.random_range(0.6..0.9), rng.random_range(0.5..0.95));
        }
        let beard = match rng.random_range(0..10) {
            0..3 if !female => Beard::Full,
            3..4 if !female => Beard::Moustache,
            _ => Beard::None,
        };
        Self {
            skin,
            hair,
            style,
            iris: pick(rng, &IRIS),
            eyes: rng.random_range(0.92..1.2),
            brow: rng.random_range(-0.35..0.12),
            lips: pick(rng, &LIPS),
            mouth: rng.random_range(0.026..0.036),
            smile: rng.random_range(0.1..1.0),
            beard,
            glasses: chance(rng, 0.16).then(|| pick(rng, &[[0.08; 3], [0.5, 0.1, 0.1], [0.1, 0.15, 0.4]])),
            cap: chance(rng, 0.1).then(|| cloth(rng)),
        }
    }
}

impl Top {
    fn random(rng: &mut impl Rng, female: bool) -> Self {
        let colour = cloth(rng);
        let print = match rng.random_range(0..20) {
            0..5 => Print::Plain,
            5..8 => Print::Stripes(rng.random_range(0.12..0.2)),
            8..9 => Print::Bars(rng.random_range(0.1..0.16)),
            9..11 => Print::Band,
            11..12 => Print::Halves,
            12..14 => Print::Raglan,
            14..15 => Print::Checks(rng.random_range(0.07..0.11)),
            15..16 => Print::Dots(rng.random_range(0.09..0.12)),
            16..18 => {
                use Logo::{Diamond, Disc, Heart, Ring, Square, Star};
                Print::Logo(pick(rng, &[Disc, Square, Diamond, Heart, Star, Ring]))
            }
            _ => Print::Jacket,
        };
        let jacket = print == Print::Jacket;
        Self {
            second: cloth_apart(rng, colour),
            colour,
            print,
            sleeve: if jacket { 0.97 } else { pick(rng, &[0.02, 0.24, 0.34, 0.34, 0.6, 0.97, 0.97]) },
            hem: if female && !jacket {
                pick(rng, &[-0.02, 0.02, 0.1, 0.14])
            } else {
                pick(rng, &[-0.03, 0.0, 0.03])
            },
            neckline: pick(rng, &[-0.03, 0.0, 0.02, 0.05, 0.08]),
            volume: if jacket { rng.random_range(0.015..0.024) } else { rng.random_range(0.005..0.016) },
        }
    }
}

impl Bottom {
    fn random(rng: &mut impl Rng, female: bool, top: Colour) -> Self {
        let colour = if chance(rng, 0.5) { cloth_apart(rng, top) } else { pick(rng, &DENIM) };
        let skirt = female && chance(rng, 0.4);
        let hem = if skirt {
            rng.random_range(-0.5..-0.22)
        } else {
            pick(rng, &[-0.74, -0.74, -0.74, -0.7, -0.55, -0.36, -0.26])
        };
        Self {
            colour,
            hem,
            skirt,
            volume: rng.random_range(0.004..0.02),
            stripe: (!skirt && chance(rng, 0.15)).then(|| cloth_apart(rng, colour)),
            bib: !skirt && chance(rng, 0.1),
            belt: chance(rng, 0.3).then(|| cloth_apart(rng, colour)),
        }
    }
}

impl Shoes {
    fn random(rng: &mut impl Rng) -> Self {
        Self {
            colour: cloth(rng),
            sole: pick(rng, &[[0.95; 3], [0.12; 3], [0.6, 0.42, 0.25]]),
            top: pick(rng, &[-0.745, -0.745, -0.72, -0.6, -0.5]),
        }
    }
}

impl Light {
    /// From the upper left, as painters like it.
    pub const STUDIO: Self = Self { dir: [-0.4, -0.75, 0.53], shadow: 0.64, tint: [1.0; 3] };

    fn random(rng: &mut impl Rng) -> Self {
        let warmth = rng.random_range(-0.06..0.06);
        Self {
            dir: [rng.random_range(-0.8..0.8), rng.random_range(-0.9..-0.5), rng.random_range(0.2..0.8)],
            shadow: rng.random_range(0.55..0.78),
            tint: [1.0 + warmth, 1.0, 1.0 - warmth],
        }
    }
}

impl Person {
    /// A body of the rig that suits: its odd shapes are feminine.
    pub fn suitable_shape(&self, rig: &Rig, rng: &mut impl Rng) -> usize {
        2 * rng.random_range(0..rig.shapes().div_ceil(2)) + usize::from(self.feminine)
    }

    /// Somebody new.
    pub fn random(rng: &mut impl Rng) -> Self {
        let female = rng.random();
        let mut top = Top::random(rng, female);
        let mut bottom = Bottom::random(rng, female, top.colour);
        if bottom.skirt && chance(rng, 0.4) {
            // A dress.
            bottom.colour = top.colour;
            top.hem = 0.05;
        }
        if bottom.bib {
            top.hem = 0.02;
            if top.print == Print::Jacket {
                top.print = Print::Plain;
            }
        }
        Self {
            face: Face::random(rng, female),
            top,
            bottom,
            shoes: Shoes::random(rng),
            scarf: chance(rng, 0.08).then(|| cloth(rng)),
            backdrop: Backdrop::random(rng),
            light: Light::random(rng),
            feminine: female,
        }
    }
}

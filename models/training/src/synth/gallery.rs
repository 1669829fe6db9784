//! The fixed characters that ship as avatars.

use std::path::Path;

use anyhow::{Context, Result};
use image::RgbImage;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::backdrop::Backdrop;
use super::camera::{Camera, Framing};
use super::person::{Beard, Bottom, Colour, Face, HairStyle, Light, Logo, Person, Print, Shoes, Top, hsv};
use super::pose::Pose;
use super::render::{Shot, render};
use super::rig::Rig;

/// Their names, in the order of [`Person::gallery`].
pub const GALLERY: [&str; 14] = [
    "ada", "ben", "chloe", "dario", "emi", "farid", "grace", "hugo", "ines", "jonas", "kofi", "luna", "mara",
    "nils",
];

const WHITE: Colour = [0.96, 0.96, 0.95];
const BLACK: Colour = [0.1, 0.1, 0.12];
const DENIM: Colour = [0.2, 0.3, 0.55];
const NAVY: Colour = [0.13, 0.17, 0.38];
const RED: Colour = [0.86, 0.16, 0.16];
const YELLOW: Colour = [0.98, 0.8, 0.16];
const GREEN: Colour = [0.16, 0.6, 0.34];
const TEAL: Colour = [0.08, 0.58, 0.6];
const ORANGE: Colour = [0.95, 0.5, 0.12];
const PURPLE: Colour = [0.48, 0.24, 0.72];
const PINK: Colour = [0.97, 0.55, 0.7];
const SAND: Colour = [0.78, 0.68, 0.5];

const PALE: Colour = [1.0, 0.87, 0.78];
const LIGHT: Colour = [0.97, 0.79, 0.65];
const OLIVE: Colour = [0.86, 0.65, 0.47];
const BROWN: Colour = [0.6, 0.41, 0.28];
const DARK: Colour = [0.42, 0.27, 0.19];

fn face(skin: Colour, hair: Colour, style: HairStyle, iris: Colour) -> Face {
    Face {
        skin,
        hair,
        style,
        iris,
        eyes: 1.08,
        brow: -0.05,
        lips: [0.78, 0.3, 0.32],
        mouth: 0.032,
        smile: 0.7,
        beard: Beard::None,
        glasses: None,
        cap: None,
    }
}

fn top(colour: Colour, second: Colour, print: Print, sleeve: f32) -> Top {
    Top { colour, second, print, sleeve, hem: -0.02, neckline: 0.02, volume: 0.01 }
}

fn trousers(colour: Colour) -> Bottom {
    Bottom { colour, hem: -0.74, skirt: false, volume: 0.01, stripe: None, bib: false, belt: None }
}

fn skirt(colour: Colour, hem: f32) -> Bottom {
    Bottom { skirt: true, hem, ..trousers(colour) }
}

fn shoes(colour: Colour) -> Shoes {
    Shoes { colour, sole: WHITE, top: -0.74 }
}

fn person(face: Face, top: Top, bottom: Bottom, shoes: Shoes, backdrop: Backdrop) -> Person {
    Person { face, top, bottom, shoes, scarf: None, backdrop, light: Light::STUDIO, feminine: false }
}

fn room(wall: Colour, floor: Colour) -> Backdrop {
    Backdrop::gradient(wall, wall.map(|c| c * 0.92)).with_floor(0.8, floor.map(|c| c * 0.85), floor)
}

impl Person {
    /// A fixed character; `index` is taken modulo [`GALLERY`]'s length.
    pub fn gallery(index: usize) -> Self {
        use HairStyle::{Afro, Bald, Bob, Bun, Long, Ponytail, Quiff, Short};
        let (brown, blue, green) = ([0.3, 0.17, 0.09], [0.15, 0.42, 0.82], [0.15, 0.52, 0.3]);
        let character = match index % GALLERY.len() {
            0 => person(
                face(PALE, [0.78, 0.3, 0.1], Long, green),
                Top { hem: 0.08, ..top(TEAL, WHITE, Print::Plain, 0.34) },
                skirt(NAVY, -0.36),
                Shoes { top: -0.55, ..shoes([0.5, 0.28, 0.15]) },
                room([0.93, 0.88, 0.78], [0.66, 0.47, 0.3]),
            ),
            1 => person(
                Face { beard: Beard::Full, ..face(LIGHT, [0.34, 0.2, 0.1], Short, brown) },
                top(RED, WHITE, Print::Stripes(0.16), 0.34),
                trousers(DENIM),
                shoes(WHITE),
                Backdrop::gradient([0.75, 0.87, 0.95], [0.6, 0.74, 0.86]),
            ),
            2 => person(
                face(OLIVE, BLACK, Bob, brown),
                Top { hem: 0.1, ..top(YELLOW, BLACK, Print::Logo(Logo::Heart), 0.34) },
                trousers(BLACK),
                shoes(RED),
                Backdrop::plain([0.78, 0.72, 0.9]),
            ),
            3 => person(
                Face { glasses: Some(BLACK), ..face(LIGHT, [0.12, 0.1, 0.1], Quiff, brown) },
                Top { volume: 0.02, ..top(NAVY, WHITE, Print::Jacket, 0.97) },
                trousers(SAND),
                shoes([0.4, 0.22, 0.12]),
                room([0.72, 0.8, 0.72], [0.55, 0.42, 0.32]),
            ),
            4 => person(
                face(PALE, [0.1, 0.09, 0.12], Bun, brown),
                Top { hem: 0.05, ..top(PINK, WHITE, Print::Plain, 0.24) },
                skirt(PINK, -0.4),
                shoes(WHITE),
                Backdrop::gradient([0.98, 0.95, 0.85], [0.85, 0.9, 0.8]),
            ),
            5 => person(
                Face { beard: Beard::Full, ..face(BROWN, BLACK, Short, brown) },
                top(GREEN, YELLOW, Print::Band, 0.97),
                Bottom { stripe: Some(YELLOW), ..trousers(BLACK) },
                shoes(GREEN),
                Backdrop::gradient([0.95, 0.86, 0.7], [0.9, 0.75, 0.55]),
            ),
            6 => person(
                face(DARK, [0.1, 0.08, 0.08], Afro, brown),
                Top { hem: 0.1, ..top(ORANGE, WHITE, Print::Plain, 0.02) },
                Bottom { volume: 0.022, ..trousers(WHITE) },
                shoes(ORANGE),
                Backdrop::plain([0.55, 0.78, 0.82]),
            ),
            7 => person(
                Face { cap: Some(RED), ..face(LIGHT, [0.85, 0.66, 0.34], Short, blue) },
                top(WHITE, NAVY, Print::Raglan, 0.6),
                Bottom { hem: -0.36, volume: 0.018, ..trousers(NAVY) },
                shoes(RED),
                Backdrop::gradient([0.56, 0.78, 0.95], [0.86, 0.94, 0.98])
                    .with([-0.3, 0.6, 0.6, 1.1], [0.5, 0.7, 0.52], true)
                    .with_floor(0.8, [0.55, 0.75, 0.4], [0.42, 0.64, 0.32]),
            ),
            8 => person(
                Face { glasses: Some(RED), ..face(OLIVE, [0.3, 0.16, 0.08], Ponytail, green) },
                Top { hem: 0.02, ..top(WHITE, NAVY, Print::Stripes(0.14), 0.6) },
                Bottom { bib: true, volume: 0.014, ..trousers([0.28, 0.42, 0.68]) },
                shoes(YELLOW),
                room([0.98, 0.82, 0.72], [0.75, 0.6, 0.5]),
            ),
            9 => person(
                Face { beard: Beard::Moustache, ..face(PALE, [0.9, 0.72, 0.36], Quiff, blue) },
                top(hsv(0.58, 0.55, 0.85), WHITE, Print::Plain, 0.97),
                Bottom { belt: Some([0.4, 0.22, 0.12]), ..trousers([0.4, 0.42, 0.46]) },
                shoes(BLACK),
                Backdrop::plain([0.9, 0.9, 0.88]),
            ),
            10 => person(
                face(DARK, BLACK, HairStyle::Buzz, brown),
                top(PURPLE, YELLOW, Print::Logo(Logo::Disc), 0.34),
                Bottom { hem: -0.34, volume: 0.018, ..trousers(YELLOW) },
                shoes(WHITE),
                room([0.7, 0.86, 0.76], [0.5, 0.52, 0.56]),
            ),
            11 => person(
                face(LIGHT, hsv(0.6, 0.7, 0.85), Long, blue),
                Top { hem: 0.02, volume: 0.02, ..top(BLACK, PINK, Print::Jacket, 0.97) },
                skirt(RED, -0.28),
                Shoes { top: -0.5, ..shoes(BLACK) },
                Backdrop::gradient([0.86, 0.8, 0.94], [0.66, 0.6, 0.82]),
            ),
            12 => person(
                face(BROWN, [0.16, 0.09, 0.06], Long, brown),
                Top { hem: 0.05, ..top(RED, WHITE, Print::Plain, 0.02) },
                skirt(RED, -0.5),
                shoes([0.85, 0.65, 0.2]),
                room([0.62, 0.74, 0.86], [0.8, 0.72, 0.6]).with_window(
                    [0.68, 0.12, 0.98, 0.5],
                    WHITE,
                    [0.8, 0.92, 0.98],
                ),
            ),
            _ => Person {
                scarf: Some(ORANGE),
                ..person(
                    Face { beard: Beard::Full, smile: 0.4, ..face(LIGHT, [0.75, 0.75, 0.77], Bald, blue) },
                    top([0.3, 0.42, 0.36], WHITE, Print::Plain, 0.97),
                    trousers([0.36, 0.26, 0.2]),
                    Shoes { top: -0.6, ..shoes([0.25, 0.16, 0.1]) },
                    Backdrop::gradient([0.72, 0.85, 0.94], [0.92, 0.94, 0.96])
                        .with([0.3, 0.55, 1.2, 1.1], [0.68, 0.76, 0.84], true)
                        .with_floor(0.82, [0.9, 0.93, 0.96], [0.97, 0.98, 1.0]),
                )
            },
        };
        let feminine = [0, 2, 4, 6, 8, 11, 12].contains(&(index % GALLERY.len()));
        Self { feminine, ..character }
    }
}

/// The reference picture of a gallery character: full body, frontal, arms a little away from the body.
pub fn avatar(rig: &Rig, index: usize, size: usize) -> Shot {
    let mut rng = ChaCha8Rng::seed_from_u64(index as u64);
    let pose = Pose::reference(&mut rng);
    let camera = Camera { x: 0.5, ..Camera::reference(Framing::Full, &mut rng) };
    let person = Person::gallery(index);
    let shape = 2 * index + 2 + usize::from(person.feminine);
    render(rig, &person, shape, &pose, &camera, size)
}

/// Writes every gallery character's reference picture as `NAME.png` into a folder.
///
/// # Errors
/// When a file cannot be written.
pub fn write_avatars(rig: &Rig, folder: &Path, size: usize) -> Result<()> {
    for (index, name) in GALLERY.iter().enumerate() {
        let path = folder.join(format!("{name}.png"));
        let picture = RgbImage::from_raw(size as u32, size as u32, avatar(rig, index, size).rgb);
        picture
            .context("picture too large")?
            .save(&path)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

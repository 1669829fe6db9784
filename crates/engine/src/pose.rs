//! DensePose colours to part labels and back.
//!
//! A DensePose picture shows part k of 24 as `viridis(⌊k · 255 / 24⌋)` on `viridis(0)` (DensePose's own
//! visualiser truncates). Video codecs shift those colours by a few levels and blend them at borders into the
//! colours of other parts, so that reading a pixel alone gives false labels; [`Labels::from_frame`] votes.

use std::sync::OnceLock;

use crate::{
    error::EngineError,
    frame::{Frame, area},
};

/// Number of body parts; labels run from 0 (background) to this.
pub const PARTS: u8 = 24;

/// Labels, background included.
pub const LABELS: usize = PARTS as usize + 1;

/// What each label means, in DensePose's order.
pub const PART_NAMES: [&str; LABELS] = [
    "background",
    "torso back",
    "torso front",
    "right hand",
    "left hand",
    "left foot",
    "right foot",
    "right upper leg back",
    "left upper leg back",
    "right upper leg front",
    "left upper leg front",
    "right lower leg back",
    "left lower leg back",
    "right lower leg front",
    "left lower leg front",
    "left upper arm inside",
    "right upper arm inside",
    "left upper arm outside",
    "right upper arm outside",
    "left lower arm inside",
    "right lower arm inside",
    "left lower arm outside",
    "right lower arm outside",
    "right head",
    "left head",
];

/// `viridis(⌊k · 255 / 24⌋)`, viridis being matplotlib's (van der Walt and Smith, CC0).
const VIRIDIS: [[u8; 3]; LABELS] = [
    [68, 1, 84],
    [71, 16, 99],
    [72, 31, 112],
    [71, 44, 122],
    [68, 57, 131],
    [64, 70, 136],
    [59, 81, 139],
    [54, 93, 141],
    [49, 104, 142],
    [44, 113, 142],
    [40, 124, 142],
    [37, 133, 142],
    [33, 144, 141],
    [31, 154, 138],
    [32, 163, 134],
    [39, 173, 129],
    [53, 183, 121],
    [70, 192, 111],
    [92, 200, 99],
    [115, 208, 86],
    [142, 214, 69],
    [170, 220, 50],
    [197, 224, 33],
    [226, 228, 24],
    [253, 231, 37],
];

/// Corners, edge and face middles of the RGB cube except black, white and grey: 24 colours in 12 pairs of
/// complements. Parts 2k-1 and 2k, the two sides or faces of one limb, are complements (distance ≥ 1 in [0, 1]
/// RGB); any two of the 25 are at least 127/255 apart.
const SPREAD: [[u8; 3]; LABELS] = [
    [0, 0, 0],
    [255, 0, 0],
    [0, 255, 255],
    [0, 255, 0],
    [255, 0, 255],
    [0, 0, 255],
    [255, 255, 0],
    [255, 128, 0],
    [0, 128, 255],
    [255, 0, 128],
    [0, 255, 128],
    [128, 255, 0],
    [128, 0, 255],
    [128, 0, 0],
    [128, 255, 255],
    [0, 128, 0],
    [255, 128, 255],
    [0, 0, 128],
    [255, 255, 128],
    [128, 128, 0],
    [128, 128, 255],
    [128, 0, 128],
    [128, 255, 128],
    [0, 128, 128],
    [255, 128, 128],
];

/// How labels are shown as colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Palette {
    /// DensePose's own: neighbouring parts differ by as little as 9 levels.
    #[default]
    Viridis,
    /// Well separated (at least 0.49 in [0, 1] RGB), black background: what the embedded model's ControlNet sees.
    Spread,
}

impl Palette {
    /// The colour of each label.
    pub fn colours(self) -> &'static [[u8; 3]; LABELS] {
        match self {
            Self::Viridis => &VIRIDIS,
            Self::Spread => &SPREAD,
        }
    }
}

/// A pixel is *off the palette* when its distance to the nearest viridis part colour exceeds this (Euclidean, RGB
/// levels 0 to 255, give or take 3 for the lookup table's steps). Codec noise on flat areas stays below 10.
pub const OFF_PALETTE: u32 = 20;

/// A map of part labels.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels {
    width: u32,
    height: u32,
    /// `width * height` bytes, each at most [`PARTS`].
    data: Vec<u8>,
}

impl Labels {
    /// A map from `width * height` labels, rows from the top.
    ///
    /// # Errors
    /// [`EngineError::BadSize`] for a side of zero or above [`MAX_SIDE`](crate::frame::MAX_SIDE), [`EngineError::BadLength`] for any other number of labels,
    /// [`EngineError::BadLabel`] for a label above 24.
    pub fn new(width: u32, height: u32, data: Vec<u8>) -> Result<Self, EngineError> {
        let needed = area(width, height)?;
        if data.len() != needed {
            return Err(EngineError::BadLength { needed, got: data.len() });
        }
        match data.iter().find(|&&l| l > PARTS) {
            Some(&label) => Err(EngineError::BadLabel(label)),
            None => Ok(Self { width, height, data }),
        }
    }

    /// Reads a DensePose picture.
    ///
    /// Every pixel gets the nearest viridis part colour. A pixel that has one of those colours exactly keeps its
    /// label, so that clean pictures come back unchanged; so does a *settled* one, with whom six or more of its eight
    /// neighbours agree. Any other takes the label with most votes among its 5×5 neighbours, settled ones
    /// counting three times and ones off the palette not at all: the blend of two parts is the colour of a third,
    /// but too thin to settle. Ties go to the pixel's own label.
    pub fn from_frame(frame: &Frame) -> Self {
        let lookup = lookup();
        let codes: Vec<u8> = frame.data().chunks_exact(3).map(|p| code(lookup, p)).collect();
        let (width, height) = (frame.width() as usize, frame.height() as usize);
        let settled = settled(&codes, width, height);
        let mut data: Vec<u8> = codes.iter().map(|c| c & LABEL).collect();
        for (at, label) in data.iter_mut().enumerate() {
            if !settled[at] && codes[at] & EXACT == 0 {
                *label = vote(&codes, &settled, (width, height), (at % width, at / width));
            }
        }
        Self { width: frame.width(), height: frame.height(), data }
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// One label a pixel, rows from the top: 0 = background, 1 to 24 = parts.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The map as a picture in the colours of `palette`.
    pub fn colours(&self, palette: Palette) -> Frame {
        let colours = palette.colours();
        let data = self.data.iter().flat_map(|&l| colours[l as usize]).collect();
        Frame::from_parts(self.width, self.height, data)
    }

    /// The map at another size. Where it shrinks, an output pixel takes the label most frequent in the block of
    /// input pixels that it replaces (ties: that of the block's middle); where it grows, the nearest one.
    ///
    /// # Errors
    /// [`EngineError::BadSize`] for a side of zero or above [`MAX_SIDE`](crate::frame::MAX_SIDE).
    pub fn resized(&self, width: u32, height: u32) -> Result<Self, EngineError> {
        let mut data = Vec::with_capacity(area(width, height)?);
        let columns: Vec<Span> = spans(self.width, width).collect();
        for rows in spans(self.height, height) {
            for columns in &columns {
                data.push(self.block_label(&rows, columns));
            }
        }
        Ok(Self { width, height, data })
    }

    fn block_label(&self, rows: &Span, columns: &Span) -> u8 {
        let width = self.width as usize;
        let middle = self.data[rows.middle * width + columns.middle];
        if rows.len() == 1 && columns.len() == 1 {
            return middle;
        }
        let mut counts = [0u32; LABELS];
        for y in rows.from..rows.to {
            for &label in &self.data[y * width + columns.from..y * width + columns.to] {
                counts[label as usize] += 1;
            }
        }
        most_frequent(&counts, middle)
    }
}

impl std::fmt::Debug for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Labels({}x{})", self.width, self.height)
    }
}

/// Share of pixels, 0 to 1, farther than [`OFF_PALETTE`] from every viridis part colour. On DensePose pictures
/// these are the blended borders, a few per cent; above [`NOT_DENSEPOSE`] the clip is something else.
pub fn off_palette_share(frame: &Frame) -> f64 {
    let lookup = lookup();
    let off = frame.data().chunks_exact(3).filter(|p| code(lookup, p) & UNSURE != 0).count();
    off as f64 / (frame.data().len() / 3) as f64
}

/// The [`off_palette_share`] above which a program should warn that a clip does not look like DensePose.
pub const NOT_DENSEPOSE: f64 = 0.25;

/// Bits of a pixel's code that hold its label.
const LABEL: u8 = 0x1f;
/// The colour is exactly that of the label.
const EXACT: u8 = 0x40;
/// The colour is off the palette: its label is a guess.
const UNSURE: u8 = 0x80;

/// Bits per channel of the lookup table: 64³ bytes fit a second-level cache, and a cell's error of 2 levels is
/// small against codec noise.
const BITS: u32 = 6;

/// Code of the nearest viridis part colour for each cell of the RGB cube.
fn lookup() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let side = 1u32 << BITS;
        let step = 256 / side;
        let centre = |cell: u32| (cell * step + step / 2) as u8;
        let cells =
            (0..side).flat_map(move |r| (0..side).flat_map(move |g| (0..side).map(move |b| (r, g, b))));
        cells.map(|(r, g, b)| nearest([centre(r), centre(g), centre(b)])).collect()
    })
}

fn nearest(colour: [u8; 3]) -> u8 {
    let distance =
        |c: &[u8; 3]| -> u32 { c.iter().zip(colour).map(|(&a, b)| u32::from(a.abs_diff(b)).pow(2)).sum() };
    let mut best = (u32::MAX, 0);
    for (label, c) in (0..).zip(&VIRIDIS) {
        best = best.min((distance(c), label));
    }
    if best.0 > OFF_PALETTE * OFF_PALETTE { best.1 | UNSURE } else { best.1 }
}

fn code(lookup: &[u8], pixel: &[u8]) -> u8 {
    let cell = |v: u8| usize::from(v >> (8 - BITS));
    let code = lookup[(cell(pixel[0]) << (2 * BITS)) | (cell(pixel[1]) << BITS) | cell(pixel[2])];
    if pixel == VIRIDIS[usize::from(code & LABEL)] { code | EXACT } else { code }
}

/// Pixels of 3×3 that must agree, the middle one included. A line two pixels wide has six.
const AGREEING: u8 = 7;

/// Which pixels are on the palette and agree with most of their 3×3 neighbours (the border repeated outside).
fn settled(codes: &[u8], width: usize, height: usize) -> Vec<bool> {
    let mut out = Vec::with_capacity(codes.len());
    let mut agreeing = vec![0u8; width];
    // Three rows, each with one pixel repeated at either end and the marks of exactness off.
    let padded = |y: usize| -> Vec<u8> {
        let row = &codes[y * width..(y + 1) * width];
        [&row[..1], row, &row[width - 1..]].concat().iter().map(|c| c & !EXACT).collect()
    };
    let mut rows = [padded(0), padded(0), padded(1.min(height - 1))];
    for y in 0..height {
        agreeing.fill(0);
        let own = &rows[1][1..=width];
        for shifted in rows.iter().flat_map(|row| row.windows(width)) {
            for ((n, &own), &other) in agreeing.iter_mut().zip(own).zip(shifted) {
                *n += u8::from(own == other);
            }
        }
        out.extend(agreeing.iter().zip(own).map(|(&n, &own)| n >= AGREEING && own & UNSURE == 0));
        rows.rotate_left(1);
        rows[2] = padded((y + 2).min(height - 1));
    }
    out
}

/// How far a vote reaches from its pixel: 5×5. Blended borders of real clips are 1 to 2 pixels wide.
const REACH: usize = 2;

fn vote(codes: &[u8], settled: &[bool], (width, height): (usize, usize), (x, y): (usize, usize)) -> u8 {
    let columns = x.saturating_sub(REACH)..(x + REACH + 1).min(width);
    let rows = y.saturating_sub(REACH)..(y + REACH + 1).min(height);
    let mut counts = [0u32; LABELS];
    for row in rows {
        for at in row * width + columns.start..row * width + columns.end {
            let votes = u32::from(codes[at] & UNSURE == 0) + 2 * u32::from(settled[at]);
            counts[usize::from(codes[at] & LABEL)] += votes;
        }
    }
    most_frequent(&counts, codes[y * width + x] & LABEL)
}

/// The label with most votes; `preferred` if it has as many, or if there are no votes at all.
fn most_frequent(counts: &[u32; LABELS], preferred: u8) -> u8 {
    let mut best = preferred;
    for (label, &count) in (0..).zip(counts) {
        if count > counts[usize::from(best)] {
            best = label;
        }
    }
    best
}

/// Input pixels `from..to` behind one output pixel, and the one at their middle.
struct Span {
    from: usize,
    to: usize,
    middle: usize,
}

impl Span {
    fn len(&self) -> usize {
        self.to - self.from
    }
}

/// Splits `n` input pixels among `m` output pixels: each to exactly one where `m <= n`, else the nearest for each.
fn spans(n: u32, m: u32) -> impl Iterator<Item = Span> {
    let (n, m) = (n as usize, m as usize);
    (0..m).map(move |i| {
        let middle = (2 * i + 1) * n / (2 * m);
        if m >= n {
            Span { from: middle, to: middle + 1, middle }
        } else {
            Span { from: i * n / m, to: (i + 1) * n / m, middle }
        }
    })
}

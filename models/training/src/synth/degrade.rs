//! What real DensePose estimators do to labels: wavy and eroded borders, lost hands, wrong sides, flicker.

use rand::Rng;

/// Worsens a square label map as an estimator and a video codec would.
///
/// `strength` 0 changes nothing, 1 is about what the clips of public demos show at their worse moments. Every call
/// draws anew, so consecutive frames of a clip flicker.
pub fn degrade(labels: &[u8], strength: f32, rng: &mut impl Rng) -> Vec<u8> {
    let mut map = Map { size: labels.len().isqrt(), labels: labels.to_vec() };
    if strength <= 0.0 || map.size == 0 {
        return map.labels;
    }
    let chance = |rng: &mut _, p: f32| Rng::random::<f32>(rng) < p * strength;
    if rng.random::<f32>() < 0.6 + 0.3 * strength {
        map.close_hands();
    }
    if chance(rng, 0.12) {
        map.lose_part(rng);
    }
    if chance(rng, 0.08) {
        map.swap_sides(rng);
    }
    for _ in 0..2 {
        if chance(rng, 0.3) {
            map.mislabel_patch(strength, rng);
        }
    }
    map.warp(strength, rng);
    match rng.random_range(0..6) {
        0 => map.erode(1),
        1 => map.dilate(1),
        2 if strength > 0.6 => map.erode(2),
        _ => {}
    }
    if chance(rng, 0.25) {
        map.coarsen(2);
    }
    if chance(rng, 0.12) {
        map.cut_box(rng);
    }
    if chance(rng, 0.2) {
        map.shift_block(rng);
    }
    if chance(rng, 0.3) {
        map.specks(rng);
    }
    if rng.random::<f32>() < 0.75 {
        map.blend_borders(strength * rng.random_range(0.1..0.5), rng);
    }
    map.labels
}

/// Parts that estimators confuse, pairwise: left with right, front with back, inner with outer.
const CONFUSED: [(u8, u8); 14] = [
    (1, 2),
    (3, 4),
    (5, 6),
    (7, 9),
    (8, 10),
    (9, 10),
    (11, 13),
    (12, 14),
    (13, 14),
    (15, 17),
    (16, 18),
    (19, 21),
    (20, 22),
    (23, 24),
];

fn partner(label: u8, rng: &mut impl Rng) -> u8 {
    let fits = |&&(a, b): &&(u8, u8)| a == label || b == label;
    let count = CONFUSED.iter().filter(fits).count();
    if count == 0 {
        return label;
    }
    let (a, b) =
        CONFUSED.iter().filter(fits).nth(rng.random_range(0..count)).copied().unwrap_or((label, label));
    if a == label { b } else { a }
}

struct Map {
    size: usize,
    labels: Vec<u8>,
}

impl Map {
    fn at(&self, x: f32, y: f32) -> u8 {
        let limit = (self.size - 1) as f32;
        let (x, y) = (x.round().clamp(0.0, limit) as usize, y.round().clamp(0.0, limit) as usize);
        self.labels[y * self.size + x]
    }

    /// A random labelled pixel.
    fn spot(&self, rng: &mut impl Rng) -> Option<(usize, usize)> {
        (0..40).find_map(|_| {
            let (x, y) = (rng.random_range(0..self.size), rng.random_range(0..self.size));
            (self.labels[y * self.size + x] != 0).then_some((x, y))
        })
    }

    /// A hand or foot goes missing, or turns into the limb beside it.
    fn lose_part(&mut self, rng: &mut impl Rng) {
        let part = rng.random_range(3..=6);
        let limb = [20, 19, 14, 13][part as usize - 3];
        let into = if rng.random() { 0 } else { limb };
        self.labels.iter_mut().filter(|l| **l == part).for_each(|l| *l = into);
    }

    fn swap_sides(&mut self, rng: &mut impl Rng) {
        let (a, b) = CONFUSED[rng.random_range(1..CONFUSED.len())];
        for label in &mut self.labels {
            *label = if *label == a {
                b
            } else if *label == b {
                a
            } else {
                *label
            };
        }
    }

    /// A round patch of one part takes its partner's label.
    fn mislabel_patch(&mut self, strength: f32, rng: &mut impl Rng) {
        let Some((cx, cy)) = self.spot(rng) else { return };
        let from = self.labels[cy * self.size + cx];
        let into = partner(from, rng);
        let radius = self.size as f32 * rng.random_range(0.01..0.045) * strength.max(0.5);
        let (three, five) = (rng.random_range(0.0..6.3f32), rng.random_range(0.0..6.3f32));
        self.near(cx, cy, radius * 1.7, |label, dx, dy| {
            let angle = dy.atan2(dx);
            let edge = radius * (1.0 + 0.4 * (3.0 * angle + three).sin() + 0.25 * (5.0 * angle + five).sin());
            if *label == from && dx.hypot(dy) < edge {
                *label = into;
            }
        });
    }

    /// Estimators see mittens, not fingers: gaps of a few pixels in hands close.
    fn close_hands(&mut self) {
        let n = self.size;
        let reach = (n / 96).max(1);
        for part in [3, 4] {
            let hand: Vec<usize> = (0..n * n).filter(|&i| self.labels[i] == part).collect();
            let mut grown = vec![false; n * n];
            for &i in &hand {
                for y in (i / n).saturating_sub(reach)..(i / n + reach + 1).min(n) {
                    let row = y * n;
                    grown[row + (i % n).saturating_sub(reach)..row + (i % n + reach + 1).min(n)].fill(true);
                }
            }
            let candidates: Vec<usize> = (0..n * n).filter(|&i| grown[i] && self.labels[i] == 0).collect();
            for i in candidates {
                let (x, y) = (i % n, i / n);
                let inside = x >= reach && y >= reach && x + reach < n && y + reach < n;
                let deep = || {
                    (y - reach..=y + reach)
                        .all(|y| grown[y * n + x - reach..=y * n + x + reach].iter().all(|&g| g))
                };
                if inside && deep() {
                    self.labels[i] = part;
                }
            }
        }
    }

    /// Blended colours on borders read as parts whose colours lie between.
    fn blend_borders(&mut self, share: f32, rng: &mut impl Rng) {
        let (old, n) = (self.labels.clone(), self.size);
        // Codecs err in blocks, so false labels come in runs.
        let busy = Noise::new(n, n as f32 / 32.0, 1.0, rng);
        for y in 0..n - 1 {
            for x in 0..n - 1 {
                let i = y * n + x;
                let other = if old[i] == old[i + 1] { old[i + n] } else { old[i + 1] };
                if old[i] != other && 0.5 + 0.5 * busy.at(x, y)[0] < share {
                    let t = rng.random_range(0.25..0.75);
                    let blend = f32::from(old[i]) * (1.0 - t) + f32::from(other) * t;
                    let at = if rng.random() || old[i] == 0 { i } else { i + n };
                    self.labels[at] = blend.round() as u8;
                }
            }
        }
    }

    fn near(&mut self, cx: usize, cy: usize, radius: f32, mut change: impl FnMut(&mut u8, f32, f32)) {
        let reach = radius.ceil() as usize;
        for y in cy.saturating_sub(reach)..(cy + reach + 1).min(self.size) {
            for x in cx.saturating_sub(reach)..(cx + reach + 1).min(self.size) {
                let (dx, dy) = (x as f32 - cx as f32, y as f32 - cy as f32);
                if dx.hypot(dy) <= radius {
                    change(&mut self.labels[y * self.size + x], dx, dy);
                }
            }
        }
    }

    /// Borders wander by a smooth random field.
    fn warp(&mut self, strength: f32, rng: &mut impl Rng) {
        let unit = self.size as f32 / 256.0;
        let coarse = Noise::new(self.size, 22.0 * unit, 1.5 * unit * strength, rng);
        let fine = Noise::new(self.size, 6.0 * unit, 1.0 * unit * strength * rng.random::<f32>(), rng);
        let mut out = Vec::with_capacity(self.labels.len());
        for y in 0..self.size {
            for x in 0..self.size {
                let (a, b) = (coarse.at(x, y), fine.at(x, y));
                out.push(self.at(x as f32 + a[0] + b[0], y as f32 + a[1] + b[1]));
            }
        }
        self.labels = out;
    }

    fn erode(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.each_with_neighbours(|here, around| if around.contains(&0) { 0 } else { here });
        }
    }

    fn dilate(&mut self, rounds: usize) {
        for _ in 0..rounds {
            self.each_with_neighbours(
                |here, around| {
                    if here == 0 { around.into_iter().max().unwrap_or(0) } else { here }
                },
            );
        }
    }

    fn each_with_neighbours(&mut self, change: impl Fn(u8, [u8; 4]) -> u8) {
        let (old, n) = (self.labels.clone(), self.size);
        for y in 1..n.saturating_sub(1) {
            for x in 1..n - 1 {
                let i = y * n + x;
                self.labels[i] = change(old[i], [old[i - 1], old[i + 1], old[i - n], old[i + n]]);
            }
        }
    }

    /// Estimated at a fraction of the size.
    fn coarsen(&mut self, step: usize) {
        let n = self.size;
        for y in 0..n {
            for x in 0..n {
                self.labels[y * n + x] = self.labels[(y - y % step) * n + x - x % step];
            }
        }
    }

    /// The detector's box cuts the figure straight off.
    fn cut_box(&mut self, rng: &mut impl Rng) {
        let n = self.size;
        let inside: Vec<usize> = (0..n * n).filter(|&i| self.labels[i] != 0).collect();
        let (Some(top), Some(bottom)) = (inside.first().map(|i| i / n), inside.last().map(|i| i / n)) else {
            return;
        };
        let left = inside.iter().map(|i| i % n).min().unwrap_or(0);
        let right = inside.iter().map(|i| i % n).max().unwrap_or(0);
        let trim = |length: usize, rng: &mut _| (length as f32 * Rng::random_range(rng, 0.0..0.06)) as usize;
        let (dx, dy) = (trim(right - left, rng), trim(bottom - top, rng));
        let side = rng.random_range(0..4);
        for i in inside {
            let (x, y) = (i % n, i / n);
            let gone = match side {
                0 => x < left + dx,
                1 => x + dx > right,
                2 => y < top + dy,
                _ => y + dy > bottom,
            };
            if gone {
                self.labels[i] = 0;
            }
        }
    }

    /// A codec block shows what was a few pixels beside it.
    fn shift_block(&mut self, rng: &mut impl Rng) {
        let Some((cx, cy)) = self.spot(rng) else { return };
        let side = rng.random_range(self.size / 32..=self.size / 12);
        let shift = [(); 2].map(|()| rng.random_range(-3.0..3.0f32) * self.size as f32 / 256.0);
        let old = Self { size: self.size, labels: self.labels.clone() };
        for y in cy..(cy + side).min(self.size) {
            for x in cx..(cx + side).min(self.size) {
                self.labels[y * self.size + x] = old.at(x as f32 + shift[0], y as f32 + shift[1]);
            }
        }
    }

    fn specks(&mut self, rng: &mut impl Rng) {
        for _ in 0..rng.random_range(1..6) {
            let Some((cx, cy)) = self.spot(rng) else { return };
            let label = if rng.random::<f32>() < 0.4 { 0 } else { rng.random_range(1..=24) };
            let radius = rng.random_range(0.5..2.2) * self.size as f32 / 256.0;
            self.near(cx, cy, radius, |l, _, _| *l = label);
        }
    }
}

/// A smooth random vector field.
struct Noise {
    cell: f32,
    columns: usize,
    knots: Vec<[f32; 2]>,
}

impl Noise {
    fn new(size: usize, cell: f32, reach: f32, rng: &mut impl Rng) -> Self {
        let columns = (size as f32 / cell) as usize + 2;
        let knots = (0..columns * columns)
            .map(|_| [(); 2].map(|()| rng.random_range(-1.0..1.0f32) * reach))
            .collect();
        Self { cell, columns, knots }
    }

    fn at(&self, x: usize, y: usize) -> [f32; 2] {
        let (u, v) = (x as f32 / self.cell, y as f32 / self.cell);
        let i = v as usize * self.columns + u as usize;
        let (u, v) = (u.fract(), v.fract());
        let n = self.columns;
        std::array::from_fn(|k| {
            let above = self.knots[i][k] * (1.0 - u) + self.knots[i + 1][k] * u;
            let below = self.knots[i + n][k] * (1.0 - u) + self.knots[i + n + 1][k] * u;
            above * (1.0 - v) + below * v
        })
    }
}

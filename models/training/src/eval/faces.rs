//! Heads cut out of truth and generated pictures, for a sheet to judge faces by.

use crate::synth::Shot;

/// Heads of fewer pixels across or down show no face.
const LEAST: usize = 48;
/// Side of a cut-out on the sheet.
pub const SIDE: usize = 128;
/// Cut-outs side by side on the sheet.
const COLUMNS: usize = 12;
/// Labels of the head's two halves.
const HEAD: [u8; 2] = [23, 24];

/// Cut-outs of truth and answer, above each other in pairs of rows.
#[derive(Debug, Default)]
pub struct Faces {
    pairs: Vec<[Vec<u8>; 2]>,
}

impl Faces {
    /// Takes the head, if there is one that is large enough.
    pub fn add(&mut self, truth: &Shot, made: &[u8]) {
        if let Some(place) = head(truth) {
            self.pairs.push([cut(&truth.rgb, truth.size, place), cut(made, truth.size, place)]);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Rows of `SIDE`×`SIDE` pictures.
    pub fn rows(&self) -> Vec<Vec<Vec<u8>>> {
        let row = |pairs: &[[Vec<u8>; 2]], i: usize| pairs.iter().map(|pair| pair[i].clone()).collect();
        self.pairs.chunks(COLUMNS).flat_map(|pairs| [row(pairs, 0), row(pairs, 1)]).collect()
    }
}

/// Top left corner and side of the square around the head.
fn head(shot: &Shot) -> Option<(usize, usize, usize)> {
    let at = (0..shot.labels.len()).filter(|&i| HEAD.contains(&shot.labels[i]));
    let (mut low, mut high) = ([usize::MAX; 2], [0; 2]);
    for i in at {
        for (k, value) in [i % shot.size, i / shot.size].into_iter().enumerate() {
            low[k] = low[k].min(value);
            high[k] = high[k].max(value);
        }
    }
    let extent = |k: usize| (high[k] + 1).checked_sub(low[k]).filter(|&extent| extent >= LEAST);
    let side = (extent(0)?.max(extent(1)?) * 5 / 4).min(shot.size);
    let corner = |k: usize| ((low[k] + high[k]) / 2).saturating_sub(side / 2).min(shot.size - side);
    Some((corner(0), corner(1), side))
}

/// That square, scaled to [`SIDE`] by its nearest pixels.
fn cut(rgb: &[u8], size: usize, (x, y, side): (usize, usize, usize)) -> Vec<u8> {
    let pixel = |i: usize| {
        let (column, row) = (x + i % SIDE * side / SIDE, y + i / SIDE * side / SIDE);
        let at = 3 * (row * size + column);
        [rgb[at], rgb[at + 1], rgb[at + 2]]
    };
    (0..SIDE * SIDE).flat_map(pixel).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_heads_are_cut_out_whole() {
        let (size, mut labels) = (100, vec![2u8; 100 * 100]);
        let paint = |labels: &mut [u8], side: usize| {
            for y in 40..40 + side {
                labels[y * size + 45..y * size + 45 + side].fill(23);
            }
        };
        paint(&mut labels, 30);
        let rgb: Vec<u8> = (0..size * size).flat_map(|i| [(i % size) as u8, (i / size) as u8, 7]).collect();
        let small = Shot { size, rgb: rgb.clone(), labels: labels.clone() };
        assert_eq!(head(&small), None);
        paint(&mut labels, 48);
        let large = Shot { labels, ..small };
        // A quarter larger than the head, moved into the picture.
        assert_eq!(head(&large), Some((38, 33, 60)));
        let mut faces = Faces::default();
        faces.add(&large, &rgb);
        let rows = faces.rows();
        assert_eq!((faces.len(), rows.len(), rows[0].len()), (1, 2, 1));
        assert_eq!((rows[1][0].len(), rows[1][0][..3].to_vec()), (3 * SIDE * SIDE, vec![38, 33, 7]));
    }
}
